"""RRHF against the brief's vectors, an independent formula, ties and lists without an order."""

import dataclasses
import math

import exactness
import pytest
import torch
from exactness import Completion, Prompt, Scored

from alignlab.core.reduce import totals
from alignlab.objectives import ranked

MEANS, ORDER = (-0.9, -1.4, -1.1, -2.0), (3, 1, 2, 4)
"""mean token log-probabilities of four completions, and the ranking from best to worst"""


def scored(means, scores, lengths=(2, 3, 5, 1)):
    rows = [
        Completion(views={"policy": Scored(logp=[m] * n)}, scores={"score": float(s)})
        for m, s, n in zip(means, scores, lengths)
    ]
    return Prompt(rows)


def vector():
    return scored(MEANS, [-ORDER.index(k) for k in (1, 2, 3, 4)])


def values(step, cfg=None, loss=ranked.loss):
    ((batch, _),) = exactness.lay_out(step, exactness.Layout(), ("policy",))
    terms = loss(batch, cfg or ranked.Config())
    return {name: num / den if den else None for name, (num, den) in totals([terms]).items()}


def check_vector(loss):
    assert values([vector()], loss=loss) == {"rank": pytest.approx(0.2), "likelihood": pytest.approx(1.1)}


def test_vector():
    check_vector(ranked.loss)
    ((batch, _),) = exactness.lay_out([vector()], exactness.Layout(), ("policy",))
    assert exactness.evaluate(ranked.loss, batch, ranked.Config())[0] == pytest.approx(1.3)
    assert exactness.evaluate(ranked.loss, batch, ranked.Config(weight=10.0))[0] == pytest.approx(3.1)
    rank, _ = ranked.loss(batch, ranked.Config())
    assert rank.logs["ranking/accuracies"].item() == pytest.approx(5 / 6)


def upside_down(batch, cfg):
    return ranked.loss(dataclasses.replace(batch, scores={"score": -batch.scores["score"]}), cfg)


@pytest.mark.parametrize("broken", [upside_down, exactness.negated(ranked.loss)])
def test_the_vector_check_sees_broken_losses(broken):
    with pytest.raises(AssertionError):
        check_vector(broken)


def formula(prompts, cfg):
    hinges, best = [], []
    for prompt in prompts:
        width = 2 + max(map(len, prompt.completions)) - 1
        length = {id(c): width if cfg.form == "release" else len(c) for c in prompt.completions}
        s = {id(c): c.logp() / length[id(c)] ** cfg.length_penalty for c in prompt.completions}
        pairs = [
            (a, b) for a in prompt.completions for b in prompt.completions if a.scores["score"] > b.scores["score"]
        ]
        if pairs:
            hinges.append(math.fsum(max(0.0, s[id(b)] - s[id(a)] + cfg.margin) for a, b in pairs))
        highest = max(c.scores["score"] for c in prompt.completions)
        tops = [-c.logp() / length[id(c)] for c in prompt.completions if c.scores["score"] == highest]
        best.append(math.fsum(tops) / len(tops))
    return cfg.weight * math.fsum(hinges) / len(hinges) + math.fsum(best) / len(best)


def lists(seed):
    step = exactness.prompts(seed, completions=(1, 5), views=("policy",), pairs=False, scores=("score",), count=6)
    step[0] = exactness.prompts(
        seed + 9, completions=(4, 4), views=("policy",), pairs=False, scores=("score",), count=1
    )[0]
    step[0].completions[2].scores["score"] = step[0].completions[1].scores["score"]
    return step


@pytest.mark.parametrize("form", ["paper", "release"])
def test_exactness(form):
    cfg = ranked.Config(weight=0.7, margin=0.3, length_penalty=1.3, form=form)
    exactness.check(ranked.loss, cfg, formula, make=lists)


def test_a_right_order_leaves_the_likelihood_term_alone():
    step = [scored((-0.5, -1.0, -1.5, -2.0), (4, 3, 2, 1))]
    ((batch, _),) = exactness.lay_out(step, exactness.Layout(), ("policy",))
    _, gradient = exactness.evaluate(ranked.loss, batch, ranked.Config())
    assert (gradient[1:] == 0).all()
    assert gradient[0][batch.mask[0]].tolist() == pytest.approx([-0.5, -0.5])
    _, pushed = exactness.evaluate(ranked.loss, batch, ranked.Config(margin=1.0))
    assert (pushed[1][batch.mask[1]] != 0).all(), "a margin asks for more"


def test_ties_are_not_compared_and_equal_likelihoods_cost_nothing():
    assert values([scored((-3.0, -1.0), (5, 5))])["rank"] is None
    assert values([scored((-1.0,) * 4, (1, 2, 3, 4))])["rank"] == pytest.approx(0)
    tied = scored((-3.0, -1.0, -2.0), (5, 5, 1))
    assert values([tied]) == {"rank": pytest.approx(1.0), "likelihood": pytest.approx(2.0)}, "tied best ones share"


def test_a_prompt_without_an_order_is_only_imitated():
    alone = Prompt([Completion(views={"policy": Scored(logp=[-4.0])}, scores={"score": 0.0})])
    assert values([vector(), alone]) == {"rank": pytest.approx(0.2), "likelihood": pytest.approx((1.1 + 4) / 2)}


def test_the_release_divides_by_the_padded_width():
    found = values([scored((-1.0, -2.0), (1, 2), (2, 4))], ranked.Config(form="release"))
    width = 2 + 4 - 1  # prompts of the harness have two tokens
    assert found == {"rank": pytest.approx((-2 + 8) / width), "likelihood": pytest.approx(8 / width)}


def test_bad_scores_and_settings():
    ((batch, _),) = exactness.lay_out([vector()], exactness.Layout(), ("policy",))
    with pytest.raises(ValueError, match="completions and scores"):
        ranked.loss(dataclasses.replace(batch, scores={}), ranked.Config())
    with pytest.raises(ValueError, match="score of completion 2 of the batch is nan"):
        ranked.loss(
            dataclasses.replace(batch, scores={"score": torch.tensor([1.0, 2.0, math.nan, 0.0])}), ranked.Config()
        )
    for flag in ("weight", "length_penalty", "margin"):
        with pytest.raises(ValueError, match=f"--{flag}"):
            ranked.Config(**{flag: -1.0})
