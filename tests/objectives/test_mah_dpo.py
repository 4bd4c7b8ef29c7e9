"""MAH-DPO against the brief's vectors, an independent formula, and DPO at one head."""

import dataclasses
import math

import exactness
import pytest
import torch
from exactness import Completion, Pair, Prompt, Scored

from alignlab.core.heads import fold
from alignlab.core.reduce import totals
from alignlab.objectives import dpo, mah_dpo
from alignlab.train.log import with_logs


def pair(w, l, ref_w, ref_l, head):  # noqa: E741 - worse
    rows = [
        Completion(views={"policy": Scored(logp=[p]), "ref": Scored(logp=[r])}, head=head)
        for p, r in ((w, ref_w), (l, ref_l))
    ]
    return Prompt(rows, [Pair(0, 1)])


STEP = [pair(-20.0, -25.0, -22.0, -24.0, 0), pair(-30.0, -28.0, -29.0, -29.0, 0), pair(-15.0, -18.0, -15.0, -15.0, 1)]
TWO = mah_dpo.Config(heads=2)


def batch_of_step(step=None):
    ((batch, _),) = exactness.lay_out(step or STEP, exactness.Layout(), ("policy",))
    return batch


def check_vectors(loss):
    terms = loss(batch_of_step(), TWO)
    means = {name: num / den if den else None for name, (num, den) in totals([terms]).items()}
    assert means == {"head_0": pytest.approx(0.676247, abs=5e-7), "head_1": pytest.approx(0.554355, abs=5e-7)}
    assert terms[0].num[:2].tolist() == pytest.approx([0.554355, 0.798139], abs=5e-7)
    value, _ = exactness.evaluate(loss, batch_of_step(), TWO)
    assert value == pytest.approx(0.615301, abs=5e-7)
    assert value != pytest.approx(0.635616, abs=5e-7), "a pooled mean"


def test_vectors():
    check_vectors(mah_dpo.loss)


def pooled(batch, cfg):
    return mah_dpo.loss(dataclasses.replace(batch, head=torch.zeros_like(batch.head)), cfg)


@pytest.mark.parametrize("broken", [exactness.negated(mah_dpo.loss), pooled])
def test_the_vector_check_sees_broken_losses(broken):
    with pytest.raises(AssertionError):
        check_vectors(broken)


def softplus(x):
    return math.log1p(math.exp(-abs(x))) + max(x, 0.0)


def formula(prompts, cfg):
    total = 0.0
    for head, alpha in enumerate(cfg.weights or (1 / cfg.heads,) * cfg.heads):
        lost = weights = 0.0
        for better, worse, q in exactness.ordered_pairs(prompts):
            if better.head == head:
                z = cfg.beta * (better.ratio() - worse.ratio())
                lost += q.weight * (q.p * softplus(-z) + (1 - q.p) * softplus(z))
                weights += q.weight
        total += alpha * lost / weights if weights else 0.0
    return total


def headed(seed):
    step = exactness.prompts(seed, count=7)
    for i, prompt in enumerate(step):
        for completion in prompt.completions:
            completion.head = i % 3
    return step


@pytest.mark.parametrize("weights", [(), (0.5, 0.2, 1.3)])
def test_exactness(weights):
    exactness.check(mah_dpo.loss, mah_dpo.Config(beta=0.3, heads=3, weights=weights), formula, make=headed)


def test_one_head_is_dpo():
    batch = dataclasses.replace(batch_of_step(exactness.prompts(4)), head=None)
    found, wanted = (
        exactness.evaluate(*given)
        for given in ((mah_dpo.loss, batch, mah_dpo.Config(beta=0.2)), (dpo.loss, batch, dpo.Config(beta=0.2)))
    )
    assert found[0] == pytest.approx(wanted[0], rel=1e-12)
    torch.testing.assert_close(found[1], wanted[1], rtol=1e-12, atol=0)


def test_heads_may_come_as_scores_and_a_head_may_be_missing():
    batch = batch_of_step()
    scored = dataclasses.replace(batch, head=None, scores={"head": batch.head.double()})
    assert exactness.evaluate(mah_dpo.loss, scored, TWO)[0] == pytest.approx(0.615301, abs=5e-7)
    three = mah_dpo.Config(heads=3)
    assert exactness.evaluate(mah_dpo.loss, batch, three)[0] == pytest.approx((0.676247 + 0.554355) / 3, abs=5e-7)
    assert totals([mah_dpo.loss(batch, three)])["head_2"] == (0.0, 0.0)


def test_each_head_logs_its_own_margin():
    terms = mah_dpo.loss(batch_of_step(), TWO)
    found = {name: num / den for name, (num, den) in totals([with_logs(terms)]).items()}
    shown = [found[f"rewards/margins{which}"] for which in ("/head_0", "/head_1", "")]
    assert shown == pytest.approx([0.1 * (3 - 2) / 2, 0.1 * 3, 0.1 * (3 - 2 + 3) / 3])
    one = mah_dpo.loss(dataclasses.replace(batch_of_step(), head=None), mah_dpo.Config())
    assert not any("head" in name for name in one[0].logs)


def test_an_untouched_policy_costs_log_two_per_head():
    same = [pair(-20.0, -25.0, -20.0, -25.0, 0), pair(-1.0, -2.0, -1.0, -2.0, 1)]
    assert exactness.evaluate(mah_dpo.loss, batch_of_step(same), TWO)[0] == pytest.approx(math.log(2))


@pytest.mark.parametrize(
    ("weights", "expected"),
    [((0.5, 0.5), (0.481024, 0.291756, 0.227220)), ((0.75, 0.25), (0.694512, 0.198981, 0.106507))],
)
def test_vectors_of_the_mixture(weights, expected):
    heads = torch.tensor([[[2.0], [0.0], [-1.0]], [[0.0], [1.0], [1.5]]], dtype=torch.float64)
    logits = fold(heads, torch.tensor(weights, dtype=torch.float64))[:, 0]
    assert logits.softmax(0).tolist() == pytest.approx(expected, abs=5e-7)


def test_vector_of_the_arithmetic_mixture_which_heads_do_not_make():
    heads = torch.tensor([[[2.0], [0.0], [-1.0]], [[0.0], [1.0], [1.5]]], dtype=torch.float64)
    arithmetic = heads[..., 0].softmax(1).mean(0)
    assert arithmetic.tolist() == pytest.approx((0.482873, 0.222847, 0.294280), abs=5e-7)
    geometric = heads[..., 0].log_softmax(1).mean(0).softmax(0)
    folded = fold(heads, torch.tensor([0.5, 0.5], dtype=torch.float64))[:, 0].softmax(0)
    torch.testing.assert_close(folded, geometric)
    assert (folded - arithmetic).abs().max() > 0.05


def test_errors():
    batch = batch_of_step()
    with pytest.raises(ValueError, match="--heads 1: the batch has pairs of head 1"):
        mah_dpo.loss(batch, mah_dpo.Config())
    crossed = dataclasses.replace(batch, head=torch.tensor([0, 1, 0, 0, 1, 1]))
    with pytest.raises(ValueError, match="different heads"):
        mah_dpo.loss(crossed, TWO)
    with pytest.raises(ValueError, match="mah_dpo needs pairs"):
        mah_dpo.loss(dataclasses.replace(batch, pairs=None), TWO)
    for settings in (
        {"beta": 0.0},
        {"heads": 0},
        {"heads": 2, "weights": (1.0,)},
        {"heads": 2, "weights": (1.0, -1.0)},
    ):
        with pytest.raises(ValueError, match="--"):
            mah_dpo.Config(**settings)
