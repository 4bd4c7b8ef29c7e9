"""The whole dialectical study: every policy, ablations, unseen conditions, the impossibility control; three seeds."""

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from alignlab.core import files
from alignlab.core.answers import final_answer
from alignlab.core.evidence import ask
from alignlab.core.trace import MARKER
from alignlab.core.types import Context, Endpoint, Figure, Metric, Result, Row, Table
from alignlab.engine.load import LanguageModel, load, save
from alignlab.engine.steered import Steered
from alignlab.procedures import _dialectical_claims as held
from alignlab.procedures import _dialectical_items as sources
from alignlab.procedures import _dialectical_report as pages
from alignlab.procedures._seeded import Seeded
from alignlab.procedures.dialectical import (
    Config,
    Evidence,
    Records,
    answered,
    baselines,
    by_rule,
    changed,
    learnable,
    preferred,
    supervised,
    written,
)
from alignlab.stats import bootstrap
from alignlab.steering import contrastive_context
from alignlab.world import conflicts, endpoints, facts

SWEEP = (-1.0, -0.75, -0.5, -0.25, 0.0, 0.5, 1.0)
LONG = (conflicts.Cell("clean"), *(conflicts.Cell("pca", 5, k) for k in range(1, 6)), conflicts.Cell("ike", 5))


def _sized(n: int, poisoned: Sequence[int]) -> tuple[conflicts.Cell, ...]:
    """Return attack, edit and clean cells of n passages."""
    attacks = tuple(conflicts.Cell("pca", n, k) for k in poisoned)
    return (*attacks, conflicts.Cell("ike", n), conflicts.Cell("clean", n))


UNSEEN: dict[str, dict[str, Any]] = {
    "unseen wordings": {"unseen": True},
    "one copied source": {"mix": "single"},
    "sources as truth": {"mix": "as_truth"},
    "unseen question": {"form": -1},
    "3 passages": {"cells": _sized(3, (1, 2, 3))},
    "8 passages": {"cells": _sized(8, (2, 4, 6, 8))},
    "held-out relations": {"split": "relation"},
}  # fmt: skip
PREFERENCES = {"da + dpo": "both", "da + dpo, attacks only": "attacks"}
"""tuned further on preferences -> directions of its pairs"""
SHOWN_FIGURES, SHOWN_TABLES = ("Reasoning paths by conflict", "Memory"), ("chosen paths",)
DPO_STEPS = 100
BLIND_STEPS = 600
"""no tuning finds what is not there, so without cues a shorter one will do"""
LONG_PER_CELL = 340
"""so that three seeds have more than 1,000 items of each cell that a claim rests on"""


@dataclass
class Study:
    """Records of one seed, or of all seeds one after another."""

    records: dict[str, Records] = field(default_factory=dict)
    """policy -> records of the standard test"""
    unseen: dict[str, dict[str, Records]] = field(default_factory=dict)
    """condition -> policy -> records"""
    blind: dict[str, Records] = field(default_factory=dict)
    """policy -> records with all cues off, at ratio 1"""
    sweep: dict[str, Records] = field(default_factory=dict)
    """weight of contrastive decoding -> records"""
    memory: Records = field(default_factory=list)
    """per fact: whether it was known for sure, and whether it is recalled without passages before and after tuning"""
    shown: dict[str, Any] = field(default_factory=dict)
    """tables, figures and samples of this seed alone, as data"""


def run(ctx: Context, cfg: Config) -> Result:
    """Run every seed, pool the records, and say which claims hold.

    What a seed measured is kept in its folder: a study that was killed goes on with the first seed that is not whole.
    """
    if ctx.dataset is not None and not ctx.dataset.startswith("world:"):
        raise ValueError("--full true runs on the world only: its conditions cannot be drawn from a file")
    if cfg.seeds < 1:
        raise ValueError(f"--seeds: expected a whole number >= 1, got {cfg.seeds}")
    began, student = time.monotonic(), load(ctx.model)
    key = {"model": student.identity, "config": dataclasses.asdict(changed(cfg, seeds=0)), "limit": ctx.limit}
    seeds = range(ctx.seed, ctx.seed + cfg.seeds)
    parts = [_kept(ctx, seed, key) or _seed(ctx, cfg, seed, student, key) for seed in seeds]
    study, shown = _pooled(parts), parts[0].shown
    numbers = {"seconds": time.monotonic() - began, "seeds": float(cfg.seeds)}
    sweep = [_point(records) for _, records in sorted(study.sweep.items(), key=lambda pair: float(pair[0]))]
    notes = ("The data are the town's: invented facts whose truth is known exactly.",)
    page = pages.result(Evidence(records=study.records, numbers=numbers), notes, sweep)
    metrics = dict(page.metrics) | _extra(study)
    tables = dict(page.tables) | {
        "unseen conditions": held.unseen_table(study.unseen),
        "claims": held.claims(metrics, SWEEP),
    }
    tables |= {title: Table(**table | {"rows": tuple(map(tuple, table["rows"]))}) for title, table in shown["tables"]}
    figures = dict(page.figures) | {title: Figure(**figure) for title, figure in shown["figures"]}
    refuted = [str(row[0]) for row in tables["claims"].rows if row[3] == "no"]
    notes = (*page.notes, f"Refuted: {'; '.join(refuted)}." if refuted else "No claim was refuted.")
    return Result(metrics=metrics, tables=tables, figures=figures, notes=notes, samples=tuple(shown["samples"]))


def _shown(found: Evidence) -> dict[str, Any]:
    """Return what the report shows of one seed alone: its search, its memory and some of its answers."""
    page = pages.result(found, ())
    return {
        "figures": [(t, dataclasses.asdict(page.figures[t])) for t in SHOWN_FIGURES if t in page.figures],
        "tables": [(t, dataclasses.asdict(page.tables[t])) for t in SHOWN_TABLES if t in page.tables],
        "samples": list(page.samples),
    }


def _file(ctx: Context, seed: int) -> Path:
    return ctx.folder / f"seed-{seed}" / "study.json"


def _kept(ctx: Context, seed: int, key: Mapping[str, Any]) -> Study | None:
    """Return what an earlier call measured of a seed with the same model and settings, or None."""
    path = _file(ctx, seed)
    if not path.exists():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    return Study(**found["study"]) if found["key"] == json.loads(json.dumps(key)) else None


def _pooled(parts: Sequence[Study]) -> Study:
    """Put the records of several seeds one after another."""
    whole = Study()
    for part in parts:
        for name in ("records", "blind", "sweep"):
            for policy, records in getattr(part, name).items():
                getattr(whole, name).setdefault(policy, []).extend(records)
        for condition, policies in part.unseen.items():
            for policy, records in policies.items():
                whole.unseen.setdefault(condition, {}).setdefault(policy, []).extend(records)
        whole.memory += part.memory
    return whole


def _seed(ctx: Context, cfg: Config, seed: int, student: LanguageModel, key: Mapping[str, Any]) -> Study:
    """Run one seed, and keep what it measured."""
    here, study = Seeded(ctx, seed), Study()
    source = sources.world(cfg.cues, cfg.sizes, few_attacks=cfg.few_attacks, wordings=cfg.further_wordings)
    found = Evidence()
    models = _tuned(here, changed(cfg, full=False), student, source, found)
    test = found.test = source.test(cfg.test_per_cell, seed)
    long = source.test(max(cfg.test_per_cell, LONG_PER_CELL), seed + 500, cells=LONG)
    policies = baselines(student) | models
    for name, policy in policies.items():
        listed = [*test, *long] if name in ("plain", "da", "majority", "notice") else test
        study.records[name] = _tagged(answered(here, cfg, policy, listed, f"{name}, seed {seed}", ""), seed)
    study.records["oracle"] = _tagged(by_rule([*test, *long], lambda row: conflicts.oracle(row, cfg.cues)), seed)
    for weight in SWEEP:
        steered = Steered(
            student, [contrastive_context.intervene(None, contrastive_context.Config(weight=weight), None)]
        )
        study.sweep[f"{weight:g}"] = _tagged(
            answered(here, changed(cfg, max_tokens=8), steered, test, f"contrastive {weight:g}", ""), seed
        )
    for condition, options in UNSEEN.items():
        items = _unseen(source, cfg, seed, options)
        study.unseen[condition] = {
            name: _tagged(answered(here, cfg, policies[name], items, f"{name}, {condition}", ""), seed)
            for name in ("plain", "da")
        }
    _blind(here, cfg, seed, study, student)
    study.memory = _memory(student, models["da"], source)
    found.records = study.records
    study.shown = _shown(found)
    files.write_json(_file(ctx, seed), {"key": key, "study": dataclasses.asdict(study)})
    return study


def _unseen(source: sources.Source, cfg: Config, seed: int, options: Mapping[str, Any]) -> list[Row]:
    """Return the items of a condition, more of those cells of which a claim has one alone (ES, CLEAN)."""
    single = [cell for cell in options.get("cells", LONG) if cell.scenario in ("clean", "ike")]
    more = {**options, "cells": single}
    items = source.test(cfg.test_per_cell, seed + 700, **options)
    return items + source.test(max(cfg.test_per_cell, LONG_PER_CELL), seed + 900, **more)


def _tuned(
    ctx: Context, cfg: Config, student: LanguageModel, source: sources.Source, found: Evidence
) -> dict[str, LanguageModel]:
    """Return the tuned models of one seed: traces, answers alone, and preferences on top of the traces."""
    source.probe(ctx, student, cfg.probes, room=cfg.max_tokens)
    found.recall = source.describe(source.probes)
    accepted, options = written(ctx, cfg, source, found)
    whole, short = (
        learnable(ctx, cfg, source, accepted, replace(options, target=target)) for target in ("trace", "answer")
    )
    models = {
        "da": supervised(ctx, cfg, student, whole, found, ctx.folder / "da"),
        "answer only": supervised(ctx, cfg, student, short, Evidence(), ctx.folder / "answer_only"),
    }
    save(models["da"], ctx.folder / "da" / "model")
    for name, directions in PREFERENCES.items():
        settings = changed(cfg, dpo_steps=DPO_STEPS)
        pairs = replace(options, directions=directions)
        models[name] = preferred(ctx, settings, ctx.folder / "da" / "model", accepted, pairs, ctx.folder / directions)
    return models


def _blind(ctx: Context, cfg: Config, seed: int, study: Study, student: LanguageModel) -> None:
    """Train and test without any cue: at ratio 1 nothing can tell an attack from an edit."""
    cues = dict.fromkeys(("cue_source", "cue_date", "cue_consistency", "cue_type"), False)
    off = changed(cfg, full=False, sft_steps=min(cfg.sft_steps, BLIND_STEPS), **cues)
    source = sources.world(conflicts.NO_CUES, cfg.sizes, few_attacks=cfg.few_attacks, wordings=cfg.further_wordings)

    def endpoint(role: str) -> Endpoint:
        found = ctx.endpoint(role)
        # The town's own teacher may not read cues that are off
        return endpoints.endpoint(role, cues=conflicts.NO_CUES) if found.name == "world:teacher" else found

    models = _tuned(Seeded(ctx, seed, "no-cues", endpoint), off, student, source, Evidence())
    cells = (conflicts.Cell("pca", 5, 5), conflicts.Cell("ike", 5))
    items = source.test(max(cfg.test_per_cell, 500), seed, cells=cells)
    for name, policy in (baselines(student) | models).items():
        study.blind[name] = _tagged(answered(ctx, cfg, policy, items, f"{name}, no cues", ""), seed)
    study.blind["oracle"] = _tagged(by_rule(items, lambda row: conflicts.oracle(row, conflicts.NO_CUES)), seed)


def _memory(before: LanguageModel, after: LanguageModel, source: sources.Source) -> Records:
    """Return what is recalled of every fact without passages, greedily, by the untuned and the tuned model."""
    town = facts.town()
    prompts = [ask(question) for question in source.questions.values()]
    said = [
        [final_answer(samples[0].text, MARKER) for samples in model.sample(prompts, temperature=0.0, max_tokens=32)]
        for model in (before, after)
    ]
    return [
        {
            "cluster": name,
            "sure": conflicts.attackable(town.facts[name], conflicts.Probe(probe.answer, probe.confidence)),
            "before": old == town.facts[name].value,
            "after": new == town.facts[name].value,
        }
        for (name, probe), old, new in zip(((n, source.probes[n]) for n in source.questions), *said)
    ]


def _tagged(records: Records, seed: int) -> Records:
    """Make a fact of two seeds one cluster still, but keep items apart by id."""
    return [{**record, "id": f"{seed}/{record['id']}", "seed": seed} for record in records]


def _point(records: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    found = pages.summary(records)
    return found["asr"].value, found["es"].value


def _extra(study: Study) -> dict[str, Metric]:
    metrics = {}
    for name, records in study.blind.items():
        attacks = [r for r in records if r["scenario"] == "pca"]
        edits = [r for r in records if r["scenario"] == "ike"]
        parts = [
            pages.part(edits, "right"),
            pages.part(attacks, "attacked", weight=-1.0),
        ]
        # All methods are held to 0 at once, so the intervals cover together at 95 % (Bonferroni)
        level = 1 - 0.05 / len(study.blind)
        metrics[f"no_cues/{name}/j_1"] = bootstrap.combination(parts, level=level, draws=20_000)
    for condition, policies in study.unseen.items():
        for name, records in policies.items():
            for key in ("asr", "es", "clean", "j"):
                if key in (found := pages.summary(records)):
                    metrics[f"{condition}/{name}/{key}"] = found[key]
    for weight, records in study.sweep.items():
        asr, es = _point(records)
        metrics[f"contrastive {weight}/asr"] = Metric(value=asr, n=len(records))
        metrics[f"contrastive {weight}/es"] = Metric(value=es, n=len(records))
    for name, records in (("all", study.memory), ("sure", [r for r in study.memory if r["sure"]])):
        metrics[f"closed_book_change/{name}"] = bootstrap.paired_difference(
            [r["after"] for r in records], [r["before"] for r in records], clusters=[r["cluster"] for r in records]
        )
    return metrics
