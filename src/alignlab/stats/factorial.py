"""Whether three yes-or-no causes together do more than they do alone, on the scale of log-odds.

With eight cells the saturated logistic model is exact: its coefficients are sums and differences of the cells' logits.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from alignlab.core.types import Metric

Cell = tuple[int, int, int]
CELLS: tuple[Cell, ...] = tuple((a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1))


@dataclass(frozen=True, kw_only=True)
class Compounding:
    """What three causes do alone and together; log-odds, but for the prediction."""

    singles: tuple[float, float, float]
    """effect of each alone"""
    joint: float
    """effect of all three"""
    excess: float
    """joint effect less the sum of the single ones: two-way and three-way interactions together"""
    three_way: float
    """the three-way interaction alone"""
    additive: float
    """probability with all three, had they only added up"""


def compounding(rates: Mapping[Cell, float]) -> Compounding:
    """Return what the rates of the eight cells (cause 1, 2, 3 present or not) say; ValueError for a rate of 0 or 1."""
    if set(rates) != set(CELLS) or not all(0 < p < 1 for p in rates.values()):
        raise ValueError("compounding: expected a rate inside (0, 1) for each of the eight cells")
    x = {cell: float(logit(p)) for cell, p in rates.items()}
    base = x[0, 0, 0]
    singles = (x[1, 0, 0] - base, x[0, 1, 0] - base, x[0, 0, 1] - base)
    joint = x[1, 1, 1] - base
    signs = {cell: (-1) ** (3 - sum(cell)) for cell in CELLS}
    return Compounding(
        singles=singles, joint=joint, excess=joint - sum(singles),
        three_way=sum(signs[cell] * x[cell] for cell in CELLS), additive=float(expit(base + sum(singles))),
    )  # fmt: skip


def excess(counts: Mapping[Cell, tuple[int, int]]) -> Metric:
    """Return the excess with its 95 % interval from (successes, n) of each cell, items independent.

    Half a success and half a failure are added to each cell (Haldane and Anscombe), whose logit has the variance
    1 / successes + 1 / failures (Woolf). NaN where a cell is empty.
    """
    n = sum(counts.get(cell, (0, 0))[1] for cell in CELLS)
    if any(counts.get(cell, (0, 0))[1] < 1 for cell in CELLS):
        return Metric(value=math.nan, n=n)
    weights = {(1, 1, 1): 1.0, (0, 0, 0): 2.0, (1, 0, 0): -1.0, (0, 1, 0): -1.0, (0, 0, 1): -1.0}
    value = variance = 0.0
    for cell, weight in weights.items():
        hits, total = counts[cell]
        yes, no = hits + 0.5, total - hits + 0.5
        value += weight * math.log(yes / no)
        variance += weight**2 * (1 / yes + 1 / no)
    half = 1.959964 * float(np.sqrt(variance))
    return Metric(value=value, n=n, low=value - half, high=value + half)
