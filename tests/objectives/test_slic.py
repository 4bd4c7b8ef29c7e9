"""SLiC against the brief's vectors, an independent formula and its limits."""

import dataclasses

import exactness
import pairwise
import pytest

from alignlab.objectives import slic


def formula(step, cfg):
    hinge = pairwise.mean_over_pairs(lambda a, b: max(0.0, cfg.delta - a.logp() + b.logp()), step)
    return hinge + cfg.nll_weight * pairwise.likelihood(step, cfg.form)


@pytest.mark.parametrize("form", ["sum", "per_pair", "per_token"])
def test_exactness(form):
    exactness.check(slic.loss, slic.Config(delta=2.0, nll_weight=0.3, form=form), formula)


@pytest.mark.parametrize(
    ("form", "weight", "vector"),
    [("sum", 0.0, 2.0), ("sum", 0.1, 3.2), ("per_pair", 0.1, 2.24), ("per_token", 0.1, 2.24)],
)
def test_vectors(form, weight, vector):
    cfg = slic.Config(delta=5.0, nll_weight=weight, form=form)
    value, better, worse = pairwise.slopes(slic, cfg, pairwise.pair(*pairwise.BRIEF))
    assert value == pytest.approx(vector, abs=1e-12)
    assert better == pytest.approx(-1 - weight / (1 if form == "sum" else 5))
    assert worse == pytest.approx(1)


def test_it_needs_no_reference():
    batch = pairwise.pair(*pairwise.BRIEF)
    bare = dataclasses.replace(batch, views={"policy": batch.views["policy"]})
    assert pairwise.value(slic, slic.Config(), bare) == pairwise.value(slic, slic.Config(), batch)
    assert slic.CARD.needs == {"policy"}


def test_beyond_the_margin_only_imitation_is_left():
    batch = pairwise.pair((-12.0, 0.0, 1), (-17.5, 0.0, 1))
    assert pairwise.slopes(slic, slic.Config(delta=5.0, nll_weight=0.1), batch) == (pytest.approx(1.2), -0.1, 0.0)
    assert pairwise.slopes(slic, slic.Config(delta=6.0, nll_weight=0.1), batch)[1:] == (pytest.approx(-1.1), 1.0)


def test_errors():
    pairwise.check_errors(slic, [{"delta": 0.0}, {"nll_weight": -0.1}, {"form": "median"}])
