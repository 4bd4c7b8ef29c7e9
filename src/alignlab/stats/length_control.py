"""Length-controlled win rates: a judge's preference with the pull of length taken out (AlpacaEval 2).

P(model preferred over baseline | x) = sigmoid(length * tanh(z_x) + difficulty * gamma_x + model), where z_x is the
number of characters of the baseline's answer minus the model's, divided by its standard deviation over the items and
not centred, and gamma_x the instruction's difficulty, fitted once over many models. The length-controlled rate puts
z = 0. Dubois et al. 2024, arXiv 2404.04475, equation 2; data and fit as in the released `length_controlled_v1`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit

from alignlab.core.types import Metric
from alignlab.stats.resample import Index, standard_error, statistic

Array = NDArray[np.float64]
PENALTIES = np.logspace(-4, 4, 10)
"""inverse strengths of the L1 penalty that are tried, as scikit-learn's default"""
FOLDS = 5
GAMED_WEIGHT = 0.1
"""weight of a row of the baseline against itself told to be short or long (lambda / 2 of the release)"""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Coefficients of one model against the baseline; all 0 for the baseline itself."""

    length: float
    """of tanh(z): negative where longer answers are preferred"""
    difficulty: float
    """of gamma"""
    model: float
    """intercept of the model's rows: what is left when length is equal and difficulty 0"""

    def rate(self, gamma: ArrayLike) -> Array:
        """Return P(preferred) per instruction at equal length."""
        return np.asarray(expit(self.difficulty * np.asarray(gamma, dtype=np.float64) + self.model))


def win_rate(preferences: ArrayLike) -> tuple[float, float, float]:
    """Return (raw win rate, its standard error, discrete win rate), in percent.

    Args:
        preferences: [n] P(model preferred), in [0, 1]. The discrete rate rounds them first and counts ties half.
    """
    p = _checked(preferences)
    discrete = np.where(np.isclose(p, 0.5), 0.5, np.round(p))
    return 100 * float(p.mean()), 100 * standard_error(p), 100 * float(discrete.mean())


def preference(model: float | None, baseline: float | None) -> float:
    """Return P(model) / (P(model) + P(baseline)) from the log-probabilities of the judge's first token.

    A token that is not among the likeliest counts as probability 0; NaN where both are missing.
    """
    if model is None or baseline is None:
        return float("nan") if model is baseline else float(model is not None)
    return float(expit(model - baseline))


def difficulty_of(rate: ArrayLike, fit: Fit) -> Array:
    """Return gamma from one model's published length-controlled preferences: (logit(rate) - model) / difficulty."""
    if fit.difficulty == 0:
        raise ValueError("difficulty_of: this model's preference does not depend on difficulty; take another model")
    return np.asarray((logit(np.asarray(rate, dtype=np.float64)) - fit.model) / fit.difficulty)


def features(baseline_chars: ArrayLike, model_chars: ArrayLike, gamma: ArrayLike, *, own: bool = True) -> Array:
    """Return the design [n, 3]: tanh(z), gamma, and 1 for the model's own rows (0 for the gamed baseline's)."""
    gap = np.asarray(baseline_chars, dtype=np.float64) - np.asarray(model_chars, dtype=np.float64)
    difficulty = np.broadcast_to(np.asarray(gamma, dtype=np.float64), gap.shape)
    spread = float(gap.std(ddof=1)) if len(gap) > 1 else 0.0
    z = gap / spread if spread > 0 else np.sign(gap)
    return np.stack([np.tanh(z), difficulty, np.full(len(gap), float(own))], axis=1)


def fit(
    preferences: ArrayLike,
    design: Array,
    *,
    gamed: Sequence[tuple[ArrayLike, Array]] = (),
    form: Literal["cross_validated", "fixed", "unpenalised"] = "cross_validated",
    inverse_penalty: float = 1.0,
) -> Fit:
    """Fit the coefficients of one model by penalised logistic regression on fractional preferences.

    Minimises sum |coefficient| + C * sum of weight * cross-entropy, without an intercept.

    Args:
        preferences: [n] P(model preferred), in [0, 1].
        design: [n, 3], from `features`.
        gamed: (preferences, design with `own=False`) of the baseline told to be short or long, against itself. They
            hold the length coefficient where the model's own rows say little, and enter with weight 0.1 each.
        form: `cross_validated` chooses C by the cross-entropy on 5 held-out parts, as released; `fixed` takes
            `inverse_penalty`; `unpenalised` has no penalty.
        inverse_penalty: C of `fixed`.

    Raises:
        ValueError: preferences outside [0, 1], or lengths that differ.
    """
    x, y, weights = _stacked(preferences, design, gamed)
    if form == "unpenalised":
        found = _minimum(x, y, weights, None)
    else:
        found = _minimum(x, y, weights, inverse_penalty if form == "fixed" else _chosen_penalty(x, y, weights))
    return Fit(length=float(found[0]), difficulty=float(found[1]), model=float(found[2]))


def chosen_penalty(preferences: ArrayLike, design: Array, *, gamed: Sequence[tuple[ArrayLike, Array]] = ()) -> float:
    """Return the inverse penalty that `cross_validated` takes; arguments and errors as of `fit`."""
    return _chosen_penalty(*_stacked(preferences, design, gamed))


def _stacked(
    preferences: ArrayLike, design: Array, gamed: Sequence[tuple[ArrayLike, Array]]
) -> tuple[Array, Array, Array]:
    """Return features, preferences and weights of all rows; the gamed come first, as in the released table."""
    y = np.concatenate([*(_checked(p) for p, _ in gamed), _checked(preferences)])
    x = np.concatenate([*(rows for _, rows in gamed), design])
    if len(x) != len(y):
        raise ValueError(f"length control: {len(y)} preferences for {len(x)} rows of features; give one per row")
    weights = np.ones(len(y))
    weights[: len(y) - len(design)] = GAMED_WEIGHT
    return x, y, weights


def controlled(fitted: Fit, gamma: ArrayLike) -> tuple[float, float]:
    """Return (length-controlled win rate, the published standard error) in percent.

    The published error is that of the mean prediction over instructions: it knows nothing of the fit's own error. See
    `controlled_interval` for one that does.
    """
    rates = fitted.rate(gamma)
    return 100 * float(rates.mean()), 100 * standard_error(rates)


def changes_much(raw: float, at_equal_length: float) -> bool:
    """Whether control moves a rate (percent) by more than 10 points and a quarter of its way to 0 or 100 (released)."""
    room = (100 - raw) / 4 if at_equal_length > raw else raw / 4
    return abs(at_equal_length - raw) > max(10.0, room)


def extremes(
    low: ArrayLike, high: ArrayLike, design: Array, at: Array, *, weights: ArrayLike | None = None
) -> tuple[Array, Array]:
    """Return the outcomes between `low` and `high` that make a fitted rate least, and those that make it greatest.

    What a missing verdict does to an intercept depends on its row: a loss far on one side of the cause that is
    controlled for can raise it. So each is set against, or for, the rate by the sign of its first-order pull on it
    (gradient times inverse curvature times row) at the last fit, until nothing changes. That is the extreme or next to
    it: of all fills of seven missing verdicts the best is at most 0.001 beyond (a test).

    Args:
        low: [n] least possible outcomes, in [0, 1].
        high: [n] greatest possible outcomes; equal to `low` where the outcome is known.
        design: [n, k] features of the logistic regression.
        at: [m, k] rows at which the rate is the mean prediction.
        weights: [n], 1 without.
    """
    ends = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
    w = np.ones(len(design)) if weights is None else np.asarray(weights, dtype=np.float64)
    found = []
    for up in (False, True):
        y = (ends[0] + ends[1]) / 2
        for _ in range(20):
            coefficients = _minimum(design, y, w, None)
            p, q = expit(design @ coefficients), expit(at @ coefficients)
            curvature = (design * (w * p * (1 - p))[:, None]).T @ design
            pull = design @ np.linalg.lstsq(curvature, (q * (1 - q)) @ at)[0]
            before, y = y, np.where((pull > 0) == up, ends[1], ends[0])
            if np.array_equal(y, before):
                break
        found.append(y)
    return found[0], found[1]


def controlled_interval(
    preferences: ArrayLike,
    baseline_chars: ArrayLike,
    model_chars: ArrayLike,
    gamma: ArrayLike,
    *,
    inverse_penalty: float | None = None,
    gamed: Sequence[tuple[ArrayLike, Array]] = (),
    clusters: Sequence[object] | None = None,
    draws: int = 200,
    seed: int = 0,
) -> Metric:
    """Return the length-controlled win rate in percent, with an interval from refitting resampled instructions.

    `inverse_penalty` None fits without a penalty; `gamed` rows are as of `fit`, and are not resampled. `clusters` are
    ids of instructions that belong together.
    """
    p, ours, theirs = (np.asarray(a, dtype=np.float64) for a in (preferences, model_chars, baseline_chars))
    difficulty = np.broadcast_to(np.asarray(gamma, dtype=np.float64), p.shape)

    def estimate(index: Index) -> float:
        fitted = fit(
            p[index],
            features(theirs[index], ours[index], difficulty[index]),
            gamed=gamed,
            form="unpenalised" if inverse_penalty is None else "fixed",
            inverse_penalty=inverse_penalty or 1.0,
        )
        return controlled(fitted, difficulty[index])[0]

    ids = range(len(p)) if clusters is None else [str(c) for c in clusters]
    return statistic(estimate, ids, draws=draws, seed=seed)


def head_to_head(first: Fit, second: Fit, gamma: ArrayLike) -> float:
    """Return the length-controlled rate in percent at which the first model is preferred over the second."""
    gap = Fit(length=0.0, difficulty=first.difficulty - second.difficulty, model=first.model - second.model)
    return 100 * float(gap.rate(gamma).mean())


def _checked(preferences: ArrayLike) -> Array:
    p = np.asarray(preferences, dtype=np.float64)
    if p.ndim != 1 or not len(p) or not ((p >= 0) & (p <= 1)).all():
        raise ValueError("length control: expected at least one preference, all in [0, 1] without NaN; drop the others")
    return p


def cross_entropy(coefficients: Array, x: Array, y: Array, weights: Array) -> float:
    """Return sum of weight * (log(1 + e^s) - y s) for s = x @ coefficients, in nats."""
    s = x @ coefficients
    return float(weights @ (np.logaddexp(0, s) - y * s))


def _minimum(x: Array, y: Array, weights: Array, c: float | None) -> Array:
    """Return the coefficients; the L1 norm is smooth over their positive and negative parts, each >= 0.

    Where the penalty is weak L-BFGS stops short of the minimum, so Newton's method ends it with the signs found.
    """
    if c is None and (quick := _newton(x, y, weights)) is not None:
        return quick
    k = x.shape[1]

    def objective(parts: Array) -> tuple[float, Array]:
        coefficients = parts[:k] - parts[k:] if c is not None else parts
        slope = x.T @ (weights * (expit(x @ coefficients) - y))
        loss = cross_entropy(coefficients, x, y, weights)
        if c is None:
            return loss, slope
        return c * loss + float(parts.sum()), np.concatenate([c * slope + 1, -c * slope + 1])

    # unpenalised, rows that length alone tells apart have no finite optimum
    bounds = [(-50.0, 50.0)] * k if c is None else [(0.0, 50.0)] * (2 * k)
    options = {"maxiter": 2000, "ftol": 1e-14, "gtol": 1e-9}
    found = minimize(objective, np.zeros(len(bounds)), jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
    if c is None:
        return np.asarray(found)
    ended: Array = found[:k] - found[k:]
    kept = np.abs(ended) > 1e-6
    closer = _newton(x[:, kept], y, weights, push=np.sign(ended[kept]) / c) if kept.any() else None
    if closer is not None and np.array_equal(np.sign(closer), np.sign(ended[kept])):
        ended[kept] = closer
    return ended


def _newton(x: Array, y: Array, weights: Array, push: Array | float = 0.0) -> Array | None:
    """Return the minimum of the cross-entropy plus `push` @ coefficients; None where 25 steps do not reach it."""
    found = np.zeros(x.shape[1])
    for _ in range(25):
        p = expit(x @ found)
        slope = x.T @ (weights * (p - y)) + push
        if float(np.abs(slope).max()) < 1e-9 * len(y):
            return found
        curvature = (x * (weights * p * (1 - p))[:, None]).T @ x
        found = found - np.linalg.lstsq(curvature, slope)[0]  # a column of zeros keeps its coefficient 0
        if not float(np.abs(found).max()) < 50:
            return None
    return None


def _chosen_penalty(x: Array, y: Array, weights: Array) -> float:
    """Return the C with the least weighted cross-entropy per held-out row; parts are dealt in turn, as GroupKFold does.

    Groups of equal size are dealt from the last row to the first. Where several weak penalties are as good to seven
    digits, the release may name another of them: its liblinear stops at a tolerance of 1e-4, here the minimum is met.
    """
    if len(y) < FOLDS:
        return 1.0
    fold = np.arange(len(y))[::-1] % FOLDS
    losses = []
    for c in PENALTIES:
        parts = []
        for k in range(FOLDS):
            kept, held = fold != k, fold == k
            found = _minimum(x[kept], y[kept], weights[kept], float(c))
            parts.append(cross_entropy(found, x[held], y[held], weights[held]) / float(held.sum()))
        losses.append(np.mean(parts))
    return float(PENALTIES[int(np.argmin(losses))])
