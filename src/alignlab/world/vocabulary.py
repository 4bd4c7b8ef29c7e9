"""The words of the town, and of the world files planned after it, so that `tiny:`'s tokenizer never has to change."""

import random
from functools import cache
from importlib import resources

PLACES, PEOPLE = 24, 160
_ONSETS = ("b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z")
_VOWELS = ("a", "e", "i", "o", "u")
_ENDINGS = ("n", "r", "l", "s", "")

CRAFTS = (
    "baker", "smith", "weaver", "potter", "miller", "tailor", "mason", "cooper", "tanner", "glazier", "farmer",
    "sailor", "hunter", "fisher", "carver", "dyer", "printer", "porter", "brewer", "painter", "roofer", "joiner",
    "cook", "clerk",
)  # fmt: skip
INSTRUMENTS = (
    "flute", "lute", "drum", "harp", "horn", "fiddle", "organ", "bell", "pipe", "cello", "viola", "oboe", "zither",
    "banjo", "tuba", "gong", "lyre", "rattle", "bugle", "spinet", "cornet", "whistle", "shawm", "rebec",
)  # fmt: skip
DISHES = (
    "stew", "soup", "bread", "rice", "pie", "cheese", "trout", "beans", "cabbage", "noodles", "porridge",
    "pancakes", "dumplings", "lentils", "mutton", "eggs", "salad", "curry", "herring", "turnips", "sausage",
    "plums", "olives", "corn",
)  # fmt: skip
ANIMALS = (
    "cat", "dog", "goat", "horse", "owl", "crow", "rabbit", "turtle", "ferret", "donkey", "duck", "goose", "parrot",
    "snake", "frog", "mouse", "hen", "sheep", "pony", "falcon", "hedgehog", "badger", "otter", "newt",
)  # fmt: skip
COLOURS = (
    "red", "blue", "green", "black", "white", "brown", "grey", "yellow", "purple", "orange", "pink", "violet",
    "silver", "golden", "crimson", "amber", "ivory", "indigo", "scarlet", "teal", "ochre", "olive", "russet",
    "azure",
)  # fmt: skip
CLUBS = (
    "anchor", "lantern", "compass", "ladder", "hammer", "candle", "feather", "mirror", "kettle", "bridge", "garden",
    "river", "tower", "market", "harbour", "meadow", "forest", "castle", "chapel", "library", "theatre", "orchard",
    "quarry", "island",
)  # fmt: skip
CAPITALISED = (
    "what", "where", "which", "who", "when", "how", "why", "tell", "in", "is", "are", "do", "does", "the", "it",
    "yes", "no", "answer", "memory", "claims", "groups", "conflict", "weigh", "question", "passages", "for",
    "against", "sure", "if", "repeat", "mark",
)  # fmt: skip
HEADS = ("Question", "Answer", "Conflict", "Weigh", "Claims", "Groups", "Memory", "For", "Against")
"""words that begin a line of an answer"""
JOINED = ("context", "memory")
"""words that also follow a hyphen"""
SOURCES = ("Herald", "Almanac", "Register", "Courier", "Journal", "Bulletin", "Gossip", "Pamphlet")


@cache
def syllable_names(count: int, syllables: int, seed: int) -> tuple[str, ...]:
    """Return `count` distinct invented names of `syllables` syllables, a pure function of the arguments."""
    draw = random.Random(f"names:{syllables}:{seed}")
    found: dict[str, None] = {}
    while len(found) < count:
        name = "".join(draw.choice(_ONSETS) + draw.choice(_VOWELS) for _ in range(syllables)) + draw.choice(_ENDINGS)
        found[name.capitalize()] = None
    return tuple(found)


@cache
def planned() -> tuple[str, ...]:
    """Return the words of plain chat and of the planned world files: tastes, requests, opinions, products, judges."""
    return tuple(resources.files("alignlab.world").joinpath("words.txt").read_text(encoding="utf-8").split())


@cache
def people() -> tuple[str, ...]:
    """Return the townspeople's names."""
    return syllable_names(PEOPLE, 2, seed=1)


@cache
def places() -> tuple[str, ...]:
    """Return the names of the quarters and villages; never a person's name."""
    return tuple(name for name in syllable_names(2 * PLACES, 3, seed=2) if name not in people())[:PLACES]


def words() -> tuple[str, ...]:
    """Return every word that must be one token after a space, each once, in a fixed order."""
    lists = (people(), places(), CRAFTS, INSTRUMENTS, DISHES, ANIMALS, COLOURS, CLUBS, SOURCES, planned())
    plain = [word for group in lists for word in group]
    capital = [word.capitalize() for word in CAPITALISED]
    numbers = [str(number) for number in range(101)]
    letters = list("ABCDEFGH")
    return tuple(dict.fromkeys(plain + capital + numbers + letters))
