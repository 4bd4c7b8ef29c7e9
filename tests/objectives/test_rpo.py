"""RPO against the brief's vectors, independent formulas and the minimisers of enumerable worlds."""

import dataclasses
import math

import exactness
import pairwise
import pytest
import torch

from alignlab.core.reduce import share, totals
from alignlab.core.types import View
from alignlab.objectives import dpo, rpo


def formula(step, cfg):
    compared = pairwise.mean_over_pairs(lambda a, b: pairwise.nls(cfg.beta * (a.ratio() - b.ratio())), step)
    if cfg.form == "scaled":
        return cfg.eta * compared + pairwise.likelihood(step, "per_token")
    weight, unit = {
        "summed": (cfg.eta * cfg.beta, "sum"),
        "averaged": (cfg.eta, "per_pair"),
        "token_mean": (cfg.eta, "per_token"),
    }[cfg.form]
    return compared + weight * pairwise.likelihood(step, unit)


@pytest.mark.parametrize("form", ["summed", "averaged", "token_mean", "scaled"])
def test_exactness(form):
    exactness.check(rpo.loss, rpo.Config(beta=0.3, eta=0.4, form=form), formula)


LONG = ((-120.0, -118.0, 60), (-150.0, -140.0, 75))


@pytest.mark.parametrize(
    ("beta", "eta", "form", "vector"),
    [
        (0.01, 0.0, "summed", 0.653947),
        (0.01, 0.005, "summed", 0.659947),
        (0.01, 0.005, "token_mean", 0.663947),
        (0.5, 0.2, "averaged", 0.418150),
        (0.01, 1.0, "token_mean", 2.653947),  # TRL 0.10 to 0.28, rpo_alpha 1
        (0.01, 2.0, "scaled", 3.307894),  # TRL 0.9, rpo_alpha 2
    ],
)
def test_vectors(beta, eta, form, vector):
    found = pairwise.value(rpo, rpo.Config(beta=beta, eta=eta, form=form), pairwise.pair(*LONG))
    assert found == pytest.approx(vector, abs=5e-7)


def test_gradient_of_the_brief():
    _, plain, worse = pairwise.slopes(rpo, rpo.Config(beta=0.01, eta=0.0), pairwise.pair(*LONG))
    _, better, same = pairwise.slopes(rpo, rpo.Config(beta=0.01, eta=0.005), pairwise.pair(*LONG))
    assert -plain == pytest.approx(0.004800, abs=5e-7)
    assert plain - better == pytest.approx(0.000050)
    assert (plain - better) / -plain == pytest.approx(0.010416, abs=5e-7)
    assert worse == same


def test_without_eta_it_is_dpo():
    batch = pairwise.ratios(0.7, -0.4, p=0.8)
    for form in ("summed", "averaged", "token_mean"):
        found = pairwise.slopes(rpo, rpo.Config(beta=0.5, eta=0.0, form=form), batch)
        assert found == pytest.approx(pairwise.slopes(dpo, dpo.Config(beta=0.5), batch))


def test_as_beta_vanishes_the_summed_form_says_nothing_and_the_averaged_one_imitates():
    batch = pairwise.pair(*LONG)
    value, better, _ = pairwise.slopes(rpo, rpo.Config(beta=1e-9, eta=0.2), batch)
    assert value == pytest.approx(math.log(2), abs=1e-6)
    assert abs(better) < 1e-8
    _, better, worse = pairwise.slopes(rpo, rpo.Config(beta=1e-9, eta=0.2, form="averaged"), batch)
    assert better == pytest.approx(-0.2 / 60)
    assert abs(worse) < 1e-8


@pytest.mark.parametrize(("eta", "mass"), [(0.0, 0.9), (0.1, 0.886380), (1.0, 0.819448), (10.0, 0.760919)])
def test_minimisers_of_two_answers(eta, mass):
    """A uniform reference, the first answer preferred in three of four pairs, the baseline as the better ones."""
    pairs = [exactness.Pair(0, 1, weight=0.75), exactness.Pair(1, 0, weight=0.25)]
    found = pairwise.optimum(rpo, rpo.Config(beta=0.5, eta=eta), (0.0, 0.0), pairs)
    assert found.exp()[0].item() == pytest.approx(mass, abs=1e-6)


@pytest.mark.parametrize(("eta", "slope"), [(0.0, 0.0), (0.1, 0.016667)])
def test_an_uncovered_answer_is_pushed_down_by_pessimism_alone(eta, slope):
    given = [
        exactness.Completion(
            views={"policy": exactness.Scored([-math.log(3)]), "ref": exactness.Scored([-math.log(3)])}
        )
        for _ in range(3)
    ]
    step = [exactness.Prompt(given, [exactness.Pair(0, 1, weight=0.75), exactness.Pair(1, 0, weight=0.25)])]
    ((batch, _),) = exactness.lay_out(step, exactness.Layout(), ())
    logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    views = {**batch.views, "policy": View(logp=logits.log_softmax(0)[:, None])}
    terms = rpo.loss(dataclasses.replace(batch, views=views), rpo.Config(beta=0.5, eta=eta))
    share(terms, {name: den for name, (_, den) in totals([terms]).items()}).backward()
    assert logits.grad[2].item() == pytest.approx(slope, abs=5e-7)


def test_errors():
    pairwise.check_errors(rpo, [{"beta": 0.0}, {"eta": -0.1}, {"eta": math.nan}, {"form": "old_trl"}])
