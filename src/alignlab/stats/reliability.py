"""Is a measurement stable? Effects of irrelevant factors, shares of variance, dependability, and rows that must differ.

Format effects and their published forms follow Khan et al. 2025 (arXiv 2503.08688); components and dependability are
those of generalisability theory (Shavelson and Webb 1991) for items crossed with conditions.
"""

import itertools
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from alignlab.stats.resample import numbered

Vector = NDArray[np.float64]


def _vector(values: ArrayLike, name: str) -> Vector:
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 1 or not len(found) or np.isnan(found).any():
        raise ValueError(f"{name}: expected at least one number and no NaN, got shape {found.shape}")
    return found


def mean_difference(a: ArrayLike, b: ArrayLike) -> float:
    """Return |mean(a) - mean(b)|, in the ratings' unit."""
    return float(abs(_vector(a, "mean_difference").mean() - _vector(b, "mean_difference").mean()))


def weighted_mean_difference(a: ArrayLike, b: ArrayLike) -> float:
    """Return |n_a/n mean(a) - n_b/n mean(b)|, the published statistic.

    Half of the mean difference for groups of one size; with others it moves with the zero of the scale, so it is here
    to compare with what was published, and not to be read.
    """
    x, y = _vector(a, "weighted_mean_difference"), _vector(b, "weighted_mean_difference")
    return float(abs(x.sum() - y.sum()) / (len(x) + len(y)))


def spread_of_means(groups: Sequence[ArrayLike]) -> float:
    """Return the standard deviation of the groups' means around the mean of all, each weighing by its size."""
    rows = [_vector(group, "spread_of_means") for group in groups]
    sizes = np.array([len(row) for row in rows], dtype=np.float64)
    means = np.array([row.mean() for row in rows])
    weights = sizes / sizes.sum()
    return float(math.sqrt(weights @ (means - weights @ means) ** 2))


def unpaired(a: ArrayLike, b: ArrayLike, *, draws: int = 9999, seed: int = 0) -> float:
    """Return the p-value of the mean difference with ratings shuffled over both groups, as published.

    Exact where there are at most `draws` splits, else random ones with the observed one counted. Items asked under
    both conditions are better served by `alignlab.stats.permutation`, which shuffles within items.
    """
    x, y = _vector(a, "unpaired"), _vector(b, "unpaired")
    pool, observed = np.concatenate([x, y]), mean_difference(x, y)
    total = pool.sum()

    def reached(sums: Vector) -> NDArray[np.bool_]:
        gaps = np.abs(sums / len(x) - (total - sums) / len(y))
        return np.asarray(gaps >= observed - 1e-12)

    if math.comb(len(pool), len(x)) <= draws:
        splits = np.array(list(itertools.combinations(range(len(pool)), len(x))))
        return float(reached(pool[splits].sum(axis=1)).mean())
    generator = np.random.default_rng(seed)
    sums = np.array([generator.permutation(pool)[: len(x)].sum() for _ in range(draws)])
    return float((1 + reached(sums).sum()) / (1 + draws))


def variance_shares(ratings: ArrayLike, factors: Mapping[str, Sequence[Hashable]]) -> dict[str, float]:
    """Return the shares of the ratings' variance by factor, by pair of factors (`a:b`), and the `rest`; sum 1.

    Sums of squares of means around the grand mean, exact where every combination is asked equally often. All NaN
    where the ratings do not vary.

    Raises:
        ValueError: a factor without one level per rating.
    """
    y = _vector(ratings, "variance_shares")
    codes = {}
    for name, levels in factors.items():
        if len(levels) != len(y):
            raise ValueError(f"variance_shares: factor {name} has {len(levels)} levels for {len(y)} ratings")
        codes[name] = numbered(levels)
    total = float(((y - y.mean()) ** 2).sum())
    names = [*codes, *(f"{a}:{b}" for a, b in itertools.combinations(codes, 2)), "rest"]
    if total <= 1e-15:
        return dict.fromkeys(names, math.nan)
    found = {name: _between(y, code) for name, code in codes.items()}
    for a, b in itertools.combinations(codes, 2):
        both = codes[a] * (int(codes[b].max()) + 1) + codes[b]
        found[f"{a}:{b}"] = max(0.0, _between(y, both) - found[a] - found[b])
    found["rest"] = max(0.0, total - sum(found.values()))
    whole = sum(found.values())
    return {name: found[name] / whole for name in names}


def _between(y: Vector, code: NDArray[np.int64]) -> float:
    sums, sizes = np.bincount(code, y), np.bincount(code)
    kept = sizes > 0
    return float((sizes[kept] * (sums[kept] / sizes[kept] - y.mean()) ** 2).sum())


@dataclass(frozen=True, kw_only=True)
class Components:
    """Variance components of items crossed with conditions, unbiased estimates cut at 0."""

    item: float
    condition: float
    rest: float
    """their interaction, with whatever else"""

    def dependability(self, conditions: int = 1) -> float:
        """Return how far an item's mean over so many conditions is the item's own, in [0, 1]; NaN without variance."""
        error = (self.condition + self.rest) / conditions
        return self.item / (self.item + error) if self.item + error > 0 else math.nan

    def needed(self, wanted: float = 0.8) -> float:
        """Return the number of conditions for this dependability; infinite where items do not differ."""
        if not 0 < wanted < 1:
            raise ValueError(f"needed: dependability {wanted} must lie in (0, 1)")
        error = self.condition + self.rest
        if error <= 0:
            return 1.0 if self.item > 0 else math.inf
        return math.inf if self.item <= 0 else max(1.0, math.ceil(wanted / (1 - wanted) * error / self.item - 1e-9))


def components(table: ArrayLike) -> Components:
    """Return the variance components of ratings [items, conditions]; ValueError for fewer than 2 of either, or NaN."""
    x = np.asarray(table, dtype=np.float64)
    if x.ndim != 2 or min(x.shape) < 2 or np.isnan(x).any():
        raise ValueError(f"components: expected [items >= 2, conditions >= 2] without NaN, got shape {x.shape}")
    n, k = x.shape
    rows, columns, grand = x.mean(axis=1), x.mean(axis=0), x.mean()
    within = x - rows[:, None] - columns[None] + grand
    item = k * float(((rows - grand) ** 2).sum()) / (n - 1)
    condition = n * float(((columns - grand) ** 2).sum()) / (k - 1)
    rest = float((within**2).sum()) / ((n - 1) * (k - 1))
    return Components(item=max(0.0, (item - rest) / k), condition=max(0.0, (condition - rest) / n), rest=rest)


def yardstick(means: ArrayLike) -> Vector:
    """Return each item's population standard deviation over cultures, [items] from means [items, cultures]."""
    return np.asarray(np.std(np.asarray(means, dtype=np.float64), axis=1))


def dispersion(rows: ArrayLike) -> float:
    """Return the mean Euclidean distance between two different rows of [rows, items]; NaN for fewer than two."""
    x = np.asarray(rows, dtype=np.float64)
    if len(x) < 2:
        return math.nan
    gaps = np.sqrt(((x[:, None] - x[None]) ** 2).sum(axis=2))
    return float(gaps.sum() / (len(x) * (len(x) - 1)))


def percentile(human: float, rows: ArrayLike, size: int, *, draws: int = 2000, seed: int = 0) -> float:
    """Return the share of random draws of `size` rows whose dispersion lies below the human one."""
    x = np.asarray(rows, dtype=np.float64)
    if not 2 <= size <= len(x):
        raise ValueError(f"percentile: cannot draw {size} of {len(x)} rows; expected between 2 and all")
    generator = np.random.default_rng(seed)
    drawn = [dispersion(x[generator.choice(len(x), size=size, replace=False)]) for _ in range(draws)]
    return float(np.mean([d < human for d in drawn]))


def nearest(rows: ArrayLike, humans: ArrayLike) -> NDArray[np.int64]:
    """Return for each row of [rows, items] which human row [cultures, items] lies nearest."""
    x, h = np.asarray(rows, dtype=np.float64), np.asarray(humans, dtype=np.float64)
    return np.asarray(((x[:, None] - h[None]) ** 2).sum(axis=2).argmin(axis=1))
