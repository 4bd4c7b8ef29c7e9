"""SPIN against the brief's vectors, an independent formula, DPO's gradient and its fixed point."""

import math

import exactness
import pytest
import torch

from alignlab.objectives import dpo, spin

REAL, GENERATED = (-40.0, -44.0), (-35.0, -33.0)
"""log-probability under the policy and under the iteration before"""


def evaluate(batch_of, cfg, loss=spin.loss, real=REAL, generated=GENERATED):
    batch = batch_of([[real[0]], [generated[0]]], [[real[1]], [generated[1]]], [(0, 1, 1.0, 1.0)], leaf=True)
    return exactness.evaluate(loss, batch, cfg)


def check_vectors(batch_of, loss):
    """Margin 6 at lambda 0.1."""
    value, gradient = evaluate(batch_of, spin.Config(), loss)
    assert value == pytest.approx(0.437488, abs=5e-7)
    slope = 0.1 / (1 + math.exp(0.6))
    assert gradient.flatten().tolist() == pytest.approx([-slope, slope])
    value, gradient = evaluate(batch_of, spin.Config(form="hinge"), loss)
    assert value == pytest.approx(0.4)
    assert gradient.flatten().tolist() == pytest.approx([-0.1, 0.1])


def test_vectors(batch_of):
    check_vectors(batch_of, spin.loss)


def test_the_vector_check_sees_a_broken_loss(batch_of):
    with pytest.raises(AssertionError):
        check_vectors(batch_of, exactness.negated(spin.loss))


def formula(prompts, cfg):
    lost = weights = 0.0
    for better, worse, pair in exactness.ordered_pairs(prompts):
        z = cfg.beta * (better.ratio() - worse.ratio())
        lost += pair.weight * (math.log1p(math.exp(-z)) if cfg.form == "logistic" else max(0.0, 1 - z))
        weights += pair.weight
    return lost / weights


@pytest.mark.parametrize("form", ["logistic", "hinge"])
def test_exactness(form):
    exactness.check(spin.loss, spin.Config(beta=0.3, form=form), formula)


def test_the_logistic_form_is_dpo_with_hard_labels():
    step = exactness.prompts(2, soft=False)
    ((batch, _),) = exactness.lay_out(step, exactness.Layout(), ("policy",))
    found, wanted = (
        exactness.evaluate(*given)
        for given in ((spin.loss, batch, spin.Config(beta=0.2)), (dpo.loss, batch, dpo.Config(beta=0.2)))
    )
    assert found[0] == pytest.approx(wanted[0], rel=1e-12)
    torch.testing.assert_close(found[1], wanted[1], rtol=1e-12, atol=0)


def test_the_first_step_of_an_iteration(batch_of):
    same = (-7.0, -7.0)
    assert evaluate(batch_of, spin.Config(), real=same, generated=same)[0] == pytest.approx(math.log(2))
    assert evaluate(batch_of, spin.Config(form="hinge"), real=same, generated=same)[0] == pytest.approx(1.0)


def test_the_demonstrations_are_a_fixed_point(batch_of):
    """Where both are drawn from one distribution, pairs come both ways round equally often."""
    batch = batch_of([[-1.0], [-2.0]], [[-1.0], [-2.0]], [(0, 1, 1.0, 0.6 * 0.4), (1, 0, 1.0, 0.4 * 0.6)], leaf=True)
    _, gradient = exactness.evaluate(spin.loss, batch, spin.Config(beta=1.0))
    assert gradient.abs().max().item() < 1e-15
    skewed = batch_of([[-1.0], [-2.0]], [[-1.0], [-2.0]], [(0, 1, 1.0, 0.7 * 0.4), (1, 0, 1.0, 0.3 * 0.6)], leaf=True)
    _, gradient = exactness.evaluate(spin.loss, skewed, spin.Config(beta=1.0))
    assert gradient[0, 0] < 0 < gradient[1, 0]


def test_a_wide_margin_costs_nothing_and_stays_finite(batch_of):
    wide = {"real": (-1.0, -9000.0), "generated": (-9000.0, -1.0)}
    assert evaluate(batch_of, spin.Config(form="hinge"), **wide)[0] == 0
    assert evaluate(batch_of, spin.Config(), **wide)[0] == pytest.approx(0, abs=1e-12)
    value, gradient = evaluate(batch_of, spin.Config(beta=1.0), real=(-9000.0, -1.0), generated=(-1.0, -9000.0))
    assert value == pytest.approx(17998.0)
    assert bool(torch.isfinite(gradient).all())


def test_errors(batch_of):
    with pytest.raises(ValueError, match="spin needs pairs"):
        spin.loss(batch_of([[-1.0]], [[-1.0]]), spin.Config())
    with pytest.raises(ValueError, match="--beta"):
        spin.Config(beta=0.0)
