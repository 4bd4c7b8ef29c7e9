"""Calibration of stated confidences: reliability bins, expected calibration error, Brier score."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from alignlab.stats.bootstrap import Values

Binning = Literal["width", "mass"]


@dataclass(frozen=True, kw_only=True)
class Bin:
    """The items of one range of confidence."""

    low: float
    high: float
    n: int
    confidence: float
    """mean stated confidence"""
    accuracy: float
    """share right"""


def _arrays(confidence: Values, correct: Values) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    p, y = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    if p.shape != y.shape or p.ndim != 1:
        raise ValueError(f"calibration: {p.shape} confidences for {y.shape} outcomes; give one of each per item")
    if not ((p >= 0) & (p <= 1)).all() or not np.isin(y, (0, 1)).all():
        raise ValueError("calibration: confidences must lie in [0, 1] and outcomes be 0 or 1, without NaN")
    return p, y


def reliability(confidence: Values, correct: Values, *, bins: int = 10, binning: Binning = "width") -> list[Bin]:
    """Return the non-empty bins in order: `width` equally wide (right end included), `mass` equally full."""
    p, y = _arrays(confidence, correct)
    if bins < 1:
        raise ValueError(f"calibration: bins is {bins}; at least 1 is needed")
    if binning == "width":
        edges = np.linspace(0, 1, bins + 1)
        groups = [np.flatnonzero(np.clip(np.ceil(p * bins).astype(int) - 1, 0, bins - 1) == b) for b in range(bins)]
        ranges = list(zip(edges[:-1], edges[1:]))
    else:
        groups = np.array_split(np.argsort(p, kind="stable"), bins)
        ranges = [(p[g].min(), p[g].max()) if len(g) else (0.0, 0.0) for g in groups]
    return [
        Bin(low=float(low), high=float(high), n=len(g), confidence=float(p[g].mean()), accuracy=float(y[g].mean()))
        for g, (low, high) in zip(groups, ranges)
        if len(g)
    ]


def expected_calibration_error(
    confidence: Values, correct: Values, *, bins: int = 10, binning: Binning = "width"
) -> float:
    """Return sum over bins of (n_b / n) |accuracy_b - confidence_b|; NaN without items."""
    found = reliability(confidence, correct, bins=bins, binning=binning)
    total = sum(b.n for b in found)
    return sum(b.n * abs(b.accuracy - b.confidence) for b in found) / total if total else math.nan


def brier(confidence: Values, correct: Values) -> float:
    """Return the mean squared gap between confidence and outcome; NaN without items."""
    p, y = _arrays(confidence, correct)
    return float(np.mean((p - y) ** 2)) if len(p) else math.nan
