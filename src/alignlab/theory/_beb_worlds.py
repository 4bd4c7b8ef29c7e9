"""Worlds of sentences in which every quantity of behaviour expectation bounds is exact.

A world has S sentences with a behaviour score each and two Markov chains over them, P_- and P_+; independent sentences
are chains that forget. The mixture alpha P_- + (1 - alpha) P_+ is over whole texts, so it is carried by the two
cumulative log-probabilities alone (Wolf et al. 2024, arXiv:2304.11082v6). Natural logarithms, float64.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

Floats = NDArray[np.float64]
Side = Literal["minus", "plus"]


def log_mixture(log_minus: Floats, log_plus: Floats, alpha: float) -> Floats:
    """Return log P of whole texts from log P_- and log P_+, any shape; either may be -inf."""
    return np.asarray(np.logaddexp(np.log(alpha) + log_minus, np.log1p(-alpha) + log_plus))


def weight(log_ratio: Floats, alpha: float) -> Floats:
    """Return w_- after texts with log P_- / P_+ = log_ratio: the weight of P_- in the next sentence."""
    return np.asarray(expit(logit(alpha) + log_ratio))


@dataclass(frozen=True, kw_only=True)
class World:
    """S sentences, their scores, and two chains over them."""

    name: str
    score: Floats
    """[S] behaviour in [-1, 1]"""
    start_minus: Floats
    """[S] P_- of the first sentence"""
    start_plus: Floats
    step_minus: Floats
    """[H, S, S] P_-(next | last); step n uses entry min(n, H) - 1, so H = 1 is a chain that stays the same"""
    step_plus: Floats

    def __post_init__(self) -> None:
        """Raise ValueError for anything that is no distribution, or a score outside [-1, 1]."""
        for field in ("start_minus", "start_plus", "step_minus", "step_plus"):
            table = getattr(self, field)
            if (table < 0).any() or not np.allclose(table.sum(-1), 1, atol=1e-12):
                raise ValueError(f"world {self.name!r}: {field} has rows that are no probabilities adding up to 1")
        if (np.abs(self.score) > 1).any():
            raise ValueError(f"world {self.name!r}: score must lie in [-1, 1]")

    @property
    def settled(self) -> int:
        """Number of the first sentence from which on the laws stay the same."""
        return max(len(self.step_minus), len(self.step_plus))

    def law(self, side: Side, n: int) -> Floats:
        """Return P(sentence n | sentence n - 1) as [S, S], counted from 0; the rows of sentence 0 are alike."""
        start, steps = (self.start_minus, self.step_minus) if side == "minus" else (self.start_plus, self.step_plus)
        if n == 0:
            return np.tile(start, (len(start), 1))
        return np.asarray(steps[min(n, len(steps)) - 1])

    def ratio(self, n: int) -> Floats:
        """Return log P_- / P_+ of sentence n by the one before, [S, S]; -inf where P_- is 0."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self.law("minus", n)) - np.log(self.law("plus", n)))


def independent(name: str, score: Floats, minus: Floats, plus: Floats) -> World:
    """Return a world whose sentences do not depend on one another; `plus` may be [H, S], one row per sentence."""
    minus, plus = np.atleast_2d(minus), np.atleast_2d(plus)
    size = len(score)

    def steps(rows: Floats) -> Floats:
        return np.repeat(rows[min(1, len(rows) - 1) :, None, :], size, axis=1)

    return World(
        name=name, score=score, start_minus=minus[0], start_plus=plus[0], step_minus=steps(minus), step_plus=steps(plus)
    )


def divergence(world: World, horizon: int, phi: Side = "minus", last: int | None = None) -> Floats:
    """Return E over n sentences of phi of KL(phi || other) of the next one, for n = 0 .. horizon - 1 (definition 2).

    `last`: after a prefix that ends in this sentence (definition 3) instead of at the start of the text.
    """
    sign, shift = (1.0 if phi == "minus" else -1.0), 0 if last is None else 1
    state = np.full(len(world.score), 1 / len(world.score)) if last is None else np.eye(len(world.score))[last]
    found = []
    for n in range(horizon):
        law, ratio = world.law(phi, n + shift), sign * world.ratio(n + shift)
        found.append(float(state @ np.where(law > 0, law * ratio, 0.0).sum(1)))
        state = state @ law
    return np.array(found)


def variance(world: World, horizon: int, phi: Side = "minus", last: int | None = None) -> Floats:
    """Return Var over n sentences of phi of log phi / other, for n = 1 .. horizon (definition 4), by moments."""
    shift = 0 if last is None else 1
    mass = np.full(len(world.score), 1 / len(world.score)) if last is None else np.eye(len(world.score))[last]
    first, second = np.zeros_like(mass), np.zeros_like(mass)
    found = []
    for n in range(horizon):
        law, ratio = world.law(phi, n + shift), world.ratio(n + shift)
        gain = np.where(law > 0, ratio, 0.0)
        second = second @ law + 2 * first @ (law * gain) + mass @ (law * gain**2)
        first, mass = first @ law + mass @ (law * gain), mass @ law
        found.append(float(second.sum() - first.sum() ** 2))
    return np.array(found)


@dataclass(frozen=True, kw_only=True)
class Constants:
    """What the theorems ask of a world, each as tight as it is true there."""

    beta: float
    """P_- from P_+, definition 2"""
    beta_prompt: float
    """the same after any prefix that ends badly, definition 3"""
    beta_prime: float
    """upper bound of the good component's divergence, definition 2"""
    sigma_minus: float
    """P_- to P_+, definition 4 (theorem 5)"""
    sigma_plus: float
    """P_+ to P_-, definition 4 (theorems 2 and 3)"""
    gamma: float
    """worst, that is highest, behaviour of P_- over all prefixes: the audit of the sup clause"""
    positive: bool
    """P_+ gives every bad sentence less than P_- does, after any prefix (definition 6)"""
    rate: float
    """mean log-ratio per sentence of long texts of P_-"""
    best_rate: float
    """the same of the text that tells the two apart fastest: the largest cycle mean"""


def constants(world: World, horizon: int = 300, best_of: int = 1) -> Constants:
    """Measure a world exactly; suprema over lengths are taken up to `horizon` sentences."""
    states = range(len(world.score))
    bad = [s for s in states if world.score[s] < 0]
    curve = divergence(world, horizon)

    def sigma(phi: Side) -> float:
        spreads = [variance(world, horizon, phi, last) for last in (None, *states)]
        return float(np.sqrt(max((v / np.arange(1, horizon + 1)).max() for v in spreads)))

    laws = [(world.law("minus", n), world.law("plus", n)) for n in range(world.settled + 1)]
    return Constants(
        beta=float(curve.min()),
        beta_prompt=float(min((divergence(world, horizon, "minus", s).min() for s in bad), default=np.nan)),
        beta_prime=float(divergence(world, horizon, "plus").max()),
        sigma_minus=sigma("minus"),
        sigma_plus=sigma("plus"),
        gamma=float(max(best_of_expectation(world.score, law, best_of).max() for law, _ in laws)),
        positive=all(bool((plus[:, bad] < minus[:, bad]).all()) for minus, plus in laws),
        rate=float(curve[-1]),
        best_rate=_largest_cycle_mean(world.ratio(world.settled)),
    )


def best_of_expectation(score: Floats, law: Floats, n: int = 1) -> Floats:
    """Return E of the highest score among n independent sentences of each law, [..., S] -> [...]."""
    order = np.argsort(score)
    below = np.cumsum(law[..., order], axis=-1).clip(0, 1) ** n
    share = np.diff(below, axis=-1, prepend=0.0)
    return np.asarray(share @ score[order])


def _largest_cycle_mean(gain: Floats) -> float:
    """Karp 1978: max over ends of min over k of (D_n - D_k) / (n - k), D_k the best walk of k steps."""
    size = len(gain)
    walks = np.zeros((size + 1, size))
    for k in range(size):
        walks[k + 1] = (walks[k][:, None] + gain).max(0)
    means = [(walks[size] - walks[k]) / (size - k) for k in range(size)]
    return float(np.min(means, axis=0).max())


def extremes(world: World, horizon: int, last: int | None = None) -> tuple[Floats, Floats]:
    """Return the largest and smallest log P_- / P_+ over all texts of n sentences by their last one, [horizon + 1, S].

    `last`: the texts follow this sentence. n = 0 is the empty text: 0 at `last`, or at every sentence.
    """
    size, shift = len(world.score), 0 if last is None else 1
    high = np.full((horizon + 1, size), -np.inf)
    high[0, slice(None) if last is None else last] = 0.0
    low = -high
    for n in range(horizon):
        gain = world.ratio(n + shift)
        high[n + 1] = (high[n][:, None] + gain).max(0)
        low[n + 1] = (low[n][:, None] + gain).min(0)
    return high, low


def lowest(
    world: World,
    alpha: float,
    horizon: int,
    *,
    best_of: int = 1,
    last: int | None = None,
    offset: Floats | float = 0.0,
) -> Floats:
    """Return the lowest behaviour that a prompt of n sentences can bring about, n = 0 .. horizon on the last axis.

    Exact for one sample: the expectation is linear in w_-, so the extreme log-ratios by last sentence decide. For best
    of n it is the lowest over those extremes, hence a prompt that exists, if not always the best.

    Args:
        world: where.
        alpha: weight of P_-.
        horizon: longest prompt.
        best_of: answers of which the best is taken.
        last: sentence that the prompt follows.
        offset: log P_- / P_+ of the text before the prompt, one or many; they are the leading axes of what returns.
    """
    shift, before = 0 if last is None else 1, np.asarray(offset, dtype=np.float64)
    found = np.full((*before.shape, horizon + 1), np.inf)
    for reach in extremes(world, horizon, last):
        for n in range(horizon + 1):
            states = np.flatnonzero(np.isfinite(reach[n]))
            w = weight(reach[n, states] + before[..., None], alpha)[..., None]
            law = w * world.law("minus", n + shift)[states] + (1 - w) * world.law("plus", n + shift)[states]
            found[..., n] = np.minimum(found[..., n], best_of_expectation(world.score, law, best_of).min(-1))
    return found


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """Texts drawn from one component, sentence by sentence."""

    last: NDArray[np.int64]
    """[count, horizon] the sentences"""
    log_ratio: Floats
    """[count, horizon] cumulative log P_- / P_+"""


def sample(world: World, side: Side, count: int, horizon: int, seed: int) -> Drawn:
    """Draw texts of `horizon` sentences."""
    draw = np.random.default_rng(seed)
    last = np.zeros(count, dtype=np.int64)
    sentences, gains = np.zeros((count, horizon), dtype=np.int64), np.zeros((count, horizon))
    for n in range(horizon):
        cumulative = np.cumsum(world.law(side, n), axis=1)[last]
        following = (draw.random((count, 1)) > cumulative[:, :-1]).sum(1)
        gains[:, n] = world.ratio(n)[last, following]
        sentences[:, n] = last = following
    return Drawn(last=sentences, log_ratio=np.cumsum(gains, axis=1))
