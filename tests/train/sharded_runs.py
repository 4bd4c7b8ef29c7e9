"""The gradient of a step under FSDP2 (raw `fully_shard`) on two gloo ranks; `python sharded_runs.py FOLDER`.

Each rank holds half of every weight and scores its own micro-batches, as the loop cuts them.
"""

import os
import sys
import warnings
from pathlib import Path

import torch
import train_runs as runs
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from alignlab.core.reduce import share, totals
from alignlab.engine import routed
from alignlab.engine.agreement import sharing_of
from alignlab.objectives import dpo, mah_dpo, orpo, sft
from alignlab.train import batches

ROWS, PER_DEVICE = 11, 3


def cases():
    """Name -> examples, loss, settings; the first has a reference."""
    return {
        "dpo": (runs.some(ROWS, pairs=True), dpo.loss, dpo.Config(beta=0.3, nll_weight=0.5)),
        "orpo": (runs.some(ROWS, pairs=True, seed=2), orpo.loss, orpo.Config()),
        "sft": (runs.some(ROWS, pairs=False), sft.loss, sft.Config()),
        "mah_dpo": (two_goals(), mah_dpo.loss, mah_dpo.Config(heads=2)),
    }


def two_goals():
    """Pairs of two output heads in turn."""
    rows = enumerate(runs.some(ROWS, pairs=True, seed=5))
    return [batches.dataclasses.replace(e, scores={"head": (float(i % 2),) * 2}) for i, e in rows]


def model_for(cfg):
    """The small model, with the output heads that the settings ask for."""
    model = runs.small()
    routed.grow(model.module, getattr(cfg, "heads", 1))
    return model


def sharded(cfg):
    """The model with each layer and then the whole under `fully_shard`; asserted to be what it claims."""
    model = model_for(cfg)
    mesh = init_device_mesh("cpu", (2,))
    assert torch.distributed.get_world_size() == mesh.size() == 2
    assert torch.distributed.get_backend() == "gloo"
    for layer in model.module.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model.module, mesh=mesh)
    assert isinstance(model.module, FSDPModule)
    assert all(isinstance(layer, FSDPModule) for layer in model.module.model.layers)
    parameters = dict(model.module.named_parameters())
    assert all(isinstance(p, DTensor) for p in parameters.values())
    halves = sum(p.to_local().numel() for p in parameters.values())
    assert halves <= 0.51 * sum(p.numel() for p in parameters.values()), "each rank holds half"
    return model


def gradients(rank: int, examples, loss, cfg) -> dict[str, torch.Tensor]:
    """Gradients of one step over all examples, whole, on every rank."""
    model = sharded(cfg)
    reference = {}
    if loss in (dpo.loss, mah_dpo.loss):
        other = runs.small(1)
        with torch.no_grad():
            for i, example in enumerate(examples):
                groups = batches.collate([example], 0)
                reference[i] = other.score(groups).logp[groups.mask]
    cut = batches.micro_batches(range(len(examples)), examples, PER_DEVICE, rank, 2)
    every = [batches.batch_of(range(len(examples)), examples, reference, 0)]
    whole = {n: d for n, (_, d) in totals(loss(batches.with_zero_views(b), cfg) for b in every).items()}
    for indices, counts in cut:
        groups = batches.batch_of(indices, examples, reference, 0)
        views = {**groups.views, "policy": model.score(groups)}
        terms = loss(batches.dataclasses.replace(groups, views=views), cfg)
        # fully_shard takes the mean over ranks, but the shares are to be added
        (share(terms, whole) * 2 * counts).backward()
    assert sharing_of(model.module).reason is None, "prompts are shared under fully_shard too"
    return {name: p.grad.full_tensor() for name, p in model.module.named_parameters()}


def rank(number: int, folder: Path) -> None:
    """One of two processes."""
    os.environ |= {"RANK": str(number), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    os.environ["MASTER_PORT"] = os.environ["TEST_PORT"]
    torch.distributed.init_process_group("gloo")
    found = {name: gradients(number, *case) for name, case in cases().items()}
    torch.save(found, folder / f"sharded-{number}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    children = [runs.forked(lambda n=n: rank(n, Path(sys.argv[1]))) for n in range(2)]
    assert [runs.ended(child) for child in children] == [0, 0]
