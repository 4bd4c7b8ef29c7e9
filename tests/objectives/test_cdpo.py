"""Conservative DPO against the brief's vector, an independent formula and its stopping point."""

import math

import exactness
import pairwise
import pytest

from alignlab.objectives import cdpo, dpo


def formula(step, cfg):
    eps = cfg.label_smoothing

    def of_pair(better, worse):
        z = cfg.beta * (better.ratio() - worse.ratio())
        return (1 - eps) * pairwise.nls(z) + eps * pairwise.nls(-z)

    return pairwise.mean_over_pairs(of_pair, step)


@pytest.mark.parametrize("eps", [0.1, 0.4])
def test_exactness(eps):
    exactness.check(cdpo.loss, cdpo.Config(beta=0.3, label_smoothing=eps), formula)


def test_vector_and_gradient():
    found = pairwise.slopes(cdpo, cdpo.Config(beta=0.1, label_smoothing=0.1), pairwise.pair(*pairwise.BRIEF))
    assert found[0] == pytest.approx(0.618139, abs=5e-7)
    slope = -0.1 * (0.9 - pairwise.sigmoid(0.2))
    assert found[1:] == (pytest.approx(slope), pytest.approx(-slope))


def test_it_stops_where_the_policy_is_as_sure_as_the_label():
    cfg = cdpo.Config(beta=1.0, label_smoothing=0.1)
    target = math.log(0.9 / 0.1)
    below, at, beyond = (pairwise.slopes(cdpo, cfg, pairwise.ratios(target + d, 0.0))[1] for d in (-0.5, 0.0, 0.5))
    assert below < 0 < beyond
    assert at == pytest.approx(0, abs=1e-15)


def test_without_smoothing_it_is_dpo_and_a_soft_label_is_smoothing():
    batch = pairwise.ratios(0.7, -0.4, p=0.8)
    plain = dpo.Config(beta=0.5)
    assert pairwise.slopes(cdpo, cdpo.Config(beta=0.5, label_smoothing=0.0), batch) == pytest.approx(
        pairwise.slopes(dpo, plain, batch)
    )
    smoothed = pairwise.slopes(cdpo, cdpo.Config(beta=0.5, label_smoothing=0.1), batch)
    assert smoothed == pytest.approx(pairwise.slopes(dpo, plain, pairwise.ratios(0.7, -0.4, p=0.8 * 0.9 + 0.2 * 0.1)))


def test_optimum_of_two_answers():
    found = pairwise.optimum(cdpo, cdpo.Config(beta=0.5, label_smoothing=0.2), (0.3, 0.0), [exactness.Pair(0, 1)])
    ratio = pairwise.log_ratio(found, (0.3, 0.0))
    assert (ratio[0] - ratio[1]).item() == pytest.approx(math.log(0.8 / 0.2) / 0.5, rel=1e-6)


def test_errors():
    pairwise.check_errors(
        cdpo, [{"beta": 0.0}, {"label_smoothing": 0.5}, {"label_smoothing": -0.1}, {"label_smoothing": math.nan}]
    )
