"""SimPO against hand-worked numbers, an independent formula and its limits."""

import dataclasses
import math

import exactness
import pairwise
import pytest
import torch

from alignlab.objectives import simpo


def formula(step, cfg):
    def of_pair(better, worse):
        return pairwise.nls(cfg.beta * (better.logp() / len(better) - worse.logp() / len(worse)) - cfg.simpo_gamma)

    return pairwise.mean_over_pairs(of_pair, step)


@pytest.mark.parametrize("gamma", [0.0, 1.4])
def test_exactness(gamma):
    exactness.check(simpo.loss, simpo.Config(beta=2.0, simpo_gamma=gamma), formula)


def test_vector_and_gradient():
    # means -12/5 and -15/8: 2 (-2.4 + 1.875) - 1 = -2.05
    value, better, worse = pairwise.slopes(
        simpo, simpo.Config(beta=2.0, simpo_gamma=1.0), pairwise.pair(*pairwise.BRIEF)
    )
    assert value == pytest.approx(math.log(1 + math.exp(2.05)))
    push = 2.0 * pairwise.sigmoid(2.05)
    assert (better, worse) == (pytest.approx(-push / 5), pytest.approx(push / 8))


def test_it_needs_no_reference():
    batch = pairwise.pair(*pairwise.BRIEF)
    bare = dataclasses.replace(batch, views={"policy": batch.views["policy"]})
    assert pairwise.value(simpo, simpo.Config(), bare) == pairwise.value(simpo, simpo.Config(), batch)
    assert simpo.CARD.needs == {"policy"}


def test_the_margin_is_what_the_lead_is_measured_against():
    even = pairwise.pair((-3.0, 0.0, 3), (-3.0, 0.0, 3))
    assert pairwise.value(simpo, simpo.Config(simpo_gamma=0.0), even) == pytest.approx(math.log(2))
    ahead = pairwise.pair((-3.0, 0.0, 3), (-4.5, 0.0, 3))
    assert pairwise.value(simpo, simpo.Config(beta=2.0, simpo_gamma=1.0), ahead) == pytest.approx(math.log(2))


def test_without_margin_the_optimum_of_single_tokens_is_the_softmax_of_rewards():
    pairs = pairwise.all_pairs(lambda a, b: pairwise.sigmoid(a - b))
    found = pairwise.optimum(simpo, simpo.Config(beta=2.0, simpo_gamma=0.0), pairwise.REF, pairs)
    wanted = (torch.tensor(pairwise.REWARDS, dtype=torch.float64) / 2).softmax(0)
    assert found.exp().tolist() == pytest.approx(wanted.tolist(), abs=1e-6)


def test_errors():
    pairwise.check_errors(simpo, [{"beta": 0.0}, {"simpo_gamma": -1.0}, {"simpo_gamma": math.nan}])
