"""What unread claims allow: the least and the greatest of a number over every claim that they might have been.

Index, correlation and AUC have theirs in `alignlab.stats.claims`; here are the association of a table with some
claims not placed, and the interval that holds for the least as for the greatest.
"""

import itertools
from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from alignlab.core.types import Metric
from alignlab.stats import resample
from alignlab.stats.exact import cramers_v

Floats = NDArray[np.float64]
Range = Callable[[NDArray[np.int64]], tuple[float, float]]
DRAWS = 300
STEPS = 40
"""of the descent to the least association"""


def spanned(of: Range, scenes: Sequence[Hashable], *, value: float, missing: bool) -> Metric:
    """Return `value` with the lower end of the least and the upper end of the greatest.

    Args:
        of: takes the indices of the items drawn, returns the least and the greatest.
        scenes: [n] id of each item's scene; whole scenes are drawn.
        value: what is reported.
        missing: whether anything is unread; if not, the least is the greatest and is drawn once.
    """
    found: list[tuple[float, float]] = []

    def first(index: NDArray[np.int64]) -> float:
        found.append(of(index))
        return found[-1][0]

    least = most = resample.statistic(first, scenes, draws=DRAWS)
    if missing:
        again = iter(found)  # equal seeds draw the same scenes in the same order
        most = resample.statistic(lambda _: next(again)[1], scenes, draws=DRAWS)
    return Metric(value=value, n=len(scenes), low=least.low, high=most.high)


def v_range(counts: Floats, unread: Floats) -> tuple[float, float]:
    """Return bounds of Cramer's V of state x claim over all claims that the unread ones might have been.

    With row sums given, chi-square / n is convex in the cells (each is a square over a sum of cells). So the greatest V
    is found where the unread claims of each state are all of one kind, and is exact. The least is bounded from below by
    the tangent at a point near it (duality gap of Frank and Wolfe 1956), split as evenly as may be.

    Args:
        counts: [3, 3] states x claims.
        unread: [3] claims of each state that nobody read.
    """
    if not unread.any():
        value = float(cramers_v(counts))
        return value, value
    kinds = np.eye(counts.shape[1])
    ends = np.array([kinds[list(c)] for c in itertools.product(range(len(kinds)), repeat=len(counts))])
    most = float(cramers_v(counts + unread[:, None] * ends).max())
    rows = counts.sum(1) + unread
    counts, unread, rows = counts[rows > 0], unread[rows > 0], rows[rows > 0]
    if len(rows) < 2:
        return 0.0, most
    columns = counts.sum(0) + 1
    cells, least = counts + unread[:, None] * columns / columns.sum(), 0.0
    for step in range(1, STEPS):
        columns = cells.sum(0)
        slope = 2 * cells / (rows[:, None] * columns) - (cells**2 / rows[:, None]).sum(0) / columns**2
        corner = counts + unread[:, None] * kinds[slope.argmin(1)]
        square = float((cells**2 / (rows[:, None] * columns)).sum()) - 1
        least = max(least, square - float((slope * (cells - corner)).sum()))
        cells = cells + 2 / (step + 2) * (corner - cells)
    return min(most, float(np.sqrt(least / (min(len(rows), len(kinds)) - 1)))), most
