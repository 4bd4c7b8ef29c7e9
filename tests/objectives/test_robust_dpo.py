"""Robust DPO against the brief's vector, an independent formula and the optimum of clean labels."""

import math

import exactness
import pairwise
import pytest

from alignlab.objectives import dpo, robust_dpo


def formula(step, cfg):
    eps = cfg.label_smoothing

    def of_pair(better, worse):
        z = cfg.beta * (better.ratio() - worse.ratio())
        return ((1 - eps) * pairwise.nls(z) - eps * pairwise.nls(-z)) / (1 - 2 * eps)

    return pairwise.mean_over_pairs(of_pair, step)


@pytest.mark.parametrize("eps", [0.1, 0.4])
def test_exactness(eps):
    exactness.check(robust_dpo.loss, robust_dpo.Config(beta=0.3, label_smoothing=eps), formula)


def test_vector_and_gradient():
    cfg = robust_dpo.Config(beta=0.1, label_smoothing=0.1)
    found = pairwise.slopes(robust_dpo, cfg, pairwise.pair(*pairwise.BRIEF))
    assert found[0] == pytest.approx(0.573139, abs=5e-7)
    slope = -0.1 * (0.9 * pairwise.sigmoid(-0.2) + 0.1 * pairwise.sigmoid(0.2)) / 0.8
    assert found[1:] == (pytest.approx(slope), pytest.approx(-slope))
    assert slope < -0.1 * pairwise.sigmoid(-0.2), "it pushes harder than DPO, to make up for flipped labels"


def test_without_noise_it_is_dpo():
    batch = pairwise.ratios(0.7, -0.4, p=0.8)
    found = pairwise.slopes(robust_dpo, robust_dpo.Config(beta=0.5, label_smoothing=0.0), batch)
    assert found == pytest.approx(pairwise.slopes(dpo, dpo.Config(beta=0.5), batch))


def test_flips_cancel_in_expectation():
    cfg = robust_dpo.Config(beta=0.5, label_smoothing=0.3)
    kept, turned = (pairwise.value(robust_dpo, cfg, pairwise.ratios(a, b)) for a, b in ((0.7, -0.4), (-0.4, 0.7)))
    clean = pairwise.value(dpo, dpo.Config(beta=0.5), pairwise.ratios(0.7, -0.4))
    assert 0.7 * kept + 0.3 * turned == pytest.approx(clean, rel=1e-12)


def test_the_optimum_on_noisy_labels_is_the_one_of_clean_labels():
    def noisy(a, b):
        clean = pairwise.sigmoid(a - b)
        return clean * 0.8 + (1 - clean) * 0.2

    pairs = pairwise.all_pairs(noisy)
    robust = pairwise.optimum(robust_dpo, robust_dpo.Config(beta=0.5, label_smoothing=0.2), pairwise.REF, pairs)
    plain = pairwise.optimum(dpo, dpo.Config(beta=0.5), pairwise.REF, pairs)
    truth = pairwise.centred(pairwise.REWARDS) / 0.5
    assert pairwise.centred(pairwise.log_ratio(robust)).tolist() == pytest.approx(truth.tolist(), abs=1e-5)
    assert (pairwise.centred(pairwise.log_ratio(plain)) - truth).abs().max() > 0.3, "DPO is fooled by the flips"


def test_errors():
    pairwise.check_errors(
        robust_dpo, [{"beta": 0.0}, {"label_smoothing": 0.5}, {"label_smoothing": -0.1}, {"label_smoothing": math.nan}]
    )
