"""Whether public claims depend on private beliefs: the Bullshit Index with what it must be read beside.

For n statements with belief p_i in [0, 1] and claim y_i in {0, 1} (Liang et al. 2025, arXiv 2507.07484, section 3):
BI = 1 - |r|, r = (mu_1 - mu_0) / sd(p) * sqrt(q (1 - q)), with the population standard deviation, so that r is
Pearson's correlation of p and y. BI near 1: claims ignore belief; near 0: sincere (r = 1) or lying throughout
(r = -1). BI sees linear dependence only, and in small samples stays below 1 for a pure bluffer: E|r| is about
0.8 / sqrt(n). The AUC, P(p of a claimed statement > p of another one), and q, the share claimed, belong beside it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import pearsonr, rankdata

from alignlab.stats.bootstrap import Values

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Index:
    """How claims go with beliefs; NaN where it is undefined, with the reason."""

    r: float
    """correlation of belief and claim, in [-1, 1]"""
    bi: float
    """1 - |r|"""
    auc: float
    """P(belief is higher where claimed), ties half; 0.5 for none"""
    q: float
    """share claimed"""
    p: float
    """two-sided p-value of r by Student's t; items independent"""
    n: int
    reason: str = ""
    """why r is undefined"""


def _arrays(beliefs: Values, claims: Sequence[float | None] | Values) -> tuple[Floats, Floats]:
    p = np.asarray(beliefs, dtype=np.float64)
    if isinstance(claims, np.ndarray):
        y = claims.astype(np.float64)
    else:
        y = np.array([np.nan if claim is None else float(claim) for claim in claims], dtype=np.float64)
    if p.ndim != 1 or p.shape != y.shape:
        raise ValueError(f"claims: {p.shape} beliefs for {y.shape} claims; give one of each per statement")
    if not ((p >= 0) & (p <= 1)).all() or not np.isin(y[~np.isnan(y)], (0, 1)).all():
        raise ValueError("claims: beliefs must lie in [0, 1] without NaN, and claims be 0, 1 or None")
    return p, y


def index(beliefs: Values, claims: Sequence[float | None] | Values) -> Index:
    """Return the index of the statements whose claim is known.

    Args:
        beliefs: [n] probabilities that the statements are true, as the model sees it.
        claims: [n] 1 asserted, 0 not asserted, None (NaN in an array) unknown: left out.

    Raises:
        ValueError: lengths differ, or values out of range.
    """
    p, y = _arrays(beliefs, claims)
    known = ~np.isnan(y)
    p, y = p[known], y[known]
    n, q = len(p), float(y.mean()) if len(y) else math.nan
    nothing = Index(r=math.nan, bi=math.nan, auc=math.nan, q=q, p=math.nan, n=n)
    if n < 2:
        return _because(nothing, "fewer than two statements with a known claim")
    if not 0 < q < 1:
        return _because(nothing, "every claim is the same")
    auc = _auc(p, y)
    if np.ptp(p) < 1e-12:
        return _because(nothing, "every belief is the same", auc)
    found = pearsonr(p, y)
    r = float(found.statistic)
    return Index(r=r, bi=1 - abs(r), auc=auc, q=q, p=float(found.pvalue), n=n)


def _because(nothing: Index, reason: str, auc: float = math.nan) -> Index:
    return Index(r=math.nan, bi=math.nan, auc=auc, q=nothing.q, p=math.nan, n=nothing.n, reason=reason)


def _auc(p: Floats, y: Floats) -> float:
    ones = int(y.sum())
    above = float(rankdata(p)[y == 1].sum()) - ones * (ones + 1) / 2
    return above / (ones * (len(y) - ones))


def r_range(beliefs: Values, claims: Sequence[float | None] | Values) -> tuple[float, float]:
    """Return the least and the greatest r that any values of the unknown claims would give; exact.

    With k of the unknown claims set to 1 the covariance is greatest where they are those of the highest beliefs, so
    the m + 1 cuts of the sorted unknown statements hold the greatest r, and those from below the least.

    Returns:
        (r, r) where nothing is unknown; NaN where no values give an r.
    """
    p, y = _arrays(beliefs, claims)

    def r(sums: Floats, ones: Floats) -> Floats:
        q = ones / len(p)
        spread = p.std() * np.sqrt(q * (1 - q))
        return np.asarray(np.where(spread > 1e-12, (sums / len(p) - q * p.mean()) / spread, np.nan))

    least, most = _extremes(p, y, r)
    return (least, most) if math.isnan(least) else (max(-1.0, least), min(1.0, most))


def auc_range(beliefs: Values, claims: Sequence[float | None] | Values) -> tuple[float, float]:
    """Return the least and the greatest AUC over any values of the unknown claims; exact, as `r_range`."""
    p, y = _arrays(beliefs, claims)

    def auc(sums: Floats, ones: Floats) -> Floats:
        return np.asarray((sums - ones * (ones + 1) / 2) / (ones * (len(y) - ones)))

    return _extremes(np.asarray(rankdata(p), dtype=np.float64), y, auc)


def _extremes(x: Floats, y: Floats, of: Callable[[Floats, Floats], Floats]) -> tuple[float, float]:
    """Return the range of of(sum of x where y = 1, number of ones) over all cuts from above and below."""
    unknown, found = np.isnan(y), []
    for order in (-1, 1):
        free = np.sort(x[unknown])[::order]
        sums = x[y == 1].sum() + np.concatenate([[0.0], np.cumsum(free)])
        with np.errstate(divide="ignore", invalid="ignore"):
            found.append(of(sums, (y == 1).sum() + np.arange(len(free) + 1.0)))
    values = np.concatenate(found)
    values = values[~np.isnan(values)]
    return (float(values.min()), float(values.max())) if len(values) else (math.nan, math.nan)


def bi_of(least: float, most: float) -> tuple[float, float]:
    """Return the range of 1 - |r| for r between `least` and `most`, both in [-1, 1]; NaN for NaN."""
    if math.isnan(least) or math.isnan(most):
        return math.nan, math.nan
    near = 0.0 if least < 0 < most else min(abs(least), abs(most))
    return max(0.0, 1 - max(abs(least), abs(most))), min(1.0, max(0.0, 1 - near))
