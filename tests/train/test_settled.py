"""Statistics that a method settles itself: over the whole step, carried on, saved, and frozen in evaluation."""

import dataclasses
import random

import pytest
import torch
import train_runs as runs

from alignlab.objectives import bco, weak_to_strong


def options(n=12, seed=4):
    """Random prompts with two options and a teacher's probabilities."""
    draw = random.Random(seed)
    found = []
    for example in runs.some(n, pairs=True, seed=seed):
        q = draw.random()
        found.append(dataclasses.replace(example, pairs=(), scores={"weak": (q, 1 - q)}))
    return found


def thumbs(n=12, seed=4):
    draw = random.Random(seed)
    return [dataclasses.replace(e, labels=(draw.random() < 0.5,)) for e in runs.some(n, pairs=False, seed=seed)]


CASES = {
    "bco": (thumbs, bco, bco.Config(beta=0.3)),
    "weak_to_strong": (options, weak_to_strong, weak_to_strong.Config(rise_steps=0)),
}


@pytest.mark.parametrize("name", CASES)
def test_a_step_does_not_depend_on_the_cut(tmp_path, name):
    make, module, cfg = CASES[name]
    kwargs = {"stats": module.stats, "settle": module.settle, "reference": runs.small(1, dtype=torch.float64)}

    def gradients(examples, per_device):
        model = runs.small(dtype=torch.float64)
        return runs.gradients(model, examples, module.loss, cfg, tmp_path, per_device=per_device, **kwargs)

    whole = gradients(make(), 12)
    for per_device, examples in ((1, make()), (4, make()[::-1])):
        runs.assert_close(gradients(examples, per_device), whole, 1e-9)


def train(folder, steps, on_step=None, **settings):
    cfg = runs.TrainConfig(
        per_device_train_batch_size=2, gradient_accumulation_steps=2, max_steps=steps, learning_rate=1e-3,
        save_steps=2, logging_steps=1, use_cpu=True, lr_scheduler_type="constant", ref_cache="none", **settings,
    )  # fmt: skip
    return runs.loop.train(
        runs.small(), thumbs(14), bco.loss, cfg, folder, objective_config=bco.Config(), stats=bco.stats,
        settle=bco.settle, eval_examples=thumbs(5, 7), on_step=on_step,
    )  # fmt: skip


def test_what_is_carried_survives_a_stop(tmp_path):
    train(tmp_path / "whole", 6)
    train(tmp_path / "cut", 4)
    train(tmp_path / "cut", 6, resume_from_checkpoint=True)
    whole, cut = (runs.read(tmp_path / name / "metrics.jsonl") for name in ("whole", "cut"))
    assert [r["shift"] for r in whole[4:]] == [r["shift"] for r in cut if r["step"] > 4]
    states = [runs.checkpoint.read_state(tmp_path / name / "checkpoint-6")["carried"] for name in ("whole", "cut")]
    assert states[0] == states[1]
    assert states[0]["rows"] == 14 + 8, "a pass over all rows in four steps, and two more steps"


def test_evaluation_takes_the_shift_as_it_stands(tmp_path):
    numbers = train(tmp_path, 4)
    state = runs.checkpoint.read_state(tmp_path / "checkpoint-4")["carried"]
    assert numbers["eval/shift"] == pytest.approx(state["shift"], rel=1e-5)
    assert numbers["train/shift"] == pytest.approx(state["shift"], rel=1e-5)
