import math

import pytest
from scipy.stats import binom

from alignlab.stats.proportion import clopper_pearson, share, wilson


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


@pytest.mark.parametrize(("successes", "n", "level"), [(3, 2, 0.95), (-1, 2, 0.95), (0, 0, 0.95), (1, 2, 1.0)])
def test_bad_input_is_named(successes, n, level):
    with pytest.raises(ValueError, match="need 0 <= successes <= n"):
        wilson(successes, n, level)
