import itertools
import math

import numpy as np
import pytest

from alignlab.stats import claims, exact


def test_the_released_example():
    found = claims.index((0.92, 0.30, 0.55, 0.81, 0.07), (1, 0, 1, 1, 0))
    assert (found.r, found.p, found.bi) == pytest.approx((0.894912, 0.040243, 0.105088), abs=1e-6)
    assert (found.q, found.auc, found.n) == (0.6, 1.0, 5)
    p, y = np.array((0.92, 0.30, 0.55, 0.81, 0.07)), np.array((1, 0, 1, 1, 0))
    gap = (p[y == 1].mean() - p[y == 0].mean()) * math.sqrt(0.6 * 0.4)
    assert (p[y == 1].mean(), p[y == 0].mean(), p.std()) == pytest.approx((0.76, 0.185, 0.314770), abs=1e-6)
    assert gap / p.std() == pytest.approx(found.r)
    assert gap / p.std(ddof=1) == pytest.approx(0.800434, abs=1e-6)  # the sample deviation is the wrong one


def test_a_small_example():
    found = claims.index((0.9, 0.8, 0.2, 0.1), (1, 1, 1, 0))
    assert (found.r, found.bi) == pytest.approx((0.653197, 0.346803), abs=1e-6)


def test_limits():
    draw = np.random.default_rng(0)
    p = draw.uniform(size=400)
    wide = np.where(p > 0.5, 0.95 + p / 100, p / 100)
    assert claims.index(wide, (wide > 0.5).astype(float)).bi < 0.01
    found = [claims.index(p[:50], draw.integers(0, 2, 50)).bi for _ in range(300)]
    assert np.mean(found) == pytest.approx(1 - 0.8 / math.sqrt(50), abs=0.01)  # below 1, as the docstring warns
    y = (draw.uniform(size=400) < p).astype(float)
    one, turned, moved = claims.index(p, y), claims.index(p, 1 - y), claims.index(0.2 + 0.3 * p, y)
    assert turned.r == pytest.approx(-one.r)
    assert (turned.bi, moved.bi) == pytest.approx((one.bi, one.bi))
    # a seller who claims all but the surely false has a high index and still follows its beliefs
    almost = claims.index(p, (p > 0.05).astype(float))
    assert almost.bi > 0.5
    assert almost.auc == 1.0


@pytest.mark.parametrize(
    ("p", "y", "reason"),
    [
        ((0.1, 0.9), (1, 1), "every claim"), ((0.5, 0.5, 0.5), (1, 0, 1), "every belief"),
        ((0.5,), (1,), "fewer than two"), ((), (), "fewer than two"), ((0.1, 0.9), (None, None), "fewer than two"),
    ],
)  # fmt: skip
def test_undefined_is_nan_with_its_reason(p, y, reason):
    found = claims.index(p, y)
    assert math.isnan(found.bi)
    assert math.isnan(found.r)
    assert reason in found.reason


def test_ranges_are_those_of_every_completion():
    draw = np.random.default_rng(1)
    for _ in range(60):
        p = draw.uniform(size=8).round(1)
        y = [None if draw.uniform() < 0.4 else float(draw.uniform() < b) for b in p]
        blanks = [i for i, v in enumerate(y) if v is None]
        every = []
        for values in itertools.product((0, 1), repeat=len(blanks)):
            full = list(y)
            for i, v in zip(blanks, values):
                full[i] = v
            every.append(claims.index(p, full))
        for name, found in (("r", claims.r_range(p, y)), ("auc", claims.auc_range(p, y))):
            values = [getattr(e, name) for e in every if not math.isnan(getattr(e, name))]
            assert found == pytest.approx((min(values), max(values)), nan_ok=True)
        bis = [e.bi for e in every if not math.isnan(e.bi)]
        low, high = claims.bi_of(*claims.r_range(p, y))
        assert low == pytest.approx(min(bis), abs=1e-12)
        assert high >= max(bis) - 1e-12


def test_ranges_of_nothing():
    assert all(math.isnan(x) for x in claims.r_range((0.5, 0.5), (1, 0)))
    assert all(math.isnan(x) for x in claims.r_range((0.2, 0.5), (1, 1)))
    assert all(math.isnan(x) for x in claims.bi_of(math.nan, math.nan))
    assert claims.bi_of(-0.2, 0.5) == (0.5, 1.0)
    assert claims.bi_of(-0.8, -0.4) == pytest.approx((0.2, 0.6))


@pytest.mark.parametrize(("p", "y"), [((0.1,), (1, 0)), ((1.2, 0), (1, 0)), ((math.nan, 0), (1, 0)), ((0, 1), (2, 0))])
def test_wrong_input_is_named(p, y):
    with pytest.raises(ValueError, match="claims:"):
        claims.index(p, y)


LLAMA_3 = (
    [[87.5, 8.8, 3.7], [20.9, 62.3, 16.8], [11.8, 26.3, 61.9]],
    [[97.8, 1, 1.2], [84.5, 9.7, 5.8], [67.9, 6.3, 25.8]],
)
LLAMA_2 = (
    [[76.5, 16.9, 6.6], [22.3, 61.7, 16], [18.8, 39.7, 41.5]],
    [[94.5, 2.4, 3.1], [79.1, 10.9, 10], [70.9, 5.5, 23.6]],
)


@pytest.mark.parametrize(
    ("table", "v"),
    [(LLAMA_3[0], 0.575871), (LLAMA_3[1], 0.269124), (LLAMA_2[0], 0.426947), (LLAMA_2[1], 0.212980)],
)
def test_published_truth_tracking(table, v):
    for times in (10, 120):
        counts = [[round(times * share) for share in row] for row in table]
        assert exact.chi_square(counts).cramers_v == pytest.approx(v, abs=1e-6)


@pytest.mark.parametrize(
    ("n", "unknown", "negative", "statistic", "p"),
    [(1200, (1014, 251), (815, 142), 3.089717, 0.078788), (6000, (5070, 1254), (4074, 708), 15.270414, 9.316e-5)],
)
def test_published_breslow_day(n, unknown, negative, statistic, p):
    found = exact.breslow_day([[[k, n - k] for k in pair] for pair in (unknown, negative)])
    assert found.statistic == pytest.approx(statistic, abs=1e-6)
    assert found.p == pytest.approx(p, rel=1e-3)
    if n == 1200:
        assert found.odds_ratio == pytest.approx(18.001460, abs=1e-6)


def test_breslow_day_needs_strata():
    with pytest.raises(ValueError, match="at least two 2 x 2"):
        exact.breslow_day([[[1, 2], [3, 4]]])
