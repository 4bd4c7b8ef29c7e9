"""FSDP2 on two gloo ranks gives the gradients, weights and files of one process; devices, and what is refused."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import sharded_runs
import torch
import train_runs as runs
from accelerate.commands import launch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from accelerate.utils.launch import prepare_multi_gpu_env
from safetensors.torch import load_file
from test_step import free_port
from transformers import AutoModelForCausalLM

from alignlab.engine.load import LanguageModel, load
from alignlab.train import checkpoint, distributed
from alignlab.train.config import TrainConfig
from alignlab.train.log import read


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What both ranks found, and where; world size, classes and halves are asserted there."""
    folder = tmp_path_factory.mktemp("sharded")
    environment = os.environ | {"TEST_PORT": free_port(), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, Path(sharded_runs.__file__), folder]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"sharded-{k}.pt") for k in (0, 1)], folder


@pytest.mark.slow
@pytest.mark.timeout(400)
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


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_sharded_run_leaves_the_weights_of_one_process(tmp_path, ranks):
    """Clipped: the norm is the whole model's, not a rank's share's."""
    expected, model = sharded_runs.run(tmp_path / "one", disable_dropout=True, rows=4)
    for *_, (_, _, (numbers, weights)), _ in ranks[0]:
        torch.testing.assert_close(weights, dict(model.module.named_parameters()), rtol=1e-4, atol=1e-6)
        for name in ("train/loss", "train/loss_first", "eval/loss", "train/grad_norm", "tokens", "distinct_tokens"):
            name = name if name in expected else f"train/{name}"
            assert numbers[name] == pytest.approx(expected[name], rel=1e-4), name


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_sharded_run_goes_on_to_the_same_bits(ranks):
    for _, (whole, again, _), _ in ranks[0]:
        assert whole[0] == again[0]
        assert all(torch.equal(value, again[1][name]) for name, value in whole[1].items())
    one, two = (found[1][0][1] for found in ranks[0])
    assert all(torch.equal(value, two[name]) for name, value in one.items()), "every rank has the whole model"
    folder = ranks[1]
    assert runs.outcome(folder / "stopped") == runs.outcome(folder / "whole")


@pytest.mark.slow
@pytest.mark.timeout(400)
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


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_both_find_the_reference_that_one_process_has_kept(tmp_path, ranks):
    """The digest is the whole model's: a sharded run and another share a file of reference values."""
    sharded_runs.run(tmp_path / "one", max_steps=1, save_steps=0)
    names = [sorted(path.name for path in (at / "cache").glob("*.logp")) for at in (tmp_path, ranks[1])]
    assert names[0] == names[1]
    assert len(names[0]) == 1


# What is refused, and where a run goes; no other process is needed


def placed(tmp_path, *, model=None, **settings):
    cfg = TrainConfig(max_steps=1, save_steps=0, **{"use_cpu": True, **settings})
    return distributed.Placement(model or runs.small(), cfg, tmp_path)


@pytest.mark.parametrize(
    ("environment", "settings", "message"),
    [
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, {}, "DEEPSPEED.*start it with torchrun.*--fsdp"),
        ({"ACCELERATE_USE_MEGATRON_LM": "true"}, {}, "MEGATRON_LM.*start it with torchrun"),
        ({}, {"fsdp": True}, "several processes, but there is one.*torchrun --nproc_per_node 2"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}, {}, "several processes, but there is one"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"}, {}, "fsdp_version 1.*use fsdp_version: 2"),
        (
            {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_OFFLOAD_PARAMS": "true"}, {},
            "fsdp_offload_params, which this loop does not do; use fsdp_offload_params: false",
        ),
        (
            {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_ACTIVATION_CHECKPOINTING": "true"}, {},
            "use --gradient_checkpointing",
        ),
        (
            {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "ACCELERATE_MIXED_PRECISION": "bf16"}, {},
            "mixed_precision bf16.*use mixed_precision: 'no' and --bf16",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_had_is_refused(tmp_path, monkeypatch, environment, settings, message):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        placed(tmp_path, **settings)


def test_processes_that_do_not_find_each_other_are_an_error(tmp_path, monkeypatch):
    """accelerate takes no notice of the others where it thinks that it is alone; each would train by itself."""
    placed(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RuntimeError, match="2 processes were started, but accelerate runs 1"):
        placed(tmp_path)


def test_a_model_that_is_not_spread_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    module = runs.small().module
    with pytest.raises(RuntimeError, match="not spread over 2 processes as asked.*LlamaForCausalLM is no FSDPModule"):
        distributed.assert_sharded(module, list(module.model.layers), 2)


class Joined:
    """What accelerate would say of a process with a GPU."""

    def __init__(self, made, index, ranks, cpu, **_):
        made.append(cpu)
        self.num_processes = ranks
        self.distributed_type = DistributedType.MULTI_GPU if ranks > 1 else DistributedType.NO
        self.device = torch.device("cpu") if cpu else torch.device("cuda", index)


@pytest.fixture
def gpus(monkeypatch):
    """A machine with GPUs; what is made the current one, and whether accelerate was told to stay on the processor."""
    chosen, made, state = [], [], {"index": 0, "ranks": 1}
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(distributed, "Accelerator", lambda **options: Joined(made, **state, **options))

    def started(ranks, index):
        state.update(ranks=ranks, index=index)
        monkeypatch.setenv("WORLD_SIZE", str(ranks))

    return chosen, made, started


def on(device):
    """A model that says that it is on a device."""

    class There(LanguageModel):
        device = torch.device("cuda:1")

    There.device = torch.device(device)
    known = runs.small()
    return There(known.module, known.tokenizer)


def test_the_device_that_is_named_is_the_one_that_trains(tmp_path, gpus):
    chosen, made, _ = gpus
    placed(tmp_path, model=on("cuda:1"), use_cpu=False)
    assert (chosen, made) == ([torch.device("cuda:1")], [False])
    settings, where = distributed.loading(TrainConfig(), "cpu")
    assert (settings.use_cpu, where) == (True, "cpu")
    placed(tmp_path, model=on("cpu"), use_cpu=settings.use_cpu)
    assert (len(chosen), made) == (1, [False, True])
    assert distributed.loading(TrainConfig(), "cuda:1") == (TrainConfig(), "cuda:1")


def test_of_several_processes_each_has_its_own_device(tmp_path, gpus):
    chosen, _, started = gpus
    started(2, 1)
    placed(tmp_path, model=on("cuda:1"), use_cpu=False)
    assert not chosen, "accelerate has chosen already"
    started(2, 0)
    with pytest.raises(
        ValueError, match="--device cuda:1: of 2 processes each has a device of its own, this one cuda:0"
    ):
        placed(tmp_path, model=on("cuda:1"), use_cpu=False)


def test_a_model_to_be_spread_is_loaded_on_the_host(monkeypatch):
    assert distributed.loading(TrainConfig(), "auto")[1] == "auto"
    assert distributed.loading(TrainConfig(fsdp=True), "auto")[1] == "cpu"
    assert not distributed.loading(TrainConfig(fsdp=True), "auto")[0].use_cpu, "it is spread over GPUs from there"
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert distributed.loading(TrainConfig(), "auto")[1] == "cpu"


def test_a_reward_model_is_not_spread(tmp_path, gpus, monkeypatch):
    gpus[2](2, 0)
    monkeypatch.setattr(distributed, "scalar_head", lambda _: torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match="reward model cannot be spread"):
        placed(tmp_path, fsdp=True)
    placed(tmp_path)


def test_the_shipped_configuration_is_fsdp2(monkeypatch):
    """As `accelerate launch` reads it and hands it on to its processes."""
    path = Path(__file__).parents[2] / "configs" / "accelerate_fsdp2.yaml"
    config = load_config_from_file(str(path))
    assert config.distributed_type == DistributedType.FSDP
    parser = launch.launch_command_parser()
    args, *_ = launch._validate_launch_command(parser.parse_args(["--config_file", str(path), "script"]))
    handed = prepare_multi_gpu_env(args)
    for name in handed.keys() - os.environ.keys():
        if name.startswith(("FSDP_", "ACCELERATE_")):
            monkeypatch.setenv(name, handed[name])
    assert distributed.wanted(TrainConfig())
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2
    assert plugin.reshard_after_forward is True
    assert distributed.reshards() is True


def test_without_a_gpu_a_run_is_on_the_host_unasked(monkeypatch):
    """accelerate has to be told, or it starts as many lone processes."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert distributed.on_host(TrainConfig())
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    assert not distributed.on_host(TrainConfig())
    assert distributed.on_host(TrainConfig(use_cpu=True))
