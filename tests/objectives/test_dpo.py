"""DPO against hand-worked numbers, an independent formula and the closed form of its gradient."""

import dataclasses
import math
import subprocess
import sys

import exactness
import numpy as np
import pairwise
import pytest
import torch
from exactness import evaluate

from alignlab.core.reduce import totals
from alignlab.objectives import dpo


def formula(step, cfg):
    """The loss in float64, written from the paper: no code in common with the module."""
    preference = likelihood = weights = tokens = 0.0
    for better, worse, pair in exactness.ordered_pairs(step):
        z = cfg.beta * (better.ratio() - worse.ratio())
        preference += pair.weight * (pair.p * math.log1p(math.exp(-z)) + (1 - pair.p) * math.log1p(math.exp(z)))
        likelihood -= pair.weight * (better.logp() if cfg.form == "per_token" else better.logp() / len(better))
        weights, tokens = weights + pair.weight, tokens + pair.weight * len(better)
    return preference / weights + cfg.nll_weight * likelihood / (tokens if cfg.form == "per_token" else weights)


POLICY = [[-2.0, -3.0, -1.0, -4.0, -2.0], [-1.0, -2.0, -3.0, -1.0, -2.0, -3.0, -1.0, -2.0]]
REF = [[-3.0, -3.0, -2.0, -3.0, -2.0], [-2.0, -1.0, -2.0, -2.0, -1.0, -2.0, -2.0, -2.0]]


def check_vector(loss, batch_of, p=1.0):
    """The brief's pair: log-probabilities -12 (5 tokens) and -15 (8), reference -13 and -14, beta 0.1."""
    batch = batch_of(POLICY, REF, [(0, 1, p, 1.0)], leaf=True)
    value, gradient = evaluate(loss, batch, dpo.Config(beta=0.1))
    assert value == pytest.approx({1.0: 0.598139, 0.9: 0.618139}[p], abs=5e-7)
    slope = -0.1 * (p - 1 / (1 + math.exp(-0.2)))
    if p == 1.0:
        assert slope == pytest.approx(-0.045017, abs=5e-7)
    mask = batch.mask
    torch.testing.assert_close(gradient[0][mask[0]], torch.full((5,), slope, dtype=torch.float64))
    torch.testing.assert_close(gradient[1][mask[1]], torch.full((8,), -slope, dtype=torch.float64))
    assert (gradient[~mask] == 0).all()


@pytest.mark.parametrize("p", [1.0, 0.9])
def test_vectors_and_closed_form_gradient(batch_of, p):
    check_vector(dpo.loss, batch_of, p)


def flipped(batch, cfg):
    return tuple(dataclasses.replace(t, num=-t.num) for t in dpo.loss(batch, cfg))


def swapped(batch, cfg):
    pairs = dataclasses.replace(batch.pairs, better=batch.pairs.worse, worse=batch.pairs.better)
    return dpo.loss(dataclasses.replace(batch, pairs=pairs), cfg)


def without_end(batch, cfg):
    last = batch.mask.sum(1) - 1
    mask = batch.mask & (torch.arange(batch.mask.shape[1]) != last[:, None])
    return dpo.loss(dataclasses.replace(batch, mask=mask), cfg)


def averaged_log_probs(batch, cfg):
    views = {k: dataclasses.replace(v, logp=v.logp / batch.mask.sum(1)[:, None]) for k, v in batch.views.items()}
    return dpo.loss(dataclasses.replace(batch, views=views), cfg)


@pytest.mark.parametrize("broken", [flipped, swapped, without_end, averaged_log_probs])
def test_the_vector_check_sees_broken_losses(batch_of, broken):
    with pytest.raises(AssertionError):
        check_vector(broken, batch_of)


def ragged(seed, n=7, pairs=9):
    """Return random log-probabilities of K-way completions with soft labels and weights."""
    draw = np.random.default_rng(seed)
    lengths = draw.integers(1, 9, n)
    policy, ref = ([(-draw.exponential(2.0, k)).tolist() for k in lengths] for _ in range(2))
    chosen = [draw.choice(n, 2, replace=False).tolist() for _ in range(pairs)]
    return policy, ref, [(b, w, float(draw.uniform(0.5, 1)), float(draw.uniform(0.1, 3))) for b, w in chosen]


@pytest.mark.parametrize("cfg", [
    dpo.Config(beta=0.3), dpo.Config(beta=0.3, nll_weight=0.7), dpo.Config(nll_weight=0.7, form="per_token"),
])  # fmt: skip
def test_exactness(cfg):
    exactness.check(dpo.loss, cfg, formula)


def test_forms_of_the_likelihood_term_differ_and_are_right(batch_of):
    policy, ref = [[-1.0, -3.0], [-1.0], [-1.0] * 6, [-1.0]], [[-1.0, -3.0], [-1.0], [-1.0] * 6, [-1.0]]
    pairs = [(0, 1, 1.0, 1.0), (2, 3, 1.0, 1.0)]
    values = {}
    for form in ("per_pair", "per_token"):
        cfg = dpo.Config(nll_weight=1.0, form=form)
        value, _ = evaluate(dpo.loss, batch_of(policy, ref, pairs, leaf=True), cfg)
        values[form] = value - math.log(2)
    assert values == {"per_pair": pytest.approx((4 / 2 + 6 / 6) / 2), "per_token": pytest.approx((4 + 6) / 8)}


def test_limits_and_identities(batch_of):
    policy, ref, pairs = ragged(5)
    cfg = dpo.Config(beta=0.4)

    def value(policy, ref, pairs):
        return evaluate(dpo.loss, batch_of(policy, ref, pairs, leaf=True), cfg)[0]

    hard = [(b, w, 1.0, weight) for b, w, _, weight in pairs]
    assert value(policy, policy, pairs) == pytest.approx(math.log(2)), "policy = reference"
    mirrored = [(w, b, 1 - p, weight) for b, w, p, weight in pairs]
    assert value(policy, ref, mirrored) == pytest.approx(value(policy, ref, pairs)), "a mirrored pair is the same pair"
    assert value(policy, ref, [(w, b, 1.0, c) for b, w, _, c in hard]) != pytest.approx(value(policy, ref, hard))
    shifted = [[r[0] - 2.5, *r[1:]] for r in ref]
    assert value(policy, shifted, pairs) == pytest.approx(value(policy, ref, pairs)), "one constant on all rewards"
    doubled = [(b, w, p, 2.0) for b, w, p, _ in pairs[:1]] + [(b, w, p, 1.0) for b, w, p, _ in pairs[1:]]
    twice = [(b, w, p, 1.0) for b, w, p, _ in pairs[:1] * 2 + pairs[1:]]
    assert value(policy, ref, doubled) == pytest.approx(value(policy, ref, twice)), "weight 2 = given twice"


def test_optimum_is_the_reference_tilted_by_the_reward():
    pairs = pairwise.all_pairs(lambda a, b: pairwise.sigmoid(a - b))
    found = pairwise.log_ratio(pairwise.optimum(dpo, dpo.Config(beta=0.5), pairwise.REF, pairs))
    wanted = pairwise.centred(pairwise.REWARDS) / 0.5
    assert pairwise.centred(found).tolist() == pytest.approx(wanted.tolist(), abs=1e-6)


def test_extreme_log_ratios_stay_finite(batch_of):
    batch = batch_of([[-9000.0], [-1.0]], [[-1.0], [-9000.0]], [(0, 1, 1.0, 1.0)], leaf=True)
    value, gradient = evaluate(dpo.loss, batch, dpo.Config(beta=1.0))
    assert value == pytest.approx(17998.0)
    assert gradient[0, 0].item() == pytest.approx(-1.0)


def test_logs_have_trl_names_and_meanings(batch_of):
    (term,) = dpo.loss(batch_of(POLICY, REF, [(0, 1, 1.0, 1.0)]), dpo.Config(beta=0.1))
    values = {name: value.item() for name, value in term.logs.items()}
    assert values == {
        "rewards/chosen": pytest.approx(0.1),
        "rewards/rejected": pytest.approx(-0.1),
        "rewards/margins": pytest.approx(0.2),
        "rewards/accuracies": 1.0,
        "logps/chosen": pytest.approx(-12.0),
        "logps/rejected": pytest.approx(-15.0),
    }


def test_pairs_without_weight_leave_no_denominator(batch_of):
    terms = dpo.loss(batch_of(POLICY, REF, [(0, 1, 1.0, 0.0)], leaf=True), dpo.Config(nll_weight=1.0))
    assert {name: den for name, (_, den) in totals([terms]).items()} == {"dpo": 0.0, "nll": 0.0}


def test_errors_name_the_flag_and_the_way_out(batch_of):
    with pytest.raises(ValueError, match="chosen and rejected"):
        dpo.loss(batch_of(POLICY, REF), dpo.Config())
    for wrong in ({"beta": 0.0}, {"beta": float("nan")}, {"nll_weight": -1.0}):
        with pytest.raises(ValueError, match=f"--{next(iter(wrong))}"):
            dpo.Config(**wrong)
    with pytest.raises((ValueError, TypeError), match="form"):  # TypeError: the run-time type check of the tests
        dpo.Config(form="per_word")


def test_objectives_load_neither_transformers_nor_their_kin():
    code = (
        "import sys, alignlab.objectives.sft, alignlab.objectives.dpo;"
        "print([m for m in ('transformers', 'peft', 'accelerate', 'datasets', 'alignlab.engine') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"
