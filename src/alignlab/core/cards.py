"""Cards: what a method claims, where it comes from, and which command shows it."""

import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

RELATIONS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}


def compare(value: float, relation: str, bound: float) -> bool:
    """Whether a relation holds, not of NaN; .98 - 1 is a fall by two points, whatever binary fractions make of it."""
    return not math.isnan(value) and RELATIONS[relation](round(value - bound, 9), 0)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A bound on one metric of `result.json`, or on a difference `a - b` of two of them."""

    metric: str
    relation: Literal[">=", "<=", ">", "<"]
    bound: float
    seeds: int = 1

    def observed(self, metrics: Mapping[str, float]) -> float:
        """Return the value the claim speaks of; KeyError names a metric that result.json lacks."""
        left, _, right = self.metric.partition(" - ")
        for name in filter(None, (left, right)):
            if name not in metrics:
                raise KeyError(f"claim {self}: result.json has no metric {name!r}; it has {', '.join(sorted(metrics))}")
        return metrics[left] - (metrics[right] if right else 0.0)

    def holds(self, metrics: Mapping[str, float]) -> bool:
        """Whether the claim is true of these metrics; never of a NaN."""
        return compare(self.observed(metrics), self.relation, self.bound)

    def __str__(self) -> str:
        return f"{self.metric} {self.relation} {self.bound:g}"


@dataclass(frozen=True, kw_only=True)
class Card:
    """What every method file exports as CARD."""

    title: str
    paper: str
    """arXiv id, DOI or URL"""
    bibtex: str
    brief: str
    """slug of the specification"""
    status: Literal["faithful", "reconstructed"]
    """faithful: checked against the paper's text; reconstructed: from code, restatements or parts of it, which
    `deviations` name"""
    summary: str
    """one sentence for tables"""
    smoke: str
    """command of at most 60 s on two cores (fields: 180 s); `{out}` stands for the run folder"""
    study: str = ""
    """command that leaves the committed result behind the claim"""
    claims: tuple[Claim, ...]
    """evaluated on the smoke command's result.json"""
    needs: frozenset[str] = frozenset()
    """views or inputs"""
    training: Mapping[str, float] = field(default_factory=dict)
    """settings of the training loop whose default is another one for this method"""
    deviations: tuple[str, ...] = ()
