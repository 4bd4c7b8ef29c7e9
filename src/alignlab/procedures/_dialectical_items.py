"""Where dialectical conflict items come from: the town, or a file in a published format."""

import dataclasses
import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from alignlab.core.answers import normalise
from alignlab.core.types import Context, Model, Row
from alignlab.data import adapters
from alignlab.engine.probes import Probe, closed_book
from alignlab.evals.poisoned_context import INSTRUCTION
from alignlab.world import conflicts, facts, grammar
from alignlab.world.sets import ALL_CELLS

Probes = Mapping[str, Probe]


@dataclass
class Source:
    """Items for search, training and test; what they contain depends on what a model remembers."""

    questions: Mapping[str, str]
    """id -> question of everything whose memory matters"""
    draw: Callable[..., list[Row]]
    """(probes, split, per_cell, seed, **conditions) -> items"""
    describe: Callable[[Probes], dict[str, Any]]
    """probes -> what the report shows of memory"""
    instruction: str = ""
    oracle: Callable[[Row], str | None] | None = None
    notes: tuple[str, ...] = ()
    probes: dict[str, Probe] = field(default_factory=dict)

    def probe(self, ctx: Context, student: Model, samples: int, name: str = "memory probe") -> None:
        """Ask the student every question without passages."""
        with ctx.stage(name, len(self.questions), len(self.questions)) as stage:
            self.probes = probed(student, self.questions, self.instruction, samples, ctx.seed, stage.advance)

    def train(self, per_cell: int, seed: int) -> list[Row]:
        """Return items to search and learn from."""
        return self.draw(self.probes, "train", per_cell, seed)

    def test(self, per_cell: int, seed: int, **conditions: Any) -> list[Row]:
        """Return items of held-out subjects (questions, for a file)."""
        return self.draw(self.probes, conditions.pop("split", "test"), per_cell, seed, **conditions)


def probed(
    student: Model,
    questions: Mapping[str, str],
    instruction: str,
    samples: int,
    seed: int,
    advance: Callable[[int], None],
) -> dict[str, Probe]:
    """Return id -> memory of every question."""
    asked = {name: f"{text}\n{instruction}".strip() for name, text in questions.items()}
    return closed_book(student, asked, samples, seed, advance)


def world(cues: conflicts.Cues) -> Source:
    """Return the town as a source: fresh items without end, split by subject and by relation."""
    town = facts.town()

    def draw(probes: Probes, split: str, per_cell: int, seed: int, **conditions: Any) -> list[Row]:
        cells = conditions.pop("cells", ALL_CELLS)
        chosen = conditions.pop("cues", cues)
        known = {name: conflicts.Probe(p.answer, p.confidence) for name, p in probes.items()}
        return list(conflicts.items(town, known, cells, per_cell, split=split, cues=chosen, seed=seed, **conditions))

    def describe(probes: Probes) -> dict[str, Any]:
        bands: dict[str, list[tuple[bool, float]]] = defaultdict(list)
        for fact in town.facts.values():
            low, high = facts.band(fact.frequency)
            bands[f"{low}-{high}"].append((probes[fact.id].answer == fact.value, probes[fact.id].confidence))
        return dict(sorted(bands.items(), key=lambda pair: int(pair[0].split("-")[0])))

    return Source(
        questions={f.id: grammar.question(f, 0) for f in town.facts.values()},
        draw=draw,
        describe=describe,
        oracle=lambda row: conflicts.oracle(row, cues),
        notes=("The data are the town's: invented facts whose truth is known exactly.",),
    )


def file(spec: str, limit: int | None) -> Source:
    """Return a file `ADAPTER:PATH` as a source. Its items keep their passages; memory is the student's own.

    Attacks need a student that remembers the gold answer, edits one that remembers another: items that do not fit are
    left out. Raises ValueError for a spec that names no adapter.
    """
    name, colon, path = spec.partition(":")
    if not colon:
        raise ValueError(f"--dataset {spec}: expected world: or ADAPTER:FILE with one of {', '.join(adapters.names())}")
    rows = list(adapters.find(name).items(path))
    kept = dict.fromkeys(row.facts["question"] for row in rows)
    if limit is not None:
        kept = dict.fromkeys(list(kept)[:limit])
    rows = [row for row in rows if row.facts["question"] in kept]

    def draw(probes: Probes, split: str, per_cell: int, seed: int, **conditions: Any) -> list[Row]:
        if conditions:
            raise ValueError(f"a file's items cannot be drawn under {', '.join(conditions)}; use the world for that")
        cells: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
        for row in rows:
            fitted = fit(row, probes[row.facts["question"]])
            if fitted is not None and row.facts["split"] == split:
                cells[row.facts["scenario"], row.facts["ratio"], len(row.facts["contexts"])].append(fitted)
        shuffle = random.Random(f"items:{seed}").shuffle
        for listed in cells.values():
            shuffle(listed)
        return [row for listed in cells.values() for row in listed[:per_cell]]

    def describe(probes: Probes) -> dict[str, Any]:
        gold = {row.facts["question"]: row.facts["gold"] for row in rows}
        pairs = [(same(p.answer, gold[q]), p.confidence) for q, p in probes.items()]
        return {"all": pairs}

    return Source(
        questions={question: question for question in kept},
        draw=draw,
        describe=describe,
        instruction=INSTRUCTION,
        notes=(f"The data are {name}'s, unchanged; memory is what this student answers without passages.",),
    )


def same(left: str | None, right: str | None) -> bool:
    """Whether two answers are equal once normalised; nothing equals None."""
    return left is not None and right is not None and normalise(left) == normalise(right)


def fit(row: Row, probe: Probe) -> Row | None:
    """Return the item with the student's memory in it; None where its scenario would mean nothing for this student.

    An attack on a fact that the student does not know becomes an item of scenario `unknown` while most passages are
    true, and is left out otherwise; so is an edit of what it knows already. Items without gold keep their scenario.
    """
    scenario, gold = row.facts["scenario"], row.facts["gold"]
    knows = same(probe.answer, gold)
    if gold is not None and scenario in ("pca", "clean") and not knows:
        scenario = "unknown" if row.facts["k"] == 0 else None
    elif gold is not None and scenario in ("ike", "mixed") and knows:
        scenario = None
    if scenario is None:
        return None
    memory = {"memory": probe.answer, "confidence": probe.confidence, "scenario": scenario}
    return dataclasses.replace(row, facts={**row.facts, **memory})


def open_source(dataset: str | None, limit: int | None, cues: conflicts.Cues) -> Source:
    """Return the source that `--dataset` names; the town by default."""
    if dataset is None or dataset.startswith("world:"):
        return world(cues)
    return file(dataset, limit)


def share(pairs: Sequence[tuple[bool, float]], index: int) -> float:
    """Return the mean of one element of (right, confidence) pairs."""
    return sum(pair[index] for pair in pairs) / len(pairs)
