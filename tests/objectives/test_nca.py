"""NCA against an independent formula, hand-worked numbers and its own optimum of the better completion."""

import math

import exactness
import pairwise
import pytest

from alignlab.objectives import dpo, nca


def formula(step, cfg):
    def of_pair(better, worse):
        r_w, r_l = cfg.beta * better.ratio(), cfg.beta * worse.ratio()
        return pairwise.nls(r_w) + (pairwise.nls(-r_w) + pairwise.nls(-r_l)) / 2

    return pairwise.mean_over_pairs(of_pair, step)


def test_exactness():
    exactness.check(nca.loss, nca.Config(beta=0.3), formula)


def test_vector_and_gradient():
    # r = +-0.1: log(1 + e^-0.1) = 0.644397, log(1 + e^0.1) = 0.744397
    found = pairwise.slopes(nca, nca.Config(beta=0.1), pairwise.pair(*pairwise.BRIEF))
    assert found[0] == pytest.approx(0.644397 + (0.744397 + 0.644397) / 2, abs=2e-6)
    assert found[1] == pytest.approx(0.1 * (pairwise.sigmoid(0.1) / 2 - pairwise.sigmoid(-0.1)))
    assert found[2] == pytest.approx(0.1 * pairwise.sigmoid(-0.1) / 2)
    assert found[1] < 0 < found[2]


def test_at_the_reference():
    assert pairwise.slopes(nca, nca.Config(beta=1.0), pairwise.ratios(0, 0)) == pytest.approx(
        (2 * math.log(2), -0.25, 0.25)
    )


def test_the_better_completion_has_an_optimum_of_its_own():
    cfg = nca.Config(beta=0.5)
    at = math.log(2) / 0.5
    below, there, beyond = (pairwise.slopes(nca, cfg, pairwise.ratios(at + d, -3.0))[1] for d in (-1, 0, 1))
    assert below < 0 < beyond
    assert there == pytest.approx(0, abs=1e-15)


def test_one_constant_on_both_rewards_matters_unlike_in_dpo():
    for method, same in ((nca, False), (dpo, True)):
        cfg = method.Config(beta=0.5)
        values = [pairwise.value(method, cfg, pairwise.ratios(1.0 + c, -1.0 + c)) for c in (0.0, 1.5)]
        assert (values[0] == pytest.approx(values[1])) is same


def test_errors():
    pairwise.check_errors(nca, [{"beta": 0.0}])
