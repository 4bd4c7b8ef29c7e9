"""Rank correlation that says when it says nothing."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr


def spearman(one: Sequence[float] | NDArray[np.float64], other: Sequence[float] | NDArray[np.float64]) -> float:
    """Return Spearman's correlation of two series [n]; NaN below three points, and where one of them never changes."""
    told = len(one) > 2 and len(set(one)) > 1 and len(set(other)) > 1
    return float(spearmanr(one, other).statistic) if told else float("nan")
