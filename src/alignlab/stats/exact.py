"""Tests of counts: Fisher's, chi-square with Cramer's V, McNemar's, Breslow and Day's."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike, NDArray
from statsmodels.stats.contingency_tables import StratifiedTable

Counts = Sequence[Sequence[int]]


@dataclass(frozen=True, kw_only=True)
class Association:
    """Whether rows and columns of a table of counts go together."""

    statistic: float
    """chi-square, or the odds ratio of a 2 x 2 table"""
    p: float
    """two-sided"""
    dof: int = 1
    cramers_v: float = 0.0
    """0 for independence, 1 where one tells the other"""


def _table(counts: Counts, name: str) -> NDArray[np.int64]:
    table = np.asarray(counts)
    if table.ndim != 2 or min(table.shape) < 2 or (table < 0).any() or not np.issubdtype(table.dtype, np.integer):
        raise ValueError(f"{name}: expected a table of counts with at least 2 rows and columns, got {counts!r}")
    return table.astype(np.int64)


def fisher(counts: Counts) -> Association:
    """Return Fisher's exact test of a 2 x 2 table; `statistic` is the odds ratio ad / bc, infinite where bc = 0."""
    table = _table(counts, "fisher")
    if table.shape != (2, 2):
        raise ValueError(f"fisher: expected a 2 x 2 table, got {table.shape[0]} x {table.shape[1]}; use chi_square")
    odds, p = scipy.stats.fisher_exact(table)
    (a, b), (c, d) = table
    scale = float(np.sqrt(float(a + b) * float(c + d) * float(a + c) * float(b + d)))
    phi = abs(float(a * d - b * c)) / scale if scale else 0.0
    return Association(statistic=float(odds), p=float(p), cramers_v=phi)


def cramers_v(counts: ArrayLike) -> NDArray[np.float64]:
    """Return Cramer's V of each table of counts [..., R, C], which need not be whole: [...].

    Rows and columns of zeros do not count; 0 where rows or columns do not vary.
    """
    table = np.asarray(counts, dtype=np.float64)
    rows, columns, n = table.sum(-1), table.sum(-2), table.sum((-2, -1))
    free = np.minimum((rows > 0).sum(-1), (columns > 0).sum(-1)) - 1
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = rows[..., :, None] * columns[..., None, :] / n[..., None, None]
        statistic = np.where(expected > 0, (table - expected) ** 2 / expected, 0.0).sum((-2, -1))
        return np.asarray(np.where(free > 0, np.sqrt(statistic / (n * free)), 0.0))


def chi_square(counts: Counts) -> Association:
    """Return Pearson's chi-square test without continuity correction; rows and columns of zeros do not count.

    A table that is left with one row or column says nothing: p = 1.
    """
    table = _table(counts, "chi_square")
    table = table[table.sum(1) > 0][:, table.sum(0) > 0]
    if min(table.shape) < 2:
        return Association(statistic=0.0, p=1.0, dof=0)
    found = scipy.stats.chi2_contingency(table, correction=False)
    v = float(cramers_v(table))
    return Association(statistic=float(found.statistic), p=float(found.pvalue), dof=int(found.dof), cramers_v=v)


def mcnemar(first_only: int, second_only: int) -> float:
    """Return the exact two-sided p-value that two systems succeed alike on the same items.

    Args:
        first_only: items where only the first one succeeds.
        second_only: items where only the second one does.
    """
    if first_only < 0 or second_only < 0:
        raise ValueError(f"mcnemar: counts must not be negative, got {first_only} and {second_only}")
    if first_only + second_only == 0:
        return 1.0
    return float(scipy.stats.binomtest(first_only, first_only + second_only).pvalue)


@dataclass(frozen=True, kw_only=True)
class EqualOdds:
    """Whether the odds ratio is the same in all strata."""

    odds_ratio: float
    """common to the strata, by Mantel and Haenszel"""
    statistic: float
    p: float
    """from chi-square with one degree of freedom less than there are strata"""


def breslow_day(tables: Sequence[Counts]) -> EqualOdds:
    """Return the test of Breslow and Day (1980) that 2 x 2 tables have one odds ratio; without Tarone's correction.

    Strata that share items are not independent: pooling several rounds of the same items shrinks the p-value.

    Raises:
        ValueError: fewer than two strata, or a table that is not 2 x 2.
    """
    found = [_table(table, "breslow_day") for table in tables]
    if len(found) < 2 or any(table.shape != (2, 2) for table in found):
        raise ValueError(f"breslow_day: expected at least two 2 x 2 tables, got {[t.shape for t in found]}")
    strata = StratifiedTable([table.astype(np.float64) for table in found])
    with np.errstate(divide="ignore", invalid="ignore"):
        test = strata.test_equal_odds()
        odds = float(strata.oddsratio_pooled)
    return EqualOdds(odds_ratio=odds, statistic=float(test.statistic), p=float(test.pvalue))
