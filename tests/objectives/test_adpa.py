"""ADPA against the brief's vectors, an independent formula, a difference of divergences and the released clamp."""

import dataclasses
import math

import exactness
import pytest
import torch
from exactness import Completion, Pair, Prompt, Scored

from alignlab.objectives import adpa

ALIGNED, BEFORE, STUDENT = (0.6, 0.25, 0.1, 0.05), (0.4, 0.3, 0.2, 0.1), (0.3, 0.3, 0.25, 0.15)


def log(values):
    return torch.tensor(values, dtype=torch.float64).log()


def batch_of_token(aligned=ALIGNED, before=BEFORE, student=STUDENT, ce=2.0):
    """A chosen answer of one token that costs `ce`, and a student's answer of one token with four candidates."""

    def views(p, q, r, cost):
        said = {
            name: Scored(
                logp=[cost], top_ids=[[0, 1, 2, 3]], top_logp=[[math.log(x) for x in values]], rest=[-math.inf]
            )
            for name, values in (("policy", p), ("teacher", q), ("teacher_ref", r))
        }
        return Completion(views=said)

    step = [Prompt([views(student, aligned, before, -ce), views(student, aligned, before, -1.0)], [Pair(0, 1)])]
    ((batch, _),) = exactness.lay_out(step, exactness.Layout(), ("policy",))
    return batch


def advantage(form="signed", **distributions):
    """The advantage term of the token, and its gradient on the student's logits."""
    batch = batch_of_token(**distributions)
    logits = log(distributions.get("student", STUDENT)).requires_grad_()
    policy = batch.views["policy"]
    top = torch.stack([policy.top_logp[0].detach(), logits.log_softmax(-1)[None]])
    view = dataclasses.replace(policy, top_logp=top)
    terms = adpa.loss(dataclasses.replace(batch, views={**batch.views, "policy": view}), adpa.Config(form=form))
    (gradient,) = torch.autograd.grad(terms[1].num.sum(), logits)
    return terms[1].num.item(), gradient.tolist()


def kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q))


def check_vectors(form, value, gradient):
    found, slope = advantage(form)
    assert found == pytest.approx(value, abs=5e-7)
    assert slope == pytest.approx(gradient, abs=5e-7)


def test_vectors():
    found = adpa.advantages(log([[[*ALIGNED, 0.0]]]), log([[[*BEFORE, 0.0]]]), "signed")[0, 0].tolist()
    assert found == pytest.approx([0.405465, -0.182322, -0.693147, -0.693147, 0.0], abs=5e-7)
    check_vectors("signed", 0.210316, [-0.184734, -0.008398, 0.120708, 0.072425])
    check_vectors("release", -0.121640, [-0.085148, 0.036492, 0.030410, 0.018246])
    with pytest.raises(AssertionError):
        check_vectors("release", 0.210316, [-0.184734, -0.008398, 0.120708, 0.072425])


def test_the_whole_loss_of_the_brief():
    assert exactness.evaluate(adpa.loss, batch_of_token(), adpa.Config())[0] == pytest.approx(2.336505, abs=5e-7)


def test_it_is_a_difference_of_divergences():
    assert advantage()[0] == pytest.approx(kl(STUDENT, ALIGNED) - kl(STUDENT, BEFORE))


def test_exact_advantage_where_a_floor_would_hide_it():
    found = adpa.advantages(log([[[0.6, 0.25, 0.15]]]), log([[[0.4, 0.1, 0.5]]]), "signed")[0, 0]
    assert found[1].item() == pytest.approx(0.916291, abs=5e-7)
    assert found[2].item() == pytest.approx(math.log(0.15 / 0.5)), "mass that leaves the top tokens has its price too"


def formula(prompts, cfg):
    nll = gained = tokens_chosen = tokens = 0.0
    for better, worse, pair in exactness.ordered_pairs(prompts):
        nll -= pair.weight * better.logp()
        tokens_chosen += pair.weight * len(better)
        tokens += pair.weight * len(worse)
        said = [
            [[*t, r] for t, r in zip(worse.views[n].top_logp, worse.views[n].rest)]
            for n in ("policy", "teacher", "teacher_ref")
        ]
        for mine, aligned, before in zip(*said):
            a = [x - y for x, y in zip(aligned, before)]
            if cfg.form == "release":
                a = [*(min(max(x, 1e-8), 1 - 1e-8) for x in a[:-1]), 0.0]
            gained += pair.weight * math.fsum(math.exp(p) * x for p, x in zip(mine, a))
    return cfg.sft_weight * nll / tokens_chosen - cfg.gamma * gained / tokens


def taught(seed):
    return exactness.prompts(seed, views=("policy", "teacher", "teacher_ref"), top=3, count=5)


@pytest.mark.parametrize("form", ["signed", "release"])
def test_exactness(form):
    exactness.check(adpa.loss, adpa.Config(sft_weight=0.7, gamma=1.1, form=form), formula, make=taught)


def test_limits():
    value, gradient = advantage(aligned=ALIGNED, before=ALIGNED)
    assert value == pytest.approx(0)
    assert gradient == pytest.approx([0.0] * 4), "an unmoved teacher teaches nothing"
    best = advantage(student=(1 - 3e-9, 1e-9, 1e-9, 1e-9))[0]
    assert best == pytest.approx(-0.405465, abs=1e-5)
    assert best < advantage()[0], "all mass on the largest advantage is the minimum"
    shifted = adpa.advantages(log([[[*ALIGNED, 0.0]]]) + 0.7, log([[[*BEFORE, 0.0]]]), "signed")[0, 0, :4]
    p = log(STUDENT).requires_grad_()
    (moved,) = torch.autograd.grad(-(p.softmax(-1) * shifted).sum(), p)
    assert moved.tolist() == pytest.approx(advantage()[1]), "a constant on all advantages changes no gradient"
    assert exactness.evaluate(adpa.loss, batch_of_token(), adpa.Config(gamma=0.0))[0] == pytest.approx(2.0)


def test_errors():
    batch = batch_of_token()
    for name in ("teacher", "teacher_ref"):
        views = {n: v for n, v in batch.views.items() if n != name}
        with pytest.raises(ValueError, match=f"--{name}_model"):
            adpa.loss(dataclasses.replace(batch, views=views), adpa.Config())
    other = dataclasses.replace(batch.views["teacher_ref"], top_ids=batch.views["teacher_ref"].top_ids + 1)
    with pytest.raises(ValueError, match="different tokens"):
        adpa.loss(dataclasses.replace(batch, views={**batch.views, "teacher_ref": other}), adpa.Config())
    with pytest.raises(ValueError, match="adpa needs pairs"):
        adpa.loss(dataclasses.replace(batch, pairs=None), adpa.Config())
    for flag, bad in (("sft_weight", -1.0), ("gamma", -1.0), ("top_k", 0)):
        with pytest.raises(ValueError, match=f"--{flag}"):
            adpa.Config(**{flag: bad})
