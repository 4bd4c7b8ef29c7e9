"""Bootstrap intervals of means, their differences and their linear combinations, by cluster.

Items that share a subject, a question or a seed are not independent: whole clusters are drawn with replacement (Davison
and Hinkley 1997, section 3.8). The BCa interval is Efron 1987, with the acceleration from the jackknife over clusters.
Where every value is equal a bootstrap interval has no width: for shares near 0 or 1 see `alignlab.stats.proportion`.
"""

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from alignlab.core.types import Metric

Values = Sequence[float] | NDArray[np.floating] | NDArray[np.bool_] | NDArray[np.integer]
Method = Literal["bca", "percentile"]
CHUNK = 2_000_000
"""draws times clusters held at once"""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One mean of a linear combination: `weight` times the mean of `values`, whose items belong to `clusters`."""

    values: Values
    weight: float = 1.0
    clusters: Sequence[Hashable] | None = None
    """one id per value; None makes each position a cluster of its own, shared with other parts by position"""


def mean(
    values: Values,
    *,
    clusters: Sequence[Hashable] | None = None,
    method: Method = "bca",
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Metric:
    """Return the mean with its interval; NaN without values. Raises ValueError for a NaN or a wrong length."""
    part = Part(values=values, clusters=clusters)
    return combination([part], method=method, level=level, draws=draws, seed=seed)


def means(
    columns: Mapping[str, Values],
    *,
    clusters: Sequence[Hashable] | None = None,
    method: Method = "bca",
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> dict[str, Metric]:
    """Return name -> mean with its interval, as `mean` gives each; all columns share their draws, which is quicker.

    Raises ValueError for a NaN or columns of different lengths.
    """
    if not columns:
        return {}
    if len({len(values) for values in columns.values()}) != 1:
        raise ValueError("bootstrap: columns of different lengths; give one value per item and column")
    n = len(next(iter(columns.values())))
    if not n:
        return {name: Metric(value=math.nan, n=0) for name in columns}
    sums, sizes = _by_cluster([Part(values=values, clusters=clusters) for values in columns.values()])
    points = sums.sum(0) / sizes.sum(0)
    if len(sums) < 2:
        return {name: Metric(value=float(value), n=n) for name, value in zip(columns, points)}
    one = np.array([1.0])
    drawn = np.concatenate([(w @ sums) / (w @ sizes) for w in _weights(len(sums), draws, seed)])
    found = {}
    for i, name in enumerate(columns):
        tails = np.array([(1 - level) / 2, (1 + level) / 2])
        if method == "bca":
            left_out = _estimates((sums.sum(0) - sums)[:, [i]], (sizes.sum(0) - sizes)[:, [i]], one)
            tails = _bca(tails, float(points[i]), drawn[:, i], left_out)
        low, high = np.quantile(drawn[:, i], tails)
        found[name] = Metric(value=float(points[i]), n=n, low=float(low), high=float(high))
    return found


def ratios(
    num: NDArray[np.float64],
    den: NDArray[np.float64],
    wanted: Mapping[str, Sequence[float]],
    *,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> dict[str, Metric]:
    """Return name -> sum over columns of weight * sum(num) / sum(den), with the BCa interval over items.

    Args:
        num: [items, columns].
        den: [items, columns], >= 0. A draw in which a column that is wanted adds up to 0 is left out.
        wanted: name -> weight of each column.
        level: of the intervals.
        draws: shared by all names.
        seed: of the draws.
    """
    mixes = {name: np.array(weights, dtype=np.float64) for name, weights in wanted.items()}
    drawn = [(w @ num, w @ den) for w in _weights(len(num), draws, seed)] if mixes and len(num) > 1 else []
    found = {}
    for name, weights in mixes.items():
        used = np.flatnonzero(weights)
        mix = weights[used]
        point = float(_estimates(num.sum(0)[used], den.sum(0)[used], mix))
        found[name] = Metric(value=point, n=len(num))
        values = np.concatenate([_estimates(n[:, used], d[:, used], mix) for n, d in drawn] or [np.empty(0)])
        values = values[~np.isnan(values)]
        if len(values):
            left_out = _estimates((num.sum(0) - num)[:, used], (den.sum(0) - den)[:, used], mix)
            low, high = np.quantile(values, _bca(np.array([1 - level, 1 + level]) / 2, point, values, left_out))
            found[name] = Metric(value=point, n=len(num), low=float(low), high=float(high))
    return found


def paired_difference(
    left: Values,
    right: Values,
    *,
    clusters: Sequence[Hashable] | None = None,
    method: Method = "bca",
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Metric:
    """Return mean(left - right) over items measured twice, with its interval."""
    if len(left) != len(right):
        raise ValueError(f"paired_difference: {len(left)} values against {len(right)}; pair the same items in order")
    gaps = np.asarray(left, dtype=np.float64) - np.asarray(right, dtype=np.float64)
    return mean(gaps, clusters=clusters, method=method, level=level, draws=draws, seed=seed)


def combination(
    parts: Sequence[Part], *, method: Method = "bca", level: float = 0.95, draws: int = 2000, seed: int = 0
) -> Metric:
    """Return sum over parts of weight * mean(values), clusters drawn jointly over all parts.

    For J = ES - mean over ratios of ASR, give ES with weight 1 and each ratio with weight -1 / ratios, and the items'
    subjects as clusters. `n` counts the items of all parts. A draw in which some part has no item is left out.
    """
    if not 0 < level < 1 or draws < 1:
        raise ValueError(f"bootstrap: level {level} must lie in (0, 1) and draws {draws} be positive")
    n = sum(len(part.values) for part in parts)
    if not parts or any(len(part.values) == 0 for part in parts):
        return Metric(value=math.nan, n=n)
    sums, sizes = _by_cluster(parts)
    weights = np.array([part.weight for part in parts], dtype=np.float64)
    value = float((sums.sum(0) / sizes.sum(0)) @ weights)
    drawn = np.concatenate([_estimates(w @ sums, w @ sizes, weights) for w in _weights(len(sums), draws, seed)])
    drawn = drawn[~np.isnan(drawn)]
    if len(sums) < 2 or not len(drawn):
        return Metric(value=value, n=n)  # one cluster says nothing about the spread between clusters
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    if method == "bca":
        tails = _bca(tails, value, drawn, _estimates(sums.sum(0) - sums, sizes.sum(0) - sizes, weights))
    low, high = np.quantile(drawn, tails)
    return Metric(value=value, n=n, low=float(low), high=float(high))


def _by_cluster(parts: Sequence[Part]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the sum and the number of values, [clusters, parts] each."""
    rows: dict[Hashable, int] = {}
    places: list[NDArray[np.int64]] = []
    for part in parts:
        ids: Sequence[Hashable] = range(len(part.values)) if part.clusters is None else part.clusters
        if len(ids) != len(part.values):
            raise ValueError(f"bootstrap: {len(ids)} cluster ids for {len(part.values)} values; give one per value")
        places.append(np.array([rows.setdefault(i, len(rows)) for i in ids], dtype=np.int64))
    sums, sizes = np.zeros((len(rows), len(parts))), np.zeros((len(rows), len(parts)))
    for column, (part, place) in enumerate(zip(parts, places)):
        values = np.asarray(part.values, dtype=np.float64)
        if np.isnan(values).any():
            raise ValueError(f"bootstrap: part {column} holds NaN; drop or score such items first")
        sums[:, column] = np.bincount(place, values, len(rows))
        sizes[:, column] = np.bincount(place, minlength=len(rows))
    return sums, sizes


def _weights(clusters: int, draws: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Yield how often each cluster is drawn, [some draws, clusters]."""
    generator = np.random.default_rng(seed)
    step = max(1, CHUNK // clusters)
    for start in range(0, draws, step):
        size = min(step, draws - start)
        yield generator.multinomial(clusters, np.full(clusters, 1 / clusters), size=size).astype(np.float64)


def _estimates(
    sums: NDArray[np.float64], sizes: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(sizes > 0, sums / sizes, np.nan) @ weights)


def _bca(
    tails: NDArray[np.float64], value: float, drawn: NDArray[np.float64], jackknife: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Shift the tails for bias and skewness; ties count half, as for a discrete statistic."""
    close = np.isclose(drawn, value, rtol=1e-9, atol=1e-12)
    below = (np.mean((drawn < value) & ~close) + np.mean(close) / 2).clip(0.5 / len(drawn), 1 - 0.5 / len(drawn))
    gaps = jackknife[~np.isnan(jackknife)]
    gaps = gaps.mean() - gaps if len(gaps) else gaps
    spread = float(np.sum(gaps**2)) ** 1.5
    acceleration = float(np.sum(gaps**3)) / (6 * spread) if spread > 0 else 0.0
    bias = norm.ppf(below)
    shifted = bias + norm.ppf(tails)
    return np.asarray(norm.cdf(bias + shifted / (1 - acceleration * shifted)))
