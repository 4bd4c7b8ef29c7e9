"""Order of the data, learning rates, and errors that name the flag."""

import dataclasses
import math
import subprocess
import sys

import pytest

from alignlab.train.config import TrainConfig, items_of_step, learning_rate, steps_per_epoch, total_steps


def test_each_epoch_visits_every_row_once_in_an_order_of_its_own():
    epochs = [
        [i for step in range(4 * epoch, 4 * epoch + 4) for i in items_of_step(step, 14, 4, seed=3)]
        for epoch in range(3)
    ]
    assert all(sorted(epoch) == list(range(14)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert items_of_step(0, 14, 4, seed=4) != items_of_step(0, 14, 4, seed=3)


def test_the_order_does_not_depend_on_the_size_of_a_step_or_on_what_was_asked_before():
    whole = items_of_step(1, 12, 12, seed=5)
    for step in (5, 3, 4):
        assert items_of_step(step, 12, 4, seed=5) == whole[4 * (step - 3) : 4 * (step - 2)]


def test_lengths_of_runs():
    assert steps_per_epoch(14, 4) == 4
    assert total_steps(TrainConfig(num_train_epochs=2.5), 14, 4) == 10
    assert total_steps(TrainConfig(num_train_epochs=2.5, max_steps=7), 14, 4) == 7


@pytest.mark.parametrize(
    ("kind", "after"), [("constant", [1.0] * 4), ("linear", [1, 0.75, 0.5, 0.25]), ("cosine", [1, 0.854, 0.5, 0.146])]
)
def test_learning_rates(kind, after):
    cfg = TrainConfig(learning_rate=2.0, warmup_ratio=1 / 3, lr_scheduler_type=kind)
    rates = [learning_rate(cfg, step, 6) for step in range(6)]
    assert rates == pytest.approx([1.0, 2.0, *(2 * a for a in after)], abs=1e-3)
    assert learning_rate(cfg, 0, 6) > 0
    for steps in (2, 2.9, 0.3, 1 / 3):  # as transformers counts: whole steps, or a share rounded up
        asked = dataclasses.replace(cfg, warmup_ratio=0.0, warmup_steps=steps)
        assert [learning_rate(asked, step, 6) for step in range(6)] == rates
    assert all(math.isfinite(learning_rate(TrainConfig(warmup_ratio=1.0), step, 3)) for step in range(3))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", -1.0), ("per_device_train_batch_size", 0), ("gradient_accumulation_steps", 0),
        ("num_train_epochs", 0.0), ("max_steps", 0), ("warmup_ratio", 1.5), ("warmup_steps", -0.5),
        ("lr_scheduler_type", "sine"),
        ("adam_beta1", 1.0), ("adam_epsilon", 0.0), ("max_grad_norm", -1.0), ("logging_steps", 0), ("save_steps", -1),
        ("save_total_limit", 0), ("report_to", "mlflow"), ("max_length", 0),
    ],
)  # fmt: skip
def test_errors_name_the_flag_and_the_value(name, value):
    with pytest.raises(ValueError, match=rf"--{name}: expected .* got {value!r}"):
        TrainConfig(**{name: value})


def test_two_ways_to_warm_up_are_one_too_many():
    with pytest.raises(ValueError, match=r"--warmup_steps 5 and --warmup_ratio 0.1: give one of them"):
        TrainConfig(warmup_steps=5, warmup_ratio=0.1)


def test_settings_load_without_torch():
    code = "import sys, alignlab.train.config; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"
