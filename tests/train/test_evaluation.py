"""Figures of held-out rows: those of one big batch, with intervals over rows."""

import math

import numpy as np
import pytest
import train_runs as runs
from every_objective import NAMES, STEP, case

from alignlab.objectives import dpo, sft
from alignlab.stats import bootstrap, proportion
from alignlab.train.evaluation import figures


@pytest.mark.parametrize("name", NAMES)
def test_row_by_row_gives_what_one_batch_gives(tmp_path, name):
    """A step at learning rate 0 over all rows, and an evaluation of the same rows in other micro-batches."""
    made = case(name)
    cfg = runs.TrainConfig(
        per_device_train_batch_size=4, gradient_accumulation_steps=STEP // 4, max_steps=1, learning_rate=0.0,
        save_steps=0, use_cpu=True, ref_cache="none",
    )  # fmt: skip
    found = runs.loop.train(
        made.model(), made.examples, made.module.loss, cfg, tmp_path, objective_config=made.config,
        eval_examples=made.examples[::-1], **made.options(),
    )  # fmt: skip
    shared = [key for key in found if key.startswith("eval/") and not key.endswith(("/low", "/high"))]
    assert "eval/loss" in shared
    for key in shared:
        trained = "train/loss_first" if key == "eval/loss" else key.replace("eval/", "train/")
        assert found[key] == pytest.approx(found[trained], rel=2e-4, abs=1e-5), key
    assert found["eval/loss/low"] <= found["eval/loss"] <= found["eval/loss/high"]
    assert found["eval/loss/low"] < found["eval/loss/high"]


def train(folder, examples, held, module=dpo, **settings):
    cfg = runs.TrainConfig(max_steps=1, use_cpu=True, save_steps=0, ref_cache="none", learning_rate=0.0, **settings)
    return runs.loop.train(
        runs.small(), examples, module.loss, cfg, folder, objective_config=module.Config(), eval_examples=held,
        reference=runs.small(1),
    )  # fmt: skip


def test_the_interval_is_that_of_the_rows(tmp_path):
    """Each row evaluated alone gives its numerator and denominator; their bootstrap is what a run of all reports."""
    rows = runs.some(5, pairs=False)
    alone = [train(tmp_path / str(i), rows, [row], sft)["eval/loss"] for i, row in enumerate(rows)]
    size = np.array([len(row.completions[0]) for row in rows], dtype=float)
    wanted = bootstrap.mean(np.repeat(alone, size.astype(int)), clusters=np.repeat(range(5), size.astype(int)).tolist())
    found = train(tmp_path / "all", rows, rows, sft)
    assert found["eval/loss"] == pytest.approx(wanted.value, rel=1e-5)
    assert (found["eval/loss/low"], found["eval/loss/high"]) == pytest.approx((wanted.low, wanted.high), rel=1e-4)
    assert "eval/loss/low" not in train(tmp_path / "one", rows, rows[:1], sft), "one row says nothing of the spread"


def test_shares_and_figures_that_are_the_same_for_every_row():
    rows = [
        {"loss/a": (i, 2.0), "loss/b": (1.0, float(i % 2)), "rewards/accuracies": (1.0, 1.0), "kl": (0.3, 1.0)}
        for i in range(6)
    ]
    found = figures(rows, {"loss/a": 1.0, "loss/b": 0.5})
    assert found["loss"] == pytest.approx(15 / 12 + 0.5 * 6 / 3)
    assert found["loss/low"] < found["loss"] < found["loss/high"]
    assert (found["rewards/accuracies/low"], found["rewards/accuracies/high"]) == proportion.wilson(6, 6)
    assert found["kl"] == pytest.approx(0.3)
    assert "kl/low" not in found, "a statistic of the step is no mean over rows"
    weighted = figures([{"accuracy": (w * hit, w)} for w, hit in ((1.0, 1), (3.0, 0), (2.0, 1))], {})
    assert weighted["accuracy"] == 0.5
    assert (weighted["accuracy/low"], weighted["accuracy/high"]) == (0.0, 1.0)


def test_what_is_not_finite_or_never_counts_has_no_interval():
    rows = [{"loss/a": (math.nan, 1.0), "empty": (0.0, 0.0)}, {"loss/a": (1.0, 1.0), "empty": (0.0, 0.0)}]
    found = figures(rows, {"loss/a": 1.0})
    assert math.isnan(found["loss"])
    assert set(found) == {"loss"}
