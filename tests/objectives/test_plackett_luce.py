"""Plackett-Luce against the brief's vectors, an independent formula, DPO at K = 2, and the sum over all orders."""

import dataclasses
import itertools
import math

import exactness
import pytest
import torch
from exactness import Completion, Prompt, Scored

from alignlab.core.reduce import totals
from alignlab.objectives import dpo, plackett_luce

MEANS, ORDER = (-0.9, -1.4, -1.1, -2.0), (3, 1, 2, 4)
RANK = plackett_luce.Config(nll_weight=0.0)


def scored(means, scores, lengths=(2, 3, 5, 1)):
    rows = [
        Completion(views={"policy": Scored(logp=[m] * n)}, scores={"score": float(s)})
        for m, s, n in zip(means, scores, lengths)
    ]
    return Prompt(rows)


def value(step, cfg=RANK, loss=plackett_luce.loss):
    ((batch, _),) = exactness.lay_out(step, exactness.Layout(), ("policy",))
    return exactness.evaluate(loss, batch, cfg)[0]


def check_vector(loss):
    step = [scored(MEANS, [-ORDER.index(k) for k in (1, 2, 3, 4)])]
    assert value(step, loss=loss) == pytest.approx(2.314421, abs=5e-7)
    assert value(step, plackett_luce.Config(nll_weight=0.5), loss) == pytest.approx(2.314421 + 0.55, abs=5e-7)


def test_vector():
    check_vector(plackett_luce.loss)


def upside_down(batch, cfg):
    return plackett_luce.loss(dataclasses.replace(batch, scores={"score": -batch.scores["score"]}), cfg)


@pytest.mark.parametrize("broken", [upside_down, exactness.negated(plackett_luce.loss)])
def test_the_vector_check_sees_broken_losses(broken):
    with pytest.raises(AssertionError):
        check_vector(broken)


def formula(prompts, cfg):
    orders, best = [], []
    for prompt in prompts:
        ranked = sorted(prompt.completions, key=lambda c: -c.scores["score"])
        s = [cfg.beta * c.ratio() if cfg.form == "log_ratio" else c.logp() / len(c) for c in ranked]
        lost = 0.0
        for k, top in enumerate(ranked):
            below = [s[m] for m, other in enumerate(ranked) if other.scores["score"] < top.scores["score"]]
            lost -= s[k] - math.log(math.exp(s[k]) + sum(map(math.exp, below)))
        if ranked[0].scores["score"] > ranked[-1].scores["score"]:
            orders.append(lost)
        tops = [-c.logp() / len(c) for c in ranked if c.scores["score"] == ranked[0].scores["score"]]
        best.append(math.fsum(tops) / len(tops))
    return math.fsum(orders) / len(orders) + cfg.nll_weight * math.fsum(best) / len(best)


def lists(seed):
    step = exactness.prompts(seed, completions=(1, 5), pairs=False, scores=("score",), count=6)
    step[0] = exactness.prompts(seed + 9, completions=(4, 4), pairs=False, scores=("score",), count=1)[0]
    step[0].completions[2].scores["score"] = step[0].completions[1].scores["score"]
    return step


@pytest.mark.parametrize("form", ["likelihood", "log_ratio"])
def test_exactness(form):
    exactness.check(plackett_luce.loss, plackett_luce.Config(form=form, beta=0.3, nll_weight=0.4), formula, make=lists)


def test_equal_likelihoods_cost_the_log_of_the_number_of_orders():
    assert value([scored((-1.0,) * 4, (4, 3, 2, 1))]) == pytest.approx(math.log(math.factorial(4)))
    assert value([scored((-1.0,) * 4, (4, 3, 2, 1))]) == pytest.approx(3.178054, abs=5e-7)


def test_all_orders_together_have_probability_one():
    orders = [value([scored(MEANS, order)]) for order in itertools.permutations(range(4))]
    assert sum(math.exp(-cost) for cost in orders) == pytest.approx(1.0)


def test_two_completions_are_dpo():
    step = exactness.prompts(4, completions=(2, 2), pairs=False, scores=("score",))
    ((batch, _),) = exactness.lay_out(step, exactness.Layout(), ("policy",))
    judged = []
    for prompt in step:
        first, second = prompt.completions
        better = int(second.scores["score"] > first.scores["score"])
        judged.append(Prompt(prompt.completions, [exactness.Pair(better, 1 - better)]))
    ((paired, _),) = exactness.lay_out(judged, exactness.Layout(), ("policy",))
    cfg = plackett_luce.Config(form="log_ratio", beta=0.2, nll_weight=0.0)
    found, wanted = (
        exactness.evaluate(*given)
        for given in ((plackett_luce.loss, batch, cfg), (dpo.loss, paired, dpo.Config(beta=0.2)))
    )
    assert found[0] == pytest.approx(wanted[0], rel=1e-12)
    torch.testing.assert_close(found[1], wanted[1], rtol=1e-10, atol=1e-15)


def test_only_the_log_ratio_reads_a_reference():
    ((batch, _),) = exactness.lay_out([scored(MEANS, (4, 3, 2, 1))], exactness.Layout(), ("policy",))
    assert set(batch.views) == {"policy"}
    plackett_luce.loss(batch, plackett_luce.Config())
    with pytest.raises(KeyError, match="ref"):
        plackett_luce.loss(batch, plackett_luce.Config(form="log_ratio"))


def test_ties_are_not_compared_and_lists_without_an_order_do_not_count():
    tied = scored((-1.0, -5.0, -2.0), (2, 2, 1))
    expected = math.log(1 + math.exp(-2 + 1)) + math.log(1 + math.exp(-2 + 5))
    assert value([tied]) == pytest.approx(expected)
    assert value([tied, scored((-1.0,), (0,)), scored((-1.0, -2.0), (3, 3))]) == pytest.approx(expected)
    ((batch, _),) = exactness.lay_out([scored((-1.0, -2.0), (3, 3))], exactness.Layout(), ("policy",))
    assert totals([plackett_luce.loss(batch, RANK)])["rank"] == (0.0, 0.0)


def test_far_apart_likelihoods_stay_finite():
    ((batch, _),) = exactness.lay_out([scored((-900.0, -1.0), (2, 1))], exactness.Layout(), ("policy",))
    found, gradient = exactness.evaluate(plackett_luce.loss, batch, RANK)
    assert found == pytest.approx(899.0)
    assert bool(torch.isfinite(gradient).all())


def test_bad_scores_and_settings():
    ((batch, _),) = exactness.lay_out([scored(MEANS, (4, 3, 2, 1))], exactness.Layout(), ("policy",))
    with pytest.raises(ValueError, match="completions and scores"):
        plackett_luce.loss(dataclasses.replace(batch, scores={}), RANK)
    with pytest.raises(ValueError, match="score of completion 0 of the batch is nan"):
        plackett_luce.loss(dataclasses.replace(batch, scores={"score": torch.tensor([math.nan] * 4)}), RANK)
    for flag, bad in (("beta", 0.0), ("nll_weight", -1.0)):
        with pytest.raises(ValueError, match=f"--{flag}"):
            plackett_luce.Config(**{flag: bad})
