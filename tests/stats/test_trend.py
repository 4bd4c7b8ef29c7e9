import itertools
import math

import numpy as np
import pytest
from scipy.stats import linregress, t

from alignlab.stats import trend

X = [8.0, 9.0, 10.0, 8.5, 9.5, 10.5, 9.2]
Y = [1.0, 2.5, 3.0, -4.0, -3.0, -2.2, 7.0]
GROUPS = ["a", "a", "a", "b", "b", "b", "c"]


def test_slope_of_one_group_is_the_regression():
    found = trend.within(X, Y)
    known = linregress(X, Y)
    half = t.ppf(0.975, len(X) - 2) * known.stderr
    assert found.value == pytest.approx(known.slope)
    assert (found.low, found.high) == pytest.approx((known.slope - half, known.slope + half))


def test_slope_inside_groups_by_least_squares_with_dummies():
    found = trend.within(X, Y, GROUPS)
    design = np.column_stack([X, *([float(g == name) for g in GROUPS] for name in "abc")])
    beta, rest, *_ = np.linalg.lstsq(design, np.array(Y), rcond=None)
    free = len(X) - 4
    error = math.sqrt(rest[0] / free * np.linalg.inv(design.T @ design)[0, 0])
    assert found.value == pytest.approx(beta[0])
    assert found.high == pytest.approx(beta[0] + t.ppf(0.975, free) * error)
    assert found.n == 7


def test_what_sets_groups_apart_does_not_move_it():
    shift = {"a": 5.0, "b": -20.0, "c": 100.0}
    moved = [y + shift[g] for y, g in zip(Y, GROUPS, strict=True)]
    one, other = trend.within(X, Y, GROUPS), trend.within(X, moved, GROUPS)
    assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high))
    assert trend.exchanged(X, Y, GROUPS) == trend.exchanged(X, moved, GROUPS)
    assert trend.within(X, Y).value != pytest.approx(trend.within(X, moved).value)


def test_a_trend_that_families_hide():
    """Inside each of two groups it rises, over all it falls."""
    x, y, groups = [1, 2, 3, 4, 5, 6], [10, 11, 12, 1, 2, 3], "aaabbb"
    assert trend.within(x, y, groups).value == pytest.approx(1)
    assert trend.within(x, y).value < 0


def test_where_nothing_can_be_said():
    assert math.isnan(trend.within([1, 2], [3, 4], "ab").value)
    only = trend.within([1, 2, 5], [3, 4, 9], "aab")
    assert (only.value, only.low, only.high) == (pytest.approx(1), None, None)
    assert trend.exchanged([1, 2], [3, 4], "ab") == 1.0


def test_exact_p_by_brute_force():
    groups = np.array(GROUPS)
    x, y = np.array(X), np.array(Y)
    observed, reached, total = abs(linked(x, y, groups)), 0, 0
    for a, b in itertools.product(itertools.permutations(range(3)), repeat=2):
        other = x.copy()
        other[:3], other[3:6] = x[:3][list(a)], x[3:6][list(b)]
        reached += abs(linked(other, y, groups)) >= observed - 1e-9
        total += 1
    assert trend.exchanged(X, Y, GROUPS) == pytest.approx(reached / total)
    assert trend.exchanged([1, 2, 3], [1, 2, 3]) == pytest.approx(2 / 6)


def linked(x, y, groups):
    return sum((x[groups == g] - x[groups == g].mean()) @ y[groups == g] for g in set(groups))


def test_random_orders_come_near_the_exact_p(monkeypatch):
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=7), draw.normal(size=7)
    exact = trend.exchanged(x, y)
    monkeypatch.setattr(trend, "EXACT", 0)
    assert trend.exchanged(x, y) == pytest.approx(exact, abs=0.02)
    assert trend.exchanged(range(8), range(8), draws=99) >= 1 / 100


def test_p_is_uniform_where_there_is_no_trend():
    draw = np.random.default_rng(1)
    found = [trend.exchanged(range(6), draw.normal(size=6), "aaabbb") for _ in range(400)]
    assert np.mean(np.array(found) <= 0.2) == pytest.approx(0.2, abs=0.06)


@pytest.mark.parametrize(
    ("x", "y", "groups"), [([], [], None), ([1], [1, 2], None), ([1, 2], [1, 2], "a"), ([1.0, math.nan], [1, 2], None)]
)
def test_bad_input_is_named(x, y, groups):
    with pytest.raises(ValueError, match="trend:"):
        trend.within(x, y, groups)
