"""What the town's people say of answers: thumbs, rankings, comparisons of unlike questions, judgements, weak labels.

Every set asks closed-book questions and knows the truth (`facts.gold`), so that what an objective teaches can be held
against it. A wrong answer is a value of the right kind unless the set says otherwise.
"""

import itertools
import math
import random
from collections.abc import Iterator

from alignlab.core import evidence
from alignlab.core.types import Prompt, Row
from alignlab.world import facts, grammar
from alignlab.world.facts import Fact

TRUST = 0.9
"""how much of a well-read model's belief lies on the true value; the rest is spread evenly over its kind"""
NOISE = 0.3
"""share of wrong answers in `noisy`, and of wrong labels in `weak`"""


def _asked(name: str, seed: int) -> Iterator[tuple[int, Fact, Prompt, random.Random]]:
    """Yield facts that are written about, each with a question, without end."""
    town, draw = facts.town(), random.Random(f"{name}:{seed}")
    known = [fact for fact in town.facts.values() if fact.frequency]
    for number in itertools.count():
        fact = draw.choice(known)
        asked = evidence.ask(grammar.question(fact, draw.choice(grammar.training_forms(fact.relation))))
        yield number, fact, asked, draw


def _wrong(fact: Fact, draw: random.Random) -> str:
    return draw.choice([v for v in facts.RELATIONS[fact.relation].values if v != fact.value])


def thumbs(seed: int) -> Iterator[Row]:
    """Yield single answers without end, half of them right: thumbs up for these, down for the others."""
    for number, fact, asked, draw in _asked("thumbs", seed):
        up = draw.random() < 0.5
        said = fact.value if up else _wrong(fact, draw)
        yield Row(
            prompt=asked, completion=grammar.ANSWER.format(said), label=up, facts={"gold": fact.value},
            meta={"id": f"thumb-{number}", "source": "world"},
        )  # fmt: skip


def lists(seed: int) -> Iterator[Row]:
    """Yield four answers per question without end, in any order.

    Scores: 3 right, 2 wrong value of the right kind, 1 value of another kind, 0 "nothing".
    """
    for number, fact, asked, draw in _asked("lists", seed):
        other = draw.choice([r for r in facts.RELATIONS.values() if r.kind != facts.RELATIONS[fact.relation].kind])
        said = [(fact.value, 3.0), (_wrong(fact, draw), 2.0), (draw.choice(other.values), 1.0), ("nothing", 0.0)]
        draw.shuffle(said)
        yield Row(
            prompt=asked, completions=tuple(grammar.ANSWER.format(value) for value, _ in said),
            scores=tuple(score for _, score in said), facts={"gold": fact.value},
            meta={"id": f"list-{number}", "source": "world"},
        )  # fmt: skip


def joint(seed: int) -> Iterator[Row]:
    """Yield a right answer over a wrong one without end; in every second row they answer different questions."""
    rows = _asked("joint", seed)
    for number in itertools.count():
        _, fact, asked, draw = next(rows)
        second = None
        about = fact
        if number % 2:
            _, about, second, _ = next(rows)
        yield Row(
            prompt=asked, chosen=grammar.ANSWER.format(fact.value), rejected=grammar.ANSWER.format(_wrong(about, draw)),
            second_prompt=second, facts={"gold": fact.value}, meta={"id": f"joint-{number}", "source": "world"},
        )  # fmt: skip


def judged(seed: int) -> Iterator[Row]:
    """Yield answers without end, three in four of them wrong with a judgement that names the wrong word."""
    for number, fact, asked, draw in _asked("judged", seed):
        bad = draw.random() < 0.75
        said = _wrong(fact, draw) if bad else fact.value
        yield Row(
            prompt=asked, completion=grammar.ANSWER.format(said), label=not bad,
            judgement=f"{said} is wrong. The answer is {fact.value}." if bad else None, facts={"gold": fact.value},
            meta={"id": f"judged-{number}", "source": "world"},
        )  # fmt: skip


def noisy(seed: int) -> Iterator[Row]:
    """Yield demonstrations without end, some of them wrong, each with what a well-read model thinks of its value.

    `facts.scores.aligned` is log p(value), in nats: a value counts as one token.
    """
    for number, fact, asked, draw in _asked("noisy", seed):
        good = draw.random() >= NOISE
        said = fact.value if good else _wrong(fact, draw)
        believed = TRUST if good else (1 - TRUST) / (len(facts.RELATIONS[fact.relation].values) - 1)
        yield Row(
            prompt=asked, completion=grammar.ANSWER.format(said),
            facts={"gold": fact.value, "right": good, "scores": {"aligned": math.log(believed)}},
            meta={"id": f"noisy-{number}", "source": "world"},
        )  # fmt: skip


def weak(seed: int) -> Iterator[Row]:
    """Yield two options per question without end, one right, with the probabilities of a teacher who is often wrong."""
    for number, fact, asked, draw in _asked("weak", seed):
        options = [fact.value, _wrong(fact, draw)]
        draw.shuffle(options)
        right = options.index(fact.value)
        favoured = right if draw.random() >= NOISE else 1 - right
        sure = draw.uniform(0.55, 0.95)
        believed, gold = [sure if k == favoured else 1 - sure for k in (0, 1)], [float(k == right) for k in (0, 1)]
        yield Row(
            prompt=asked, completions=tuple(map(grammar.ANSWER.format, options)),
            facts={"gold": fact.value, "right": right, "scores": {"weak": believed, "gold": gold}},
            meta={"id": f"weak-{number}", "source": "world"},
        )  # fmt: skip
