"""Where a run trains: on which device, by how many processes, and with weights whole or spread over them (FSDP2).

Several processes are started by `torchrun` or `accelerate launch`. Each holds the whole model, under
DistributedDataParallel, or with `--fsdp` its share of every weight, gradient and moment: each decoder layer, and then
what is left, goes through `torch.distributed.fsdp.fully_shard`. That is done here, on processors as on GPUs, and not by
accelerate, which on processors runs something else in silence.
"""

import copy
import dataclasses
import os
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch import nn

from alignlab.engine import sharded
from alignlab.engine.heads import scalar_head
from alignlab.engine.layouts import decoder_layers
from alignlab.engine.load import LanguageModel
from alignlab.train.config import TrainConfig
from alignlab.train.optimizer import in_float32

KNOWN = (DistributedType.NO, DistributedType.MULTI_GPU, DistributedType.MULTI_CPU, DistributedType.FSDP)
INSTEAD = "start it with torchrun (every process holds the whole model), or with torchrun and --fsdp (its share alone)"


def everyone(mine: Any, ranks: int) -> list[Any]:
    """Return what each rank has, by rank; all must ask."""
    every = [mine] * ranks
    if ranks > 1:
        torch.distributed.all_gather_object(every, mine)
    return every


def asked_of_accelerate(name: str) -> bool:
    """Whether a configuration of `accelerate launch` asks for FSDP, DEEPSPEED, ..."""
    return os.environ.get(f"ACCELERATE_USE_{name}", "false").lower() == "true"


def wanted(cfg: TrainConfig) -> bool:
    """Whether weights are to be spread over ranks: by --fsdp, or by accelerate's configuration."""
    return cfg.fsdp or asked_of_accelerate("FSDP")


def on_host(cfg: TrainConfig) -> bool:
    """Whether a run is to train on the processor. accelerate would not find its other processes there unless told."""
    return cfg.use_cpu or not torch.accelerator.is_available()


def loading(cfg: TrainConfig, device: str) -> tuple[TrainConfig, str]:
    """Return the settings, and the device to load a model on, of a run under `--device`.

    A model that will be spread is loaded on the host, since it may be too large for any one device.
    """
    cfg = dataclasses.replace(cfg, use_cpu=True) if device == "cpu" else cfg
    return cfg, "cpu" if wanted(cfg) and device == "auto" else device


class Placement:
    """Processes, devices and weights of one run."""

    def __init__(self, model: LanguageModel, cfg: TrainConfig, folder: Path) -> None:
        """Join the other processes.

        Raises:
            ValueError: what cannot be had: another way to distribute, or another device, than this loop has.
            RuntimeError: processes that did not find each other.
        """
        self._model, self._hollow = model, model.module
        for name in ("DEEPSPEED", "MEGATRON_LM"):
            if asked_of_accelerate(name):
                raise ValueError(
                    f"accelerate's configuration asks for {name}, under which this loop cannot run: a step's gradients"
                    f" come from several backward passes, and are read before they are clipped; {INSTEAD}"
                )
        self.sharded, self._reshards = wanted(cfg), reshards()
        alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
        device, host = model.device, on_host(cfg)
        if alone and not host and device.type == "cuda":
            torch.cuda.set_device(device)  # --device cuda:1
        log_with = None if cfg.report_to == "none" else cfg.report_to
        self.accelerator = Accelerator(cpu=host, log_with=log_with, project_dir=str(folder))
        self.ranks = self.accelerator.num_processes
        self._check_processes(device)
        if self.sharded and scalar_head(model.module) is not None:
            raise ValueError("--fsdp: a reward model cannot be spread over processes here; leave --fsdp out")

    def _check_processes(self, loaded: torch.device) -> None:
        kind, device = self.accelerator.distributed_type, self.accelerator.device
        if kind not in KNOWN:
            raise ValueError(f"this loop cannot run under {kind}; {INSTEAD}")
        started = int(os.environ.get("WORLD_SIZE", "1"))
        if started != self.ranks:
            raise RuntimeError(f"{started} processes were started, but accelerate runs {self.ranks}, under {kind}")
        if self.sharded and self.ranks == 1:
            raise ValueError(
                "--fsdp spreads a model over several processes, but there is one: start them with"
                " `torchrun --nproc_per_node 2 --no-python alignlab train ...`, or leave --fsdp out"
            )
        if loaded.type == device.type == "cuda" and self.ranks > 1 and loaded.index != device.index:
            raise ValueError(
                f"--device {loaded}: of {self.ranks} processes each has a device of its own, this one {device};"
                " leave --device out"
            )

    def place(self) -> None:
        """Put the weights where they are trained, those that are trained in float32."""
        module = self._model.module
        if not self.sharded:
            module.to(self.accelerator.device)
            in_float32(module.parameters())
            return
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        self._hollow = _hollow(module)
        mesh = init_device_mesh(self.accelerator.device.type, (self.ranks,))
        layers = decoder_layers(module)
        for part in (*layers, module):
            in_float32(part.parameters())  # layer by layer, so that few weights are whole at a time
            fully_shard(part, mesh=mesh, **({} if self._reshards else {"reshard_after_forward": False}))
        assert_sharded(module, layers, self.ranks)
        sharded.keep_in_step(module)

    def whole(self, *, keep: bool) -> LanguageModel:
        """Return the model with all its weights; where these are spread, a copy on the host, and all ranks must ask.

        `keep`: whether this rank wants it; without, what is returned is of no use.
        """
        if not self.sharded:
            return self._model
        places = dict(self._hollow.named_parameters())
        for name, parameter in self._model.module.named_parameters():
            tensor = sharded.whole(parameter.detach())
            if keep:
                places[name].data = tensor.cpu()
        return dataclasses.replace(self._model, module=self._hollow)

    def release(self) -> None:
        """Forget the copy."""
        if self.sharded:
            for parameter in self._hollow.parameters():
                parameter.data = torch.empty(0, dtype=parameter.dtype)

    def settle(self) -> None:
        """At the end of a run, leave every rank a whole model: where it is spread, on the host."""
        self._model.module = self.whole(keep=True).module


def reshards() -> bool:
    """Return whether layers give back what they gathered for the forward pass, as accelerate's configuration says.

    Raises:
        ValueError: it asks for something else that FSDP can do, and this loop cannot.
    """
    if not asked_of_accelerate("FSDP"):
        return True
    from torch.distributed.fsdp import CPUOffloadPolicy

    plugin: Any = FullyShardedDataParallelPlugin()
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    checks = (
        (plugin.fsdp_version != 2, f"fsdp_version {plugin.fsdp_version}", "fsdp_version: 2"),
        (isinstance(plugin.cpu_offload, CPUOffloadPolicy), "fsdp_offload_params", "fsdp_offload_params: false"),
        (bool(plugin.activation_checkpointing), "fsdp_activation_checkpointing", "--gradient_checkpointing"),
        (precision != "no", f"mixed_precision {precision}", "mixed_precision: 'no' and --bf16"),
    )  # fmt: skip
    for found, what, instead in checks:
        if found:
            raise ValueError(f"accelerate's configuration asks for {what}, which this loop does not do; use {instead}")
    return bool(plugin.reshard_after_forward)


def assert_sharded(module: nn.Module, layers: list[nn.Module], ranks: int) -> None:
    """Raise RuntimeError unless a model is what it is to be: as many processes as asked, every weight in parts."""
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import DTensor

    world = torch.distributed.get_world_size()
    odd = next((type(part).__name__ for part in (module, *layers) if not isinstance(part, FSDPModule)), None)
    kept = next((name for name, p in module.named_parameters() if not isinstance(p, DTensor)), None)
    if world != ranks or odd is not None or kept is not None:
        raise RuntimeError(
            f"the model is not spread over {ranks} processes as asked: {world} processes,"
            f" {odd or 'every layer'} {'is no' if odd else 'is an'} FSDPModule, {kept or 'no weight'} is whole"
        )


def _hollow(module: nn.Module) -> nn.Module:
    """Return a copy of a model without numbers in its parameters; parameters that are tied are tied in it."""
    empty = {
        id(p): nn.Parameter(torch.empty(0, dtype=p.dtype), requires_grad=p.requires_grad) for p in module.parameters()
    }
    return copy.deepcopy(module, empty)  # type: ignore[arg-type]
