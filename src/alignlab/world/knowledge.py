"""Questions whose answer a reader of the town's documents knows, half knows, or cannot know.

The town writes about a fact 0 to 64 times; what is never written about, and everything about strangers, cannot be
known. The `student` by rule knows a fact with a chance that grows with how often it is written about, so that its
expected accuracy, and with it every label drawn from its answers, has a known truth.
"""

import itertools
import math
import random
from collections.abc import Iterator
from functools import lru_cache

from alignlab.core.evidence import ask
from alignlab.core.types import Row
from alignlab.world import facts, grammar, vocabulary

STRANGERS = 160
"""people whom no document names"""
IDK = grammar.ANSWER.format("unknown")
"""how the town says that it does not know: in the form of its answers, so that the reply opens the same way"""
OFTEN = 16
"""documents from which on a fact counts as known"""


@lru_cache(maxsize=1)
def strangers() -> tuple[str, ...]:
    """Return names of the same make as the townspeople's that nobody bears."""
    known = {*vocabulary.people(), *vocabulary.places()}
    return tuple(name for name in vocabulary.syllable_names(2 * STRANGERS, 2, seed=5) if name not in known)[:STRANGERS]


def recall(frequency: int) -> float:
    """Return the chance that the student by rule remembers a fact written about so often, without lucky guesses."""
    return 1 - math.exp(-frequency / 4)


def expected(fact: facts.Fact) -> float:
    """Return the student's expected accuracy on a fact; what it does not remember it guesses."""
    known = recall(fact.frequency)
    return known + (1 - known) / len(facts.RELATIONS[fact.relation].values)


def item(fact: facts.Fact, form: int) -> Row:
    """Return a question with what is true of it; `known` is None where it depends on the reader."""
    low, high = facts.band(fact.frequency)
    known = True if fact.frequency >= OFTEN else False if not fact.frequency else None
    return Row(
        prompt=ask(grammar.question(fact, form)), completion=None,
        facts={"gold": fact.value, "known": known, "group": f"written_{low}_{high}", "cluster": fact.id, "idk": IDK},
        meta={"id": f"{fact.id}-{form}", "source": "world"},
    )  # fmt: skip


def stranger_item(subject: str, relation: str, form: int) -> Row:
    """Return a question about nobody: there is no right answer."""
    fact = facts.Fact(subject, relation, "", 0)
    return Row(
        prompt=ask(grammar.question(fact, form)), facts={
            "gold": None, "known": False, "group": "strangers", "cluster": subject, "idk": IDK,
        }, meta={"id": f"{fact.id}-{form}", "source": "world"},
    )  # fmt: skip


def held_out(per_group: int, seed: int = 0) -> list[Row]:
    """Return questions about people kept out of training, as many from each band, and about strangers."""
    town, draw = facts.town(), random.Random(f"held-out knowledge:{seed}")
    listed = [fact for fact in town.facts.values() if town.split(fact) == "test"]
    found = []
    for band in facts.BANDS:
        some = [fact for fact in listed if facts.band(fact.frequency) == band]
        found += [item(fact, -1) for fact in draw.sample(some, k=min(per_group, len(some)))]
    relations = [name for name in facts.RELATIONS if name not in facts.HELD_OUT_RELATIONS]
    names = draw.sample(strangers(), k=min(per_group, STRANGERS))
    return found + [stranger_item(name, draw.choice(relations), -1) for name in names]


def questions(seed: int) -> Iterator[Row]:
    """Yield questions of the training split without end: all facts in one wording, shuffled, then in the next."""
    town = facts.town()
    listed = [fact for fact in town.facts.values() if town.split(fact) == "train"]
    for number in itertools.count():
        order = list(listed)
        random.Random(f"knowledge:{seed}:{number}").shuffle(order)
        for fact in order:
            forms = grammar.training_forms(fact.relation)
            row = item(fact, number % len(forms))
            yield (
                row
                if number < len(forms)
                else Row(prompt=row.prompt, facts=row.facts, meta={**row.meta, "id": f"{row.meta['id']}-{number}"})
            )


@lru_cache(maxsize=1)
def _asked() -> dict[str, facts.Fact]:
    every = facts.town().facts.values()
    return {q.format(s=f.subject): f for f in every for q in facts.RELATIONS[f.relation].questions}


def student(text: str, draw: random.Random) -> str:
    """Answer the town's question in a prompt: what is remembered, else a guess; about strangers a guess as well."""
    fact = next((_asked()[line] for line in reversed(text.splitlines()) if line in _asked()), None)
    if fact is not None and draw.random() < recall(fact.frequency):
        return grammar.ANSWER.format(fact.value)
    relation = facts.RELATIONS[fact.relation] if fact else draw.choice(list(facts.RELATIONS.values()))
    return grammar.ANSWER.format(draw.choice(relation.values))
