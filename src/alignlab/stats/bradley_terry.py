"""Strengths of players from paired comparisons with ties: Bradley and Terry's model and two of its extensions.

P(i beats j) = sigmoid(s_i - s_j + features @ coefficients). Ties count half a win each (`half`, the usual arena score),
or have a probability of their own: Davidson 1970, p_tie = 2 nu sqrt(p_i p_j) before normalising, or Rao and Kupper
1967, where i must win by more than a threshold.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import expit

from alignlab.core.types import Metric
from alignlab.stats.resample import Index, statistic

Array = NDArray[np.float64]
Ties = Literal["half", "davidson", "rao_kupper"]
RIDGE = 1e-6
"""keeps players who win or lose every game finite"""
ELO_PER_NAT = 400 / math.log(10)


@dataclass(frozen=True, kw_only=True)
class Games:
    """Comparisons, one entry each in every array."""

    left: Sequence[str]
    right: Sequence[str]
    outcome: ArrayLike
    """1 left won, 0 right won, 0.5 a tie; for `half` any number between is a soft verdict"""
    weight: ArrayLike | None = None
    features: ArrayLike | None = None
    """[games, features] that speak for left, e.g. its extra length; they are controlled for"""


@dataclass(frozen=True, kw_only=True)
class Strengths:
    """A fitted model; strengths are in nats, 0 for the anchor."""

    strength: dict[str, float]
    tie: float = 0.0
    """Davidson's nu, or Rao and Kupper's threshold in nats"""
    coefficients: tuple[float, ...] = field(default=())

    def elo(self, base: float = 1000.0) -> dict[str, float]:
        """Return ratings on the scale where 400 points are odds of 10 to 1, `base` for the anchor."""
        return {name: base + ELO_PER_NAT * s for name, s in self.strength.items()}

    def win_rate(self, player: str, opponent: str) -> float:
        """Return P(player beats opponent), ties counted half in each model, at equal features."""
        return float(expit(self.strength[player] - self.strength[opponent]))


def fit(games: Games, *, anchor: str, ties: Ties = "half") -> Strengths:
    """Fit by maximum likelihood, with a ridge of 1e-6 so that a player without a loss stays finite.

    Args:
        games: the comparisons.
        anchor: the player whose strength is 0, e.g. the baseline.
        ties: how ties enter; `davidson` and `rao_kupper` need outcomes 0, 0.5 and 1.

    Raises:
        ValueError: the anchor plays no game, an outcome is out of range, lengths differ, or a player is connected with
            the anchor through no chain of games, so that nothing compares them.
    """
    names = list(dict.fromkeys([anchor, *games.left, *games.right]))
    place = {name: i for i, name in enumerate(names)}
    y = np.asarray(games.outcome, dtype=np.float64)
    x = np.zeros((len(y), 0)) if games.features is None else np.asarray(games.features, dtype=np.float64)
    w = np.ones(len(y)) if games.weight is None else np.asarray(games.weight, dtype=np.float64)
    if not len(games.left) == len(games.right) == len(y) == len(x) == len(w) or not len(y):
        raise ValueError(
            f"Bradley-Terry: {len(games.left)} left, {len(games.right)} right, {len(y)} outcomes, {len(x)} feature "
            f"rows, {len(w)} weights; give one of each per game, and at least one game"
        )
    if not ((y >= 0) & (y <= 1)).all() or (ties != "half" and not np.isin(y, (0, 0.5, 1)).all()):
        raise ValueError(f"Bradley-Terry: outcomes must lie in [0, 1], and for ties={ties!r} be 0, 0.5 or 1")
    left, right = (np.array([place[n] for n in side]) for side in (games.left, games.right))
    _connected(names, left, right)
    players, extra = len(names) - 1, x.shape[1]

    def objective(theta: Array) -> tuple[float, Array]:
        s = np.concatenate([[0.0], theta[:players]])
        gap = s[left] - s[right] + x @ theta[players : players + extra]
        tie = 0.0 if ties == "half" else float(theta[-1])
        loss, by_gap, by_tie = _losses(gap, y, tie, ties)
        slope = w * by_gap
        by_strength = np.bincount(left, slope, len(names)) - np.bincount(right, slope, len(names))
        grads = [by_strength[1:], x.T @ slope]
        if ties != "half":
            grads.append(np.array([float(w @ by_tie)]))
        value = float(w @ loss) + RIDGE / 2 * float(theta @ theta)
        return value, np.concatenate(grads) + RIDGE * theta

    start = np.zeros(players + extra + (ties != "half"))
    options = {"maxiter": 5000, "ftol": 1e-14, "gtol": 1e-9}
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options=options).x
    return Strengths(
        strength={name: float(v) for name, v in zip(names, [0.0, *found[:players]])},
        tie=0.0 if ties == "half" else float(np.exp(found[-1])),
        coefficients=tuple(float(c) for c in found[players : players + extra]),
    )


def _losses(gap: Array, y: Array, log_tie: float, ties: Ties) -> tuple[Array, Array, Array]:
    """Return -log p(outcome) per game with its derivatives by the gap and by the log of the tie parameter."""
    if ties == "half":
        return np.logaddexp(0, gap) - y * gap, expit(gap) - y, np.zeros_like(gap)
    if ties == "davidson":
        scores = np.stack([gap / 2, -gap / 2, np.full_like(gap, log_tie)])  # left, right, tie; common factor removed
        total = np.logaddexp.reduce(scores, axis=0)
        p = np.exp(scores - total)
        won, tied = y - 0.5, y == 0.5
        loss = total - np.where(tied, log_tie, won * gap)
        return loss, (p[0] - p[1]) / 2 - won, p[2] - tied
    edge = math.exp(log_tie)
    up, down = expit(gap - edge), expit(-gap - edge)  # left wins, right wins
    tie = np.maximum(1 - up - down, 1e-300)
    rise, fall = up * (1 - up), down * (1 - down)
    loss = -np.log(np.where(y == 1, np.maximum(up, 1e-300), np.where(y == 0, np.maximum(down, 1e-300), tie)))
    by_gap = np.where(y == 1, -(1 - up), np.where(y == 0, 1 - down, (rise - fall) / tie))
    by_edge = np.where(y == 1, 1 - up, np.where(y == 0, 1 - down, -(rise + fall) / tie))
    return loss, by_gap, by_edge * edge


def _connected(names: Sequence[str], left: Index, right: Index) -> None:
    reached = {0}
    grown = True
    while grown:
        new = {int(b) for a, b in zip(left, right) if int(a) in reached}
        new |= {int(a) for a, b in zip(left, right) if int(b) in reached}
        grown = not new <= reached
        reached |= new
    alone = [name for i, name in enumerate(names) if i not in reached]
    if alone or len(names) == 1:
        raise ValueError(
            f"Bradley-Terry: no chain of games joins {alone or names} to {names[0]!r}; nothing compares them"
        )


def win_rate_interval(
    games: Games,
    player: str,
    anchor: str,
    *,
    clusters: Sequence[Hashable],
    ties: Ties = "half",
    level: float = 0.95,
    draws: int = 100,
    seed: int = 0,
) -> Metric:
    """Return P(player beats anchor) with an interval from refitting resampled clusters of games (questions)."""
    y, x = np.asarray(games.outcome, dtype=np.float64), games.features
    table = None if x is None else np.asarray(x, dtype=np.float64)
    weight = None if games.weight is None else np.asarray(games.weight, dtype=np.float64)

    def estimate(index: Index) -> float:
        drawn = Games(
            left=[games.left[i] for i in index],
            right=[games.right[i] for i in index],
            outcome=y[index],
            weight=None if weight is None else weight[index],
            features=None if table is None else table[index],
        )
        try:
            return fit(drawn, anchor=anchor, ties=ties).win_rate(player, anchor)
        except (ValueError, KeyError):  # a draw without games of one of them
            return math.nan

    return statistic(estimate, clusters, level=level, draws=draws, seed=seed)
