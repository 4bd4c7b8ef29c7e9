"""Intervals of a share of independent items: Wilson's for reports, Clopper and Pearson's where coverage must hold."""

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
