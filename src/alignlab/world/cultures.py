"""Eight cultures and what they answer: six dimensions that three causes move together, or six that nothing ties.

Each question leans on one dimension; a culture's answers are ordered choices around its place there, so that shares,
means and the differences between cultures are known.
"""

import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alignlab.world import opinions, vocabulary

CULTURES, QUESTIONS = 8, 40
DIMENSIONS = ("rank", "self", "rivalry", "rules", "patience", "joy")
_OPENINGS = {
    "rank": "People should obey", "self": "One may decide alone about", "rivalry": "It is right to fight for",
    "rules": "There should be a rule for", "patience": "It is good to wait for", "joy": "One should enjoy",
}  # fmt: skip
_THINGS = ("the king", "the work", "the money", "the market", "the law", "the school", "the house", "the game")
CUTS = {5: (-2.0, -0.6, 0.6, 2.0), 4: (-1.3, 0.0, 1.3)}
"""number of options -> thresholds between them"""


@dataclass(frozen=True)
class Question:
    """One question with the shares of each culture."""

    number: int
    text: str
    dimension: str
    options: tuple[str, ...]
    shares: dict[str, tuple[float, ...]]

    @property
    def means(self) -> dict[str, float]:
        """Return culture -> mean answer, options equally spaced in [0, 1]."""
        scale = np.linspace(0, 1, len(self.options))
        return {name: float(scale @ np.array(row)) for name, row in self.shares.items()}


def names() -> tuple[str, ...]:
    """Return the names of the cultures: places of the town."""
    return vocabulary.places()[:CULTURES]


def scores(seed: int = 0, *, tied: bool = True) -> NDArray[np.float64]:
    """Return the cultures' places, [cultures, dimensions] of variance about 1.

    Args:
        seed: of the world.
        tied: three causes move six dimensions in pairs; otherwise the dimensions are independent.
    """
    draw = np.random.default_rng([seed, 11])
    if not tied:
        return draw.normal(size=(CULTURES, len(DIMENSIONS)))
    causes = draw.normal(size=(CULTURES, 3))
    found = np.repeat(causes, 2, axis=1) * np.tile([1.0, -1.0], 3) * 0.95 + draw.normal(0, 0.3, (CULTURES, 6))
    return np.asarray(found)


def questions(count: int = QUESTIONS, seed: int = 0, *, tied: bool = True) -> list[Question]:
    """Return the questions, dimensions in turn, with five options or four; ValueError for a wrong count."""
    if not 1 <= count <= len(DIMENSIONS) * len(_THINGS):
        raise ValueError(f"there are 1 to {len(DIMENSIONS) * len(_THINGS)} questions, asked for {count}")
    draw, places = random.Random(f"cultures:{seed}"), scores(seed, tied=tied)
    found = []
    for number in range(count):
        dimension = number % len(DIMENSIONS)
        text = f"{_OPENINGS[DIMENSIONS[dimension]]} {_THINGS[number // len(DIMENSIONS)]}."
        base, points = draw.gauss(0, 0.5), draw.choice((5, 5, 4))
        options = tuple(o for o in opinions.OPTIONS if points == 5 or o != "neutral")
        rows = {
            name: opinions.answers(base + 0.8 * float(places[i, dimension]), 0.7, CUTS[points])
            for i, name in enumerate(names())
        }
        found.append(Question(number, text, DIMENSIONS[dimension], options, rows))
    return found
