"""Claims 2-4 of behaviour expectation bounds, from texts measured by `probes/beb`: arithmetic, no model enters."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from alignlab.core.types import Metric
from alignlab.probes import _beb_fits as fits
from alignlab.probes._beb_found import Found
from alignlab.stats.ranks import spearman
from alignlab.stats.resample import statistic
from alignlab.theory import beb

Floats = NDArray[np.float64]
MIDDLE = 0.5
DRAWS = 200
"""of every bootstrap over prompts"""
FEWEST_FITTED = 3
"""points; a line meets any two, which says nothing"""
DEEPEST, RUNGS = 16.0, 80
"""log(1 / alpha) of the last known mixture of a ladder, and how many there are"""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One mixture: how KL(P_- || P) and behaviour change with the sentences of the prompt."""

    alpha: float
    kl: Floats
    """[K, n + 1] KL(P_- || P) of the window after 0 .. n sentences, nats; n = N - horizon in a known mixture"""
    good: Floats
    """[K, N + 1] share of good sentences after 0 .. N"""
    points: int
    """of the fitted line"""

    @property
    def line(self) -> beb.Decay:
        """The line through the first points."""
        return beb.decay(self.kl.mean(0), min(self.points, self.kl.shape[1]))

    @property
    def knee(self) -> tuple[float, float]:
        """(beta, log(1 / alpha)) of the whole curve."""
        return fits.knee(self.kl.mean(0))

    @property
    def crossing(self) -> float:
        """Sentences after which half of what is said is bad; NaN if that never happens."""
        return beb.half_crossing(np.nanmean(self.good, axis=0), MIDDLE, first=0)


def known(found: Found, alpha: float, horizon: int, points: int) -> Cell:
    """Return the cell of alpha P_- + (1 - alpha) P_+ over whole texts, from one comparison of P_+ with P_-.

    `found` has P_+ as the model. Nothing else need be sampled: the mixture is carried by the log-ratio of the prompt,
    and the log-ratio P_- / P of a window is a difference of two cumulative ones.
    """
    share = np.logaddexp(np.log(alpha), np.log1p(-alpha) - found.log_ratio)  # log P / P_-
    w = beb.weight(found.log_ratio, alpha)
    minus, plus = (np.nanmean(fits.good(answers)) for answers in (found.minus_answers, found.answers))
    return Cell(
        alpha=alpha, kl=share[:, :-horizon] - share[:, horizon:], good=w * minus + (1 - w) * plus, points=points
    )  # fmt: skip


def rate(found: Found, horizon: int) -> float:
    """Return beta: KL(P_- || P_+) per sentence, exact per token, averaged over prompts of every length."""
    return float(found.envelope.mean() / horizon)


def over_cells(name: str, cells: Sequence[Cell], beta: float) -> dict[str, Metric]:
    """Return claim 2 over cells of several alphas: does everything follow log(1 / alpha) / beta?

    slope: sentences of crossing per nat, times beta; 1 is what the theory says. intercept_slope: nats of the line
    fitted at no sentence, per nat of log(1 / alpha). Ranks: Spearman, NaN where nothing changes.
    NaN where fewer than three cells have a crossing.
    """
    nats = np.array([-np.log(cell.alpha) for cell in cells])
    crossings = np.array([cell.crossing for cell in cells])
    seen = ~np.isnan(crossings)
    intercepts = np.array([cell.line.log_inverse_alpha for cell in cells])
    numbers = {
        "rank_correlation": spearman(nats[seen], crossings[seen]),
        "slope": beta * _slope(nats[seen], crossings[seen]) if seen.sum() > 2 else np.nan,
        "intercept_rank": spearman(nats, intercepts),
        "intercept_slope": _slope(nats, intercepts) if len(cells) > 2 else np.nan,
        "beta_ratio": float(np.mean([cell.line.beta for cell in cells])) / beta,
    }
    crossed = {"rank_correlation", "slope"}
    return {
        f"{name}/{key}": Metric(value=float(value), n=int(seen.sum()) if key in crossed else len(cells))
        for key, value in numbers.items()
    }


def _slope(x: Floats, y: Floats) -> float:
    return float(np.polyfit(x, y, 1)[0])


def best_of(answers: Floats, n: int) -> Floats:
    """Return the chance that the best of n answers is good, [K, N + 1], unbiased from the R that were drawn.

    Raises ValueError for n above R. An answer that cannot be told is not good.
    """
    drawn = answers.shape[-1]
    if n > drawn:
        raise ValueError(f"best of {n} from {drawn} answers; raise --responses or lower --best_of")
    bad = drawn - (answers > 0).sum(-1)
    with np.errstate(invalid="ignore"):
        chance = np.exp(gammaln(bad + 1) - gammaln(bad - n + 1) - gammaln(drawn + 1) + gammaln(drawn - n + 1))
    return np.asarray(1 - np.where(bad >= n, chance, 0.0))


def best_of_crossings(good: Floats, minus: float, plus: float, sizes: Sequence[int]) -> list[float]:
    """Return, for each n, where the best of n independent answers is half-way from P_+'s best of n to P_-'s.

    `good` [K, N + 1] is the exact share of good sentences of a known mixture.
    """
    found = []
    for n in sizes:
        middle = 1 - ((1 - minus) ** n + (1 - plus) ** n) / 2
        found.append(beb.half_crossing((1 - (1 - good) ** n).mean(0), middle, first=0))
    return found


def sampled_best_of_crossings(found: Found, sizes: Sequence[int]) -> list[float]:
    """Return the same for a model of which only answers are known; its own first and P_-'s behaviour are the ends.

    What cannot be told is not good in the model's answers and left out of P_-'s: write --response_tokens long enough.
    """
    minus = float(np.nanmean(fits.good(found.minus_answers)))
    crossings = []
    for n in sizes:
        curve = best_of(found.answers, n).mean(0)
        crossings.append(beb.half_crossing(curve, (curve[0] + 1 - (1 - minus) ** n) / 2, first=0))
    return crossings


def shifts(name: str, x: Sequence[float], crossings: Sequence[float], predicted: float) -> dict[str, Metric]:
    """Return claim 3: sentences of crossing per unit of x, beside what the theory says; NaN below two crossings.

    x counts sentences of prefix, or is log n of best of n, nats.
    """
    seen = [i for i, crossing in enumerate(crossings) if not np.isnan(crossing)]
    slope = _slope(np.array([x[i] for i in seen]), np.array([crossings[i] for i in seen])) if len(seen) > 1 else np.nan
    return {
        f"{name}/slope": Metric(value=float(slope), n=len(seen)),
        f"{name}/predicted": Metric(value=predicted, n=len(seen)),
    }


def logarithmic(name: str, sizes: Sequence[int], crossings: Sequence[float]) -> dict[str, Metric]:
    """Return whether crossings grow with n or with log n: log of the ratio of squares left, < 0 where log n fits.

    NaN below three crossings, and where a line meets all of them.
    """
    seen = [(n, y) for n, y in zip(sizes, crossings) if not np.isnan(y)]
    if len(seen) < FEWEST_FITTED:
        return {f"{name}/log_over_linear": Metric(value=float("nan"), n=len(seen))}
    n, y = np.array(seen).T
    left = [np.polyfit(x, y, 1, full=True)[1].sum() for x in (np.log(n), n)]
    value = float(np.log(left[0] / left[1])) if min(left) > 0 else float("nan")
    return {f"{name}/log_over_linear": Metric(value=value, n=len(seen))}


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """Lines of known mixtures of ever smaller alpha, on the same prompts: what a line's beta owes to alpha alone.

    A line through the first points crosses the knee where log(1 / alpha) is small, so its slope grows as alpha falls
    even though the components stay as they are.
    """

    kl: Floats
    """[G, K, points] of mixtures of falling alpha"""

    @staticmethod
    def of(first: Found, horizon: int, points: int) -> "Ladder":
        """Build it from P_+ against P_-."""
        steps = np.exp(-np.linspace(0.05, DEEPEST, RUNGS))
        return Ladder(kl=np.array([known(first, alpha, horizon, points).kl[:, :points] for alpha in steps]))

    def beta(self, index: NDArray[np.int64], intercept: float) -> float:
        """Return the slope of the known mixture whose line begins at `intercept`; NaN where no mixture's does."""
        slopes, starts = np.polyfit(np.arange(self.kl.shape[2]), self.kl[:, index].mean(1).T, 1)
        if not starts[0] <= intercept <= starts[-1]:
            return float("nan")
        return float(np.interp(intercept, starts, -slopes))


def before_and_after(models: dict[str, Found], ladder: Ladder, points: int, seed: int) -> dict[str, Metric]:
    """Return claim 4: beta and log(1 / alpha) of each model on the same prompts, and their change from the first one.

    beta and log_inverse_alpha by the line through the first points, as in the paper; beta_excess: beta without what the
    same line would show of a known mixture of that alpha (NaN where the line begins above all of them). Knees and the
    component test beside them. Intervals over prompts, the same ones drawn for both models of a change.
    """
    first, paths = next(iter(models)), {name: found.path for name, found in models.items()}

    def fitted(index: NDArray[np.int64], name: str, what: str) -> float:
        line = beb.decay(paths[name][index].mean(0), points)
        if what == "beta_excess":
            return line.beta - ladder.beta(index, line.log_inverse_alpha)
        return float(getattr(line, what))

    result: dict[str, Metric] = {}
    for name, found in models.items():
        rows = range(len(paths[name]))
        for what in ("beta", "log_inverse_alpha", "beta_excess"):
            result[f"{name}/{what}"] = statistic(
                lambda i, n=name, w=what: fitted(i, n, w), rows, draws=DRAWS, seed=seed
            )
            if name != first:
                result[f"{name}/{what}_change"] = statistic(
                    lambda i, n=name, w=what: fitted(i, n, w) - fitted(i, first, w), rows, draws=DRAWS, seed=seed
                )
        bend, nats = fits.knee(found.path.mean(0))
        result[f"{name}/beta_knee"] = Metric(value=bend, n=len(found.path))
        result[f"{name}/log_inverse_alpha_knee"] = Metric(value=nats, n=len(found.path))
        result[f"{name}/component/log_alpha"] = Metric(value=float(found.log_share.min()), n=found.log_share.size)
        result[f"{name}/length"] = Metric(
            value=beb.half_crossing(np.nanmean(fits.good(found.answers), axis=0), MIDDLE, first=0),
            n=found.answers.size,
        )
    return result


def pooled(seeds: Sequence[dict[str, Metric]]) -> dict[str, Metric]:
    """Return the mean over seeds with the lowest and highest seed as ends; of one seed, itself.

    A seed in which a number could not be measured is left out of its mean, and `n` counts the others.
    """
    if len(seeds) == 1:
        return seeds[0]
    result = {}
    for name in dict.fromkeys(name for seed in seeds for name in seed):
        values = [seed[name].value for seed in seeds if name in seed and not np.isnan(seed[name].value)]
        ends: dict[str, Any] = {"low": min(values), "high": max(values)} if values else {}
        result[name] = Metric(value=float(np.mean(values)) if values else float("nan"), n=len(values), **ends)
    return result
