"""The town's facts: who lives where, works as what, eats, keeps, wears; how often it is written about; what changed.

Every fact has a value at every year up to the memory year (the last one written about in `tiny:`'s training
text). What happens after it differs from item to item: a fork of history in which one fact changed or did not.
"""

import math
import random
from dataclasses import dataclass, field
from functools import lru_cache

from alignlab.world import vocabulary

YEARS = 30
MEMORY_YEAR = 24
"""documents end here; updates and today's passages lie after it"""
MAX_FREQUENCY = 64
RELIABILITY = dict(zip(vocabulary.SOURCES, (0.95, 0.95, 0.95, 0.8, 0.8, 0.5, 0.2, 0.2)))
"""chance that a passage is right, by source; hidden from the model"""


BANDS = ((0, 0), (1, 3), (4, 15), (16, MAX_FREQUENCY))
"""document frequencies that reports put together"""


def band(frequency: int) -> tuple[int, int]:
    """Return the band a document frequency lies in."""
    return next(b for b in BANDS if b[0] <= frequency <= b[1])


@dataclass(frozen=True)
class Relation:
    """A kind of fact with its value set and its wordings; `{s}` is the subject, `{v}` the value."""

    name: str
    kind: str
    values: tuple[str, ...]
    statements: tuple[str, ...]
    """the last one has the value first; documents do without it, passages do not"""
    unseen_statements: tuple[str, ...]
    """wordings kept out of every training text"""
    questions: tuple[str, ...]
    """the last one is kept out of training"""


@dataclass(frozen=True)
class Fact:
    """One subject's value of one relation."""

    subject: str
    relation: str
    value: str
    """true at the memory year"""
    frequency: int
    """relative number of documents that state it; 0 = never written about"""
    former: str | None = None
    """value before `changed`, for facts that changed within memory"""
    changed: int | None = None

    @property
    def id(self) -> str:
        """Subject and relation, unique in the town."""
        return f"{self.subject}/{self.relation}"

    def value_at(self, year: int) -> str:
        """Return the value that was true in `year` (up to the memory year)."""
        before = self.changed is not None and year < self.changed
        return self.former if before and self.former is not None else self.value


def _relation(name: str, kind: str, values: tuple[str, ...], *wordings: str) -> Relation:
    """Build a relation from four statements, two unseen statements and four questions."""
    return Relation(name, kind, values, wordings[:4], wordings[4:6], wordings[6:])


RELATIONS = {
    r.name: r
    for r in (
        _relation("home", "place", vocabulary.places(),
                  "{s} lives in {v}", "the home of {s} is {v}", "{s} has a house in {v}",
                  "{v} is where {s} lives", "it is in {v} that {s} lives", "{v} is the home of {s}",
                  "Where does {s} live?", "What is the home of {s}?", "In which place does {s} live?",
                  "Which place is the home of {s}?"),
        _relation("birthplace", "place", vocabulary.places(),
                  "{s} was born in {v}", "the birth place of {s} is {v}", "{s} has {v} as birth place",
                  "{v} is where {s} was born", "it is in {v} that {s} was born", "{v} is the birth place of {s}",
                  "Where was {s} born?", "What is the birth place of {s}?", "In which place was {s} born?",
                  "Which place is the birth place of {s}?"),
        _relation("trade", "craft", vocabulary.CRAFTS,
                  "{s} works as {v}", "the trade of {s} is {v}", "{s} has a job as {v}",
                  "{v} is what {s} works as", "it is as {v} that {s} works", "{v} is the trade of {s}",
                  "What does {s} work as?", "What is the trade of {s}?", "Which job does {s} have?",
                  "Which trade is the trade of {s}?"),
        _relation("instrument", "instrument", vocabulary.INSTRUMENTS,
                  "{s} plays the {v}", "the music of {s} is the {v}", "{s} is good on the {v}",
                  "the {v} is what {s} plays", "it is the {v} that {s} plays", "the {v} is the music of {s}",
                  "What does {s} play?", "What is the music of {s}?", "What is {s} good on?",
                  "Which music is the music of {s}?"),
        _relation("dish", "dish", vocabulary.DISHES,
                  "{s} eats {v}", "the food of {s} is {v}", "{s} likes to eat {v}",
                  "{v} is what {s} eats", "it is {v} that {s} eats", "{v} is the food of {s}",
                  "What does {s} eat?", "What is the food of {s}?", "What does {s} like to eat?",
                  "Which food is the food of {s}?"),
        _relation("club", "club", vocabulary.CLUBS,
                  "{s} belongs to the {v}", "the guild of {s} is the {v}", "{s} is a member of the {v}",
                  "the {v} is what {s} belongs to", "it is the {v} that {s} belongs to", "the {v} is the guild of {s}",
                  "What does {s} belong to?", "What is the guild of {s}?", "Which guild is {s} a member of?",
                  "Which guild is the guild of {s}?"),
        _relation("pet", "animal", vocabulary.ANIMALS,
                  "{s} keeps a {v}", "the friend of {s} is a {v}", "{s} has a {v} at home",
                  "a {v} is what {s} keeps", "it is a {v} that {s} keeps", "a {v} is the friend of {s}",
                  "What does {s} keep?", "What is the friend of {s}?", "What does {s} have at home?",
                  "Which friend is the friend of {s}?"),
        _relation("colour", "colour", vocabulary.COLOURS,
                  "{s} wears {v}", "the coat of {s} is {v}", "{s} has a hat in {v}",
                  "{v} is what {s} wears", "it is {v} that {s} wears", "{v} is the coat of {s}",
                  "What does {s} wear?", "What is the coat of {s}?", "Which hat does {s} have?",
                  "Which coat is the coat of {s}?"),
    )
}  # fmt: skip
FURTHER_STATEMENTS = {
    "home": ("it is {s} that lives in {v}", "in {v} lives {s}", "as for {s}, the home is {v}"),
    "birthplace": ("it is {s} that was born in {v}", "in {v} was born {s}", "as for {s}, the birth place is {v}"),
    "trade": ("it is {s} that works as {v}", "as {v} works {s}", "as for {s}, the trade is {v}"),
    "instrument": ("it is {s} that plays the {v}", "on the {v} {s} is good", "as for {s}, the music is the {v}"),
    "dish": ("it is {s} that eats {v}", "{v} {s} likes to eat", "as for {s}, the food is {v}"),
    "club": ("it is {s} that belongs to the {v}", "to the {v} belongs {s}", "as for {s}, the guild is the {v}"),
    "pet": ("it is {s} that keeps a {v}", "a {v} {s} has at home", "as for {s}, the friend is a {v}"),
    "colour": ("it is {s} that wears {v}", "in {v} {s} has a hat", "as for {s}, the coat is {v}"),
}
"""relation -> wordings that `tiny:` has not read, for items to learn from alone: from four wordings a model learns to
compare values where these have them, not wherever they stand (LOG.md)"""
HELD_OUT_RELATIONS = ("pet", "colour")


@dataclass(frozen=True)
class Town:
    """All facts of one seed, with the split by subject."""

    seed: int
    facts: dict[str, Fact] = field(repr=False)
    train_subjects: frozenset[str] = field(repr=False)

    def split(self, fact: Fact) -> str:
        """Return `train`, `test` (held-out subject) or `relation` (held-out relation of a held-out subject)."""
        if fact.subject in self.train_subjects:
            return "none" if fact.relation in HELD_OUT_RELATIONS else "train"
        return "relation" if fact.relation in HELD_OUT_RELATIONS else "test"


@lru_cache(maxsize=4)
def town(seed: int = 0, share_unwritten: float = 0.08, share_changed: float = 0.15) -> Town:
    """Return the town of `seed`. Document frequencies are log-uniform on 1..64; some facts are never written about."""
    draw = random.Random(f"town:{seed}")
    facts = {}
    for subject in vocabulary.people():
        for relation in RELATIONS.values():
            value, former = draw.sample(relation.values, 2)
            frequency = round(math.exp(draw.uniform(0.0, math.log(MAX_FREQUENCY))))
            if draw.random() < share_unwritten:
                frequency = 0
            changed = draw.randint(4, MEMORY_YEAR - 4) if draw.random() < share_changed else None
            fact = Fact(subject, relation.name, value, frequency, former if changed else None, changed)
            facts[fact.id] = fact
    subjects = list(vocabulary.people())
    draw.shuffle(subjects)
    return Town(seed, facts, frozenset(subjects[: len(subjects) // 2]))
