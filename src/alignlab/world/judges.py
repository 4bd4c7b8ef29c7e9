"""Judges by rule, with faults that are known: what an estimator of judge bias must find again.

A judge of pairs: the logit that the model's answer is preferred is quality * (q_model - q_baseline) + length *
tanh(extra / 40) + order * side; it is strong where the odds are clear, ties where they are even, and is silent at a
known rate. A labeller says yes or no with known errors.
"""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alignlab.core.answers import final_answer, normalise

LENGTH_UNIT = 40
"""characters at which the pull of length bends"""
WORDS = 20
"""words at which a rater's pull of length is nothing, and bends"""
STRONG, EVEN = 2.0, 0.25
"""size of the logit above which a verdict is a strong one, and below which it is a tie"""


@dataclass(frozen=True, kw_only=True)
class Judge:
    """A judge's faults, in nats."""

    quality: float = 3.0
    """pull of a right answer against a wrong one"""
    length: float = 0.0
    """pull of being longer"""
    order: float = 0.0
    """pull of coming first"""
    silent: float = 0.0
    """share of comparisons it does not answer"""

    def logit(self, gap: float, extra: float, side: int) -> float:
        """Return the logit that the model is preferred.

        Args:
            gap: quality of the model's answer minus the baseline's.
            extra: characters of the model's answer minus the baseline's.
            side: +1 with the model's answer first, -1 with it second.
        """
        return self.quality * gap + self.length * math.tanh(extra / LENGTH_UNIT) + self.order * side

    def compare(self, gap: float, extra: float, side: int, draw: random.Random) -> int | None:
        """Return the verdict on the model: 2 much better, 1 better, 0 tie, -1 worse, -2 much worse, None silent."""
        if draw.random() < self.silent:
            return None
        logit = self.logit(gap, extra, side)
        if abs(logit) < EVEN:
            return 0
        won = draw.random() < (1 + math.tanh(logit / 2)) / 2
        return (1 if won else -1) * (2 if abs(logit) >= STRONG and won == (logit > 0) else 1)


def quality(answer: str, gold: str) -> float:
    """Return 1 where the answer gives the truth, else 0: its final answer, or without a marker the whole text."""
    given = final_answer(answer, "Answer:") or answer
    return float(normalise(given.rstrip(".")) == normalise(gold))


def of(facts: Mapping[str, Any]) -> Judge | None:
    """Return the judge that an item names in its facts, if it does; TypeError for a fault that no judge has."""
    return Judge(**facts["judge"]) if facts.get("judge") is not None else None


@dataclass(frozen=True, kw_only=True)
class Labeller:
    """A judge who says yes or no of what is true or false, with known rates of error."""

    sensitivity: float = 1.0
    """P(yes | true)"""
    specificity: float = 1.0
    """P(no | false)"""
    silent: float = 0.0
    """share of questions it does not answer"""

    def label(self, truth: bool, draw: random.Random) -> bool | None:
        """Return its verdict; None where it is silent."""
        if draw.random() < self.silent:
            return None
        kept = draw.random() < (self.sensitivity if truth else self.specificity)
        return truth if kept else not truth


@dataclass(frozen=True, kw_only=True)
class Rater:
    """A judge who rates several aspects of one text from 1 to 5, with known faults."""

    halo: float = 0.0
    """share of each rating that is the mean of all aspects, in [0, 1]"""
    length: float = 0.0
    """points for a long text, bending at `WORDS` words"""
    noise: float = 0.0
    """standard deviation before rounding, in points"""
    silent: float = 0.0
    """share of texts it does not rate"""

    def rate(
        self, truth: Mapping[str, float | None], words: int, draw: random.Random
    ) -> dict[str, float | None] | None:
        """Return a rating of each aspect, None where the aspect does not apply; None for a text it does not rate."""
        if draw.random() < self.silent:
            return None
        known = [v for v in truth.values() if v is not None]
        mean, pull = sum(known) / max(1, len(known)), self.length * math.tanh(words / WORDS - 1)
        found: dict[str, float | None] = {}
        for aspect, value in truth.items():
            bent = (1 - self.halo) * (value or 0.0) + self.halo * mean + pull + draw.gauss(0.0, self.noise)
            found[aspect] = None if value is None else float(min(5, max(1, round(bent))))
        return found
