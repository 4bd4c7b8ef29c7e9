"""Closed-book memory of a model: what it answers without passages, and how often it says so."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from alignlab.core.answers import final_answer, normalise
from alignlab.core.evidence import ask
from alignlab.core.trace import MARKER
from alignlab.core.types import Model


@dataclass(frozen=True)
class Probe:
    """The commonest answer of K samples, and its share of them; None and 0 where none could be parsed."""

    answer: str | None
    confidence: float
    drawn: tuple[str, ...] = ()
    """every answer that could be parsed, as drawn"""


def commonest(answers: Sequence[str | None]) -> Probe:
    """Return the probe of one question from all answers drawn, None where none could be parsed."""
    read = tuple(answer for answer in answers if answer)
    if not read:
        return Probe(None, 0.0)
    best, count = Counter(map(normalise, read)).most_common(1)[0]
    return Probe(next(a for a in read if normalise(a) == best), count / len(answers), read)


def closed_book(
    model: Model,
    questions: Mapping[str, str],
    samples: int = 10,
    seed: int = 0,
    advance: Callable[[int], None] | None = None,
    max_tokens: int = 32,
) -> dict[str, Probe]:
    """Return id -> Probe from `samples` answers per question at temperature 1."""
    progress = {"progress": advance} if advance else {}
    drawn = model.sample(
        [ask(text) for text in questions.values()],
        n=samples, seed=seed, temperature=1.0, max_tokens=max_tokens, **progress,
    )  # fmt: skip
    return {
        name: commonest([final_answer(sample.text, MARKER) for sample in group])
        for name, group in zip(questions, drawn, strict=True)
    }
