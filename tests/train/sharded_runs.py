"""Steps and whole runs of the loop under FSDP2 (`fully_shard`) on two gloo ranks; `python sharded_runs.py FOLDER`."""

import dataclasses
import os
import sys
import warnings
from pathlib import Path

import torch
import train_runs as runs
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from alignlab.engine import routed, score
from alignlab.engine.agreement import sharing_of
from alignlab.engine.load import Lora, _put_fresh
from alignlab.objectives import dpo, kto, mah_dpo, sft
from alignlab.train import batches, loop
from alignlab.train.config import TrainConfig

ROWS = 11


class Stopped(Exception):
    """Raised in the middle of a run."""


def cases():
    """Name -> model, examples, loss, settings, options of `train_runs.gradients`."""
    pairs, mixed = runs.some(ROWS, pairs=True), dpo.Config(beta=0.3, nll_weight=0.5)
    liked = [dataclasses.replace(e, labels=(i % 3 > 0,)) for i, e in enumerate(runs.some(ROWS, pairs=False, seed=4))]
    other = {"stats": kto.stats, "needs": kto.CARD.needs, "ref_cache": "none"}
    return {
        "sft": (runs.small, runs.some(ROWS, pairs=False), sft.loss, sft.Config(), {}),
        "dpo": (runs.small, pairs, dpo.loss, mixed, {"reference": runs.small(1)}),
        "dpo_tied": (lambda: runs.small(architecture="gpt2"), pairs, dpo.loss, mixed, {"ref_cache": "none"}),
        "recomputed": (runs.small, pairs, dpo.loss, mixed, {"ref_cache": "none", "gradient_checkpointing": True}),
        "kept": (runs.small, pairs, dpo.loss, mixed, {"ref_cache": "none"}),
        "kto": (runs.small, liked, kto.loss, kto.Config(), other),
        "kto_at_once": (runs.small, liked, kto.loss, kto.Config(), other),
        "lora": (adapted, pairs, dpo.loss, mixed, {"ref_cache": "none"}),
        "lora_bfloat16": (lambda: adapted(torch.bfloat16), pairs, dpo.loss, mixed, {"ref_cache": "none"}),
        "mah_dpo": (two_heads, two_goals(), mah_dpo.loss, mah_dpo.Config(heads=2), {"reference": runs.small(1)}),
    }


def two_goals():
    """Pairs of two output heads in turn."""
    rows = enumerate(runs.some(ROWS, pairs=True, seed=5))
    return [dataclasses.replace(e, scores={"head": (float(i % 2),) * 2}) for i, e in rows]


def two_heads():
    """The small model with two output heads."""
    model = runs.small()
    routed.grow(model.module, 2)
    return model


def adapted(dtype: torch.dtype = torch.float32):
    """The small model with an adapter, in float32, that has learnt something."""
    model = runs.small(dtype=dtype)
    torch.manual_seed(5)
    _put_fresh(model, Lora(r=4))
    with torch.no_grad():
        for name, parameter in model.module.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    return model


def step(name: str, folder: Path, **options):
    """Gradients of one step of a case: of both ranks together, or of one process."""
    model, examples, loss, cfg, given = cases()[name]
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    per_device = 12 if ranks == 1 else 6 if name == "kto_at_once" else 3
    return runs.gradients(model(), examples, loss, cfg, folder, per_device=per_device, **{**given, **options})


def run(folder: Path, *, on_step=None, rows: int = 2, **settings):
    """A run with dropout, clipping and a reference that is the model itself; returns metrics and the model."""
    model = runs.small()
    for part in model.module.modules():
        if hasattr(part, "attention_dropout"):
            part.attention_dropout = 0.1 * (not settings.get("disable_dropout", False))
    cfg = TrainConfig(**{
        "per_device_train_batch_size": rows, "gradient_accumulation_steps": 2, "max_steps": 6, "learning_rate": 1e-3,
        "save_steps": 2, "logging_steps": 5, "weight_decay": 0.1, "disable_dropout": False, "max_grad_norm": 0.05,
        "ref_cache": str(folder.parent / "cache"), "use_cpu": True, **settings,
    })  # fmt: skip
    numbers = loop.train(
        model, runs.some(14, pairs=True), dpo.loss, cfg, folder, objective_config=dpo.Config(nll_weight=0.1),
        on_step=on_step, eval_examples=runs.some(5, pairs=True, seed=9),
    )  # fmt: skip
    return {name: value for name, value in numbers.items() if name not in runs.TIMES}, model


def stopping_at(step):
    """Stop a run after a step."""

    def on_step(now, _):
        if now == step:
            raise Stopped

    return on_step


def check(model) -> None:
    """Assert that this is FSDP2: world, backend, classes, halves; and that prompts are shared."""
    module = model.module
    assert torch.distributed.get_world_size() == 2
    assert torch.distributed.get_backend() == "gloo"
    layers = [part for part in module.modules() if type(part).__name__.endswith(("DecoderLayer", "GPT2Block"))]
    assert len(layers) == 2
    assert all(isinstance(part, FSDPModule) for part in (module, *layers))
    parameters = list(module.parameters())
    assert all(isinstance(p, DTensor) for p in parameters)
    halves = sum(p.to_local().numel() for p in parameters)
    assert halves <= 0.51 * sum(p.numel() for p in parameters), "each rank holds half"
    assert sharing_of(module).reason is None, "prompts are shared under fully_shard too"


def rank(number: int, folder: Path) -> None:
    """One of two processes."""
    os.environ |= {
        "RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": os.environ["TEST_PORT"],
    }  # fmt: skip
    # chunks of the reference do not go round, and the ranks' micro-batches are of different numbers of rows
    batches.REFERENCE_BATCH = 4
    row = score.row_size_in_tokens
    found = {}
    for name in cases():
        score.row_size_in_tokens = (lambda _: 40) if name in ("dpo", "kto") else row
        # "kept": as accelerate's launcher asks for it, and with layers that keep what they gathered until they learn
        asked = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_RESHARD_AFTER_FORWARD": "false"}
        os.environ |= asked if name == "kept" else {}
        found[name] = step(name, folder / name, fsdp=name != "kept", after=check)
        for variable in asked if name == "kept" else ():
            del os.environ[variable]
    score.row_size_in_tokens = row
    whole = run(folder / "whole", fsdp=True)
    try:
        run(folder / "stopped", fsdp=True, on_step=stopping_at(3))
    except Stopped:
        torch.distributed.barrier()
    again = run(folder / "stopped", fsdp=True, resume_from_checkpoint=True)
    plain = run(folder / "plain", fsdp=True, disable_dropout=True)
    numbers = [(result, dict(model.module.named_parameters())) for result, model in (whole, again, plain)]
    torch.save((found, numbers, model_facts(whole[1])), folder / f"sharded-{number}.pt")
    torch.distributed.destroy_process_group()


def model_facts(model):
    """What a caller sees of the model after a run."""
    return model.identity, type(model.module).__name__, model.module.training


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    place = Path(sys.argv[1])
    runs.warm(place)
    children = [runs.forked(lambda n=n: rank(n, place)) for n in range(2)]
    assert [runs.ended(child) for child in children] == [0, 0]
