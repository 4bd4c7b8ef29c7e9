"""Whole runs: what they learn, log, save, refuse, and go on from."""

import dataclasses
import errno
import gc
import json
import os
import signal
import threading

import pytest
import torch
import train_runs as runs

from alignlab.engine.load import Lora, _put_fresh
from alignlab.objectives import dpo, sft
from alignlab.train import checkpoint, log
from alignlab.train.config import TrainConfig
from alignlab.train.loop import Interrupted, train


class Stopped(Exception):
    """Raised by a test in the middle of a run."""


def stopping_at(step, error=Stopped):
    def on_step(now, _record):
        if now == step:
            raise error

    return on_step


@pytest.mark.parametrize("stop", [3, 4, 11])
def test_going_on_gives_the_bits_of_a_run_without_a_stop(tmp_path, stop):
    expected = runs.run(tmp_path / "alone")
    with pytest.raises(Stopped):
        runs.run(tmp_path / "stopped", on_step=stopping_at(stop))
    found = runs.run(tmp_path / "stopped", resume_from_checkpoint=True)
    assert found == expected
    assert runs.outcome(tmp_path / "stopped") == runs.outcome(tmp_path / "alone")
    steps = [record["step"] for record in log.read(tmp_path / "stopped" / "metrics.jsonl")]
    assert steps == [1, 5, 10, 12]
    again = runs.run(tmp_path / "stopped", resume_from_checkpoint=True)
    assert again == expected, "a finished run has nothing left to do"


def test_going_on_without_the_moments_or_the_random_state_would_be_noticed(tmp_path, monkeypatch):
    runs.run(tmp_path / "alone")
    for name, missing in (("MOMENTS", ()), ("set_random_state", lambda *_: None)):
        with pytest.raises(Stopped):
            runs.run(tmp_path / name, on_step=stopping_at(4))
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, name, missing)
            runs.run(tmp_path / name, resume_from_checkpoint=True)
        assert runs.outcome(tmp_path / name) != runs.outcome(tmp_path / "alone")


def test_going_on_with_an_adapter(tmp_path):
    def adapted(folder, **options):
        torch.manual_seed(5)
        model = runs.small()
        _put_fresh(model, Lora(r=4))
        cfg = TrainConfig(
            max_steps=6, save_steps=2, learning_rate=1e-2, use_cpu=True, per_device_train_batch_size=4,
            resume_from_checkpoint=options.pop("resume", False),
        )  # fmt: skip
        train(model, runs.some(12, pairs=True), dpo.loss, cfg, folder, objective_config=dpo.Config(), **options)
        return {name: value.detach().clone() for name, value in checkpoint.trained(model).items()}

    expected = adapted(tmp_path / "alone")
    with pytest.raises(Stopped):
        adapted(tmp_path / "stopped", on_step=stopping_at(5))
    found = adapted(tmp_path / "stopped", resume=True)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert (tmp_path / "stopped" / "checkpoint-6" / "adapter_model.safetensors").exists()


def test_it_learns_and_reports_under_trl_names(tmp_path):
    examples = runs.some(8, pairs=True)
    cfg = TrainConfig(
        max_steps=30, learning_rate=3e-3, save_steps=0, logging_steps=10, eval_steps=20, use_cpu=True,
        per_device_train_batch_size=4, gradient_accumulation_steps=2,
    )  # fmt: skip
    result = train(
        runs.small(), examples, dpo.loss, cfg, tmp_path, objective_config=dpo.Config(beta=0.5), eval_examples=examples
    )
    soft = sum(e.pairs[0][4] for e in examples)
    assert result["train/loss_first"] == pytest.approx(0.693147, abs=1e-5)
    assert result["train/loss_last"] < result["train/loss_first"] - 0.1
    assert result["eval/rewards/accuracies"] == 1.0
    assert result["eval/loss"] < result["train/loss_first"]
    assert (result["steps"], soft > 0) == (30, True)
    assert all(isinstance(value, (int, float)) for value in result.values())
    first, *_, last = records = log.read(tmp_path / "metrics.jsonl")
    assert [record["step"] for record in records] == [1, 10, 20, 30]
    assert set(first) == {
        "step", "loss", "grad_norm", "learning_rate", "num_tokens", "epoch", "seconds", "tokens_per_second",
        "distinct_tokens", "computed_tokens", "teraflops", "floor_teraflops", "percent_of_floor",
        "rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies", "logps/chosen", "logps/rejected",
    }  # fmt: skip
    assert {f"eval_{name}" for name in ("loss", "rewards/margins")} <= set(last)
    assert "eval_loss" in records[2]
    assert "eval_loss" not in records[1]
    tokens = sum(len(e.prompt_ids) * 2 + sum(map(len, e.completions)) for e in examples)
    assert last["num_tokens"] == result["tokens"] == 30 * tokens
    assert last["learning_rate"] == pytest.approx(3e-3 / 30)
    assert not checkpoint.checkpoints(tmp_path)


def one_step(folder, name, per_device=12, **options):
    examples, loss, config, given = runs.cases()[name]
    return runs.gradients(runs.small(), examples, loss, config, folder, per_device=per_device, **given, **options)[
        "record"
    ]


def test_a_step_is_logged_against_the_least_that_it_could_cost(tmp_path):
    whole = one_step(tmp_path, "dpo")
    examples = runs.cases()["dpo"][0]
    # of each completion the last token is predicted, and not read
    distinct = sum(len(e.prompt_ids) + sum(len(c) - 1 for c in e.completions) for e in examples)
    assert whole["distinct_tokens"] == whole["computed_tokens"] == distinct < whole["num_tokens"]
    assert 99.9 < whole["percent_of_floor"] < 105
    assert whole["percent_of_floor"] == pytest.approx(100 * whole["teraflops"] / whole["floor_teraflops"])
    cut = one_step(tmp_path, "dpo", per_device=1)
    assert cut["floor_teraflops"] == pytest.approx(whole["floor_teraflops"]), (
        "the floor is the step's, however it is cut"
    )
    again = one_step(tmp_path, "dpo", gradient_checkpointing=True)
    assert 110 < again["percent_of_floor"] - whole["percent_of_floor"] + 100 < 126, "recomputing is paid for"


@pytest.mark.parametrize("architecture", runs.tiny_models.ARCHITECTURES)
@pytest.mark.parametrize("name", ["kto", "bco"])
def test_statistics_cost_no_pass_of_their_own(tmp_path, name, architecture):
    """Prompts are long beside the answers, so that reading them again with lent answers would show."""
    examples, loss, config, given = runs.cases()[name]
    examples = [dataclasses.replace(e, prompt_ids=e.prompt_ids * 3) for e in examples]

    def record(per_device):
        model = runs.small(architecture=architecture)
        return runs.gradients(model, examples, loss, config, tmp_path, per_device=per_device, **given)["record"]

    whole, cut = record(12), record(4)
    assert 99.9 < whole["percent_of_floor"] <= 105
    assert whole["computed_tokens"] == whole["distinct_tokens"]
    assert cut["percent_of_floor"] > 112, "a step of several micro-batches reads again instead of keeping activations"
    assert cut["floor_teraflops"] == pytest.approx(whole["floor_teraflops"])
    assert cut["kl" if name == "kto" else "loss"] == pytest.approx(whole["kl" if name == "kto" else "loss"], rel=1e-4)


def test_what_stands_above_the_floor_shows(tmp_path, monkeypatch):
    """Some models share nothing."""
    from alignlab.engine import score
    from alignlab.engine.agreement import Sharing

    monkeypatch.setattr(score, "sharing_of", lambda module: Sharing("the test asks for the plain path"))
    plain = one_step(tmp_path, "dpo")
    assert plain["computed_tokens"] > plain["num_tokens"] > plain["distinct_tokens"], "padding, prompts twice"
    assert plain["percent_of_floor"] > 150


def test_evaluation_is_over_the_whole_set_whatever_the_batch(tmp_path):
    examples = runs.some(7, pairs=False)
    found = []
    for size in (1, 3, 7):
        cfg = TrainConfig(max_steps=1, learning_rate=0.0, save_steps=0, use_cpu=True, per_device_train_batch_size=size)
        result = train(
            runs.small(), examples, sft.loss, cfg, tmp_path, objective_config=sft.Config(), eval_examples=examples
        )
        found.append(result["eval/loss"])
    assert found == pytest.approx([result["train/loss"]] * 3, rel=1e-6)


def test_clipping_and_the_logged_norm(tmp_path):
    norms = []
    for limit in (0.0, 1e-3):
        cfg = TrainConfig(max_steps=1, learning_rate=0.0, save_steps=0, use_cpu=True, max_grad_norm=limit)
        clipped = []
        model = runs.small()

        def on_step(_step, _record, model=model, clipped=clipped):
            clipped.append(torch.cat([p.grad.flatten() for p in model.module.parameters()]).norm().item())

        result = train(
            model, runs.some(8, pairs=False), sft.loss, cfg, tmp_path, objective_config=sft.Config(), on_step=on_step
        )
        norms.append((result["train/grad_norm"], clipped[0]))
    assert norms[0][0] == pytest.approx(norms[0][1], rel=1e-5)
    assert norms[1] == (pytest.approx(norms[0][0], rel=1e-6), pytest.approx(1e-3, rel=1e-3))


def test_old_checkpoints_go_and_one_folder_never_holds_two_runs(tmp_path):
    runs.run(tmp_path, save_total_limit=2)
    assert [folder.name for folder in checkpoint.checkpoints(tmp_path)] == ["checkpoint-9", "checkpoint-12"]
    with pytest.raises(FileExistsError, match=r"checkpoint-12 .*--resume_from_checkpoint.*--output_dir"):
        runs.run(tmp_path)
    runs.check_whole(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 2e-3}, "learning_rate was 0.001 and is now 0.002"),
        ({"gradient_accumulation_steps": 3}, "rows per step was 4 and is now 6"),
        ({"seed": 1}, "seed was 0 and is now 1"),
    ],
)
def test_going_on_with_other_settings_is_an_error_and_changes_nothing(tmp_path, change, message):
    with pytest.raises(Stopped):
        runs.run(tmp_path, on_step=stopping_at(4))
    before = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(ValueError, match=message):
        runs.run(tmp_path, resume_from_checkpoint=True, **change)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before
    # what does not change a step may change
    runs.run(tmp_path, resume_from_checkpoint=True, per_device_train_batch_size=4, gradient_accumulation_steps=1)


def test_going_on_with_another_model_or_other_data_is_an_error(tmp_path):
    cfg = TrainConfig(max_steps=2, save_steps=1, use_cpu=True, learning_rate=1e-3)
    rows = runs.some(8, pairs=False)
    train(runs.small(), rows, sft.loss, cfg, tmp_path, objective_config=sft.Config())
    cfg = dataclasses.replace(cfg, resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    with pytest.raises(ValueError, match="model was 'tests/small@"):
        train(runs.small(seed=1), rows, sft.loss, cfg, tmp_path, objective_config=sft.Config())
    with pytest.raises(ValueError, match="data was"):
        train(runs.small(), rows[::-1], sft.loss, cfg, tmp_path, objective_config=sft.Config())
    with pytest.raises(ValueError, match=r"objective.form was 'token_mean'"):
        train(runs.small(), rows, sft.loss, cfg, tmp_path, objective_config=sft.Config(form="sequence_mean"))


def test_damaged_checkpoints_are_passed_over_and_named(tmp_path):
    runs.run(tmp_path, steps=9)
    expected = runs.outcome(tmp_path)
    damaged = tmp_path / "checkpoint-9"
    with (damaged / "model.safetensors").open("r+b") as file:
        file.truncate(100)
    assert checkpoint.newest(tmp_path).name == "checkpoint-6"
    with pytest.raises(ValueError, match=r"model.safetensors missing or cut short"):
        runs.run(tmp_path, steps=9, resume_from_checkpoint=str(damaged))
    with pytest.raises(ValueError, match="not a checkpoint to go on from"):
        runs.run(tmp_path, steps=9, resume_from_checkpoint=str(tmp_path / "nowhere"))
    runs.run(tmp_path, steps=9, resume_from_checkpoint=True)
    assert runs.outcome(tmp_path) == expected


@pytest.mark.parametrize("kind", ["python", "rust"])
def test_a_full_disk_is_named_and_the_older_checkpoint_stays_whole(tmp_path, monkeypatch, kind):
    inner = checkpoint.save_file

    def full(tensors, path):
        if (tmp_path / "checkpoint-3").exists():
            path.write_bytes(b"half of it")
            if kind == "python":
                raise OSError(errno.ENOSPC, "No space left on device")
            raise checkpoint.SafetensorError("I/O error: No space left on device (os error 28)")
        inner(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match=r"checkpoint-6 .*No space left.*checkpoint-3 is whole.*--resume") as error:
        runs.run(tmp_path)
    assert error.value.errno == errno.ENOSPC
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-3", "metrics.jsonl"]
    monkeypatch.undo()
    runs.run(tmp_path, resume_from_checkpoint=True)
    runs.run(tmp_path / "alone")
    assert runs.outcome(tmp_path) == runs.outcome(tmp_path / "alone")


def test_an_unwritable_journal_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(OSError, match=r"metrics.jsonl"):
        runs.run(tmp_path)


@pytest.mark.parametrize("when", ["between steps", "inside a save"])
def test_ctrl_c_says_what_is_kept(tmp_path, monkeypatch, when):
    on_step = stopping_at(4, KeyboardInterrupt)
    if when == "inside a save":
        inner, on_step = checkpoint.save_file, None

        def interrupted(tensors, path):
            if (tmp_path / "checkpoint-3").exists():
                path.write_bytes(b"half of it")
                raise KeyboardInterrupt
            inner(tensors, path)

        monkeypatch.setattr(checkpoint, "save_file", interrupted)
    with pytest.raises(Interrupted, match=r"at step \d of 12; .*checkpoint-3 is whole; go on with --resume"):
        runs.run(tmp_path, on_step=on_step)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-3", "metrics.jsonl"]
    assert issubclass(Interrupted, KeyboardInterrupt), "an uncaught Ctrl-C ends the process as such"


def test_a_real_interrupt_signal_before_the_first_checkpoint(tmp_path):
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(Interrupted, match="no checkpoint had been saved yet"):
        runs.run(tmp_path, save_steps=0, steps=100000)


def test_divergence_stops_the_run_and_saves_nothing(tmp_path):
    def broken(batch, cfg):
        (term,) = sft.loss(batch, cfg)
        return (dataclasses.replace(term, num=term.num * float("nan")),)

    cfg = TrainConfig(max_steps=5, save_steps=1, use_cpu=True)
    with pytest.raises(FloatingPointError, match="training diverged.*--learning_rate"):
        train(runs.small(), runs.some(8, pairs=False), broken, cfg, tmp_path, objective_config=sft.Config())
    assert not checkpoint.checkpoints(tmp_path)


def test_data_that_a_loss_cannot_use_is_refused_before_training(tmp_path):
    cfg = TrainConfig(max_steps=1, use_cpu=True)
    with pytest.raises(ValueError, match="no examples"):
        train(runs.small(), [], sft.loss, cfg, tmp_path, objective_config=sft.Config())
    with pytest.raises(ValueError, match="chosen and rejected"):
        train(runs.small(), runs.some(4, pairs=False), dpo.loss, cfg, tmp_path, objective_config=dpo.Config())
    with pytest.raises(ValueError, match="reads view 'old'"):
        train(
            runs.small(), runs.some(4, pairs=False), lambda batch, _: batch.views["old"], cfg, tmp_path,
            objective_config=None,
        )  # fmt: skip
    frozen = runs.small()
    frozen.module.requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter to train"):
        train(frozen, runs.some(4, pairs=False), sft.loss, cfg, tmp_path, objective_config=sft.Config())


def test_a_missing_tracker_names_the_package(tmp_path, monkeypatch):
    monkeypatch.setattr(log.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ImportError, match="--report_to wandb .*pip install wandb"):
        runs.run(tmp_path, report_to="wandb")


def test_torn_lines_of_the_journal_are_dropped(tmp_path):
    with pytest.raises(Stopped):
        runs.run(tmp_path, on_step=stopping_at(5))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')
    runs.run(tmp_path, resume_from_checkpoint=True)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 5, 10, 12]


def test_the_bar_is_for_terminals_only(tmp_path, capsys):
    runs.run(tmp_path)
    captured = capsys.readouterr()
    assert "training" not in captured.out + captured.err


def test_garbage_collection_passes_over_what_was_there_before(tmp_path):
    counts = []
    runs.run(tmp_path, steps=1, on_step=lambda *_: counts.append(gc.get_freeze_count()))
    assert counts[0] > 1000
    assert gc.get_freeze_count() == 0
