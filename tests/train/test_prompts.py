"""Scored prompts: which tokens move, and DOVE's step from examples to gradients."""

import random

import pytest
import torch
import train_runs as runs

from alignlab.engine.encode import Example
from alignlab.objectives import dove, dpo
from alignlab.train.prompts import scored


def joint(n=12, seed=5):
    """Random pairs, every second one across prompts, some of these beginning with the same token."""
    draw = random.Random(seed)

    def ids(low, high):
        return [draw.randrange(6, 300) for _ in range(draw.randint(low, high))]

    found = []
    for i in range(n):
        asked = ids(2, 8)
        other = [asked[0] if i % 4 == 1 else 5, *ids(1, 8)]
        found.append(
            Example(
                prompt_ids=asked, completions=([*ids(1, 9), 2], [*ids(1, 9), 2]), pairs=((0, 1, 1.0, 0.0, 1.0),),
                own_prompts={1: other} if i % 2 else {},
            )
        )  # fmt: skip
    return found


def test_prompts_move_into_the_completions_where_they_differ():
    one = Example(
        prompt_ids=[5, 6, 7], completions=([8, 2], [9, 2]), own_prompts={1: [5, 10]}, scores={"s": (1.0, 2.0)}
    )
    found = scored(one)
    assert found.prompt_ids == found.prompt_of(1) == [5]
    assert found.completions == ([6, 7, 8, 2], [10, 9, 2])
    assert found.scores == {"s": (1.0, 2.0), "prompt_tokens": (2.0, 1.0)}
    assert scored(Example(prompt_ids=[5, 6], completions=([8], [9]), own_prompts={1: [4, 6]})).own_prompts == {1: [4]}
    same = Example(prompt_ids=[5, 6, 7], completions=([8, 2], [9, 2]))
    assert scored(same).completions == same.completions
    assert scored(same).scores == {"prompt_tokens": (0.0, 0.0)}


def log_prob(module, prompt, completion):
    ids = torch.tensor([prompt + completion])
    logp = module(input_ids=ids).logits[0, :-1].log_softmax(-1)
    tokens = logp[range(logp.shape[0]), ids[0, 1:]]
    return tokens[: len(prompt) - 1].sum(), tokens[len(prompt) - 1 :].sum()


@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_doves_gradient_is_the_one_worked_out_row_by_row(tmp_path, weight):
    examples, cfg = joint(), dove.Config(beta=0.3, prompt_weight=weight)
    model, reference = runs.small(dtype=torch.float64), runs.small(1, dtype=torch.float64)
    with runs.tiny_models.Float64():
        total = 0.0
        for example in examples:
            sides = []
            for k in (0, 1):
                given = (example.prompt_of(k), example.completions[k])
                with torch.no_grad():
                    asked, answer = log_prob(reference.module, *given)
                mine, said = log_prob(model.module, *given)
                sides.append(weight * (mine - asked) + said - answer)
            total = total + torch.nn.functional.softplus(-0.3 * (sides[0] - sides[1])) / len(examples)
        total.backward()
    expected = {name: p.grad for name, p in model.module.named_parameters()}
    for per_device in (12, 3):
        found = runs.gradients(
            runs.small(dtype=torch.float64), examples, dove.loss, cfg, tmp_path, per_device=per_device,
            reference=reference, needs=dove.CARD.needs,
        )  # fmt: skip
        runs.assert_close(found, expected, 1e-9)
        assert found["record"]["loss"] == pytest.approx(total.item(), rel=1e-9)


def test_pairs_across_prompts_train_dpo_on_the_answers_alone(tmp_path):
    reference = runs.small(1)
    found = runs.gradients(runs.small(), joint(), dpo.loss, dpo.Config(beta=0.3), tmp_path, reference=reference)
    cfg = dove.Config(beta=0.3, prompt_weight=0.0)
    answers = runs.gradients(
        runs.small(), joint(), dove.loss, cfg, tmp_path, reference=reference, needs=dove.CARD.needs
    )
    runs.assert_close(answers, found, 1e-5)
