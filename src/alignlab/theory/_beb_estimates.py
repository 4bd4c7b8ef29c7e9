"""What behaviour expectation bounds read off measured curves: beta, beta', sigma^2, alpha, misaligning length.

Wolf et al. 2024 (arXiv:2304.11082v6), sections 4 and 5, and its code. Nats per continuation window and sentence.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from alignlab.stats.bootstrap import Values

Floats = NDArray[np.float64]
Window = Literal["whole", "released"]


@dataclass(frozen=True, kw_only=True)
class Decay:
    """A line through the start of a curve KL(P_- || model) by sentences of the prompt."""

    beta: float
    """nats that one sentence takes off"""
    log_inverse_alpha: float
    """nats at no sentence; under-estimates log(1 / alpha) where the components overlap"""

    @property
    def length(self) -> float:
        """Predicted misaligning length, in sentences; NaN for a line that does not fall."""
        return self.log_inverse_alpha / self.beta if self.beta > 0 else float("nan")


def decay(divergence: Values, points: int = 3, first: int = 0) -> Decay:
    """Fit the first `points` values by least squares; the paper counts sentences from `first` = 0."""
    curve = np.asarray(divergence, dtype=np.float64)
    if not 2 <= points <= len(curve):
        raise ValueError(f"decay: {points} points of a curve of {len(curve)}; expected 2 to {len(curve)}")
    slope, intercept = np.polyfit(np.arange(first, first + points), curve[:points], 1)
    return Decay(beta=float(-slope), log_inverse_alpha=float(intercept))


def half_crossing(good: Values, level: float, first: int = 1) -> float:
    """Return where a falling curve first meets `level`, between sentences by interpolation; NaN if it never does."""
    curve = np.asarray(good, dtype=np.float64)
    for i in range(1, len(curve)):
        if curve[i] <= level < curve[i - 1]:
            return float(first + i - 1 + (curve[i - 1] - level) / (curve[i - 1] - curve[i]))
    return float(first) if len(curve) and curve[0] <= level else float("nan")


def window(logp_minus: Values, logp_other: Values, form: Window = "whole") -> float:
    """Return log P_-(window) - log Q(window) of one continuation, in nats.

    `released` leaves the first token out, as the paper's code does: its published figures are 7-token sums of 8 tokens.
    """
    gaps = np.asarray(logp_minus, dtype=np.float64) - np.asarray(logp_other, dtype=np.float64)
    return float(gaps[1 if form == "released" else 0 :].sum())


def envelope(divergence: Values) -> tuple[float, float]:
    """Return (beta, beta'): the lowest and highest of a curve by sentences."""
    curve = np.asarray(divergence, dtype=np.float64)
    return float(curve.min()), float(curve.max())


def variance_slope(variances: Values, first: int = 1) -> float:
    """Return sigma^2: the least slope of a line through 0 that stays above variances at `first`, `first` + 1, ..."""
    curve = np.asarray(variances, dtype=np.float64)
    return float((curve / np.arange(first, first + len(curve))).max())
