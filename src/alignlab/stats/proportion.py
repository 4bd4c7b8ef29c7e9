"""Intervals of a share of independent items, and of the difference of two.

Wilson's is for reports, Clopper and Pearson's where coverage must hold, Newcombe's (1998, method 10) for differences.
"""

import math
from collections.abc import Iterable
from typing import Literal

from statsmodels.stats.proportion import proportion_confint

from alignlab.core.types import Metric

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
