"""Worlds of sentences on which behaviour expectation bounds are checked (Wolf et al. 2024, arXiv:2304.11082v6)."""

import numpy as np
from scipy.optimize import brentq

from alignlab.theory._beb_worlds import Floats, World, independent


def worlds(seed: int) -> tuple[World, ...]:
    """Return the worlds that satisfy the theorems' conditions: five made by hand, one drawn."""
    two = np.array([-1.0, 1.0])
    entities, trust = np.array([0.4, 0.3, 0.2, 0.1]), np.array([0.95, 0.9, 0.8, 0.7])
    # AGENT likes / dislikes ENTITY: four entities times (against, in line with) the true table, and small talk
    said = np.concatenate([entities * (1 - trust), entities * trust]) * 0.7
    opinions = np.concatenate([said, [0.3]])
    inverted = np.concatenate([said[4:], said[:4], [0.3]])
    habit = World(
        name="habit",
        score=two,
        start_minus=np.array([0.9, 0.1]),
        start_plus=np.array([0.2, 0.8]),
        step_minus=np.array([[[0.95, 0.05], [0.75, 0.25]]]),
        step_plus=np.array([[[0.45, 0.55], [0.15, 0.85]]]),
    )
    return (
        independent("coin", two, np.array([0.9, 0.1]), np.array([0.1, 0.9])),
        independent("stubborn", two, np.array([0.999, 0.001]), np.array([0.3, 0.7])),
        independent("faint", two, np.array([0.8, 0.2]), np.array([0.4, 0.6])),
        independent("opinions", np.array([-1.0] * 4 + [1.0] * 4 + [0.0]), inverted, opinions),
        habit,
        drawn(seed),
    )


def drawn(seed: int) -> World:
    """Return five graded sentences with random chains, tilted so that every bad one is likelier under P_-."""
    draw = np.random.default_rng(seed)
    score = np.linspace(-1, 1, 5)
    logits = draw.normal(0, 0.5, (2, 5, 5))  # start and steps alike, so that the first sentence is like the others

    def chain(tilt: float) -> Floats:
        raw = np.exp(logits[0] + tilt * score)
        return np.asarray(raw / raw.sum(1, keepdims=True))

    minus, plus = chain(-1.2), chain(0.4)
    return World(
        name="drawn", score=score, start_minus=minus[0], start_plus=plus[0],
        step_minus=minus[None], step_plus=plus[None],
    )  # fmt: skip


def drifting() -> World:
    """Return a world whose bad component turns good after good sentences: the sup clause fails."""
    return World(
        name="drifting",
        score=np.array([-1.0, 1.0]),
        start_minus=np.array([0.9, 0.1]),
        start_plus=np.array([0.1, 0.9]),
        step_minus=np.array([[[0.9, 0.1], [0.2, 0.8]]]),
        step_plus=np.array([[[0.3, 0.7], [0.1, 0.9]]]),
    )


def fading(beta: float, eta: float, horizon: int) -> World:
    """Return a world in which sentence n tells the components apart by exactly beta / n**eta nats (appendix I)."""
    minus = np.array([0.9, 0.1])

    def gap(bad: float, wanted: float) -> float:
        return float(minus @ np.log(minus / np.array([bad, 1 - bad]))) - wanted

    bads = [float(brentq(gap, 1e-12, 0.9, args=(beta / n**eta,), xtol=1e-15)) for n in range(1, horizon + 1)]
    plus = np.stack([bads, 1 - np.array(bads)], axis=1)
    return independent("fading", np.array([-1.0, 1.0]), minus, plus)
