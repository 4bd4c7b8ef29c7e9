import math

import numpy as np
import pytest
from scipy.stats import binom

from alignlab.stats import bootstrap
from alignlab.stats.proportion import clopper_pearson, clustered, difference, share, wilson


def test_known_numbers():
    assert clopper_pearson(0, 10) == pytest.approx((0.0, 0.3084971), abs=1e-6)
    assert clopper_pearson(5, 10) == pytest.approx((0.1870860, 0.8129140), abs=1e-6)
    # (p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n) by hand for 81 of 263 (Newcombe 1998, method 3)
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(10, 10)[1] == 1.0
    assert wilson(0, 10)[0] == 0.0


@pytest.mark.parametrize("p", [0.02, 0.3, 0.5, 0.93])
@pytest.mark.parametrize("n", [12, 60])
def test_exact_interval_never_covers_less(p, n):
    cover = {f: sum(binom.pmf(k, n, p) for k in range(n + 1) if f(k, n)[0] <= p <= f(k, n)[1]) for f in METHODS}
    assert cover[clopper_pearson] >= 0.95
    assert cover[wilson] >= 0.88


METHODS = (wilson, clopper_pearson)


def test_share():
    got = share([True, False, True, True])
    assert (got.value, got.n, (got.low, got.high)) == (0.75, 4, wilson(3, 4))
    exact = share([True] * 3, method="clopper_pearson", level=0.9)
    assert (exact.low, exact.high) == clopper_pearson(3, 3, 0.9)
    assert exact.high == 1.0
    assert math.isnan(share([]).value)


@pytest.mark.parametrize("n", range(2, 30))
def test_all_or_none_of_clusters_ends_at_one_or_zero_exactly(n):
    none, every = (clustered([hit] * n, range(n)) for hit in (False, True))
    assert (none.low, every.high) == (0.0, 1.0)
    assert none.high == pytest.approx(wilson(0, n)[1])


@pytest.mark.parametrize(("successes", "n", "level"), [(3, 2, 0.95), (-1, 2, 0.95), (0, 0, 0.95), (1, 2, 1.0)])
def test_bad_input_is_named(successes, n, level):
    with pytest.raises(ValueError, match="need 0 <= successes <= n"):
        wilson(successes, n, level)


def test_newcombes_difference():
    got = difference((80, 117), (2, 92))
    assert (got.value, got.low, got.high) == pytest.approx((0.662022, 0.557909, 0.740884), abs=1e-6)
    assert got.n == 209
    assert wilson(80, 117) == pytest.approx((0.594805, 0.761033), abs=1e-6)
    assert wilson(2, 92) == pytest.approx((0.005982, 0.075835), abs=1e-6)
    back = difference((2, 92), (80, 117))
    assert (back.low, back.high) == pytest.approx((-got.high, -got.low))
    assert math.isnan(difference((0, 0), (1, 2)).value)


def test_newcombes_difference_covers():
    draw = np.random.default_rng(0)
    pairs = zip(draw.binomial(40, 0.9, size=1000).tolist(), draw.binomial(30, 0.6, size=1000).tolist())
    got = [difference((a, 40), (b, 30)) for a, b in pairs]
    assert 0.93 <= np.mean([m.low <= 0.3 <= m.high for m in got]) <= 0.98


def test_twins_are_worth_one():
    """Pairs that are always alike are worth as many items as pairs, less what t has over z; singletons, themselves."""
    hits = [True] * 24 + [False] * 56
    twins, alone = clustered(hits, [i // 2 for i in range(80)]), clustered(hits, range(80))
    assert twins.value == alone.value == 0.3
    assert wilson(12, 40)[0] - 0.01 < twins.low < wilson(12, 40)[0]
    assert wilson(12, 40)[1] < twins.high < wilson(12, 40)[1] + 0.01
    assert (alone.low, alone.high) == pytest.approx(wilson(24, 80), abs=0.004)
    alike = clustered([True] * 9, "aaabbbccc")
    assert (alike.low, alike.high) == pytest.approx(wilson(3, 3))
    assert clustered([True, False], "aa").low is None
    assert math.isnan(clustered([], []).value)
    with pytest.raises(ValueError, match="one id per hit"):
        clustered([True], "ab")


@pytest.mark.parametrize(("rate", "clusters"), [(0.1, 24), (0.1, 12), (0.5, 24), (0.03, 40)])
def test_rare_hits_of_few_clusters_are_covered(rate, clusters):
    """Threes that share their fate: a bootstrap of whole clusters covers too seldom where hits are rare."""
    draw, ids = np.random.default_rng(0), np.repeat(np.arange(clusters), 3).tolist()
    worth = exact = short = 0
    for seed in range(1000):
        hits = np.repeat(draw.random(clusters) < rate, 3)
        found = clustered(hits.tolist(), ids)
        worth += found.low <= rate <= found.high
        if seed < 200:
            drawn = bootstrap.mean(hits.astype(float), clusters=ids, draws=400)
            short += drawn.low <= rate <= drawn.high
            low, high = wilson(int(hits.sum()) // 3, clusters)
            exact += low <= rate <= high
    assert worth >= 930
    assert worth / 5 >= exact - 6
    if rate < 0.2:
        assert short < 182
