"""ORPO against published vectors, an independent formula and its numerical edges."""

import dataclasses
import math

import exactness
import pairwise
import pytest
import torch

from alignlab.objectives import orpo


def log_odds(completion):
    mean = completion.logp() / len(completion)
    return math.log(math.exp(mean) / (1 - math.exp(mean)))


def formula(step, cfg):
    ratio = pairwise.mean_over_pairs(lambda a, b: pairwise.nls(log_odds(a) - log_odds(b)), step)
    return pairwise.likelihood(step, cfg.form) + cfg.beta * ratio


@pytest.mark.parametrize("form", ["per_pair", "per_token"])
def test_exactness(form):
    exactness.check(orpo.loss, orpo.Config(beta=0.6, form=form), formula)


def batch(better, worse, tokens=4):
    """Mean token log-probabilities of a pair."""
    return pairwise.pair((better * tokens, 0.0, tokens), (worse * tokens, 0.0, tokens))


def test_vectors():
    terms = orpo.loss(batch(-1.0, -1.5), orpo.Config(beta=0.1))
    found = {term.name: term.num.item() for term in terms}
    assert found == {"nll": pytest.approx(1.0), "odds_ratio": pytest.approx(0.401135, abs=5e-7)}
    assert terms[1].logs["log_odds_chosen"].item() == pytest.approx(0.706193, abs=5e-7)
    assert terms[1].logs["log_odds_ratio"].item() == pytest.approx(-0.401135, abs=5e-7)
    assert pairwise.value(orpo, orpo.Config(beta=0.1), batch(-1.0, -1.5)) == pytest.approx(1.040114, abs=5e-7)
    assert pairwise.value(orpo, orpo.Config(beta=0.1), batch(-1.0, -1.0)) == pytest.approx(1.069315, abs=5e-7)


def test_gradient_in_closed_form():
    value, better, worse = pairwise.slopes(orpo, orpo.Config(beta=0.1), batch(-1.0, -1.5))
    push = 0.1 * pairwise.sigmoid(-0.706193)
    assert better == pytest.approx((-1 - push / (1 - math.exp(-1.0))) / 4, rel=1e-5)
    assert worse == pytest.approx(push / (1 - math.exp(-1.5)) / 4, rel=1e-5)


def test_with_beta_0_it_imitates_the_better_one_alone():
    assert pairwise.slopes(orpo, orpo.Config(beta=0.0), batch(-1.0, -1.5)) == pytest.approx((1.0, -0.25, 0.0))


def test_it_needs_no_reference():
    given = batch(-1.0, -1.5)
    bare = dataclasses.replace(given, views={"policy": given.views["policy"]})
    assert pairwise.value(orpo, orpo.Config(), bare) == pairwise.value(orpo, orpo.Config(), given)
    assert orpo.CARD.needs == {"policy"}


@pytest.mark.parametrize("logp", [-1e-12, -1e-6, -1e-3, math.log(0.5), -0.7, -30.0, -800.0, 0.0])
def test_log_odds_at_both_ends(logp):
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-5)):
        given = torch.tensor([logp], dtype=dtype, requires_grad=True)
        found = orpo._log_odds(given)
        found.sum().backward()
        sure = min(given.detach().double().item(), -1e-6)
        assert found.item() == pytest.approx(sure - math.log(-math.expm1(sure)), rel=tolerance, abs=tolerance)
        assert math.isfinite(given.grad.item())


def test_a_certain_policy_gives_no_nan():
    for better, worse in ((0.0, 0.0), (0.0, -50.0), (-50.0, 0.0), (-1e-30, -1e-30)):
        assert all(map(math.isfinite, pairwise.slopes(orpo, orpo.Config(), batch(better, worse))))


def test_errors():
    pairwise.check_errors(orpo, [{"beta": -0.1}, {"beta": math.nan}, {"form": "sum_of_all"}])
