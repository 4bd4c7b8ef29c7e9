"""EXO against an independent formula, the closed form of its gradient and its target."""

import math

import exactness
import pairwise
import pytest

from alignlab.objectives import dpo, exo


def divergence(z, target):
    """KL from (sigma(z), sigma(-z)) to (target, 1 - target), by its definition."""
    p = pairwise.sigmoid(z)
    return p * math.log(p / target) + (1 - p) * math.log((1 - p) / (1 - target))


def formula(step, cfg):
    total = weights = 0.0
    for better, worse, judged in exactness.ordered_pairs(step):
        target = judged.p * (1 - cfg.label_smoothing) + (1 - judged.p) * cfg.label_smoothing
        total += judged.weight * divergence(cfg.beta * (better.ratio() - worse.ratio()), target)
        weights += judged.weight
    return total / weights


@pytest.mark.parametrize("eps", [1e-3, 0.2])
def test_exactness(eps):
    exactness.check(exo.loss, exo.Config(beta=0.3, label_smoothing=eps), formula)


def test_vector_and_gradient():
    cfg = exo.Config(beta=0.1, label_smoothing=1e-3)
    found = pairwise.slopes(exo, cfg, pairwise.pair(*pairwise.BRIEF))
    # sigma(0.2) = 0.549834
    by_hand = 0.549834 * math.log(0.549834 / 0.999) + 0.450166 * math.log(0.450166 / 0.001)
    assert found[0] == pytest.approx(by_hand, rel=1e-5)
    slope = 0.1 * 0.549834 * 0.450166 * (0.2 - math.log(999))
    assert found[1:] == (pytest.approx(slope, rel=1e-5), pytest.approx(-slope, rel=1e-5))
    assert slope < 0


def test_it_stops_at_the_smoothed_label():
    cfg = exo.Config(beta=1.0, label_smoothing=0.1)
    target = math.log(9)
    below, at, beyond = (pairwise.slopes(exo, cfg, pairwise.ratios(target + d, 0.0)) for d in (-1, 0, 1))
    assert below[1] < 0 < beyond[1]
    assert at == pytest.approx((0, 0, 0), abs=1e-12)


def test_it_seeks_a_mode_where_dpo_covers():
    wrong = pairwise.ratios(-15.0, 15.0)
    assert abs(pairwise.slopes(exo, exo.Config(beta=1.0), wrong)[1]) < 1e-10
    assert pairwise.slopes(dpo, dpo.Config(beta=1.0), wrong)[1] == pytest.approx(-1.0)


def test_extreme_log_ratios_stay_finite():
    for sign in (1, -1):
        found = pairwise.slopes(exo, exo.Config(beta=1.0), pairwise.ratios(sign * 4000.0, -sign * 4000.0))
        assert all(map(math.isfinite, found))


def test_optimum_of_two_answers():
    found = pairwise.optimum(exo, exo.Config(beta=0.5, label_smoothing=0.1), (0.3, 0.0), [exactness.Pair(0, 1, 0.7)])
    ratio = pairwise.log_ratio(found, (0.3, 0.0))
    kept = 0.7 * 0.9 + 0.3 * 0.1
    assert (ratio[0] - ratio[1]).item() == pytest.approx(math.log(kept / (1 - kept)) / 0.5, rel=1e-5)


def test_errors():
    wrong = [{"label_smoothing": x} for x in (0.0, 0.5, -0.1, math.nan)]
    pairwise.check_errors(exo, [{"beta": 0.0}, *wrong])
