"""Answers in steps whose rightness is known, step by step: what process rewards learn from."""

import itertools
import random
from collections.abc import Iterator

from alignlab.core import evidence
from alignlab.core.types import Row
from alignlab.world import facts, grammar

STEPS = (2, 4)
"""fewest and most questions that one solution answers"""
SLIP = 0.4
"""chance that a step names a wrong value of the right kind"""


def steps(seed: int) -> Iterator[Row]:
    """Yield solutions without end: several closed-book questions, answered in order, a step each.

    `completions` are the steps, `facts.labels` whether each is right, `facts.correct` whether all are.
    """
    town, draw = facts.town(), random.Random(f"steps:{seed}")
    known = [fact for fact in town.facts.values() if fact.frequency]
    for number in itertools.count():
        asked = draw.sample(known, draw.randint(*STEPS))
        questions = [grammar.question(fact, draw.choice(grammar.training_forms(fact.relation))) for fact in asked]
        right = [draw.random() >= SLIP for _ in asked]
        said = [
            fact.value if holds else draw.choice([v for v in facts.RELATIONS[fact.relation].values if v != fact.value])
            for fact, holds in zip(asked, right)
        ]
        yield Row(
            prompt=evidence.ask(" ".join(questions)),
            completions=tuple(grammar.ANSWER.format(value) for value in said),
            facts={"labels": right, "correct": all(right), "gold": [fact.value for fact in asked]},
            meta={"id": f"solution-{number}", "source": "world"},
        )
