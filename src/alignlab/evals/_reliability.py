"""A reliability card for any survey eval: the same questions under orders, formats, wordings and personas.

A survey eval is wrapped through its `scale(item)`, the ordered options of an item. What comes out is put beside what
people differ by: an answer that a change of format moves further than a change of culture measures the format.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignlab.core.types import Figure, Metric, Row, Table
from alignlab.evals import _survey as survey
from alignlab.evals import kornat, pct, wahl_o_mat
from alignlab.stats import bootstrap, permutation, reliability, resample
from alignlab.stats.multiplicity import adjusted

Record = Mapping[str, Any]
FACTORS = ("order", "labels", "reply", "paraphrase")
FORMATS: dict[str, tuple[tuple[survey.Labels, survey.Reply], ...]] = {
    "published": (("letters", "label"), ("letters", "option"), ("numbers", "label"), ("numbers", "option")),
    "options": (("none", "option"),),
}
SURVEYS: dict[str, tuple[Callable[[Row], tuple[str, ...]], Callable[[int, int], list[Row]]]] = {
    "kornat": (
        kornat.scale,
        lambda n, seed: kornat.items(kornat.Config(items=n, knowledge=0, orders="ascending", seed=seed)),
    ),
    "pct": (pct.scale, lambda n, seed: pct.items(pct.Config(forms="closed", templates=1, seed=seed))[:n]),
    "wahl_o_mat": (
        wahl_o_mat.scale,
        lambda n, seed: wahl_o_mat.items(wahl_o_mat.Config(runs=1, negated=False, theses=min(n, 40), seed=seed)),
    ),
}
"""survey eval -> (its scale, its items, each once)"""


def questions(name: str, count: int, seed: int) -> list[Row]:
    """Return the items of a survey eval as plain questions with their options in order."""
    scale, listed = SURVEYS[name]
    return [
        Row(prompt=row.prompt, facts={"options": list(scale(row))}, meta={"id": row.meta["id"], "source": name})
        for row in listed(count, seed)
    ]


def crossed(rows: Sequence[Row], variants: Sequence[survey.Variant], cultures: Mapping[str, str]) -> list[Row]:
    """Return variant x question; `cultures` maps a persona to the culture it stands for."""
    return [
        Row(
            prompt=row.prompt, meta={**row.meta, "id": f"{row.meta['id']}-{variant.name}"},
            facts={
                **row.facts, "item": row.meta["id"], "variant": vars(variant),
                "culture": cultures.get(variant.persona, ""),
            },
        )
        for variant in variants
        for row in rows
    ]  # fmt: skip


def table_of(
    records: Sequence[Record], column: Callable[[Record], Hashable]
) -> tuple[list[Any], list[Any], NDArray[np.float64]]:
    """Return (items, levels, mean answers [items, levels]) over the items that have an answer in every column."""
    cells: dict[tuple[Any, Hashable], list[float]] = defaultdict(list)
    for r in records:
        if r["value"] is not None:
            cells[r["item"], column(r)].append(r["value"])
    levels = list(dict.fromkeys(column(r) for r in records))
    items = [i for i in dict.fromkeys(r["item"] for r in records) if all((i, level) in cells for level in levels)]
    rows = [[float(np.mean(cells[i, level])) for level in levels] for i in items]
    return items, levels, np.array(rows, dtype=np.float64).reshape(len(items), len(levels))


def stability(records: Sequence[Record]) -> tuple[dict[str, Metric], dict[str, Table]]:
    """Return what the format moves, beside what cultures differ by where that is known."""
    items, _, table = table_of(records, lambda r: r["variant"])
    metrics: dict[str, Metric] = {"complete": Metric(value=float(len(items)), n=len({r["item"] for r in records}))}
    means = {r["item"]: r["means"] for r in records if r["means"]}
    columns = {}
    if table.shape[1] > 1 and len(items):
        columns["instability"] = table.std(axis=1)
    if means and all(item in means for item in items) and len(items):
        columns["yardstick"] = np.array([np.std(list(means[item].values())) for item in items])
    metrics |= bootstrap.means(columns)
    if len(columns) == 2 and columns["yardstick"].sum() > 0:
        metrics["instability_ratio"] = resample.statistic(
            lambda index: float(columns["instability"][index].sum() / columns["yardstick"][index].sum()),
            range(len(items)), draws=300,
        )  # fmt: skip
    if min(table.shape, default=0) > 1:
        found = reliability.components(table)
        n = len(items)
        metrics["dependability"] = resample.statistic(
            lambda index: reliability.components(table[index]).dependability(table.shape[1]), range(n), draws=200
        )
        needed = found.needed(0.8)
        metrics["formats_needed"] = Metric(value=needed, n=n)
    effects, rows = _effects(records)
    metrics |= effects
    tables = {"factors": Table(columns=FACTOR_COLUMNS, rows=tuple(rows), caption=FACTOR_CAPTION)} if rows else {}
    shares = _shares(records)
    if shares:
        metrics |= {f"share_{name.replace(':', '_x_')}": metric for name, metric in shares.items()}
        tables["variance"] = Table(
            columns=("source", "share of the variance"),
            rows=tuple((name, round(metric.value, 4)) for name, metric in shares.items()),
            caption="Of all answers without a persona; `item:order`: an order that moves some items more.",
        )
    return metrics, tables


FACTOR_COLUMNS = ("factor", "levels", "items", "difference", "spread of means", "published form", "p", "p after Holm")
FACTOR_CAPTION = (
    "Answers from 0 to 1. Differences and p-values are paired by item; the published form depends on group sizes and "
    "on the zero of the scale, and is here for comparison."
)


def _effects(records: Sequence[Record]) -> tuple[dict[str, Metric], list[tuple[str | float | int | None, ...]]]:
    metrics, found, raw = {}, [], {}
    for factor in FACTORS:
        items, levels, table = table_of(records, lambda r, factor=factor: r["levels"][factor])  # type: ignore[misc]
        if len(levels) < 2 or not items:
            continue
        raw[factor] = permutation.within_blocks(table)
        groups = [
            [r["value"] for r in records if r["levels"][factor] == level and r["value"] is not None] for level in levels
        ]
        gap = published = None
        if len(levels) == 2:
            metrics[f"{factor}_effect"] = bootstrap.paired_difference(table[:, 1], table[:, 0])
            gap = abs(metrics[f"{factor}_effect"].value)
            published = reliability.weighted_mean_difference(groups[0], groups[1])
        spread = reliability.spread_of_means(groups)
        metrics[f"{factor}_spread"] = Metric(value=spread, n=len(items))
        found.append((factor, len(levels), len(items), gap, spread, published))
    corrected = adjusted(raw)
    metrics |= {f"{factor}_p": Metric(value=p, n=len(records)) for factor, p in corrected.items()}
    rows = [
        (*(round(v, 4) if isinstance(v, float) else v for v in row), raw[str(row[0])], corrected[str(row[0])])
        for row in found
    ]
    return metrics, rows


def _shares(records: Sequence[Record]) -> dict[str, Metric]:
    """Return the variance shares over the items that were answered under every variant."""
    items, _, _ = table_of(records, lambda r: r["variant"])
    whole = set(items)
    kept = [r for r in records if r["item"] in whole and r["value"] is not None]
    factors = {f: [r["levels"][f] for r in kept] for f in FACTORS}
    factors = {f: levels for f, levels in factors.items() if len(set(levels)) > 1}
    if len(kept) < 2 or not factors:
        return {}
    shares = reliability.variance_shares([r["value"] for r in kept], {"item": [r["item"] for r in kept], **factors})
    return {name: Metric(value=value, n=len(kept)) for name, value in shares.items() if not math.isnan(value)}


def pictures(metrics: Mapping[str, Metric]) -> dict[str, Figure]:
    """Return the variance shares and the instability beside the yardstick, as far as they are known."""
    figures = {}
    shares = {name.removeprefix("share_"): m.value for name, m in metrics.items() if name.startswith("share_")}
    if shares:
        figures["variance"] = Figure(
            kind="bars", series={"share": {"label": list(shares), "y": list(shares.values())}},
            y_label="share of the variance", caption="What moves the answers: `item` is what the survey asks about.",
        )  # fmt: skip
    some = {name: metrics[name] for name in ("instability", "yardstick") if name in metrics}
    if len(some) == 2:
        series: dict[str, list[Any]] = {
            "label": ["formats", "cultures"], "y": [m.value for m in some.values()],
            "low": [m.value if m.low is None else m.low for m in some.values()],
            "high": [m.value if m.high is None else m.high for m in some.values()],
        }  # fmt: skip
        caption = "How far one item's answers lie apart over formats of the model, and over cultures of people."
        figures["yardstick"] = Figure(
            kind="bars", series={"standard deviation": series}, y_label="of answers from 0 to 1", caption=caption
        )
    return figures
