"""Where dialectical conflict items come from: the town, or a file in a published format."""

import random
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from alignlab.core import trace
from alignlab.core.evidence import ask
from alignlab.core.types import Context, Endpoint, Model, Prompt, Row, Table
from alignlab.engine.probes import Probe, closed_book
from alignlab.world import conflicts, facts, grammar
from alignlab.world.sets import ALL_CELLS, tuning_cells

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
    tuning: Mapping[str, Any] = field(default_factory=dict)
    """conditions of the items to learn from"""
    instruction: str = ""
    oracle: Callable[[Row], str | None] | None = None
    notes: Sequence[str] = ()
    probes: dict[str, Probe] = field(default_factory=dict)
    tables: Callable[[Mapping[str, Sequence[Mapping[str, Any]]]], dict[str, Table]] = lambda _: {}
    """records by policy -> further tables of the report"""
    rehearsed: Callable[[], Sequence[tuple[str, Prompt, Sequence[str]]]] = tuple
    """() -> (id, closed-book prompt, options if it has any) of the questions that training items ask"""
    file: Any = None
    """the `_dialectical_files.File` behind the source, where it is one"""

    def probe(self, ctx: Context, student: Any, samples: int, name: str = "memory probe", room: int = 32) -> None:
        """Ask the student every question without passages; a file's items then get the scenario they have for it."""
        if self.file is not None:
            self.questions = self.file.measure(ctx, student, room)
        prompts = len(self.questions) if self.file is None else len(self.file.asked())
        with ctx.stage(name, len(self.questions), prompts) as stage:
            if self.file is None:
                self.probes = probed(student, self.questions, self.instruction, samples, ctx.seed, stage.advance)
            else:
                self.probes = self.file.probe(student, samples, ctx.seed, stage.advance, room)
                stage.rows_out = len(self.probes)
        if self.file is not None:
            self.file.settle(ctx, self.probes)

    def judge(self, ctx: Context) -> Endpoint | None:
        """Return who scores answers: the judge; for a file without `--judge` nobody but gold answers and grammar."""
        asked = self.file is None or "judge" in getattr(ctx, "specs", {"judge"})
        return ctx.endpoint("judge") if asked else None

    def train(self, per_cell: int, seed: int) -> list[Row]:
        """Return items to search and learn from."""
        return self.draw(self.probes, "train", per_cell, seed, **self.tuning)

    def rehearsal(self, count: int, seed: int) -> list[Row]:
        """Return closed-book questions with answers that the student itself drew, each as often as it drew it.

        Tuned on passages alone, a model forgets what it knows, and how to answer without any (general items, the
        brief's 20 %).
        """
        draw = random.Random(f"rehearsal:{seed}")
        known = [(asked, drawn) for asked in self.rehearsed() if (drawn := self.probes[asked[0]].drawn)]
        return [
            Row(
                prompt=prompt,
                completion=f"{trace.MARKER} {trace.named(draw.choice(drawn), options)}",
                meta={"id": f"rehearsal-{index}-{name}"},
            )
            for index, ((name, prompt, options), drawn) in enumerate(draw.choices(known, k=count) if known else [])
        ]

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


def world(
    cues: conflicts.Cues, sizes: Collection[int] = (), *, few_attacks: bool = False, wordings: bool = False
) -> Source:
    """Return the town as a source: fresh items without end, split by subject and by relation.

    `sizes`: how many passages items to learn from have, beside the brief's; `few_attacks`: fewer of those are attacks;
    `wordings`: their passages have further wordings.
    """
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

    def rehearsed() -> list[tuple[str, Prompt, tuple[str, ...]]]:
        asked = (fact for fact in town.facts.values() if town.split(fact) == "train")
        return [
            (f.id, ask(grammar.question(f, form)), ()) for f in asked for form in grammar.training_forms(f.relation)
        ]

    return Source(
        questions={f.id: grammar.question(f, 0) for f in town.facts.values()},
        draw=draw,
        tuning={
            "cells": tuning_cells(sizes, few=few_attacks),
            "mix": conflicts.TUNING_MIXES,
            "further": wordings,
        },
        rehearsed=rehearsed,
        describe=describe,
        oracle=lambda row: conflicts.oracle(row, cues),
        notes=("The data are the town's: invented facts whose truth is known exactly.",),
    )


def open_source(dataset: str | None, limit: int | None, cues: conflicts.Cues, **tuning: Any) -> Source:
    """Return the source that `--dataset` names; the town by default. Cues and `tuning` (see `world`) are the town's."""
    if dataset is None or dataset.startswith("world:"):
        return world(cues, **tuning)
    from alignlab.procedures._dialectical_files import file

    return file(dataset, limit)


def share(pairs: Sequence[tuple[bool, float]], index: int) -> float:
    """Return the mean of one element of (right, confidence) pairs."""
    return sum(pair[index] for pair in pairs) / len(pairs)
