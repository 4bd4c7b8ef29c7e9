"""A nation whose opinions are known: strata with latent stances, and surveys of it that ask some too often.

Each stratum has a place on four topics; a respondent's answer to an item is an ordered choice among five, by a logistic
model around the stratum's place times the item's slope. The population's shares are exact; a survey is a draw.
"""

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

OPTIONS = ("strongly disagree", "disagree", "neutral", "agree", "strongly agree")
STRATA = {
    "young women": 0.15, "young men": 0.15, "middle women": 0.19, "middle men": 0.18, "old women": 0.18,
    "old men": 0.15,
}  # fmt: skip
"""stratum -> share of the census"""
SAMPLED = {
    "young women": 0.28, "young men": 0.28, "middle women": 0.14, "middle men": 0.13, "old women": 0.09,
    "old men": 0.08,
}  # fmt: skip
"""stratum -> share of the survey: the young answer more often"""
TOPICS = ("trade", "order", "family", "change")
_DEEDS = ("build", "sell", "close", "repair", "protect", "share", "forbid", "keep", "clean", "open", "lend", "change")
_THINGS = (
    "the school", "the road", "the market", "the shop", "the holiday", "the tax", "the prison", "the wall", "the ship",
    "the library", "the song", "the game", "the drink", "the machine", "the garden", "the river", "the tower",
)  # fmt: skip
CUTS = (-2.0, -0.6, 0.6, 2.0)
"""thresholds between the five answers on the logistic scale"""


@dataclass(frozen=True)
class Item:
    """One statement with the shares of each stratum, options in the order of OPTIONS."""

    number: int
    text: str
    topic: str
    by_stratum: Mapping[str, tuple[float, ...]] = field(repr=False)

    @property
    def shares(self) -> NDArray[np.float64]:
        """Return the population's shares."""
        return np.sum([share * np.array(self.by_stratum[name]) for name, share in STRATA.items()], axis=0)


def answers(location: float, spread: float = 1.0, cuts: Sequence[float] = CUTS) -> tuple[float, ...]:
    """Return the chances of the answers between the cuts of somebody at `location`, ordered logit of this spread."""
    below = 1 / (1 + np.exp(-(np.array(cuts) - location) / spread))
    return tuple(np.diff([0.0, *below, 1.0]).tolist())


def items(count: int = 200, seed: int = 0, shift: float = 0.0) -> list[Item]:
    """Return the nation's items; another `seed` is another nation, `shift` moves every opinion of the same one."""
    texts = list(itertools.product(_DEEDS, _THINGS))
    if not 1 <= count <= len(texts):
        raise ValueError(f"a nation has 1 to {len(texts)} items, asked for {count}")
    draw = random.Random(f"nation:{seed}")
    places = {name: [draw.gauss(0, 1.2) for _ in TOPICS] for name in STRATA}
    draw.shuffle(texts)
    found = []
    for number, (deed, thing) in enumerate(texts[:count]):
        topic = number % len(TOPICS)
        slope, base = draw.choice((-1, 1)) * draw.uniform(0.5, 1.3), draw.gauss(0, 0.9)
        spread = draw.uniform(0.5, 1.1)
        rows = {name: answers(base + slope * places[name][topic] + shift, spread) for name in STRATA}
        found.append(Item(number, f"The town should {deed} {thing}.", TOPICS[topic], rows))
    return found


def survey(listed: Sequence[Item], per_item: int = 220, seed: int = 0) -> list[dict[str, tuple[int, ...]]]:
    """Return for each item stratum -> how often each option was chosen, with strata asked by SAMPLED."""
    draw = np.random.default_rng(seed)
    sizes = {name: max(1, round(per_item * share)) for name, share in SAMPLED.items()}
    return [
        {name: tuple(draw.multinomial(n, item.by_stratum[name]).tolist()) for name, n in sizes.items()}
        for item in listed
    ]
