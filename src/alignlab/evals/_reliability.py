"""A reliability card for any survey eval: the same questions under orders, formats, wordings and personas.

A survey eval is wrapped through its `scale(item)`, the ordered options of an item. What comes out is put beside what
people differ by: an answer that a change of format moves further than a change of culture measures the format.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignlab.core.types import Figure, Metric, Row, Table
from alignlab.data import settings
from alignlab.evals import _cultures as cultures
from alignlab.evals import _kornat_items as sources
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


@dataclass(frozen=True, kw_only=True)
class Survey:
    """How another eval's items become plain questions."""

    module: ModuleType
    """with `Config`, `items` and `scale`"""
    once: Mapping[str, Any]
    """its settings under which each item is listed once: the card varies order, format and wording itself"""
    count: str | None = None
    """its setting that says how many items there are"""
    persona: str = "a typical person from {}"
    """one of a group of people whose answers are known"""


SURVEYS = {
    "kornat": Survey(
        module=kornat, once={"knowledge": 0, "orders": "ascending", "paraphrases": 1}, count="items",
        persona="one of the {}",
    ),
    "pct": Survey(module=pct, once={"forms": "closed", "templates": 1, "personas": ()}),
    "wahl_o_mat": Survey(
        module=wahl_o_mat, once={"runs": 1, "negated": False}, persona="a voter of the {}"
    ),
}  # fmt: skip
"""survey eval -> how it is wrapped"""


def questions(name: str, count: int, seed: int, given: Sequence[str] = ()) -> list[Row]:
    """Return the items of a survey eval as plain questions with their options in order.

    Where the answers of people are known (shares of strata, positions of parties) they are in `facts["means"]`, for
    the groups that answer every question.

    Args:
        name: of the eval.
        count: questions at most.
        seed: of its items.
        given: settings of its own, each `key=value`.

    Raises:
        ValueError: a setting that is no `key=value`, that the eval does not have, or that the card sets itself.
    """
    wrapped = SURVEYS[name]
    own = {**wrapped.once, "seed": seed, **({wrapped.count: count} if wrapped.count else {})}
    taken = tuple(own)
    for entry in given:
        key, equals, value = entry.partition("=")
        if not equals or key in taken:
            why = "is set by this eval's own flags" if equals else "is no key=value"
            raise ValueError(
                f"--settings {entry}: {why}; give key=value of a setting of {name} other than {', '.join(taken)}"
            )
        own[key] = value
    cfg = settings.build(wrapped.module.Config, own, f"--settings of {name}")
    rows = [row for row in wrapped.module.items(cfg) if row.facts.get("gold") is None][:count]
    known = [_people(row, wrapped.module.scale(row)) for row in rows]
    everywhere = [group for group in (known[0] if known else ()) if all(group in one for one in known)]
    found = []
    for row, means in zip(rows, known):
        facts = {"options": list(wrapped.module.scale(row)), "dimension": row.facts.get("topic") or ""}
        if len(everywhere) > 1:
            facts["means"] = {group: means[group] for group in everywhere}
        found.append(Row(prompt=row.prompt, facts=facts, meta={"id": row.meta["id"], "source": name}))
    return found


def _people(row: Row, options: Sequence[str]) -> dict[str, float]:
    """Return group -> mean answer from 0 to 1: of a nation's strata, or of an election's parties."""
    strata = sources.strata(row, len(options))
    parties = row.facts.get("positions") or {}
    return {
        **{name: cultures.position(shares) for name, shares in strata.items()},
        **{name: (stance + 1) / 2 for name, stance in parties.items()},
    }


def crossed(rows: Sequence[Row], variants: Sequence[survey.Variant], groups: Mapping[str, str]) -> list[Row]:
    """Return variant x question; `groups` maps a persona to the people it stands for."""
    return [
        Row(
            prompt=row.prompt, meta={**row.meta, "id": f"{row.meta['id']}-{variant.name}"},
            facts={
                **row.facts, "item": row.meta["id"], "variant": vars(variant),
                "culture": groups.get(variant.persona, ""),
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
    """Return what the format moves, beside what people differ by where that is known."""
    items, _, table = table_of(records, lambda r: r["variant"])
    metrics: dict[str, Metric] = {"complete": Metric(value=float(len(items)), n=len({r["item"] for r in records}))}
    means = {r["item"]: r["means"] for r in records if r["means"]}
    columns = {}
    if table.shape[1] > 1 and len(items):
        columns["instability"] = table.std(axis=1)
    if means and all(item in means for item in items) and len(items):
        columns["yardstick"] = reliability.yardstick([list(means[item].values()) for item in items])
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


FACTOR_COLUMNS = (
    "factor", "levels", "items", "difference", "spread of means", "published form", "published p", "p", "p after Holm"
)  # fmt: skip
FACTOR_CAPTION = (
    "Answers from 0 to 1. Differences and p-values are paired by item. The published form depends on group sizes and "
    "on the zero of the scale, its p-value takes answers to one item for answers to any; both are for comparison."
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
        gap = published = published_p = None
        if len(levels) == 2:
            metrics[f"{factor}_effect"] = bootstrap.paired_difference(table[:, 1], table[:, 0])
            gap = abs(metrics[f"{factor}_effect"].value)
            published = reliability.weighted_mean_difference(groups[0], groups[1])
            published_p = reliability.unpaired(groups[0], groups[1], draws=499)
        spread = reliability.spread_of_means(groups)
        metrics[f"{factor}_spread"] = Metric(value=spread, n=len(items))
        found.append((factor, len(levels), len(items), gap, spread, published, published_p))
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


def preferences(records: Sequence[Record]) -> tuple[dict[str, Metric], dict[str, Table]]:
    """Return how far names are preferred where items choose between two; nothing where none do.

    Beside it, what one order of each pair would have said: there a liking for a place looks like one for a name.
    """
    trials = [(*r["pair"], 1 + r["value"]) for r in records if r["pair"] and r["value"] is not None]
    if not trials:
        return {}, {}
    names = list(dict.fromkeys(name for a, b, _ in trials for name in (a, b)))
    one = [trial for trial in trials if names.index(trial[0]) < names.index(trial[1])]
    both, single = cultures.preferences(trials, 2), cultures.preferences(one, 2)
    metrics = {
        "preference_spread": Metric(value=float(np.std(list(both.values()))), n=len(names)),
        "preference_spread_one_order": Metric(value=float(np.std(list(single.values()))), n=len(single)),
    }
    rows = tuple((name, round(both[name], 4), round(single[name], 4) if name in single else None) for name in names)
    columns = ("name", "preferred", "in one order of each pair")
    caption = "From 0, never, to 1, always; one half where there is no preference."
    return metrics, {"preferences": Table(columns=columns, rows=rows, caption=caption)}


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
            "label": ["formats", "people"], "y": [m.value for m in some.values()],
            "low": [m.value if m.low is None else m.low for m in some.values()],
            "high": [m.value if m.high is None else m.high for m in some.values()],
        }  # fmt: skip
        caption = "How far one item's answers lie apart over formats of the model, and over groups of people."
        figures["yardstick"] = Figure(
            kind="bars", series={"standard deviation": series}, y_label="of answers from 0 to 1", caption=caption
        )
    return figures
