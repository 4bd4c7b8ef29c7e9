"""Intervals of a share, of independent items or of items in clusters, and of the difference of two.

Wilson's is for reports, Clopper and Pearson's where coverage must hold, Newcombe's (1998, method 10) for differences,
Korn and Graubard's effective sample size (1998, Survey Methodology 24) for clusters.
"""

import math
from collections.abc import Hashable, Iterable, Sequence
from typing import Literal

from scipy.stats import norm, t
from statsmodels.stats.proportion import proportion_confint

from alignlab.core.types import Metric
from alignlab.stats.resample import standard_error

Interval = tuple[float, float]


def _interval(successes: int, n: int, level: float, method: str) -> Interval:
    if not 0 <= successes <= n or n < 1 or not 0 < level < 1:
        raise ValueError(
            f"{successes} successes of {n} at level {level}: need 0 <= successes <= n, n >= 1, 0 < level < 1"
        )
    low, high = proportion_confint(successes, n, alpha=1 - level, method=method)
    return (float(low) if successes else 0.0), (float(high) if successes < n else 1.0)


def wilson(successes: int, n: int, level: float = 0.95) -> Interval:
    """Return Wilson's score interval: right on average, also near 0 and 1."""
    return _interval(successes, n, level, "wilson")


def clopper_pearson(successes: int, n: int, level: float = 0.95) -> Interval:
    """Return the exact interval: covers at least `level` of the time for every true share."""
    return _interval(successes, n, level, "beta")


def share(
    hits: Iterable[bool], *, level: float = 0.95, method: Literal["wilson", "clopper_pearson"] = "wilson"
) -> Metric:
    """Return the share of hits with its interval; NaN without items."""
    values = [bool(hit) for hit in hits]
    if not values:
        return Metric(value=math.nan, n=0)
    low, high = (wilson if method == "wilson" else clopper_pearson)(sum(values), len(values), level)
    return Metric(value=sum(values) / len(values), n=len(values), low=low, high=high)


def clustered(hits: Sequence[bool], clusters: Sequence[Hashable], *, level: float = 0.95) -> Metric:
    """Return the share of hits with Wilson's interval for as many items as the clusters are worth; NaN without items.

    A bootstrap of few clusters with rare hits is too short; this one is not. The items are worth
    n* = p (1 - p) / se^2 with the cluster-robust se of p, less what t has over z with one degree of freedom fewer than
    clusters; at most n, and as many as clusters where all hits are alike. One cluster alone has no interval.

    Args:
        hits: [n].
        clusters: one id per hit.
        level: in (0, 1).

    Raises:
        ValueError: another number of ids than hits, or a level out of range.
    """
    n, count = len(hits), len(set(clusters))
    if len(clusters) != n or not 0 < level < 1:
        raise ValueError(f"clustered share: {len(clusters)} cluster ids for {n} hits, level {level}: one id per hit")
    if not n:
        return Metric(value=math.nan, n=0)
    p = sum(map(bool, hits)) / n
    if count < 2:
        return Metric(value=p, n=n)
    error, z = standard_error([float(hit) for hit in hits], clusters), float(norm.ppf((1 + level) / 2))
    worth = p * (1 - p) / error**2 * (z / float(t.ppf((1 + level) / 2, count - 1))) ** 2 if error > 0 else float(count)
    worth = min(worth, float(n))
    middle = (p + z**2 / (2 * worth)) / (1 + z**2 / worth)
    half = z / (1 + z**2 / worth) * math.sqrt(p * (1 - p) / worth + z**2 / (4 * worth**2))
    # 0 and 1 as they are, not but for a rounding
    return Metric(
        value=p, n=n, low=max(0.0, middle - half) if p > 0 else 0.0, high=min(1.0, middle + half) if p < 1 else 1.0
    )


def difference(first: tuple[int, int], second: tuple[int, int], *, level: float = 0.95) -> Metric:
    """Return share(first) - share(second) of two independent samples with Newcombe's interval from Wilson's parts.

    Args:
        first: (successes, n).
        second: (successes, n).
        level: in (0, 1).

    Returns:
        The difference; `n` counts both samples. NaN where one of them is empty.
    """
    total = first[1] + second[1]
    if not (first[1] and second[1]):
        return Metric(value=math.nan, n=total)
    p, q = first[0] / first[1], second[0] / second[1]
    (p_low, p_high), (q_low, q_high) = wilson(*first, level), wilson(*second, level)
    return Metric(
        value=p - q,
        n=total,
        low=p - q - math.hypot(p - p_low, q_high - q),
        high=p - q + math.hypot(p_high - p, q - q_low),
    )
