import math

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.special import expit

from alignlab.stats import factorial

RATES = {
    (0, 0, 0): 0.05, (1, 0, 0): 0.12, (0, 1, 0): 0.10, (0, 0, 1): 0.15, (1, 1, 0): 0.24, (1, 0, 1): 0.35,
    (0, 1, 1): 0.30, (1, 1, 1): 0.62,
}  # fmt: skip


def test_the_specification():
    found = factorial.compounding(RATES)
    assert sum(found.singles) == pytest.approx(2.909061, abs=1e-6)
    assert (found.joint, found.excess) == pytest.approx((3.433987, 0.524926), abs=1e-6)
    assert (found.additive, found.three_way) == pytest.approx((0.491156, 0.128748), abs=1e-6)


def test_the_saturated_logistic_model():
    """Its coefficients, fitted by maximum likelihood to the same cells."""
    x = np.array([[a, b, c, a * b, a * c, b * c, a * b * c] for a, b, c in factorial.CELLS], dtype=float)
    fit = sm.GLM(
        np.array([[1000 * RATES[c], 1000 * (1 - RATES[c])] for c in factorial.CELLS]), sm.add_constant(x),
        family=sm.families.Binomial(),
    ).fit()  # fmt: skip
    found = factorial.compounding(RATES)
    assert fit.params[1:4] == pytest.approx(found.singles, abs=1e-6)
    assert fit.params[7] == pytest.approx(found.three_way, abs=1e-6)
    assert fit.params[4:].sum() == pytest.approx(found.excess, abs=1e-6)


@pytest.mark.parametrize("extra", [0.0, 0.8])
def test_the_interval_covers(extra):
    draw, covered = np.random.default_rng(1), 0
    for _ in range(200):
        counts = {}
        for cell in factorial.CELLS:
            p = expit(-1.5 + 0.5 * sum(cell) + extra * (sum(cell) == 3))
            counts[cell] = (int(draw.binomial(80, p)), 80)
        found = factorial.excess(counts)
        covered += found.low <= extra <= found.high
    assert covered >= 183  # 95 % of 200 is 190, its deviation 3.1


def test_edges():
    counts = dict.fromkeys(factorial.CELLS, (0, 10))
    assert factorial.excess(counts).value == pytest.approx(0.0)
    assert math.isnan(factorial.excess({**counts, (1, 1, 1): (0, 0)}).value)
    assert math.isnan(factorial.excess({}).value)
    with pytest.raises(ValueError, match="eight cells"):
        factorial.compounding({**RATES, (0, 0, 0): 0.0})
