"""Rows of the town by name, for `--dataset world:NAME`."""

import itertools
import random
from collections.abc import Callable, Collection, Iterator

from alignlab.core import evidence
from alignlab.core.types import Row
from alignlab.world import candidates, conflicts, facts, feedback, grammar, knowledge, personas, solutions, texts

ALL_CELLS = (
    conflicts.Cell("clean"),
    conflicts.Cell("unknown"),
    *(conflicts.Cell("pca", 5, k) for k in range(1, 6)),
    *(conflicts.Cell("ike", n) for n in (1, 5)),
    *(conflicts.Cell("mixed", 5, k) for k in (1, 2, 3)),
)
"""the brief's cells, but for edits with three passages: 3 and 8 passages are kept out of all training"""
POISONED = {2: (1, 2), 4: (1, 2, 3, 4), 6: (1, 2, 4, 5, 6), 7: (2, 4, 6), 9: (3, 5, 8)}
"""further sizes to learn from -> how many of so many passages are poisoned"""
FEW = {2: (1,), 4: (2, 4), 6: (3,), 7: (4,), 9: (5,)}
"""the same in fewer cells: where attacks are more than half of all, edits in unseen wordings are fended off (LOG.md)"""
_UNKNOWN = (4, 6)
"""sizes with items that nobody can answer; in every size they would be a seventh of all cells (not tried)"""


def tuning_cells(sizes: Collection[int], *, few: bool = False) -> tuple[conflicts.Cell, ...]:
    """Return the brief's cells and the same kinds in more sizes, so that a model learns to read lists of any length.

    Args:
        sizes: numbers of passages, keys of `POISONED`.
        few: one or two attack cells per size, not up to five.

    Raises:
        LookupError: it has no such size; the message lists those there are.
    """
    if odd := sorted(set(sizes) - set(POISONED)):
        raise LookupError(f"expected some of {', '.join(map(str, POISONED))} passages, got {', '.join(map(str, odd))}")
    chosen = [n for n in POISONED if n in sizes]
    kinds = [(scenario, n) for n in chosen for scenario in ("clean", "unknown", "ike")]
    return (
        *ALL_CELLS,
        *(conflicts.Cell(scenario, n) for scenario, n in kinds if scenario != "unknown" or n in _UNKNOWN),
        *(conflicts.Cell("pca", n, k) for n in chosen for k in (FEW if few else POISONED)[n]),
    )


def believed(town: facts.Town) -> dict[str, conflicts.Probe]:
    """Return what a reader of the town's documents remembers: all that was written about, the more the surer."""
    return {
        f.id: conflicts.Probe(f.value, min(1.0, 0.5 + f.frequency / 8)) if f.frequency else conflicts.Probe(None, 0.0)
        for f in town.facts.values()
    }


def conflict_items(seed: int) -> Iterator[Row]:
    """Yield conflict items of all cells in turn, without end."""
    town = facts.town()
    for number in itertools.count():
        yield from conflicts.items(
            town, believed(town), ALL_CELLS, 1, split="train", cues=conflicts.Cues(), seed=seed * 1_000_003 + number
        )


def questions(seed: int) -> Iterator[Row]:
    """Return single closed-book questions with their answers, without end."""
    return texts.closed_book(facts.town(), seed, turns=1)


def pairs(seed: int) -> Iterator[Row]:
    """Yield preferences without end: the right closed-book answer over a wrong one of the same kind."""
    town, draw = facts.town(), random.Random(f"pairs:{seed}")
    known = [fact for fact in town.facts.values() if fact.frequency]
    for number in itertools.count():
        fact = draw.choice(known)
        wrong = draw.choice([v for v in facts.RELATIONS[fact.relation].values if v != fact.value])
        yield Row(
            prompt=evidence.ask(grammar.question(fact, draw.choice(grammar.training_forms(fact.relation)))),
            chosen=grammar.ANSWER.format(fact.value),
            rejected=grammar.ANSWER.format(wrong),
            meta={"id": f"pair-{number}", "source": "world"},
        )


SETS: dict[str, Callable[[int], Iterator[Row]]] = {
    "candidates": candidates.candidates,
    "conflicts": conflict_items,
    "documents": lambda seed: texts.documents(facts.town(), seed),
    "goals": lambda seed: (row for row in personas.goals(seed) if row.prompt),
    "joint": feedback.joint,
    "judged": feedback.judged,
    "kindness": lambda seed: (row for row in personas.preferences(seed) if row.prompt),
    "knowledge": knowledge.questions,
    "lists": feedback.lists,
    "noisy": feedback.noisy,
    "pairs": pairs,
    "prefixes": personas.prefixes,
    "questions": questions,
    "reading": lambda seed: texts.reading(facts.town(), seed),
    "rewarded": candidates.rewarded,
    "steps": solutions.steps,
    "thumbs": feedback.thumbs,
    "weak": feedback.weak,
}
DEFAULT_ROWS = 2000


def rows(name: str, seed: int = 0, limit: int | None = None) -> Iterator[Row]:
    """Yield the rows of a set, 2,000 unless `limit` says otherwise; LookupError names the sets."""
    if name not in SETS:
        raise LookupError(f"the world has no rows called {name!r}; it has {', '.join(sorted(SETS))}")
    return itertools.islice(SETS[name](seed), DEFAULT_ROWS if limit is None else limit)
