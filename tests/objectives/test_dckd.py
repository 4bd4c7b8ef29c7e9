"""DCKD against the brief's vectors, an independent formula, the gradient on logits, and likelihood as its limit."""

import dataclasses
import math

import exactness
import pytest
import torch
from exactness import Pair

from alignlab.core.types import View
from alignlab.objectives import dckd, sft
from alignlab.objectives._teachers import forward_kl

TEACHER, STUDENT = (0.6, 0.25, 0.1, 0.05), (0.3, 0.3, 0.25, 0.15)


def log(values):
    return torch.tensor(values, dtype=torch.float64).log()


def test_vectors_of_a_token():
    whole = forward_kl(log([[[*TEACHER, 0.0]]]), log([[[*STUDENT, 0.0]]]))
    assert whole.item() == pytest.approx(0.223748, abs=5e-7)
    bucket = forward_kl(log([[[0.6, 0.25, 0.15]]]), log([[[0.3, 0.3, 0.4]]]))
    assert bucket.item() == pytest.approx(0.223184, abs=5e-7)


def test_gradient_on_logits_is_student_minus_teacher():
    logits = log([[STUDENT]]).requires_grad_()
    none = torch.full((1, 1, 1), -math.inf, dtype=torch.float64)
    student = torch.cat([logits.log_softmax(-1), none], -1)
    forward_kl(torch.cat([log([[TEACHER]]), none], -1), student).sum().backward()
    assert logits.grad[0, 0].tolist() == pytest.approx([-0.3, 0.05, 0.15, 0.1])


def formula(prompts, cfg):
    def kl(c):
        said = zip(
            *[[[*top, rest] for top, rest in zip(c.views[n].top_logp, c.views[n].rest)] for n in ("teacher", "policy")]
        )
        return math.fsum(math.exp(a) * (a - b) for teacher, student in said for a, b in zip(teacher, student))

    parts = [[0.0, 0.0] for _ in range(3)]
    for better, worse, pair in exactness.ordered_pairs(prompts):
        for part, value, n in (
            (0, -better.logp(), len(better)),
            (1, kl(better), len(better)),
            (2, kl(worse), len(worse)),
        ):
            parts[part][0] += pair.weight * value
            parts[part][1] += pair.weight * n
    weights = (cfg.sft_weight, cfg.kd_weight * cfg.chosen_weight, cfg.kd_weight * cfg.rejected_weight)
    return sum(w * num / den for w, (num, den) in zip(weights, parts))


def taught(seed):
    return exactness.prompts(seed, views=("policy", "teacher"), top=3, count=5)


def test_exactness():
    cfg = dckd.Config(sft_weight=0.7, kd_weight=1.3, chosen_weight=0.6, rejected_weight=0.4)
    exactness.check(dckd.loss, cfg, formula, make=taught)


def batch_of_step(seed=0):
    ((batch, _),) = exactness.lay_out(taught(seed), exactness.Layout(), ("policy",))
    return batch


def test_without_distillation_it_is_sft_on_the_chosen():
    step = exactness.prompts(2, views=("policy", "teacher"), top=3, weighted=False, completions=(2, 2), pairs=False)
    for prompt in step:
        prompt.pairs = [Pair(0, 1)]
    ((batch, _),) = exactness.lay_out(step, exactness.Layout(), ("policy",))
    cfg = dckd.Config(chosen_weight=0.0, rejected_weight=0.0)
    chosen = [exactness.Prompt(prompt.completions[:1]) for prompt in step]
    ((alone, _),) = exactness.lay_out(chosen, exactness.Layout(), ("policy",))
    found, wanted = (exactness.evaluate(*g)[0] for g in ((dckd.loss, batch, cfg), (sft.loss, alone, sft.Config())))
    assert found == pytest.approx(wanted, rel=1e-12)


def test_a_student_that_equals_its_teacher_pays_nothing():
    batch = batch_of_step()
    views = {**batch.views, "teacher": batch.views["policy"]}
    _, chosen, rejected = dckd.loss(dataclasses.replace(batch, views=views), dckd.Config())
    assert chosen.num.abs().max().item() < 1e-12
    assert rejected.num.abs().max().item() < 1e-12


def test_a_teacher_without_rest_and_impossible_tokens_stay_finite():
    batch = batch_of_step()
    teacher = batch.views["teacher"]
    nothing = torch.where(batch.mask, -math.inf, math.nan).double()
    bare = dataclasses.replace(
        teacher, rest=nothing, top_logp=torch.where(teacher.top_ids == 0, -math.inf, teacher.top_logp)
    )
    found = dataclasses.replace(batch, views={**batch.views, "teacher": bare})
    terms = dckd.loss(found, dckd.Config())
    gradients = torch.autograd.grad(sum(t.num.sum() for t in terms), [batch.views["policy"].top_logp])
    assert all(bool(torch.isfinite(t.num).all()) for t in terms)
    assert bool(torch.isfinite(gradients[0]).all())


def test_errors():
    batch = batch_of_step()
    with pytest.raises(ValueError, match="--teacher_model"):
        dckd.loss(dataclasses.replace(batch, views={"policy": batch.views["policy"]}), dckd.Config())
    views = {**batch.views, "policy": View(logp=batch.views["policy"].logp)}
    with pytest.raises(ValueError, match="top-k log-probabilities in the view 'policy'"):
        dckd.loss(dataclasses.replace(batch, views=views), dckd.Config())
    other = dataclasses.replace(batch.views["teacher"], top_ids=batch.views["teacher"].top_ids + 1)
    with pytest.raises(ValueError, match="different tokens"):
        dckd.loss(dataclasses.replace(batch, views={**batch.views, "teacher": other}), dckd.Config())
    with pytest.raises(ValueError, match="dckd needs pairs"):
        dckd.loss(dataclasses.replace(batch, pairs=None), dckd.Config())
    for flag, bad in (
        ("sft_weight", -1.0),
        ("kd_weight", -1.0),
        ("chosen_weight", -1.0),
        ("rejected_weight", -1.0),
        ("top_k", 0),
    ):
        with pytest.raises(ValueError, match=f"--{flag}"):
            dckd.Config(**{flag: bad})
