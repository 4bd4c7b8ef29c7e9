"""What a judge of pairs does besides judging quality: order bias, length bias, consistency, and calibration to truth.

The model of a judge: logit P(model preferred) = quality * (q_model - q_baseline) + length * tanh(z) + order * side,
where side is +1 with the model's answer first and -1 with it second. Both orders cancel `order` but for the curve of
the logistic function; averaging the logits cancels it wholly.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import statsmodels.api as sm
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

from alignlab.core.types import Metric
from alignlab.stats import bootstrap, proportion
from alignlab.stats.bootstrap import Values
from alignlab.stats.resample import numbered


@dataclass(frozen=True, kw_only=True)
class Orders:
    """What two orders of one comparison give on average."""

    first: float
    """P(model preferred) where it comes first"""
    second: float
    """P(model preferred) where it comes second"""
    win: float
    """P(both orders prefer the model): a win of the tie rule"""
    loss: float
    """P(both orders prefer the baseline)"""

    @property
    def mean(self) -> float:
        """Return the mean over both orders."""
        return (self.first + self.second) / 2

    @property
    def adjusted(self) -> float:
        """Return the win rate of the tie rule, ties counted half; equals `mean`."""
        return self.win + (1 - self.win - self.loss) / 2


def orders(gap: float, bias: float) -> Orders:
    """Return what a judge with this quality gap and order bias (both in nats) gives, its two verdicts independent."""
    first, second = float(expit(gap + bias)), float(expit(gap - bias))
    return Orders(first=first, second=second, win=first * second, loss=(1 - first) * (1 - second))


def unbiased(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """Return P(model preferred) without order bias: the logistic function of the mean logit of both orders.

    For soft verdicts (probabilities inside (0, 1)); hard ones have no logit, so for them use the plain mean.
    """
    p, q = (np.clip(np.asarray(v, dtype=np.float64), 1e-9, 1 - 1e-9) for v in (first, second))
    return np.asarray(expit((logit(p) + logit(q)) / 2))


def consistency(first: Sequence[float], second: Sequence[float]) -> Metric:
    """Return the share of pairs with the same verdict (win, tie or loss of the model) in both orders, by Wilson."""
    if len(first) != len(second):
        raise ValueError(f"consistency: {len(first)} verdicts against {len(second)}; give both orders of each pair")
    side = [np.sign(np.asarray(v, dtype=np.float64) - 0.5) for v in (first, second)]
    return proportion.share((side[0] == side[1]).tolist())


def order_bias(first: Sequence[float], second: Sequence[float], *, level: float = 0.95) -> Metric:
    """Return a judge's order bias in nats from both orders of the same pairs, whatever their qualities are.

    Where the two orders disagree, the odds that it was the first place that won are exp(2 * bias): the conditional
    likelihood, in which each pair's own quality cancels. Ties and agreeing pairs say nothing of it.

    Args:
        first: P(model preferred) or 0, 0.5, 1 with the model's answer first.
        second: the same pairs with it second.
        level: of the interval, exact by Clopper and Pearson.

    Returns:
        The bias; `n` counts the pairs that disagree. NaN without any; infinite where all go one way.
    """
    if len(first) != len(second):
        raise ValueError(f"order_bias: {len(first)} verdicts against {len(second)}; give both orders of each pair")
    side = [np.sign(np.asarray(v, dtype=np.float64) - 0.5) for v in (first, second)]
    ahead, behind = int(((side[0] > 0) & (side[1] < 0)).sum()), int(((side[0] < 0) & (side[1] > 0)).sum())
    if not ahead + behind:
        return Metric(value=math.nan, n=0)
    low, high = proportion.clopper_pearson(ahead, ahead + behind, level)
    value, low, high = (float(logit(share)) / 2 for share in (ahead / (ahead + behind), low, high))
    return Metric(value=value, n=ahead + behind, low=low, high=high)


def bias(
    verdicts: Values,
    causes: Mapping[str, Values],
    *,
    clusters: Sequence[Hashable] | None = None,
) -> dict[str, Metric]:
    """Estimate what moves a judge, each in nats per unit of its cause, by logistic regression with robust errors.

    Args:
        verdicts: [n] P(model preferred), or 0, 0.5 and 1.
        causes: name -> [n] values, e.g. `order` (+1 model first, -1 second), `length` (tanh of the standardised gap),
            `quality` (the known gap of a calibration set). There is no intercept: a judge without cause says 0.5.
        clusters: ids of the comparisons that belong together (both orders of one item).

    Returns:
        Name -> estimate with a 95 % interval. Where quality is not among the causes, it must not go along with those
        that are: balance the order over items.

    Raises:
        ValueError: lengths differ, or causes that cannot be told apart.
    """
    y = np.asarray(verdicts, dtype=np.float64)
    x = np.stack([np.asarray(v, dtype=np.float64) for v in causes.values()], axis=1) if causes else np.zeros((0, 0))
    if len(x) != len(y) or not ((y >= 0) & (y <= 1)).all():
        raise ValueError(f"judge bias: {len(y)} verdicts in [0, 1] needed for {len(x)} rows of causes, without NaN")
    if np.linalg.matrix_rank(x) < x.shape[1]:
        raise ValueError(f"judge bias: {', '.join(causes)} cannot be told apart on these items; leave one out")
    groups = numbered(range(len(y)) if clusters is None else clusters)
    found = sm.GLM(y, x, family=sm.families.Binomial()).fit(
        cov_type="cluster", cov_kwds={"groups": groups}, use_t=False
    )
    low, high = found.conf_int().T
    return {
        name: Metric(value=float(value), n=len(y), low=float(a), high=float(b))
        for name, value, a, b in zip(causes, found.params, low, high)
    }


def with_truth(
    judged: Values,
    checked: Values,
    truth: Values,
    *,
    weight: float = 1.0,
    method: bootstrap.Method = "bca",
    draws: int = 2000,
    seed: int = 0,
) -> Metric:
    """Return the mean truth of all items, from a judge's verdicts on all and the truth of a few.

    weight * mean(judged) + mean(truth - weight * checked): the few correct whatever bias the judge has, and its
    interval covers however bad the judge is (prediction-powered inference, Angelopoulos et al. 2023, arXiv 2301.09633).

    Args:
        judged: verdicts on the items without known truth.
        checked: verdicts on the items with known truth, drawn from the same population.
        truth: their truth.
        weight: how far the judge is heeded, in [0, 1]; see `power`.
        method: of the bootstrap.
        draws: of the bootstrap.
        seed: of the bootstrap.
    """
    if len(checked) != len(truth):
        raise ValueError(f"with_truth: {len(checked)} verdicts for {len(truth)} truths; give one per item")
    gaps = np.asarray(truth, dtype=np.float64) - weight * np.asarray(checked, dtype=np.float64)
    heeded = weight * np.asarray(judged, dtype=np.float64)
    return bootstrap.combination(
        [
            bootstrap.Part(values=heeded, clusters=[("judged", i) for i in range(len(judged))]),
            bootstrap.Part(values=gaps, clusters=[("checked", i) for i in range(len(gaps))]),
        ],
        method=method,
        draws=draws,
        seed=seed,
    )


def power(judged: Values, checked: Values, truth: Values) -> float:
    """Return the weight under which `with_truth` varies least, in [0, 1]: 0 for a judge that says nothing of the truth.

    cov(truth, checked) / ((1 + n / N) var(verdicts)), n checked and N other items (Angelopoulos, Duchi and Zrnic 2023,
    arXiv 2311.01453, on means). Arguments as of `with_truth`, at least two of each.
    """
    said, true, rest = (np.asarray(v, dtype=np.float64) for v in (checked, truth, judged))
    spread = float(np.concatenate([said, rest]).var(ddof=1))
    if spread == 0:
        return 0.0
    together = float(np.cov(said, true)[0, 1])
    return min(1.0, max(0.0, together / ((1 + len(said) / len(rest)) * spread)))


def rogan_gladen(positive: float, sensitivity: float, specificity: float) -> float:
    """Return the true share of positives behind a judge's share, clipped to [0, 1] (Rogan and Gladen 1978).

    NaN where the judge is no better than chance: its verdicts then say nothing of the truth.
    """
    skill = sensitivity + specificity - 1
    if skill <= 0:
        return math.nan
    return min(1.0, max(0.0, (positive + specificity - 1) / skill))
