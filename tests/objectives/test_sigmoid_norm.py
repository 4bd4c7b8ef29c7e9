"""Length-normalised DPO against the brief's vector, an independent formula and DPO on one token."""

import exactness
import pairwise
import pytest

from alignlab.objectives import dpo, sigmoid_norm


def formula(step, cfg):
    def of_pair(better, worse):
        return pairwise.nls(cfg.beta * (better.ratio() / len(better) - worse.ratio() / len(worse)))

    return pairwise.mean_over_pairs(of_pair, step)


@pytest.mark.parametrize("beta", [0.3, 5.0])
def test_exactness(beta):
    exactness.check(sigmoid_norm.loss, sigmoid_norm.Config(beta=beta), formula)


def test_vector_and_gradient():
    found = pairwise.slopes(sigmoid_norm, sigmoid_norm.Config(beta=0.1), pairwise.pair(*pairwise.BRIEF))
    assert found[0] == pytest.approx(0.677029, abs=5e-7)
    push = 0.1 * pairwise.sigmoid(-0.1 * (1 / 5 + 1 / 8))
    assert found[1:] == (pytest.approx(-push / 5), pytest.approx(push / 8))


def test_length_alone_changes_nothing():
    cfg = sigmoid_norm.Config(beta=1.0)
    short, long = (pairwise.pair((-2.0 * n, -3.0 * n, n), (-4.0, -3.0, 1)) for n in (1, 10))
    assert pairwise.value(sigmoid_norm, cfg, long) == pytest.approx(pairwise.value(sigmoid_norm, cfg, short))
    assert pairwise.value(dpo, dpo.Config(beta=1.0), long) < pairwise.value(dpo, dpo.Config(beta=1.0), short)


def test_of_single_tokens_it_is_dpo():
    batch = pairwise.ratios(0.7, -0.4, p=0.8)
    found = pairwise.slopes(sigmoid_norm, sigmoid_norm.Config(beta=0.5), batch)
    assert found == pytest.approx(pairwise.slopes(dpo, dpo.Config(beta=0.5), batch))


def test_errors():
    pairwise.check_errors(sigmoid_norm, [{"beta": 0.0}])
