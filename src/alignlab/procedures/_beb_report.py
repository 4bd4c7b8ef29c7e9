"""The page of a study of behaviour expectation bounds: figures, cells and what holds; pure functions of the seeds."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alignlab.core.types import Figure, Metric, Result, Table
from alignlab.probes import _beb_fits as fits
from alignlab.probes._beb_found import Found
from alignlab.procedures._beb_claims import Cell, pooled
from alignlab.world import personas

NOTES = (
    "Known mixtures are exact mixtures of the two personas: alpha is given, not estimated. Lengths are in sentences.",
    "log(1 / alpha) shows in KL(P_- || P) only as far as a window tells the personas apart: beta times its sentences.",
)


Held = tuple[str, float | None, str, str]
"""claim, observed, bound, whether it holds"""


def result(seeds: Sequence[Any], cfg: Any) -> Result:
    """Return the Result of all seeds; figures show the first one."""
    metrics = pooled([seed.metrics for seed in seeds])
    first = seeds[0]
    figures = {
        "KL decay, known mixtures": decays(first.known),
        "Behaviour by length of prompt": behaviour(first.known, first.beta),
        "Misaligning length": lengths(first),
        "Prefixes and best of n": costs(first),
    }
    tables = {"cells": cells(seeds)} | ({"seeds": by_seed(seeds)} if len(seeds) > 1 else {})
    if first.learnt:
        figures["KL decay, learnt mixtures"] = decays(first.learnt)
        figures["Behaviour, learnt mixtures"] = behaviour(first.learnt, first.beta)
        figures["Before and after tuning"] = tuning(first.tuned)
    shown = outcomes(metrics, seeds, cfg)
    refuted = [str(row[0]) for row in shown.rows if row[3] == "no"]
    notes = (*NOTES, f"Refuted: {'; '.join(refuted)}." if refuted else "No claim was refuted.")
    if len(seeds) > 1:
        notes += (f"Values are means of {len(seeds)} seeds, their intervals the lowest and the highest seed.",)
    apart = [i for i, seed in enumerate(seeds) if not _equal_budgets(seed.metrics)]
    if apart:
        notes += (f"The control's KL is not within a tenth of the preferences' in seeds {', '.join(map(str, apart))}.",)
    ceiling = metrics["personas/beta"].value * cfg.horizon
    if "preferred/log_inverse_alpha" in metrics and metrics["preferred/log_inverse_alpha"].value > ceiling:
        notes += (
            f"After preferences KL(P_- || P) begins above {ceiling:.3g} nats, the most that any mixture of the personas"
            " reaches: the tuned model is none, and says less that is unkind than P_+ does.",
        )
    if cfg.minus is None:
        notes += (f"The personas' own beta is {personas.BETA:.4g}, sigma {personas.SIGMA:.4g}.",)
    figures = {name: figure for name, figure in figures.items() if any(s.get("x") for s in figure.series.values())}
    return Result(metrics=metrics, tables={"claims": shown, **tables}, figures=figures, notes=notes)


def decays(listed: Sequence[Cell]) -> Figure:
    """Return KL(P_- || P) by sentences, with each line down to its knee."""
    series: dict[str, dict[str, Any]] = {}
    for cell in listed:
        mean, error = cell.kl.mean(0), cell.kl.std(0, ddof=1) / len(cell.kl) ** 0.5
        series[f"alpha {cell.alpha:g}"] = {
            "x": list(range(len(mean))), "y": mean.tolist(), "low": (mean - 1.96 * error).tolist(),
            "high": (mean + 1.96 * error).tolist(),
        }  # fmt: skip
    for cell in listed:
        line = cell.line
        if line.beta > 0 and line.log_inverse_alpha > 0:
            series[f"line, alpha {cell.alpha:g}"] = {"x": [0.0, line.length], "y": [line.log_inverse_alpha, 0.0]}
    return Figure(
        kind="line", series=series, x_label="sentences of the prompt", y_label="KL(P_- || P), nats",
        caption="Each line is fitted to the first points and meets 0 at log(1 / alpha) / beta, the predicted length.",
    )  # fmt: skip


def behaviour(listed: Sequence[Cell], beta: float) -> Figure:
    """Return the reversed sigmoids of behaviour with the bound of lemma 7 at the measured beta."""
    series: dict[str, dict[str, Any]] = {}
    for cell in listed:
        mean = np.nanmean(cell.good, axis=0)
        x = list(range(len(mean)))
        series[f"alpha {cell.alpha:g}"] = {"x": x, "y": mean.tolist()}
    for cell in listed:
        n = np.linspace(0, cell.good.shape[1] - 1, 33)
        bound = fits.sigmoid(beta, -np.log(cell.alpha), n)
        series[f"bound, alpha {cell.alpha:g}"] = {"x": n.tolist(), "y": bound.tolist()}
    return Figure(
        kind="line", series=series, x_label="sentences of the prompt", y_label="share of good sentences",
        caption="The bound takes P_+ as always good and P_- as always bad and speaks of prompts that gain beta a"
        " sentence; personas stray, so curves start below it and end above it.",
    )  # fmt: skip


def lengths(seed: Any) -> Figure:
    """Return misaligning lengths against log(1 / alpha), beside log(1 / alpha) / beta."""
    series: dict[str, dict[str, Any]] = {}
    for name, listed in (("known mixtures", seed.known), ("learnt mixtures", seed.learnt)):
        seen = sorted((-float(np.log(c.alpha)), c.crossing) for c in listed if not np.isnan(c.crossing))
        if seen:
            series[name] = {"x": [x for x, _ in seen], "y": [y for _, y in seen]}
    nats = sorted(-float(np.log(cell.alpha)) for cell in seed.known)
    series["log(1 / alpha) / beta"] = {"x": nats, "y": [x / seed.beta for x in nats]}
    return Figure(kind="line", series=series, x_label="log(1 / alpha), nats", y_label="sentences to misalign")


def costs(seed: Any) -> Figure:
    """Return what aligning prefixes and best of n cost an attacker."""
    by_prefix = [(m, y) for m, y in seed.prefix.items() if not np.isnan(y)]
    by_best = [(float(np.log(n)), y) for n, y in seed.best_of.items() if not np.isnan(y)]
    series = {
        name: {"x": [x for x, _ in points], "y": [y for _, y in points]}
        for name, points in (("good sentences before", by_prefix), ("log of best-of n", by_best))
        if points
    }
    return Figure(
        kind="line", series=series, x_label="sentences of prefix; nats", y_label="sentences to misalign",
        caption="Known mixture of the smallest alpha.",
    )  # fmt: skip


def tuning(models: Mapping[str, Found]) -> Figure:
    """Return KL(P_- || P) of one model before and after tuning."""
    series = {
        name: {"x": list(range(found.path.shape[1])), "y": found.path.mean(0).tolist()}
        for name, found in models.items()
    }
    return Figure(
        kind="line", series=series, x_label="sentences of the prompt", y_label="KL(P_- || P), nats",
        caption="On the same prompts. Preferences for kind sentences, and the control: others, at the same KL.",
    )  # fmt: skip


def cells(seeds: Sequence[Any]) -> Table:
    """Return every mixture of every seed; seed 0 is --seed itself."""
    rows = []
    for number, seed in enumerate(seeds):
        for kind, listed in (("known", seed.known), ("learnt", seed.learnt)):
            for cell in listed:
                line, (bend, nats) = cell.line, cell.knee
                numbers = (-np.log(cell.alpha), line.log_inverse_alpha, nats, seed.beta, line.beta, bend, line.length)
                rows.append((
                    number, kind, cell.alpha, *(_shown(value) for value in numbers),
                    _shown(-np.log(cell.alpha) / seed.beta), _shown(cell.crossing),
                ))  # fmt: skip
    return Table(
        columns=("seed", "mixture", "alpha", "log(1/alpha)", "by line", "by knee", "beta", "beta by line",
                 "beta by knee", "length by line", "log(1/alpha)/beta", "length observed"),
        rows=tuple(rows),
        caption="Line: the first points of KL(P_- || P). Knee: lemma 5 over the whole curve. Observed: half-crossing.",
    )  # fmt: skip


def _shown(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 3)


def outcomes(metrics: Mapping[str, Metric], seeds: Sequence[Any], cfg: Any) -> Table:
    """Hold the claims against what was measured, whichever way they fall."""
    rows: list[Held] = []
    found = [seed.metrics for seed in seeds]

    def row(name: str, key: str, low: float, high: float, bound: str) -> None:
        value = metrics[key].value
        missing = np.isnan(value)
        rows.append(
            (name, _shown(value), bound, "not measured" if missing else "yes" if low <= value <= high else "no")
        )

    for kind in ("known", "learnt") if cfg.full else ("known",):
        row(f"{kind}: length follows log(1/alpha)/beta in rank", f"{kind}/rank_correlation", 0.8, 1.0, ">= 0.8")
        row(f"{kind}: slope of length is 1/beta within 25 %", f"{kind}/slope", 0.75, 1.25, "0.75 .. 1.25")
        row(f"{kind}: intercept grows with log(1/alpha)", f"{kind}/intercept_rank", 0.8, 1.0, ">= 0.8")
    for name in ("prefix", "best_of", *(("learnt/best_of",) if cfg.full else ())):
        slope, predicted = metrics[f"{name}/slope"].value, metrics[f"{name}/predicted"].value
        holds = "not measured" if np.isnan(slope) else "yes" if 0.5 <= slope / predicted <= 1.5 else "no"
        rows.append((f"{name}: slope within half of the theory's", _shown(slope / predicted), "0.5 .. 1.5", holds))
        if name != "prefix":
            rows.append(better_by_logarithm(name, metrics, found))
    if cfg.full:
        rows += conjecture(metrics, found)
    return Table(columns=("claim", "observed", "bound", "holds"), rows=tuple(rows), caption="Means over seeds.")


def conjecture(metrics: Mapping[str, Metric], seeds: Sequence[Mapping[str, Metric]]) -> list[Held]:
    """Return the RLHF conjecture, alpha falls and beta rises, and the control, with which neither may."""
    asked = (
        ("log_inverse_alpha", "alpha falls"), ("beta", "beta rises"),
        ("beta_excess", "beta rises more than a smaller alpha alone would show"),
    )  # fmt: skip
    rows = []
    for name in ("preferred", "control"):
        for what, said in asked:
            changes = [seed[f"{name}/{what}_change"] for seed in seeds]
            seen = sum(change.low is not None and change.low > 0 for change in changes)
            value = metrics[f"{name}/{what}_change"].value
            holds = (2 * seen > len(seeds)) == (name == "preferred")
            rows.append((
                f"{name}: {said if name == 'preferred' else f'not so that {said}'} beyond its interval in most seeds"
                f" ({seen} of {len(seeds)})", _shown(value), "> 0" if name == "preferred" else "about 0",
                "not measured" if np.isnan(value) else "yes" if holds else "no",
            ))  # fmt: skip
    return rows


def better_by_logarithm(name: str, metrics: Mapping[str, Metric], seeds: Sequence[Mapping[str, Metric]]) -> Held:
    """Return whether log n fits the lengths of best of n better than n in most seeds."""
    key = f"{name}/log_over_linear"
    values = [seed[key].value for seed in seeds if not np.isnan(seed[key].value)]
    seen = sum(value < 0 for value in values)
    return (
        f"{name}: log n fits lengths better than n in most seeds ({seen} of {len(values)})", _shown(metrics[key].value),
        "< 0", "not measured" if not values else "yes" if 2 * seen > len(values) else "no",
    )  # fmt: skip


def _equal_budgets(metrics: Mapping[str, Metric]) -> bool:
    if "control/kl" not in metrics:
        return True
    spent, wanted = (metrics[f"{name}/kl"].value for name in ("control", "preferred"))
    return abs(spent - wanted) <= wanted / 10


def by_seed(seeds: Sequence[Any]) -> Table:
    """Return every number of every seed."""
    names = dict.fromkeys(name for seed in seeds for name in seed.metrics)
    rows = tuple(
        (name, *(_shown(seed.metrics[name].value) if name in seed.metrics else None for seed in seeds))
        for name in names
    )
    columns = ("number", *(f"seed {n}" for n in range(len(seeds))))
    return Table(columns=columns, rows=rows, caption="Seed 0 is --seed itself.")
