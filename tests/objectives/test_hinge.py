"""The hinge loss against the brief's vector, an independent formula and its kink."""

import exactness
import pairwise
import pytest

from alignlab.objectives import hinge


def formula(step, cfg):
    return pairwise.mean_over_pairs(lambda a, b: max(0.0, 1 - cfg.beta * (a.ratio() - b.ratio())), step)


@pytest.mark.parametrize("beta", [0.3, 1.0])
def test_exactness(beta):
    exactness.check(hinge.loss, hinge.Config(beta=beta), formula)


def test_vector_and_gradient():
    found = pairwise.slopes(hinge, hinge.Config(beta=0.1), pairwise.pair(*pairwise.BRIEF))
    assert found == (pytest.approx(0.8), pytest.approx(-0.1), pytest.approx(0.1))


def test_beta_is_the_reciprocal_margin():
    cfg = hinge.Config(beta=0.25)
    assert pairwise.value(hinge, cfg, pairwise.ratios(0, 0)) == pytest.approx(1.0)
    assert pairwise.slopes(hinge, cfg, pairwise.ratios(3.9, 0))[1] == pytest.approx(-0.25)
    assert pairwise.slopes(hinge, cfg, pairwise.ratios(4.1, 0)) == (0.0, 0.0, 0.0), "told apart: left alone"


def test_an_uncertain_label_is_best_met_at_the_margin():
    at, less, more = (
        pairwise.value(hinge, hinge.Config(beta=1.0), pairwise.ratios(h, 0, p=0.7)) for h in (1, 0.9, 1.1)
    )
    assert at == pytest.approx(2 * 0.3)
    assert at < min(less, more)


def test_errors():
    pairwise.check_errors(hinge, [{"beta": 0.0}, {"beta": -1.0}])
