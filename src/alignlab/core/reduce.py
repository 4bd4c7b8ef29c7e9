"""The only place that reduces over items: a loss is a sum of ratios whose sums run over the whole optimiser batch."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from alignlab.core.types import Term

Totals = Mapping[str, tuple[float, float]]
"""term name -> (sum of num, sum of den)"""


def totals(batches: Iterable[tuple[Term, ...]]) -> dict[str, tuple[float, float]]:
    """Sum numerators and denominators by term name over micro-batches; float64."""
    sums: dict[str, tuple[float, float]] = {}
    for terms in batches:
        for term in terms:
            num, den = sums.get(term.name, (0.0, 0.0))
            sums[term.name] = (num + term.num.detach().double().sum().item(), den + term.den.double().sum().item())
    return sums


def share(terms: tuple[Term, ...], denominators: Mapping[str, float]) -> Tensor:
    """Return this micro-batch's share of the step's loss: sum of weight * sum(num) / whole-step denominator.

    Shares add up to the loss of the step, so their gradients do too, however the step was cut.
    A term whose whole-step denominator is 0 is omitted. Raises ValueError when no term is given.
    """
    if not terms:
        raise ValueError("a loss returned no term; return at least one Term")
    parts = [term.weight * term.num.sum() / denominators[term.name] for term in terms if denominators[term.name] != 0.0]
    return torch.stack(parts).sum() if parts else terms[0].num.sum() * 0.0


def total(sums: Totals, weights: Mapping[str, float]) -> float:
    """Return the loss of a step from its summed terms; terms with a zero denominator are omitted."""
    return sum(weights[name] * num / den for name, (num, den) in sums.items() if den != 0.0)
