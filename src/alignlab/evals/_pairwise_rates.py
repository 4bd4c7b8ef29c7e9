"""The aggregations of a verdict table: AlpacaEval 2, MT-Bench, Arena-Hard; what the judge adds of its own."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignlab.core.types import Figure, Metric, Result, Table
from alignlab.evals import _verdicts as verdicts
from alignlab.stats import bootstrap, bradley_terry, judge, length_control
from alignlab.stats.permutation import sign_flip

Record = Mapping[str, Any]
ENOUGH = 10
"""verdicts below which no regression is fitted"""


def spans(records: Sequence[Record]) -> NDArray[np.float64]:
    """Return [items, 2]: each item's mean preference with its missing verdicts at 0, and at 1."""
    found = []
    for record in records:
        values = [verdicts.preference(game) for game in record["games"]]
        found.append([np.mean([fill if v is None else v for v in values]) for fill in (0.0, 1.0)])
    return np.array(found, dtype=np.float64).reshape(-1, 2)


def result(records: Sequence[Record], before: Sequence[Record] | None) -> Result:
    """Return all aggregations of the records; `before` gives paired changes of the win rate."""
    played = [game for record in records for game in record["games"]]
    given = [v for v in map(verdicts.preference, played) if v is not None]
    span = spans(records)
    value = float(np.mean(given)) if given else float("nan")
    metrics = {"win_rate": judge.between(span[:, 0], span[:, 1], value=value)}
    metrics["judge_missing"] = bootstrap.mean(
        [sum(verdicts.preference(g) is None for g in r["games"]) / len(r["games"]) for r in records]
    )
    metrics |= alpaca(records) | mt_bench(records) | arena(records) | faults(records)
    if any(record["right"] is not None for record in records):
        metrics["right"] = bootstrap.mean([float(r["right"]) for r in records if r["right"] is not None])
    if before is not None:
        metrics |= change(records, before)
    shown = [n for n in ("win_rate", "lc_win_rate", "mt_adjusted", "arena", "arena_style") if n in metrics]
    bars = {
        "label": shown,
        "y": [metrics[n].value for n in shown],
        "low": [_end(metrics[n].low, metrics[n].value) for n in shown],
        "high": [_end(metrics[n].high, metrics[n].value) for n in shown],
    }
    missing = sum(verdicts.preference(game) is None for game in played)
    notes = ()
    if missing:
        notes = (
            f"The judge gave no verdict in {missing} of {len(played)} games: intervals hold whatever it had said.",
        )
    return Result(
        metrics=metrics,
        tables={"categories": categories(records), "verdicts": counts(records)},
        figures={"rates": Figure(kind="bars", series={"rate": bars}, y_label="preferred over the baseline")},
        notes=notes,
    )


def _end(end: float | None, value: float) -> float:
    return value if end is None else end


def alpaca(records: Sequence[Record]) -> dict[str, Metric]:
    """Return the discrete and the length-controlled win rate, in [0, 1].

    Where verdicts are missing, the length-controlled rate is fitted with all of them at 0 and at 1 for its interval.
    """
    span = spans(records)
    kept = [i for i, r in enumerate(records) if any(verdicts.preference(g) is not None for g in r["games"])]
    metrics = {}
    if not kept:
        return metrics
    given = np.array(
        [np.mean([v for v in map(verdicts.preference, records[i]["games"]) if v is not None]) for i in kept]
    )
    discrete = length_control.win_rate(given)[2] / 100
    ends = np.where(np.isclose(span, 0.5), 0.5, np.round(span))
    metrics["discrete_win_rate"] = judge.between(ends[:, 0], ends[:, 1], value=discrete)
    chars = np.array([r["chars"] for r in records], dtype=np.float64)
    gamma = np.array([r["difficulty"] or 0.0 for r in records], dtype=np.float64)
    if len(kept) < ENOUGH or np.ptp(chars[:, 0] - chars[:, 1]) == 0:
        return metrics
    design = length_control.features(chars[kept, 1], chars[kept, 0], gamma[kept])
    # without a penalty, as the interval: on few items the published fit may shrink the rate to one half
    fitted = length_control.fit(given, design, form="unpenalised")
    rate = length_control.controlled(fitted, gamma[kept])[0] / 100
    sides = [span[:, 0]] if np.array_equal(span[:, 0], span[:, 1]) else [span[:, 0], span[:, 1]]
    intervals = [length_control.controlled_interval(s, chars[:, 1], chars[:, 0], gamma, draws=100) for s in sides]
    low, high = intervals[0].low, intervals[-1].high
    metrics["lc_win_rate"] = Metric(
        value=rate, n=len(records), low=None if low is None else low / 100, high=None if high is None else high / 100
    )
    return metrics


def mt_bench(records: Sequence[Record]) -> dict[str, Metric]:
    """Return MT-Bench's pairwise rates: a win needs both orders, ties count half in `adjusted`.

    The value drops items with a missing game, as published; the interval does not.
    """
    both = [r for r in records if len({g["model_first"] for g in r["games"]}) == 2]
    if not both:
        return {}
    found = [verdicts.settled(r["games"]) for r in both]
    ends = [
        [verdicts.settled([g if verdicts.preference(g) is not None else {"p": fill} for g in r["games"]]) for r in both]
        for fill in (0.0, 1.0)
    ]
    lows, highs = (np.array(side, dtype=np.float64) for side in ends)
    valid = np.array([v for v in found if v is not None], dtype=np.float64)
    if not len(valid):
        return {}
    return {
        "mt_win": judge.between(lows == 1, highs == 1, value=float((valid == 1).mean())),
        "mt_adjusted": judge.between(lows, highs, value=float(valid.mean())),
    }


def arena(records: Sequence[Record]) -> dict[str, Metric]:
    """Return Arena-Hard's weighted mean, its Elo over the baseline (baseline 0), and the style-controlled rate."""
    lists = [[entry for game in r["games"] for entry in verdicts.entries(game)] for r in records]
    values = [v for entries in lists for v in entries]
    owners = [i for i, entries in enumerate(lists) for _ in entries]
    if not values:
        return {}
    metrics = {"arena": bootstrap.mean(values, clusters=owners)}
    games = bradley_terry.Games(left=["model"] * len(values), right=["baseline"] * len(values), outcome=values)
    elo = bradley_terry.fit(games, anchor="baseline").elo(base=0.0)["model"]
    metrics["arena_elo"] = Metric(value=elo, n=len(values))
    table = np.array([records[i]["style"] for i in owners], dtype=np.float64)
    table = table[:, np.ptp(table, axis=0) > 0]  # a deviation of equal numbers is 0 only up to rounding
    if table.shape[1] and len(set(owners)) >= ENOUGH:
        # scaled and not centred, so that the rate is that at equal style
        styled = bradley_terry.Games(
            left=games.left, right=games.right, outcome=values, features=table / table.std(axis=0, ddof=1)
        )
        metrics["arena_style"] = bradley_terry.win_rate_interval(styled, "model", "baseline", clusters=owners)
    return metrics


def faults(records: Sequence[Record]) -> dict[str, Metric]:
    """Return the judge's consistency over orders and its order bias in nats, from items judged in both."""
    first, second = [], []
    for record in records:
        by_side = {g["model_first"]: verdicts.preference(g) for g in record["games"]}
        if by_side.get(True) is not None and by_side.get(False) is not None and not record["same"]:
            first.append(by_side[True])
            second.append(by_side[False])
    if len(first) < ENOUGH:
        return {}
    return {"consistency": judge.consistency(first, second), "order_bias": judge.order_bias(first, second)}


def change(records: Sequence[Record], before: Sequence[Record]) -> dict[str, Metric]:
    """Return the paired change of the win rate on items both runs have, and the p-value of the sign-flip test."""
    old = dict(zip([r["id"] for r in before], spans(before)))
    both = [(new, old[r["id"]]) for r, new in zip(records, spans(records)) if r["id"] in old]
    if not both:
        return {}
    new, earlier = (np.array(side) for side in zip(*both))
    middle = new.mean(axis=1) - earlier.mean(axis=1)
    found = judge.between(new[:, 0] - earlier[:, 1], new[:, 1] - earlier[:, 0], value=float(middle.mean()))
    p = sign_flip(new.mean(axis=1), earlier.mean(axis=1), draws=1999)
    return {"win_rate_change": found, "win_rate_change_p": Metric(value=p, n=len(both))}


def categories(records: Sequence[Record]) -> Table:
    """Return the win rate by category, with its bounds."""
    names = sorted({str(r["category"] or "all") for r in records})
    rows = []
    for name in names:
        some = [r for r in records if str(r["category"] or "all") == name]
        given = [v for r in some for g in r["games"] if (v := verdicts.preference(g)) is not None]
        low, high = spans(some).mean(axis=0)
        mean = round(float(np.mean(given)), 4) if given else None
        rows.append((name, len(some), mean, round(float(low), 4), round(float(high), 4)))
    caption = "`least` and `greatest`: with all missing verdicts against, and for, the model."
    return Table(columns=("category", "n", "win rate", "least", "greatest"), rows=tuple(rows), caption=caption)


def counts(records: Sequence[Record]) -> Table:
    """Return how often each verdict was given, by order."""
    rows = []
    for first in (True, False):
        games = [g for r in records for g in r["games"] if g["model_first"] is first]
        values = [verdicts.preference(g) for g in games]
        sides = [sum(v is not None and (v > 0.5) - (v < 0.5) == side for v in values) for side in (1, 0, -1)]
        rows.append(("model" if first else "baseline", len(games), *sides, sum(v is None for v in values)))
    return Table(columns=("first shown", "games", "win", "tie", "loss", "no verdict"), rows=tuple(rows))
