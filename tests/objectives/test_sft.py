"""SFT against hand-worked numbers and independent arithmetic."""

import dataclasses
import math

import exactness
import pytest
import torch

from alignlab.core.masks import seq_sum
from alignlab.core.reduce import share, total, totals
from alignlab.core.types import Term
from alignlab.objectives import sft

A, B = [[-1.0], [-3.0]], [[-1.0, -1.0], [-1.0, -1.0, -1.0, -1.0]]


def check_reduction(loss, batch_of):
    """The brief's vector: micro-batch A has token losses 1 and 3, B six of 1; the token mean of the step is 1.25."""
    cfg = sft.Config()
    batches = [batch_of(A, leaf=True), batch_of(B, leaf=True)]
    sums = totals(loss(b, cfg) for b in batches)
    assert total(sums, {"sft": 1.0}) == pytest.approx(1.25)
    for batch in batches:
        (gradient,) = torch.autograd.grad(share(loss(batch, cfg), {"sft": sums["sft"][1]}), batch.views["policy"].logp)
        assert torch.equal(gradient, torch.where(batch.mask, -1 / 8, 0.0).double()), "every token weighs -1/8"


def test_vector_of_the_token_mean_of_the_whole_step(batch_of):
    check_reduction(sft.loss, batch_of)


def mean_of_means(batch, cfg):
    nll = -seq_sum(batch.views["policy"].logp, batch.mask).sum() / batch.mask.sum()
    return (Term(name="sft", num=nll[None], den=torch.ones(1)),)


def flipped(batch, cfg):
    return tuple(dataclasses.replace(t, num=-t.num) for t in sft.loss(batch, cfg))


def without_end(batch, cfg):
    last = batch.mask.sum(1) - 1
    return sft.loss(
        dataclasses.replace(batch, mask=batch.mask & (torch.arange(batch.mask.shape[1]) != last[:, None])), cfg
    )


@pytest.mark.parametrize("broken", [mean_of_means, flipped, without_end])
def test_the_reduction_check_sees_broken_losses(batch_of, broken):
    with pytest.raises(AssertionError):
        check_reduction(broken, batch_of)


def test_mean_of_means_would_be_one_and_a_half(batch_of):
    sums = totals(mean_of_means(batch_of(rows), sft.Config()) for rows in (A, B))
    assert total(sums, {"sft": 1.0}) == pytest.approx(1.5)


def test_vectors_of_log_probs(batch_of):
    logits, targets = torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.0, 3.0], [1.0, 1.0, 1.0]]), torch.tensor([0, 2, 1])
    logp = logits.log_softmax(-1).gather(1, targets[:, None])[:, 0].tolist()
    assert logp == pytest.approx([-0.407606, -0.094923, -1.098612], abs=5e-7)
    assert total(totals([sft.loss(batch_of([logp]), sft.Config())]), {"sft": 1.0}) == pytest.approx(0.533714, abs=5e-7)


def formula(prompts, cfg):
    said = [completion for prompt in prompts for completion in prompt.completions]
    if cfg.form == "sequence_mean":
        return -math.fsum(c.logp() / len(c) for c in said) / len(said)
    return -math.fsum(c.logp() for c in said) / sum(map(len, said))


@pytest.mark.parametrize("form", ["token_mean", "sequence_mean"])
def test_exactness(form):
    exactness.check(
        sft.loss, sft.Config(form=form), formula,
        make=lambda seed: exactness.prompts(seed, completions=(1, 3), views=("policy",), pairs=False),
    )  # fmt: skip


def test_sequence_mean_weighs_completions_alike(batch_of):
    cfg = sft.Config(form="sequence_mean")
    sums = totals(sft.loss(batch_of(rows), cfg) for rows in (A, B))
    assert total(sums, {"sft": 1.0}) == pytest.approx((1 + 3 + 1 + 1) / 4)


def test_a_completion_without_scored_tokens_counts_for_nothing(batch_of):
    batch = batch_of([[-2.0, -4.0], [-7.0]])
    batch = dataclasses.replace(batch, mask=torch.tensor([[True, True], [False, False]]))
    for form, expected in (("token_mean", 3.0), ("sequence_mean", 3.0)):
        assert total(totals([sft.loss(batch, sft.Config(form=form))]), {"sft": 1.0}) == pytest.approx(expected)


def test_rejected_and_disliked_completions_are_refused(batch_of):
    with pytest.raises(ValueError, match="completion=chosen"):
        sft.loss(batch_of([[-1.0], [-1.0]], pairs=[(0, 1, 1.0, 1.0)]), sft.Config())
    disliked = dataclasses.replace(batch_of([[-1.0], [-1.0]]), label=torch.tensor([True, False]))
    with pytest.raises(ValueError, match="disliked"):
        sft.loss(disliked, sft.Config())
    liked = dataclasses.replace(disliked, label=torch.tensor([True, True]))
    assert totals([sft.loss(liked, sft.Config())]) == {"sft": (2.0, 2.0)}


def test_an_unknown_form_names_the_flag():
    with pytest.raises((ValueError, TypeError), match="form"):  # TypeError: the run-time type check of the tests
        sft.Config(form="mean")
