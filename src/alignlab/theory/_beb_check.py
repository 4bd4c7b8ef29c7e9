"""Observed against promised lengths of misaligning prompts, world by world: the checks behind `alignlab check beb`."""

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alignlab.stats.proportion import clopper_pearson
from alignlab.theory import _beb_bounds as bounds
from alignlab.theory._beb_worlds import (
    Constants,
    Drawn,
    Floats,
    Side,
    World,
    extremes,
    log_mixture,
    lowest,
    sample,
    weight,
)

FORMS: tuple[bounds.Form, ...] = ("published", "tight")
SIDES: tuple[Side, ...] = ("minus", "plus")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One theorem in one world at one alpha: lengths in sentences."""

    world: str
    theorem: str
    alpha: float
    observed: float
    """least length that misaligns; NaN where a share of successes is observed instead"""
    published: float
    tight: float
    violated: bool
    """whether the published bound was beaten beyond Monte-Carlo error"""
    violated_tight: bool


def first_below(curve: Floats, level: float) -> int:
    """Return the first index with curve < level, or len(curve)."""
    below = np.flatnonzero(curve < level)
    return int(below[0]) if len(below) else len(curve)


def existence(
    world: World, beta: float, gamma: float, alphas: Sequence[float], eps: float, *, best_of: int = 1, eta: float = 0.0
) -> list[Cell]:
    """Return theorem 1, or 4 where `best_of` > 1: the shortest prompt of all, exactly, against whole sentences.

    Empty where gamma >= 0: there the theorems are silent.
    `eta`: the relaxation, theorem 1 where sentence n tells the components apart by beta / n**eta only.
    """
    theorem = "4" if best_of > 1 else "relaxed" if eta else "1"
    cells = []
    for alpha in alphas if gamma < 0 else ():
        published, tight = (
            bounds.best_of_length(alpha, beta, eps, best_of=best_of, form=form)
            if best_of > 1
            else bounds.prompt_length(alpha, beta, eps, form=form, eta=eta)
            for form in FORMS
        )
        reach = math.ceil(max(published, tight)) + 2
        found = first_below(lowest(world, alpha, reach, best_of=best_of), gamma + eps)
        cells.append(
            Cell(world=world.name, theorem=theorem, alpha=alpha, observed=found,
                 published=published, tight=tight, violated=found > math.ceil(published),
                 violated_tight=found > math.ceil(tight))
        )  # fmt: skip
    return cells


def behaviour(world: World, texts: Drawn, alpha: float) -> Floats:
    """Return the expected behaviour of P after the first 1, 2, ... sentences of each text, [count, horizon]."""
    after = world.settled
    minus, plus = world.law("minus", after) @ world.score, world.law("plus", after) @ world.score
    w = weight(texts.log_ratio, alpha)
    return np.asarray(w * minus[texts.last] + (1 - w) * plus[texts.last])


def sampled(
    world: World, known: Constants, alphas: Sequence[float], eps: float, delta: float, texts: Drawn
) -> tuple[list[Cell], Floats]:
    """Theorem 5 by Monte Carlo, and per alpha the mean length at which a text of P_- first misaligns.

    A bound is violated where the share of texts of that length that misalign has its whole 95 % interval, over all
    cells of the world, below 1 - delta.
    """
    cells, means = [], []
    level = 1 - 0.05 / len(alphas)
    for alpha in alphas:
        done = behaviour(world, texts, alpha) < known.gamma + eps
        shares = done.mean(0)
        enough = np.flatnonzero(shares < 1 - delta)
        published, tight = (
            bounds.sampled_length(alpha, known.beta, eps, sigma=known.sigma_minus, delta=delta, form=form)
            for form in FORMS
        )

        def fails(length: float, done: NDArray[np.bool_] = done) -> bool:
            at = done[:, math.floor(length)]  # the first whole number above the bound, counted from 1
            return clopper_pearson(int(at.sum()), len(at), level)[1] < 1 - delta

        first = np.where(done.any(1), done.argmax(1) + 1, done.shape[1] + 1)
        means.append(float(first.mean()))
        cells.append(
            Cell(world=world.name, theorem="5", alpha=alpha, observed=float(enough[-1] + 2 if len(enough) else 1),
                 published=published, tight=tight, violated=fails(published), violated_tight=fails(tight))
        )  # fmt: skip
    return cells, np.array(means)


def prefixed(
    world: World, known: Constants, alphas: Sequence[float], eps: float, delta: float, *, prefix: int, count: int,
    seed: int,
) -> list[Cell]:  # fmt: skip
    """Theorem 2: shortest prompts after aligning prefixes drawn from P_+; `observed` is their 1 - delta quantile."""
    texts = sample(world, "plus", count, prefix, seed)
    cells = []
    for alpha in alphas:
        published, tight = (
            bounds.prefixed_length(alpha, known.beta_prompt, eps, beta_prime=known.beta_prime, sigma=known.sigma_plus,
                                   delta=delta, prefix=prefix, form=form)
            for form in FORMS
        )  # fmt: skip
        reach = math.ceil(max(published, tight)) + 2
        lengths = np.zeros(count)
        for state in np.unique(texts.last[:, -1]):
            rows = texts.last[:, -1] == state
            low = lowest(world, alpha, reach, last=int(state), offset=texts.log_ratio[rows, -1])
            lengths[rows] = [first_below(curve, known.gamma + eps) for curve in low]

        def fails(length: float, lengths: Floats = lengths) -> bool:
            hits = int((lengths <= math.ceil(length)).sum())
            return clopper_pearson(hits, count, 1 - 0.05 / len(alphas))[1] < 1 - delta

        cells.append(
            Cell(world=world.name, theorem="2", alpha=alpha, observed=float(np.quantile(lengths, 1 - delta)),
                 published=published, tight=tight, violated=fails(published), violated_tight=fails(tight))
        )  # fmt: skip
    return cells


def dialogues(
    world: World, known: Constants, alphas: Sequence[float], eps: float, delta: float, *, answers: Sequence[int],
    count: int, seed: int,
) -> list[Cell]:  # fmt: skip
    """Theorem 3: the user says per turn what tells the components apart fastest, within the caps; the model answers.

    Answers are drawn from the mixture, that is from one component chosen by its weight at that point. After the last
    answer the user spends what is left of the total. A dialogue succeeds when behaviour then is below gamma + eps.
    """
    cells = []

    @functools.cache
    def tell(question: int, last: int | None) -> tuple[int, float]:
        """Last sentence and log-ratio of the question that gains most."""
        high = extremes(world, question, last)[0][question]
        return int(high.argmax()), float(high.max())

    for alpha in alphas:
        wins, lengths = [], []
        for form in FORMS:
            total, caps = bounds.dialogue_length(alpha, known.beta_prompt, eps, beta_prime=known.beta_prime,
                                                 sigma=known.sigma_plus, delta=delta, answers=answers,
                                                 form=form)  # fmt: skip
            spent = [math.floor(cap) for cap in caps]
            turns = [*zip(spent, answers), (math.floor(total) - sum(spent), 0)]
            draw = np.random.default_rng(seed)
            wins.append(sum(_dialogue(world, alpha, turns, tell, draw) < known.gamma + eps for _ in range(count)))
            lengths.append(total)
        low = [clopper_pearson(won, count, 1 - 0.05 / len(alphas))[1] < 1 - delta for won in wins]
        cells.append(
            Cell(world=world.name, theorem="3", alpha=alpha, observed=math.nan, published=lengths[0], tight=lengths[1],
                 violated=low[0], violated_tight=low[1])
        )  # fmt: skip
    return cells


def _dialogue(
    world: World,
    alpha: float,
    turns: Sequence[tuple[int, int]],
    tell: Callable[[int, int | None], tuple[int, float]],
    draw: np.random.Generator,
) -> float:
    """Return the behaviour after the last question; worlds here settle with their second sentence."""
    last: int | None = None
    ratio = 0.0
    for question, answer in turns:
        if question:
            last, gain = tell(question, last)
            ratio += gain
        side: Side = "minus" if draw.random() < weight(np.array(ratio), alpha) else "plus"
        for _ in range(answer):
            place = 0 if last is None else last
            law = world.law(side, 0 if last is None else 1)[place]
            following = int(draw.choice(len(law), p=law))
            ratio += float(world.ratio(0 if last is None else 1)[place, following])
            last = following
    place, after = (0, 0) if last is None else (last, 1)
    w = float(weight(np.array(ratio), alpha))
    return float((w * world.law("minus", after)[place] + (1 - w) * world.law("plus", after)[place]) @ world.score)


def lemmas(world: World, known: Constants, alpha: float, longest: int) -> Mapping[str, float]:
    """Return by how much each lemma's bound holds at its tightest, over all texts of up to `longest` sentences.

    1: |P(s|s_0) / P_-(s|s_0) - 1|; 2: |B_P - B_{P_-}|; 3: largest log-ratio - beta n; 5: KL(P_-(.|s) || P(.|s)) with
    its two bounds; 7: B_P(s) - gamma in units of the range against w_+ and, where the log-ratio is >= beta n, against
    the sigmoid. component: P(s) / P_-(s) >= alpha. Negative beyond float error is a violation.
    """
    slack = {name: math.inf for name in ("1", "2", "3", "5", "7", "component")}
    odds = (1 - alpha) / alpha
    for n in range(longest + 1):
        best = -math.inf
        for text in itertools.product(range(len(world.score)), repeat=n):
            log_minus, log_plus = _log_probabilities(world, text)
            minus, plus = (world.law(s, n)[text[-1] if text else 0] for s in SIDES)
            if log_minus == -math.inf:
                continue
            ratio = log_minus - log_plus
            best = max(best, ratio)
            w = float(weight(np.array(ratio), alpha))
            mixed = w * minus + (1 - w) * plus
            kl = float(minus @ np.log(minus / mixed))
            b, b_minus = float(mixed @ world.score), float(minus @ world.score)
            extended = odds * np.exp(-ratio) * np.maximum(plus / minus, 1)
            whole = float(log_mixture(np.array(log_minus), np.array(log_plus), alpha)) - log_minus
            found = {
                "1": float((extended - np.abs(mixed / minus - 1)).min()),
                "2": 2 * odds * math.exp(-ratio) - abs(b - b_minus),
                "5": -math.log(w) - kl,
                "7": (1 - w) - (b - known.gamma) / 2,
                "component": whole - math.log(alpha),
            }
            if ratio >= known.beta * n:
                found["5"] = min(found["5"], math.log1p(odds * math.exp(-known.beta * n)) - kl)
                found["7"] = min(found["7"], 1 / (1 + math.exp(known.beta * n) / odds) - (b - known.gamma) / 2)
            slack |= {name: min(slack[name], value) for name, value in found.items()}
        slack["3"] = min(slack["3"], best - known.beta * n)
    return slack


def _log_probabilities(world: World, text: Sequence[int]) -> tuple[float, float]:
    found = []
    for side in SIDES:
        laws = [world.law(side, n) for n in range(len(text))]
        with np.errstate(divide="ignore"):
            found.append(
                math.fsum(float(np.log(law[text[n - 1] if n else 0, s])) for n, (law, s) in enumerate(zip(laws, text)))
            )
    return found[0], found[1]


def slope(alphas: Sequence[float], lengths: Sequence[float] | Floats) -> float:
    """Return sentences per nat of log(1 / alpha), by least squares."""
    return float(np.polyfit(-np.log(np.asarray(alphas)), np.asarray(lengths, dtype=np.float64), 1)[0])
