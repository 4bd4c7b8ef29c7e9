"""Mismatched completions: chosen per step, by content; KTO's gradient is the same however its step is cut."""

import dataclasses
import random

import pytest
import torch
import train_runs as runs

from alignlab.engine.encode import Example
from alignlab.objectives import kto
from alignlab.train import mismatched


def thumbs(n=12, seed=4):
    draw = random.Random(seed)
    return [dataclasses.replace(e, labels=(draw.random() < 0.5,)) for e in runs.some(n, pairs=False, seed=seed)]


def row(prompt, *completions):
    return Example(prompt_ids=[prompt], completions=tuple([c] for c in completions))


def lent(rows, items):
    """(prompt, completions) of the mismatched examples of a step."""
    return {
        (e.prompt_ids[0], tuple(c[0] for c in e.completions))
        for e in map(rows.examples.__getitem__, rows.of_step(items))
    }


def test_each_prompt_borrows_from_another_row_with_another_prompt():
    examples = [row(1, 10), row(1, 11), row(2, 12), row(3, 13), row(1, 14)]
    rows = mismatched.extended(examples, [range(5)], lend=True)
    found = lent(rows, range(5))
    own = {(e.prompt_ids[0], e.completions[0][0]) for e in examples}
    assert len(rows.of_step(range(5))) == 5
    assert not found & own
    assert all(completions[0] in (12, 13) for prompt, completions in found if prompt == 1)
    for index in rows.of_step(range(5)):
        assert rows.examples[index].origins == ("mismatched",)
        assert rows.examples[index].pairs == ()


def test_neither_order_nor_position_matters():
    examples = [row(p, 10 + p) for p in range(7)]
    rows = mismatched.extended(examples, [range(7)], lend=True)
    back = mismatched.extended(examples[::-1], [range(7)], lend=True)
    assert lent(rows, range(7)) == lent(rows, [3, 1, 0, 6, 5, 2, 4]) == lent(back, range(7))


def test_partners_change_with_the_step_and_are_kept_once():
    examples = [row(p, 10 + p) for p in range(6)]
    steps = [(0, 1, 2), (3, 4, 5), (0, 4, 5), (2, 1, 0)]
    rows = mismatched.extended(examples, steps, lend=True)
    assert rows.rows == 6
    assert rows.of_step(steps[0]) == rows.of_step(steps[3])
    assert len(rows.examples) <= 6 + 9
    for step in steps:
        assert {c[0] - 10 for _, c in lent(rows, step)} <= set(step)


def test_every_completion_of_a_row_gets_a_partner():
    rows = mismatched.extended([row(1, 10, 11, 12), row(2, 20, 21)], [(0, 1)], lend=True)
    assert lent(rows, (0, 1)) == {(1, (20, 21, 20)), (2, (10, 11))}


def test_same_prompts_only_and_single_rows():
    rows = mismatched.extended([row(1, 10), row(1, 11)], [(0, 1)], lend=True)
    assert lent(rows, (0, 1)) == {(1, (11,)), (1, (10,))}
    assert rows.of_step((0,)) == []
    assert mismatched.extended([row(1, 10)], [(0,)], lend=False).of_step((0,)) is None
    with pytest.raises(ValueError, match="a step has a single row.*--per_device_train_batch_size"):
        mismatched.extended([row(1, 10), row(2, 11)], [(0,), (1,)], lend=True)


OPTIONS = {"stats": kto.stats, "needs": kto.CARD.needs}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-9)])
def test_ktos_step_does_not_depend_on_cut_or_order(tmp_path, dtype, tolerance):
    reference = runs.small(1, dtype=dtype)
    kwargs = {**OPTIONS, "reference": reference}
    whole = runs.gradients(runs.small(dtype=dtype), thumbs(), kto.loss, kto.Config(), tmp_path, per_device=12, **kwargs)
    assert whole["record"]["kl"] > 0.01, "otherwise the reference point is not seen"
    for per_device, examples in ((1, thumbs()), (4, thumbs()), (3, thumbs()[::-1])):
        cut = runs.gradients(
            runs.small(dtype=dtype), examples, kto.loss, kto.Config(), tmp_path, per_device=per_device, **kwargs
        )
        runs.assert_close(cut, whole, tolerance)
        assert cut["record"]["kl"] == pytest.approx(whole["record"]["kl"], rel=1e-6, abs=tolerance)


@pytest.mark.parametrize("per_device", [12, 4])
def test_recomputed_activations_give_the_same_step(tmp_path, per_device):
    """The backward pass enters the layout of a row again after lent completions were read on its prompts."""
    given = (thumbs(), kto.loss, kto.Config(), tmp_path)
    kwargs = {**OPTIONS, "reference": runs.small(1), "per_device": per_device}
    expected = runs.gradients(runs.small(), *given, **kwargs)
    found = runs.gradients(runs.small(), *given, **kwargs, gradient_checkpointing=True)
    runs.assert_close(found, expected, 1e-5)
    assert found["record"]["kl"] == pytest.approx(expected["record"]["kl"], rel=1e-5)
    assert 110 < 100 * found["record"]["teraflops"] / expected["record"]["teraflops"] < 126


def log_prob(module, prompt, completion):
    ids = torch.tensor([prompt + completion])
    logp = module(input_ids=ids).logits[0, :-1].log_softmax(-1)
    start = len(prompt) - 1
    return logp[range(start, logp.shape[0]), ids[0, start + 1 :]].sum()


def test_ktos_gradient_is_the_one_worked_out_row_by_row(tmp_path):
    examples, reference = thumbs(), runs.small(1, dtype=torch.float64)
    found = runs.gradients(
        runs.small(dtype=torch.float64), examples, kto.loss, kto.Config(), tmp_path, reference=reference, **OPTIONS
    )
    rows = mismatched.extended(examples, [range(12)], lend=True)
    model = runs.small(dtype=torch.float64)

    def ratio(example):
        prompt, completion = example.prompt_ids, example.completions[0]
        with torch.no_grad():
            known = log_prob(reference.module, prompt, completion)
        return log_prob(model.module, prompt, completion) - known

    with torch.no_grad(), runs.tiny_models.Float64():
        z0 = max(0.0, sum(ratio(rows.examples[i]).item() for i in rows.of_step(range(12))) / 12)
    assert found["record"]["kl"] == pytest.approx(z0, rel=1e-9)
    signs = [1.0 if e.labels[0] else -1.0 for e in examples]
    with runs.tiny_models.Float64():
        loss = sum(1 - torch.sigmoid(0.1 * s * (ratio(e) - z0)) for e, s in zip(examples, signs)) / 12
        loss.backward()
    runs.assert_close(found, {name: p.grad for name, p in model.module.named_parameters()}, 1e-9)


def test_a_run_evaluates_with_partners_of_its_own(tmp_path):
    cfg = runs.TrainConfig(
        per_device_train_batch_size=2, gradient_accumulation_steps=2, max_steps=4, save_steps=0, use_cpu=True,
        learning_rate=1e-3, logging_steps=1,
    )  # fmt: skip
    numbers = runs.loop.train(
        runs.small(), thumbs(), kto.loss, cfg, tmp_path, objective_config=kto.Config(), eval_examples=thumbs(5, 7),
        **OPTIONS,
    )  # fmt: skip
    assert numbers["eval/kl"] >= 0
    assert 0 < numbers["eval/loss"] < 1
    assert numbers["train/loss_first"] == pytest.approx(0.5, abs=1e-4)
