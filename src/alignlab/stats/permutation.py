"""Paired permutation tests: had the conditions been exchangeable, an item's values could be in any order."""

from collections.abc import Hashable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import permutation_test

from alignlab.stats.bootstrap import Values


def _mean(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    return np.asarray(np.mean(values, axis=axis))


def sign_flip(
    left: Values,
    right: Values,
    *,
    clusters: Sequence[Hashable] | None = None,
    alternative: Literal["two-sided", "greater", "less"] = "two-sided",
    draws: int = 9999,
    seed: int = 0,
) -> float:
    """Return the p-value of mean(left - right) under sign flips, whole clusters at a time.

    Exact when 2 ** clusters <= draws, else by random flips with the observed one counted, so never 0. `greater` means
    that left is greater. Raises ValueError for empty input, NaN or unequal lengths.
    """
    if len(left) != len(right) or not len(left):
        raise ValueError(f"sign_flip: {len(left)} values against {len(right)}; pair the same items, at least one")
    gaps = np.asarray(left, dtype=np.float64) - np.asarray(right, dtype=np.float64)
    if np.isnan(gaps).any():
        raise ValueError("sign_flip: a difference is NaN; drop or score such items first")
    if clusters is not None:
        if len(clusters) != len(gaps):
            raise ValueError(f"sign_flip: {len(clusters)} cluster ids for {len(gaps)} pairs; give one per pair")
        rows: dict[Hashable, int] = {}
        places = [rows.setdefault(i, len(rows)) for i in clusters]
        gaps = np.bincount(places, weights=gaps).astype(np.float64)
    if len(gaps) == 1:
        return 1.0 if alternative == "two-sided" or _against(float(gaps[0]), alternative) else 0.5
    found = permutation_test(
        (gaps,),
        _mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=draws,
        batch=max(1, 2_000_000 // len(gaps)),
        alternative=alternative,
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def _against(gap: float, alternative: str) -> bool:
    """Whether both signs are at least as extreme as the one difference there is."""
    return gap <= 0 if alternative == "greater" else gap >= 0


def within_blocks(
    values: Sequence[Sequence[float]] | NDArray[np.floating], *, draws: int = 1999, seed: int = 0
) -> float:
    """Return the p-value that the conditions do not matter, their values exchangeable within each item.

    The statistic is the spread of the condition means (sum of squares around their mean); the observed order counts
    as one draw, so the p-value is never 0.

    Args:
        values: [items, conditions], the same items under every condition.
        draws: random permutations.
        seed: of the permutations.

    Raises:
        ValueError: fewer than 2 conditions, no item, or NaN.
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] < 2 or not table.size or np.isnan(table).any():
        raise ValueError(f"within_blocks: expected [items, conditions >= 2] without NaN, got shape {table.shape}")
    generator = np.random.default_rng(seed)
    observed, reached = _spread(table), 1
    for _ in range(draws):
        reached += _spread(generator.permuted(table, axis=1)) >= observed - 1e-12
    return reached / (draws + 1)


def _spread(table: NDArray[np.float64]) -> float:
    return float(np.var(table.mean(axis=0)))
