"""Closed-book memory of a model: what it answers without passages, and how often it says so."""

from collections import Counter
from collections.abc import Callable, Mapping
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
    found = {}
    for name, group in zip(questions, drawn, strict=True):
        answers = [final_answer(sample.text, MARKER) for sample in group]
        votes = Counter(normalise(answer) for answer in answers if answer)
        best, count = votes.most_common(1)[0] if votes else (None, 0)
        found[name] = Probe(next((a for a in answers if a and normalise(a) == best), None), count / samples)
    return found
