"""SPPO against the brief's vector, an independent formula and its targets."""

import exactness
import pairwise
import pytest

from alignlab.objectives import sppo


def formula(step, cfg):
    total = weights = 0.0
    for better, worse, judged in exactness.ordered_pairs(step):
        for completion, win_rate in ((better, judged.p), (worse, 1 - judged.p)):
            total += judged.weight * (completion.ratio() - (win_rate - 0.5) / cfg.beta) ** 2
        weights += judged.weight
    return total / weights


def test_exactness():
    exactness.check(sppo.loss, sppo.Config(beta=0.3), formula)


def test_vector_and_gradient():
    found = pairwise.slopes(sppo, sppo.Config(beta=0.1), pairwise.pair(*pairwise.BRIEF))
    assert found == (pytest.approx(32.0), pytest.approx(-8.0), pytest.approx(8.0))


@pytest.mark.parametrize("p", [1.0, 0.7, 0.5])
def test_each_completion_has_its_own_target(p):
    cfg = sppo.Config(beta=0.25)
    target = (p - 0.5) / 0.25
    assert pairwise.slopes(sppo, cfg, pairwise.ratios(target, -target, p)) == pytest.approx((0, 0, 0), abs=1e-12)
    _, better, worse = pairwise.slopes(sppo, cfg, pairwise.ratios(target - 1, -target - 1, p))
    assert better == pytest.approx(-2), "a common shift is undone, unlike in IPO"
    assert worse == pytest.approx(-2)


def test_a_soft_label_gives_the_gradient_of_the_expectation_over_hard_ones():
    cfg = sppo.Config(beta=0.25)
    soft = pairwise.slopes(sppo, cfg, pairwise.ratios(0.3, 0.9, 0.8))
    kept = pairwise.slopes(sppo, cfg, pairwise.ratios(0.3, 0.9))
    turned = pairwise.slopes(sppo, cfg, pairwise.ratios(0.9, 0.3))
    assert soft[1] == pytest.approx(0.8 * kept[1] + 0.2 * turned[2])
    assert soft[2] == pytest.approx(0.8 * kept[2] + 0.2 * turned[1])


def test_errors():
    pairwise.check_errors(sppo, [{"beta": 0.0}])
