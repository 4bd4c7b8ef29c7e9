"""A trend over runs that come in groups: what changes with x inside the groups, not between them."""

import itertools
import math
from collections.abc import Hashable, Sequence

import numpy as np
import statsmodels.api as sm
from numpy.typing import NDArray

from alignlab.core.types import Metric

EXACT = 10_000
"""orders up to which all are tried"""


def within(
    x: Sequence[float], y: Sequence[float], groups: Sequence[Hashable] | None = None, *, level: float = 0.95
) -> Metric:
    """Return the slope of y on x with an intercept for each group (fixed effects), by least squares.

    Args:
        x: [n] what is varied.
        y: [n] what is measured.
        groups: one id per point; a single group without.
        level: of the t-interval.

    Returns:
        Slope in units of y per unit of x; `n` counts the points. NaN where x varies in no group; without an interval
        where no degree of freedom is left.

    Raises:
        ValueError: unequal lengths, no points, or values that are not finite.
    """
    across, measured, places = _checked(x, y, groups)
    inside = _centred(across, places)
    free = len(measured) - len(set(places)) - 1
    if not (inside @ inside) > 1e-12 * max(float(across @ across), 1e-300):
        return Metric(value=math.nan, n=len(measured))
    slope = float(inside @ measured / (inside @ inside))
    if free < 1:
        return Metric(value=slope, n=len(measured))
    dummies = np.equal.outer(places, np.unique(places)).astype(np.float64)
    low, high = sm.OLS(measured, np.column_stack([across, dummies])).fit().conf_int(1 - level)[0]
    return Metric(value=slope, n=len(measured), low=float(low), high=float(high))


def exchanged(
    x: Sequence[float],
    y: Sequence[float],
    groups: Sequence[Hashable] | None = None,
    *,
    draws: int = 9999,
    seed: int = 0,
) -> float:
    """Return the two-sided p-value of the slope within groups, had each group's x gone with its y in any order.

    Exact where there are at most `EXACT` orders, else by random ones with the observed one counted. Arguments and
    errors as of `within`.
    """
    across, measured, places = _checked(x, y, groups)
    inside = _centred(across, places)
    parts = [(inside[places == name], measured[places == name]) for name in np.unique(places)]
    observed = abs(float(inside @ measured)) - 1e-9 * max(1.0, abs(float(inside @ measured)))
    if math.prod(math.factorial(min(len(own), 20)) for own, _ in parts) <= EXACT:
        sums = [[float(np.dot(order, other)) for order in itertools.permutations(own)] for own, other in parts]
        reached = [abs(sum(some)) >= observed for some in itertools.product(*sums)]
        return sum(reached) / len(reached)
    draw, hits = np.random.default_rng(seed), 1
    for _ in range(draws):
        hits += abs(sum(float(draw.permutation(own) @ other) for own, other in parts)) >= observed
    return hits / (draws + 1)


def _checked(
    x: Sequence[float], y: Sequence[float], groups: Sequence[Hashable] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    across, measured = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    named = [0] * len(across) if groups is None else list(groups)
    if not len(across) or not len(across) == len(measured) == len(named):
        raise ValueError(f"trend: {len(across)} x, {len(measured)} y, {len(named)} groups; give one of each per point")
    if not (np.isfinite(across).all() and np.isfinite(measured).all()):
        raise ValueError("trend: x and y must be finite; drop such points first")
    order: dict[Hashable, int] = {}
    return across, measured, np.array([order.setdefault(name, len(order)) for name in named])


def _centred(values: NDArray[np.float64], places: NDArray[np.int64]) -> NDArray[np.float64]:
    means = np.bincount(places, weights=values) / np.bincount(places)
    return np.asarray(values - means[places])
