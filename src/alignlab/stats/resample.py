"""Bootstraps of any statistic by cluster, hierarchical bootstraps, and cluster-robust standard errors.

`alignlab.stats.bootstrap` serves means; what is here serves whole fits and nested designs (Davison and Hinkley 1997,
section 3.8). Resampling every level adds the spread within to the spread between, so it is wider than drawing the
outermost clusters alone, which is enough where they are many (Ren et al. 2010).
"""

import math
from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t

from alignlab.core.types import Metric
from alignlab.stats.bootstrap import Values

Index = NDArray[np.int64]


def numbered(ids: Sequence[Hashable]) -> Index:
    """Return a number for each id, equal where ids are equal, counted from 0 in order of first sight."""
    rows: dict[Hashable, int] = {}
    return np.array([rows.setdefault(i, len(rows)) for i in ids], dtype=np.int64)


def statistic(
    estimate: Callable[[Index], float],
    clusters: Sequence[Hashable],
    *,
    level: float = 0.95,
    draws: int = 500,
    seed: int = 0,
) -> Metric:
    """Return estimate(all items) with its expanded percentile interval over resampled clusters.

    Resamples of m clusters spread less than samples do, by sqrt((m - 1) / m), and know no t distribution; the tails
    are moved out as far as would mend that for a mean (Hesterberg 2015, The American Statistician 69, 371-386).

    Args:
        estimate: takes the indices of the items drawn, repeated as often as drawn; NaN leaves a draw out.
        clusters: one id per item; pass `range(n)` for independent items.
        level: in (0, 1).
        draws: resamples.
        seed: of the draws.

    Raises:
        ValueError: level or draws out of range.
    """
    if not 0 < level < 1 or draws < 1:
        raise ValueError(f"bootstrap: level {level} must lie in (0, 1) and draws {draws} be positive")
    places = numbered(clusters)
    value = estimate(np.arange(len(places))) if len(places) else math.nan
    count = int(places.max()) + 1 if len(places) else 0
    if count < 2:
        return Metric(value=float(value), n=len(places))
    members = [np.flatnonzero(places == c) for c in range(count)]
    generator = np.random.default_rng(seed)
    drawn = []
    for _ in range(draws):
        chosen = generator.integers(count, size=count)
        drawn.append(float(estimate(np.concatenate([members[c] for c in chosen]))))
    kept = np.array([x for x in drawn if not math.isnan(x)])
    if not len(kept):
        return Metric(value=float(value), n=len(places))
    tail = float(norm.cdf(math.sqrt(count / (count - 1)) * t.ppf((1 - level) / 2, count - 1)))
    # the k-th of B draws stands for k / (B + 1): the usual rule would cut a tenth more off the tails of 300 draws
    low, high = np.quantile(kept, [tail, 1 - tail], method="weibull")
    return Metric(value=float(value), n=len(places), low=float(low), high=float(high))


def hierarchical(
    values: Values,
    levels: Sequence[Sequence[Hashable]],
    *,
    items: bool = True,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Metric:
    """Return the mean of values with a percentile interval over units drawn with replacement at every level.

    Args:
        values: [n].
        levels: ids of the units each value belongs to, outermost level first (model family, topic, question).
        items: also draw values within the innermost units.
        level: in (0, 1).
        draws: resamples.
        seed: of the draws.

    Raises:
        ValueError: NaN, or a level that has not one id per value.
    """
    x = np.asarray(values, dtype=np.float64)
    if np.isnan(x).any():
        raise ValueError("hierarchical bootstrap: a value is NaN; drop or score such items first")
    for number, ids in enumerate(levels):
        if len(ids) != len(x):
            raise ValueError(f"hierarchical bootstrap: level {number} has {len(ids)} ids for {len(x)} values")
    if not len(x):
        return Metric(value=math.nan, n=0)
    # a unit is the path down to it, so that equal names under two parents stay two units
    paths = [numbered(list(zip(*levels[: depth + 1]))) for depth in range(len(levels))]
    if items:
        paths.append(np.arange(len(x)))
    if not paths or int(paths[0].max()) == 0:
        return Metric(value=float(x.mean()), n=len(x))
    generator = np.random.default_rng(seed)
    weights = np.ones((draws, 1), dtype=np.int64)
    parents = np.zeros(len(x), dtype=np.int64)
    for path in paths:
        weights = _descend(weights, parents, path, generator)
        parents = path
    sums, sizes = np.bincount(parents, x), np.bincount(parents)
    means = (weights @ sums) / (weights @ sizes)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Metric(value=float(x.mean()), n=len(x), low=float(low), high=float(high))


def _descend(weights: Index, parents: Index, path: Index, generator: np.random.Generator) -> Index:
    """Return how often each unit of `path` is drawn, given how often its parent was: [draws, units].

    A parent drawn k times draws its m children anew each time: k * m draws with equal chances.
    """
    units = int(path.max()) + 1
    parent_of = np.zeros(units, dtype=np.int64)
    parent_of[path] = parents
    below = np.zeros((len(weights), units), dtype=np.int64)
    for parent in range(weights.shape[1]):
        children = np.flatnonzero(parent_of == parent)
        size = len(children)
        below[:, children] = generator.multinomial(weights[:, parent] * size, np.full(size, 1 / size))
    return below


def standard_error(values: Values, clusters: Sequence[Hashable] | None = None) -> float:
    """Return the standard error of the mean: s / sqrt(n), or with clusters sqrt(G / (G - 1) * sum_g e_g^2) / n.

    e_g is the sum of deviations from the mean in cluster g (Miller 2024, arXiv 2411.00640, with the factor for few
    clusters G). NaN for fewer than two values or clusters.
    """
    x = np.asarray(values, dtype=np.float64)
    places = np.arange(len(x)) if clusters is None else numbered(clusters)
    if len(places) != len(x):
        raise ValueError(f"standard_error: {len(places)} cluster ids for {len(x)} values; give one per value")
    count = int(places.max()) + 1 if len(x) else 0
    if count < 2:
        return math.nan
    sums = np.bincount(places, x - x.mean())
    return float(math.sqrt(count / (count - 1) * float((sums**2).sum())) / len(x))
