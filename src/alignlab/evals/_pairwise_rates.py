"""The aggregations of a verdict table: AlpacaEval 2, MT-Bench, Arena-Hard; what the judge adds of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from alignlab.core.figures import bars
from alignlab.core.types import Metric, Result, Table
from alignlab.evals import _verdicts as verdicts
from alignlab.stats import bounds, bradley_terry, judge, length_control, proportion
from alignlab.stats.permutation import sign_flip

Record = Mapping[str, Any]
LengthControl = Literal["unpenalised", "cross_validated"]
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
    """Return all aggregations of the records; `before` gives paired changes of the win rate.

    Raises ValueError where all records are of gamed baselines.
    """
    gamed, records = [r for r in records if r.get("gamed")], [r for r in records if not r.get("gamed")]
    if not records:
        raise ValueError("pairwise: fact 'gamed' is true of every item; add the items of the model that is compared")
    metrics = win_rate(records)
    silence = [sum(verdicts.preference(g) is None for g in r["games"]) / len(r["games"]) for r in records]
    metrics["judge_missing"] = bounds.between(silence, silence, value=float(np.mean(silence)))
    metrics |= alpaca(records, gamed) | mt_bench(records) | arena(records) | faults(records)
    if any(record["right"] is not None for record in records):
        metrics["right"] = proportion.share(r["right"] == 1 for r in records if r["right"] is not None)
    if before is not None:
        metrics |= change(records, before)
    shown = [n for n in ("win_rate", "lc_win_rate", "mt_adjusted", "arena", "arena_style") if n in metrics]
    return Result(
        metrics=metrics,
        tables={"categories": categories(records), "verdicts": counts(records)},
        figures=bars("rates", {name: metrics[name] for name in shown}, "preferred over the baseline"),
        notes=notes(records, metrics),
    )


def notes(records: Sequence[Record], metrics: Mapping[str, Metric]) -> tuple[str, ...]:
    """Return what a reader must know: missing verdicts, kind of preference, a control that changes much."""
    found = []
    played = [game for record in records for game in record["games"]]
    missing = sum(verdicts.preference(game) is None for game in played)
    if missing:
        text = f"The judge gave no verdict in {missing} of {len(played)} games: intervals of rates hold whatever it had"
        text += " said; a p-value takes a missing verdict for a tie."
        rest = [name for name in ("consistency", "order_bias") if name in metrics]
        found.append(text + (f" Over items judged in both orders alone: {', '.join(rest)}." if rest else ""))
    if any(_setting(r, "protocol") == "alpaca_eval" and not r["same"] for r in records):
        soft = sum(game.get("p") is not None for game in played)
        found.append(
            f"AlpacaEval's preference is the judge's odds of the two letters in {soft} of {len(played)} games, and 0, "
            "1/2 or 1 in the others."
        )
    controlled = metrics.get("lc_win_rate")
    if controlled and length_control.changes_much(100 * metrics["win_rate"].value, 100 * controlled.value):
        found.append(
            f"The length-controlled win rate ({controlled.value:.1%}) is far from the raw one "
            f"({metrics['win_rate'].value:.1%}): this might be a failure of the fit."
        )
    return tuple(found)


def _setting(record: Record, name: str) -> str | None:
    return (record.get("settings") or {}).get(name)


def win_rate(records: Sequence[Record]) -> dict[str, Metric]:
    """Return the mean preference over games, in [0, 1], with an interval that holds for any missing verdicts."""
    given = [v for r in records for v in map(verdicts.preference, r["games"]) if v is not None]
    span, value = spans(records), float(np.mean(given)) if given else float("nan")
    return {"win_rate": bounds.between(span[:, 0], span[:, 1], value=value)}


def alpaca(records: Sequence[Record], gamed: Sequence[Record] = ()) -> dict[str, Metric]:
    """Return the discrete and the length-controlled win rate, in [0, 1].

    Where verdicts are missing, the ends of the length-controlled rate are of fits in which each of them pulls it down,
    and up. The interval keeps the penalty that was chosen. `gamed` are records of the baseline against itself.
    """
    span = spans(records)
    kept = [i for i, r in enumerate(records) if any(verdicts.preference(g) is not None for g in r["games"])]
    metrics: dict[str, Metric] = {}
    if not kept:
        return metrics
    given = np.array(
        [np.mean([v for v in map(verdicts.preference, records[i]["games"]) if v is not None]) for i in kept]
    )
    discrete = length_control.win_rate(given)[2] / 100
    ends = np.where(np.isclose(span, 0.5), 0.5, np.round(span))
    metrics["discrete_win_rate"] = bounds.between(ends[:, 0], ends[:, 1], value=discrete)
    chars, gamma = _chars(records), _difficulty(records)
    if len(kept) < ENOUGH or np.ptp(chars[:, 0] - chars[:, 1]) == 0:
        return metrics
    design = length_control.features(chars[kept, 1], chars[kept, 0], gamma[kept])
    told = _gamed(gamed)
    # by default without a penalty, as in the interval: on few items the penalised fit may shrink the rate to one half
    c = None
    if _setting(records[0], "length_control") == "cross_validated":
        c = length_control.chosen_penalty(given, design, gamed=told)
    form: Literal["fixed", "unpenalised"] = "unpenalised" if c is None else "fixed"
    fitted = length_control.fit(given, design, gamed=told, form=form, inverse_penalty=c or 1.0)
    rate = length_control.controlled(fitted, gamma[kept])[0] / 100
    sides = [span[:, 0]]
    if not np.array_equal(span[:, 0], span[:, 1]):
        at = np.stack([np.zeros(len(gamma)), gamma, np.ones(len(gamma))], axis=1)
        every = length_control.features(chars[:, 1], chars[:, 0], gamma)
        sides = list(length_control.extremes(span[:, 0], span[:, 1], every, at))
    intervals = [
        length_control.controlled_interval(
            side, chars[:, 1], chars[:, 0], gamma, inverse_penalty=c, gamed=told, draws=100
        )
        for side in sides
    ]
    low, high = intervals[0].low, intervals[-1].high
    metrics["lc_win_rate"] = Metric(
        value=rate, n=len(records), low=None if low is None else low / 100, high=None if high is None else high / 100
    )
    return metrics


def _chars(records: Sequence[Record]) -> NDArray[np.float64]:
    return np.array([r["chars"] for r in records], dtype=np.float64).reshape(-1, 2)


def _difficulty(records: Sequence[Record]) -> NDArray[np.float64]:
    return np.array([r["difficulty"] or 0.0 for r in records], dtype=np.float64)


def _gamed(records: Sequence[Record]) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Return preferences and features of the judged rows of gamed baselines, for `length_control.fit`."""
    span = spans(records)
    kept = [i for i in range(len(records)) if span[i, 0] == span[i, 1]]
    if not kept:
        return []
    some = [records[i] for i in kept]
    chars = _chars(some)
    return [(span[kept, 0], length_control.features(chars[:, 1], chars[:, 0], _difficulty(some), own=False))]


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
    metrics = {
        "mt_win": bounds.between(lows == 1, highs == 1, value=float((valid == 1).mean())),
        "mt_adjusted": bounds.between(lows, highs, value=float(valid.mean())),
    }
    # an item whose other game is known is dropped from the value and cannot be 0 or 1 in the ends: hold the value too
    return {
        name: replace(
            m, low=None if m.low is None else min(m.low, m.value), high=None if m.high is None else max(m.high, m.value)
        )
        for name, m in metrics.items()
    }


def arena(records: Sequence[Record]) -> dict[str, Metric]:
    """Return Arena-Hard's weighted mean, its Elo over the baseline (baseline 0), and the style-controlled rate.

    A missing verdict is filled in as a strong loss and as a strong win for the ends of the intervals.
    """
    owners: list[int] = []
    lows: list[float] = []
    highs: list[float] = []
    for i, record in enumerate(records):
        # a protocol without strong verdicts cannot have meant one
        copies = 1 if _setting(record, "protocol") in ("mt_bench", "alpaca_eval") else verdicts.STRONG
        for game in record["games"]:
            found = verdicts.entries(game)
            lows += found or [0.0] * copies
            highs += found or [1.0] * copies
            owners += [i] * (len(lows) - len(owners))
    given = [k for k in range(len(lows)) if lows[k] == highs[k]]
    if not given:
        return {}
    values = [lows[k] for k in given]
    mean = bounds.between(lows, highs, owners, value=float(np.mean(values)))
    elo = bradley_terry.fit(_games(values), anchor="baseline").elo(base=0.0)["model"]
    metrics = {"arena": mean, "arena_elo": Metric(value=elo, n=mean.n, low=_elo(mean.low), high=_elo(mean.high))}
    style = np.array([records[i]["style"] for i in owners], dtype=np.float64)
    style = style[:, np.ptp(style, axis=0) > 0]  # a deviation of equal numbers is 0 only up to rounding
    if not style.shape[1] or len({owners[k] for k in given}) < ENOUGH:
        return metrics
    # scaled and not centred, so that the rate is that at equal style; centred over one model's games it is the raw rate
    style = style / style.std(axis=0, ddof=1)
    sides = [lows]
    if lows != highs:
        design = np.column_stack([np.ones(len(style)), style])
        sides = [list(y) for y in length_control.extremes(lows, highs, design, np.eye(1, design.shape[1]))]
    ends = [bradley_terry.win_rate_interval(_games(y, style), "model", "baseline", clusters=owners) for y in sides]
    rate = bradley_terry.fit(_games(values, style[given]), anchor="baseline").win_rate("model", "baseline")
    metrics["arena_style"] = Metric(value=rate, n=len(owners), low=ends[0].low, high=ends[-1].high)
    return metrics


def _games(outcome: Sequence[float], features: NDArray[np.float64] | None = None) -> bradley_terry.Games:
    n = len(outcome)
    return bradley_terry.Games(left=["model"] * n, right=["baseline"] * n, outcome=outcome, features=features)


def _elo(rate: float | None) -> float | None:
    """Return the Elo points over the baseline that a win rate stands for; infinite at 0 and 1."""
    return None if rate is None else bradley_terry.ELO_PER_NAT * float(logit(rate))


def faults(records: Sequence[Record]) -> dict[str, Metric]:
    """Return the judge's consistency over orders and its order bias in nats, from items judged in both."""
    first, second = [], []
    for record in records:
        by_side = {g["model_first"]: verdicts.preference(g) for g in record["games"]}
        ahead, behind = by_side.get(True), by_side.get(False)
        if ahead is not None and behind is not None and not record["same"]:
            first.append(ahead)
            second.append(behind)
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
    found = bounds.between(new[:, 0] - earlier[:, 1], new[:, 1] - earlier[:, 0], value=float(middle.mean()), least=-1.0)
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
