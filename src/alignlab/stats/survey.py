"""Survey weights: what a whole population would answer, from a sample in which some groups are over-represented.

Post-stratification weighs each cell to its census share; raking weighs several margins in turn until all fit (Deming
and Stephan 1940). Kish's design effect says what the weights cost: n_eff = (sum w)^2 / sum w^2 (Kish 1965).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

Cell = str


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Shares of the answers to one item, with the number of equal-weight answers they are worth."""

    values: tuple[float, ...]
    n: int
    """answers given"""
    n_eff: float
    """what they are worth after weighting"""

    @property
    def design_effect(self) -> float:
        """Return n / n_eff, 1 without weights."""
        return self.n / self.n_eff


def weights(
    census: Mapping[Cell, float], sizes: Mapping[Cell, float], *, trim: tuple[float, float] | None = None
) -> dict[Cell, float]:
    """Return cell -> weight of each of its respondents, census share * n / n of the cell.

    Args:
        census: cell -> share or number in the population, over the cells of the sample and no others.
        sizes: cell -> respondents.
        trim: least and greatest weight, e.g. (1/3, 3); trimmed cells no longer meet the census.

    Raises:
        ValueError: cells differ, or one of the census has nobody in the sample: merge it with a like cell.
    """
    if lacking := sorted(set(sizes) - set(census)):
        raise ValueError(f"survey weights: the census lacks the cells {', '.join(lacking)} of the sample")
    if empty := sorted(cell for cell in census if not sizes.get(cell, 0) > 0):
        raise ValueError(f"survey weights: nobody in the sample is of {', '.join(empty)}; merge with like cells")
    if not all(math.isfinite(share) and share >= 0 for share in census.values()) or not sum(census.values()) > 0:
        raise ValueError("survey weights: census shares must be finite, not negative, and not all 0")
    n, whole = sum(sizes[cell] for cell in census), sum(census.values())
    found = {cell: census[cell] / whole * n / sizes[cell] for cell in census}
    if trim is None:
        return found
    low, high = _limits(trim)
    return {cell: min(high, max(low, weight)) for cell, weight in found.items()}


def _limits(trim: tuple[float, float]) -> tuple[float, float]:
    if not 0 <= trim[0] <= trim[1]:
        raise ValueError(f"survey weights: trim {trim}: expected 0 <= least <= greatest")
    return trim


def weighted(counts: Mapping[Cell, Sequence[float]], weight: Mapping[Cell, float]) -> Shares:
    """Return the shares of the options, each answer weighing as its cell's respondents do.

    Args:
        counts: cell -> how often each option was chosen, equally long lists.
        weight: cell -> weight.

    Raises:
        ValueError: lists of different lengths, or no answer of positive weight.
    """
    if len({len(row) for row in counts.values()}) != 1:
        raise ValueError("survey shares: expected one count per option for every cell, equally many for all")
    table = np.array(list(counts.values()), dtype=np.float64)
    w = np.array([weight[cell] for cell in counts])
    sizes = table.sum(axis=1)
    total, squares = float(w @ sizes), float((w**2) @ sizes)
    if not total > 0 or (table < 0).any():
        raise ValueError("survey shares: expected counts that are not negative, with some answer of positive weight")
    values = (w @ table) / total
    return Shares(values=tuple(values.tolist()), n=int(sizes.sum()), n_eff=total**2 / squares)


def rake(
    sample: Mapping[str, Sequence[Cell]],
    margins: Mapping[str, Mapping[Cell, float]],
    sizes: Sequence[float] | None = None,
    *,
    trim: tuple[float, float] | None = None,
    rounds: int = 100,
    tolerance: float = 1e-9,
) -> NDArray[np.float64]:
    """Return the weight of a respondent of each group, mean 1 over respondents, under which margins meet the census.

    Args:
        sample: variable (sex, age, region) -> its value for each group.
        margins: variable -> value -> share in the population.
        sizes: respondents of each group; 1 each where not given.
        trim: least and greatest weight, as of `weights`.
        rounds: passes over the variables at most.
        tolerance: greatest error of a margin that counts as met.

    Raises:
        ValueError: a value without respondents or without share, or margins that do not meet after `rounds`.
    """
    size = np.ones(len(next(iter(sample.values())))) if sizes is None else np.asarray(sizes, dtype=np.float64)
    found = size.copy()
    members = {}
    for name, census in margins.items():
        values = np.asarray(sample[name], dtype=object)
        weights(census, {v: float(size[values == v].sum()) for v in dict.fromkeys(sample[name])})  # checks the cells
        whole = sum(census.values())
        members[name] = [(values == value, share / whole) for value, share in census.items()]
    for _ in range(rounds):
        worst = 0.0
        for parts in members.values():
            for inside, share in parts:
                now = found[inside].sum() / found.sum()
                worst = max(worst, abs(now - share))
                found[inside] *= share / now if now > 0 else 0.0
        if worst <= tolerance:
            each = np.divide(found, size, out=np.zeros_like(found), where=size > 0) * size.sum() / found.sum()
            return np.asarray(each if trim is None else each.clip(*_limits(trim)))
    raise ValueError(f"raking: a margin is still {worst:.2g} off after {rounds} rounds; do the margins contradict?")


def margin(n: float, share: float = 0.5, level: float = 0.95) -> float:
    """Return half the width of the normal interval of a share from n answers."""
    if not n > 0 or not 0 <= share <= 1 or not 0 < level < 1:
        raise ValueError(f"margin of error: n {n}, share {share}, level {level}: out of range")
    return float(norm.ppf((1 + level) / 2) * math.sqrt(share * (1 - share) / n))
