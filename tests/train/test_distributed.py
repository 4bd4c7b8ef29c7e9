"""FSDP2 (`--fsdp`) on two gloo ranks gives the gradients, weights and files of one process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import sharded_runs
import torch
import train_runs as runs
from safetensors.torch import load_file
from test_step import free_port
from transformers import AutoModelForCausalLM

from alignlab.engine.load import load
from alignlab.train import checkpoint
from alignlab.train.log import read

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What both ranks found, and where; world size, classes and halves are asserted there."""
    folder = tmp_path_factory.mktemp("sharded")
    environment = os.environ | {"TEST_PORT": free_port(), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, Path(sharded_runs.__file__), folder]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"sharded-{k}.pt") for k in (0, 1)], folder


@pytest.mark.parametrize("name", sharded_runs.cases())
def test_sharded_ranks_give_the_gradients_of_one(tmp_path, ranks, name):
    expected, tolerance = sharded_runs.step(name, tmp_path), 2e-2 if "bfloat16" in name else 1e-5
    for gradients, *_ in ranks[0]:
        found = gradients[name]
        runs.assert_close(found, expected, tolerance)
        for key in ("loss", "grad_norm"):
            assert found["record"][key] == pytest.approx(expected["record"][key], rel=tolerance)
    halves = {key: g * 0.5 for key, g in found.items() if key != "record"}
    with pytest.raises(AssertionError, match="relative difference"):
        runs.assert_close(halves, expected, tolerance)


def test_a_sharded_run_leaves_the_weights_of_one_process(tmp_path, ranks):
    """Clipped: the norm is the whole model's, not a rank's share's."""
    expected, model = sharded_runs.run(tmp_path / "one", disable_dropout=True, rows=4)
    for *_, (_, _, (numbers, weights)), _ in ranks[0]:
        torch.testing.assert_close(weights, dict(model.module.named_parameters()), rtol=1e-4, atol=1e-6)
        for name in ("train/loss", "train/loss_first", "eval/loss", "train/grad_norm", "tokens", "distinct_tokens"):
            name = name if name in expected else f"train/{name}"
            assert numbers[name] == pytest.approx(expected[name], rel=1e-4), name


def test_a_sharded_run_goes_on_to_the_same_bits(ranks):
    for _, (whole, again, _), _ in ranks[0]:
        assert whole[0] == again[0]
        assert all(torch.equal(value, again[1][name]) for name, value in whole[1].items())
    one, two = (found[1][0][1] for found in ranks[0])
    assert all(torch.equal(value, two[name]) for name, value in one.items()), "every rank has the whole model"
    folder = ranks[1]
    assert runs.outcome(folder / "stopped") == runs.outcome(folder / "whole")


def test_its_checkpoints_are_stock_models(ranks):
    (_, ((numbers, weights), *_), (identity, kind, training)), folder = ranks[0][0], ranks[1] / "whole"
    last = folder / "checkpoint-6"
    assert {path.name for path in folder.glob("checkpoint-*")} == {f"checkpoint-{n}" for n in (2, 4, 6)}
    stock = AutoModelForCausalLM.from_pretrained(last, dtype="auto")
    assert type(stock).__name__ == stock.config.architectures[0] == kind == "LlamaForCausalLM"
    assert all(torch.equal(value, weights[name]) for name, value in stock.named_parameters())
    saved = load_file(last / checkpoint.TENSORS)
    assert all(torch.equal(saved[f"parameter/{name}"], value) for name, value in weights.items())
    assert load(last, device="cpu").identity.partition("@")[2] == identity.partition("@")[2]
    assert not training
    assert runs.check_whole(folder) == 3
    assert [record["step"] for record in read(folder / "metrics.jsonl")] == [1, 5, 6], "the first rank writes"
    assert numbers["steps"] == 6


def test_both_find_the_reference_that_one_process_has_kept(tmp_path, ranks):
    """The digest is the whole model's: a sharded run and another share a file of reference values."""
    sharded_runs.run(tmp_path / "one", max_steps=1, save_steps=0)
    names = [sorted(path.name for path in (at / "cache").glob("*.logp")) for at in (tmp_path, ranks[1])]
    assert names[0] == names[1]
    assert len(names[0]) == 1
