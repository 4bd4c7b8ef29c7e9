"""Agreement of several raters on ordered or named labels: Krippendorff's alpha (2011), with a bootstrap interval."""

import math
from collections.abc import Hashable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from alignlab.core.types import Metric
from alignlab.stats.resample import Index, statistic

Level = Literal["nominal", "ordinal", "interval"]


def _distances(counts: NDArray[np.float64], values: NDArray[np.float64], level: Level) -> NDArray[np.float64]:
    """Return the squared distance of every two values, [values, values]."""
    if level == "nominal":
        return np.asarray(values[:, None] != values[None, :], dtype=np.float64)
    if level == "interval":
        return np.asarray((values[:, None] - values[None, :]) ** 2)
    # ranks: all marks between two values, and half of those on them
    middle = np.cumsum(counts) - counts / 2
    return np.asarray((middle[:, None] - middle[None, :]) ** 2)


def _alpha(table: NDArray[np.float64], level: Level) -> float:
    known = ~np.isnan(table)
    paired = known.sum(axis=1) >= 2
    table, known = table[paired], known[paired]
    if not len(table):
        return math.nan
    values = np.unique(table[known])
    marks = np.stack([((table == v) & known).sum(axis=1) for v in values], axis=1).astype(np.float64)
    sizes = marks.sum(axis=1)
    together = (marks[:, :, None] * marks[:, None, :] / (sizes - 1)[:, None, None]).sum(axis=0)
    together -= np.diag((marks / (sizes - 1)[:, None]).sum(axis=0))
    counts = together.sum(axis=0)
    far = _distances(counts, values, level)
    expected = float(counts @ far @ counts - 0.0) / (counts.sum() - 1)
    return math.nan if expected <= 0 else 1 - float((together * far).sum()) / expected


def alpha(
    ratings: Sequence[Sequence[float | None]],
    *,
    level: Level = "ordinal",
    clusters: Sequence[Hashable] | None = None,
    draws: int = 500,
    seed: int = 0,
) -> Metric:
    """Return alpha = 1 - observed / expected disagreement: 1 for full agreement, 0 for chance, below it for less.

    Args:
        ratings: [units, raters], None where a rater gave none; units with fewer than two are left out.
        level: `nominal` labels, `ordinal` ranks, or `interval` numbers.
        clusters: one id per unit, drawn as a whole; default: each unit its own.
        draws: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        NaN where no two ratings meet, or all are one value: there is nothing to agree beyond chance about.

    Raises:
        ValueError: units with different numbers of raters.
    """
    if len({len(unit) for unit in ratings}) > 1:
        raise ValueError("alpha: every unit needs one entry per rater; None where one gave no rating")
    table = np.array([[math.nan if x is None else float(x) for x in unit] for unit in ratings], dtype=np.float64)
    if not table.size:
        return Metric(value=math.nan, n=0)

    def estimate(index: Index) -> float:
        return _alpha(table[index], level)

    return statistic(estimate, range(len(table)) if clusters is None else clusters, draws=draws, seed=seed)
