"""DOVE against the brief's vectors, an independent formula, DPO where prompts agree, and its prompt weight."""

import dataclasses
import math

import exactness
import pytest
import torch
from exactness import Completion, Pair, Prompt, Scored

from alignlab.objectives import dove, dpo


def side(prompt, prompt_ref, answer, answer_ref):
    return Completion(
        views={"policy": Scored(logp=[*prompt, *answer]), "ref": Scored(logp=[*prompt_ref, *answer_ref])},
        scores={"prompt_tokens": float(len(prompt))},
    )


CHOSEN = ([-2.0, -3.0], [-2.2, -3.1], [-1.0, -0.5, -0.7], [-1.4, -0.6, -0.9])
REJECTED = ([-1.5, -2.5, -1.0], [-1.4, -2.3, -1.1], [-0.8, -1.2], [-0.7, -1.0])


def evaluate(cfg, loss=dove.loss, chosen=CHOSEN, rejected=REJECTED):
    step = [Prompt([side(*chosen), side(*rejected)], [Pair(0, 1)])]
    ((batch, _),) = exactness.lay_out(step, exactness.Layout(), ("policy",))
    return exactness.evaluate(loss, batch, cfg)


def check_vectors(loss):
    value, gradient = evaluate(dove.Config(), loss)
    assert value == pytest.approx(0.620957, abs=5e-7)
    slope = 0.1 / (1 + math.exp(0.1 * 1.5))
    assert gradient.tolist() == [pytest.approx([-slope] * 5), pytest.approx([slope] * 5)]
    value, gradient = evaluate(dove.Config(prompt_weight=0.0), loss)
    assert value == pytest.approx(0.644397, abs=5e-7)
    assert (gradient[0, :2] == 0).all()
    assert (gradient[1, :3] == 0).all()
    same = (CHOSEN[0], CHOSEN[1], *REJECTED[2:])
    assert evaluate(dove.Config(), loss, rejected=same)[0] == pytest.approx(0.644397, abs=5e-7)


def test_vectors():
    check_vectors(dove.loss)


@pytest.mark.parametrize("broken", [exactness.negated(dove.loss), exactness.flipped(dove.loss)])
def test_the_vector_check_sees_broken_losses(broken):
    with pytest.raises(AssertionError):
        check_vectors(broken)


def softplus(x):
    return math.log1p(math.exp(-abs(x))) + max(x, 0.0)


def formula(prompts, cfg):
    def reward(c):
        cut = int(c.scores["prompt_tokens"])
        ratios = [a - b for a, b in zip(c.views["policy"].logp, c.views["ref"].logp)]
        return cfg.beta * (cfg.prompt_weight * math.fsum(ratios[:cut]) + math.fsum(ratios[cut:]))

    lost = weights = 0.0
    for better, worse, pair in exactness.ordered_pairs(prompts):
        z = reward(better) - reward(worse)
        lost += pair.weight * (pair.p * softplus(-z) + (1 - pair.p) * softplus(z))
        weights += pair.weight
    return lost / weights


def joint(seed):
    step = exactness.prompts(seed)
    for prompt in step:
        for k, c in enumerate(prompt.completions):
            c.scores["prompt_tokens"] = float((k + 1) % len(c))
    return step


@pytest.mark.parametrize("prompt_weight", [1.0, 0.4, 0.0])
def test_exactness(prompt_weight):
    exactness.check(dove.loss, dove.Config(beta=0.3, prompt_weight=prompt_weight), formula, make=joint)


def test_equal_prompts_are_dpo_to_the_last_digit():
    step = exactness.prompts(3)
    answers, joined = [], []
    for prompt in step:
        for c in prompt.completions:
            c.scores["prompt_tokens"] = 0.0
        answers.append(prompt)
        head = side([-1.25, -2.5], [-1.5, -2.25], [], [])
        both = [
            Completion(
                views={n: Scored(logp=head.views[n].logp + c.views[n].logp) for n in c.views},
                scores={"prompt_tokens": 2.0},
            )
            for c in prompt.completions
        ]
        joined.append(Prompt(both, prompt.pairs))
    found = exactness.run(joined, exactness.Layout(), dove.loss, dove.Config(beta=0.3))
    wanted = exactness.run(answers, exactness.Layout(), dpo.loss, dpo.Config(beta=0.3))
    assert found[0] == pytest.approx(wanted[0], rel=1e-12)
    for key, gradient in wanted[1].items():
        torch.testing.assert_close(found[1][key][2:], gradient, rtol=1e-9, atol=1e-15)
    # completions of one prompt share its tokens: what they get there adds up to nothing
    for i, prompt in enumerate(joined):
        together = sum(found[1][i, k, "policy", "logp"][:2] for k in range(len(prompt.completions)))
        assert together.abs().max() < 1e-12


def test_limits():
    same = (CHOSEN[0], CHOSEN[0], CHOSEN[2], CHOSEN[2])
    assert evaluate(dove.Config(), chosen=same, rejected=same)[0] == pytest.approx(math.log(2))
    z = 0.15
    swapped = evaluate(dove.Config(), chosen=REJECTED, rejected=CHOSEN)[0]
    assert swapped == pytest.approx(softplus(z))


def test_errors(batch_of):
    step = [Prompt([side(*CHOSEN), side(*REJECTED)], [Pair(0, 1)])]
    ((batch, _),) = exactness.lay_out(step, exactness.Layout(), ())
    with pytest.raises(ValueError, match="scored prompts"):
        dove.loss(dataclasses.replace(batch, scores={}), dove.Config())
    with pytest.raises(ValueError, match="dove needs pairs"):
        dove.loss(dataclasses.replace(batch, pairs=None), dove.Config())
    for flag, bad in (("beta", 0.0), ("prompt_weight", 1.5)):
        with pytest.raises(ValueError, match=f"--{flag}"):
            dove.Config(**{flag: bad})
