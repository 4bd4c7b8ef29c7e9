"""Figures of held-out rows: those of one big batch, with intervals over rows."""

import dataclasses
import math

import numpy as np
import pytest
import torch
import train_runs as runs
from every_objective import NAMES, STEP, case

from alignlab.core.types import View
from alignlab.engine.encode import collate
from alignlab.objectives import dpo, kto, sft
from alignlab.stats import bootstrap, proportion
from alignlab.train.evaluation import figures, rows_of


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


def test_a_batch_is_cut_back_into_its_examples():
    plain, second = runs.some(3, pairs=True, seed=1), runs.some(3, pairs=True, seed=2)
    made = [dataclasses.replace(e, contexts={"judgement": [7, 8]}, scores={"s": (1.0, 2.0)}) for e in plain]
    made[1] = dataclasses.replace(made[1], own_prompts={1: second[0].prompt_ids}, contexts={})
    whole = collate(made, 0)
    whole = dataclasses.replace(
        whole, views={"policy": View(logp=torch.arange(whole.ids.numel()).view_as(whole.ids) * 1.0)}
    )
    first = 0
    for example, row in zip(made, rows_of(whole, made), strict=True):
        alone = collate([example], 0)
        for key in ("group", "pairs", "scores", "origin"):
            assert repr(getattr(row, key)) == repr(getattr(alone, key)), key
        for ids, mask in (("prompt_ids", "prompt_mask"), ("ids", "mask")):
            assert torch.equal(getattr(row, ids)[getattr(row, mask)], getattr(alone, ids)[getattr(alone, mask)])
        ids, mask = row.contexts["judgement"]
        assert ids[mask].tolist() == [i for ids in example.contexts.values() for i in ids]
        assert torch.equal(row.views["policy"].logp, whole.views["policy"].logp[first : first + 2])
        first += 2


def test_what_rows_lend_each_other_has_no_figures(tmp_path):
    """KTO on pairs: a borrowed completion is in no pair."""
    cfg = runs.TrainConfig(max_steps=1, use_cpu=True, save_steps=0, ref_cache="none", learning_rate=0.0)
    pairs = runs.some(4, pairs=True)
    found = runs.loop.train(
        runs.small(), pairs, kto.loss, cfg, tmp_path, objective_config=kto.Config(), stats=kto.stats,
        needs=kto.CARD.needs, eval_examples=pairs, reference=runs.small(1),
    )  # fmt: skip
    assert found["eval/loss"] == pytest.approx(found["train/loss_first"], rel=1e-5)


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
