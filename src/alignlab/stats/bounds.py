"""Shares, means and contrasts of repeated answers, some of them missing: intervals that hold whatever those had been.

Answers to one scenario count as one cluster; of some ten clusters a bootstrap is too short, so ends are from the t
distribution. Where nothing varies they are Wilson's for as many items as there are clusters, put together for a
difference as Newcombe does (1998, method 10), for more means as Zou and Donner do (2008, Statistics in Medicine 27).
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t

from alignlab.core.types import Metric
from alignlab.stats import proportion, resample

Value = float | bool | None
Values = NDArray[np.float64]
Ends = tuple[float | None, float | None]
FEWEST = 5
"""clusters below which their spread says nothing"""
_ALIKE = 0.005
"""half a width below which answers count as alike: of many clusters Wilson's ends are as close, of few they are due"""


@dataclass(frozen=True, kw_only=True)
class Side:
    """One mean of a contrast."""

    values: Sequence[Value]
    """in [0, 1], None where missing"""
    clusters: Sequence[Hashable]
    """one id per value"""
    weight: float = 1.0


def share(hits: Sequence[bool | None], clusters: Sequence[Hashable], *, level: float = 0.95) -> Metric:
    """Return the share of hits among known answers with Wilson's interval by cluster, whatever missing ones had been.

    Args:
        hits: [n], None where missing.
        clusters: one id per hit; one cluster alone has only the bounds of what is missing.
        level: in (0, 1).

    Returns:
        `n` counts all answers; the value is NaN where none is known.
    """
    known = [hit for hit in hits if hit is not None]
    filled = [[blank if hit is None else hit for hit in hits] for blank in (False, True)]
    least, most = (proportion.clustered(side, clusters, level=level) for side in filled)
    low, high = least.low, most.high
    if low is None and len(known) < len(hits):
        low, high = least.value, most.value
    return Metric(value=sum(known) / len(known) if known else math.nan, n=len(hits), low=low, high=high)


def mean(values: Sequence[Value], clusters: Sequence[Hashable]) -> Metric:
    """Return the mean of the known values, in [0, 1]; see `contrast`."""
    return contrast([Side(values=values, clusters=clusters)])


def change(new: Sequence[Value], old: Sequence[Value], clusters: Sequence[Hashable]) -> Metric:
    """Return mean(new - old) over answers known both times, with an interval that holds for all; see `contrast`."""
    found = contrast([Side(values=new, clusters=clusters), Side(values=old, clusters=clusters, weight=-1.0)])
    gaps = [float(a) - float(b) for a, b in zip(new, old, strict=True) if a is not None and b is not None]
    return Metric(value=sum(gaps) / len(gaps) if gaps else math.nan, n=len(new), low=found.low, high=found.high)


def contrast(sides: Sequence[Side]) -> Metric:
    """Return the sum of weight * mean(known values), with an interval that holds whatever the missing ones had been.

    The lower end is that of the least sum which the missing ones allow, the upper end that of the greatest (Manski
    1990). Clusters are independent, answers within them need not be: t-interval with a cluster-robust standard error,
    cut at the ends of the scale; independent yes or no answers have Newcombe's.

    Returns:
        `n` counts all answers; NaN where no answer of a side is known. Without missing ones a single cluster has no
        interval; where a side has no answers at all nothing has.
    """
    n = sum(len(side.values) for side in sides)
    if not all(len(side.values) for side in sides):
        return Metric(value=math.nan, n=n)
    known = [[float(v) for v in side.values if v is not None] for side in sides]
    value = sum(s.weight * sum(k) / len(k) for s, k in zip(sides, known)) if all(known) else math.nan
    low, high = _interval(sides, _filled(sides, upper=False), _filled(sides, upper=True))
    return Metric(value=value, n=n, low=low, high=high)


def between(
    lows: ArrayLike,
    highs: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    *,
    value: float,
    least: float = 0.0,
    most: float = 1.0,
) -> Metric:
    """Return `value` with an interval of a mean of numbers known to lie between `lows` and `highs`; see `contrast`.

    Args:
        lows: [n] the least that each number may be.
        highs: [n] the greatest; equal to `lows` where it is known.
        clusters: one id per number; each for itself without.
        value: what is reported, e.g. the mean of what is known.
        least: lower end of the scale.
        most: upper end of the scale.
    """
    scaled = [(np.asarray(side, dtype=np.float64) - least) / (most - least) for side in (lows, highs)]
    n = len(scaled[0])
    if not n:
        return Metric(value=value, n=0)
    side = Side(values=(), clusters=range(n) if clusters is None else clusters, weight=most - least)
    ends = [None if end is None else least + end for end in _interval([side], scaled[:1], scaled[1:])]
    return Metric(value=value, n=n, low=ends[0], high=ends[1])


def _interval(sides: Sequence[Side], least: Sequence[Values], most: Sequence[Values]) -> Ends:
    low, high = _ends(sides, least)[0], _ends(sides, most)[1]
    if low is None and any((a != b).any() for a, b in zip(least, most)):
        return _sum(sides, least), _sum(sides, most)  # one cluster has no spread, but the gap is known
    return low, high


def _filled(sides: Sequence[Side], *, upper: bool) -> list[Values]:
    """Return the values with what is missing at the end of [0, 1] that makes the sum greatest, or least."""
    return [np.array([float(upper == (s.weight > 0)) if v is None else v for v in s.values], float) for s in sides]


def _sum(sides: Sequence[Side], values: Sequence[Values]) -> float:
    return float(sum(side.weight * x.mean() for side, x in zip(sides, values)))


def _ends(sides: Sequence[Side], values: Sequence[Values]) -> Ends:
    ids = [i for side in sides for i in side.clusters]
    count = len(set(ids))
    if count < 2:
        return None, None
    if count == len(ids) and all(np.isin(x, (0, 1)).all() for x in values):
        return _wilson_ends(sides, values)
    # residuals of all sides as one series, whose mean is 0 and whose error is that of the sum
    apart = np.concatenate([s.weight * (x - x.mean()) * len(ids) / len(x) for s, x in zip(sides, values)])
    half = float(t.ppf(0.975, count - 1)) * resample.standard_error(apart, ids)
    if half < _ALIKE:
        return _wilson_ends(sides, values)
    middle, weights = _sum(sides, values), [side.weight for side in sides]
    return max(middle - half, sum(min(w, 0.0) for w in weights)), min(middle + half, sum(max(w, 0.0) for w in weights))


def _wilson_ends(sides: Sequence[Side], values: Sequence[Values]) -> tuple[float, float]:
    """Return sum - sqrt(sum of squared lower arms), sum + sqrt(sum of squared upper arms), sides independent."""
    down = up = 0.0
    for side, x in zip(sides, values):
        count, p = len(set(side.clusters)), float(x.mean())
        low, high = proportion.wilson(round(p * count), count)
        arms = sorted((side.weight * (min(low, p) - p), side.weight * (max(high, p) - p)))
        down, up = math.hypot(down, arms[0]), math.hypot(up, arms[1])
    middle = _sum(sides, values)
    return middle - down, middle + up
