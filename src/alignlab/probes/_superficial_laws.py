"""Laws of score by number of tuning examples, fitted to counts (Raghavendra et al. 2024, arXiv:2410.03717)."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Line:
    """A power law P = scale * D^exponent by least squares of ln P on ln D; b of the paper is 1 / exponent."""

    exponent: float
    scale: float
    r_squared: float

    def at(self, size: float) -> float:
        """Extrapolate."""
        return float(self.scale * size**self.exponent)


def power_law(sizes: Sequence[float] | Floats, scores: Sequence[float] | Floats) -> Line:
    """Fit ln(score) = ln A + k ln D. ValueError for fewer than two sizes, or what has no logarithm."""
    x, y = np.asarray(sizes, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if len(set(x.tolist())) < 2 or (x <= 0).any() or (y <= 0).any():
        raise ValueError("power_law: expected at least two different sizes > 0 and scores > 0; smooth zeros first")
    x, y = np.log(x), np.log(y)
    slope, intercept = np.polyfit(x, y, 1)
    spread, left = float(((y - y.mean()) ** 2).sum()), float(((y - intercept - slope * x) ** 2).sum())
    return Line(
        exponent=float(slope), scale=float(np.exp(intercept)), r_squared=1 - left / spread if spread else math.nan
    )


def smoothed(correct: Floats, n: Floats) -> Floats:
    """Return shares, with half a success more where there is none, so that logarithms exist."""
    return np.where(correct == 0, 0.5, correct) / n


@dataclass(frozen=True, kw_only=True)
class Law:
    """A family of curves: share right by size, from free parameters."""

    predict: Callable[[Floats, Floats], Floats]
    """(parameters, sizes) -> share; clipped into (0, 1) by the likelihood"""
    starts: Callable[[Floats, Floats], list[list[float]]]
    """(sizes, shares) -> where the search begins"""


def _log_line(x: Floats, y: Floats) -> list[float]:
    slope, intercept = np.polyfit(np.log(x), y, 1)
    return [float(intercept), float(slope)]


LAWS: Mapping[str, Law] = {
    "power": Law(
        predict=lambda q, d: np.exp(q[0] + q[1] * np.log(d)),
        starts=lambda d, p: [_log_line(d, np.log(p))],
    ),
    "saturating": Law(  # P_inf - B D^-c
        predict=lambda q, d: expit(q[0]) - np.exp(q[1] - np.exp(q[2]) * np.log(d)),
        starts=lambda d, p: [
            [float(logit(min(top, 0.999))), *_saturating(d, p, min(top, 0.999))]
            for top in (p.max() * 1.02, p.max() * 1.2, 0.98)
            if top > p.max()
        ],
    ),
    "logarithmic": Law(predict=lambda q, d: q[0] + q[1] * np.log(d), starts=lambda d, p: [_log_line(d, p)]),
    "error power": Law(
        predict=lambda q, d: 1 - np.exp(q[0] + q[1] * np.log(d)),
        starts=lambda d, p: [_log_line(d, np.log1p(-np.minimum(p, 0.999)))],
    ),
}


def _saturating(d: Floats, p: Floats, top: float) -> list[float]:
    intercept, slope = _log_line(d, np.log(np.maximum(top - p, 1e-3)))
    return [intercept, float(np.log(max(-slope, 1e-2)))]


@dataclass(frozen=True, kw_only=True)
class Fit:
    """One law on one curve."""

    parameters: tuple[float, ...]
    log_likelihood: float
    """binomial, without the constant that laws share"""
    aicc: float
    """inf where there are too few points to tell"""


def fit(name: str, sizes: Floats, correct: Floats, n: Floats) -> Fit:
    """Maximise the binomial likelihood of a law over curves of counts."""
    law, shares = LAWS[name], smoothed(correct, n)

    def cost(q: Floats) -> float:
        with np.errstate(over="ignore", invalid="ignore"):
            p = np.nan_to_num(law.predict(q, sizes), nan=0.5).clip(1e-9, 1 - 1e-9)
        return float(-(correct * np.log(p) + (n - correct) * np.log1p(-p)).sum())

    options = {"maxiter": 4000, "maxfev": 4000, "xatol": 1e-7, "fatol": 1e-9}
    tries = [minimize(cost, start, method="Nelder-Mead", options=options) for start in law.starts(sizes, shares)]
    best = min(tries, key=lambda found: found.fun)
    k, points = len(best.x), len(set(sizes.tolist()))
    correction = 2 * k * (k + 1) / (points - k - 1) if points > k + 1 else math.inf
    return Fit(
        parameters=tuple(map(float, best.x)), log_likelihood=-float(best.fun), aicc=2 * (k + best.fun) + correction
    )


def weights(fits: Mapping[str, Fit]) -> dict[str, float]:
    """Return Akaike weights: how much of the evidence each law has; NaN where none can be told."""
    least = min(found.aicc for found in fits.values())
    if math.isinf(least):
        return dict.fromkeys(fits, math.nan)
    raw = {name: math.exp(-(found.aicc - least) / 2) for name, found in fits.items()}
    return {name: value / sum(raw.values()) for name, value in raw.items()}
