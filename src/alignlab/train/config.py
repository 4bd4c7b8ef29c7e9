"""Settings of a training run under TRL's names, and what follows from them alone: order of the data and learning rate.

Nothing here loads torch, so that `alignlab train METHOD -h` stays quick.
"""

import dataclasses
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np

FREE = {
    "per_device_train_batch_size", "gradient_accumulation_steps", "num_train_epochs", "max_steps", "logging_steps",
    "eval_steps", "save_steps", "save_total_limit", "report_to", "resume_from_checkpoint", "use_cpu", "max_length",
    "ref_cache", "fsdp",
}  # fmt: skip
"""settings that may differ when a run goes on; the rows per optimiser step may not, nor what else changes a step"""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of a training run."""

    learning_rate: float = 2e-5
    """peak learning rate of AdamW, >= 0; each method brings its own default, TRL's where TRL has the method"""
    per_device_train_batch_size: int = 8
    """rows per forward pass and device, >= 1; changes speed and memory, not the result"""
    gradient_accumulation_steps: int = 1
    """forward passes per optimiser step, >= 1; the step's loss is that of one big batch, exactly"""
    num_train_epochs: float = 3.0
    """passes over the data, > 0; ignored where max_steps is given"""
    max_steps: int = -1
    """optimiser steps; -1 leaves it to num_train_epochs"""
    warmup_steps: float = 0.0
    """steps over which the learning rate rises from 0, >= 1; below 1 the share of all steps, as in transformers 5"""
    warmup_ratio: float = 0.0
    """share of the steps over which the learning rate rises from 0, in [0, 1]; transformers 4's name for it"""
    lr_scheduler_type: Literal["cosine", "linear", "constant"] = "linear"
    """how the learning rate falls after the warm-up"""
    weight_decay: float = 0.0
    """decoupled weight decay of AdamW, >= 0; biases and norms are spared"""
    adam_beta1: float = 0.9
    """decay of AdamW's mean, in [0, 1)"""
    adam_beta2: float = 0.999
    """decay of AdamW's mean square, in [0, 1)"""
    adam_epsilon: float = 1e-8
    """AdamW's epsilon, > 0"""
    max_grad_norm: float = 1.0
    """gradients are scaled down to this global norm; 0 switches clipping off"""
    bf16: bool = False
    """compute in bfloat16; trained weights and log-probabilities stay in float32"""
    gradient_checkpointing: bool = False
    """recompute activations in the backward pass: less memory, about a quarter slower"""
    disable_dropout: bool = True
    """switch dropout off while training, as TRL does for dpo; with it off a step does not depend on how it is cut"""
    logging_steps: int = 10
    """write metrics every so many steps, >= 1; step 1 and the last step always"""
    eval_steps: int = 0
    """evaluate every so many steps; 0: only at the end"""
    save_steps: int = 500
    """save a checkpoint every so many steps and at the end; 0: never"""
    save_total_limit: int | None = None
    """keep this many newest checkpoints, >= 1; null keeps all"""
    seed: int = 0
    """seed of the data order and of dropout"""
    report_to: Literal["none", "tensorboard", "wandb"] = "none"
    """also log to this service; nothing is sent anywhere by default"""
    resume_from_checkpoint: bool | str = False
    """go on from this checkpoint folder; true: from the newest whole one in output_dir, if any"""
    use_cpu: bool = False
    """train on the processor even where there is an accelerator"""
    fsdp: bool = False
    """spread weights, gradients and AdamW's moments over the processes of torchrun or accelerate (FSDP2), by layer"""
    max_length: int = 1024
    """longest prompt and completion together, in tokens"""
    ref_cache: str = "auto"
    """folder of reference log-probabilities that later runs look up; auto: in the user's cache folder; none: off"""

    def __post_init__(self) -> None:
        for name in ("per_device_train_batch_size", "gradient_accumulation_steps", "logging_steps", "max_length"):
            self._check(name, getattr(self, name) >= 1, "a whole number >= 1")
        for name in ("learning_rate", "weight_decay", "max_grad_norm", "eval_steps", "save_steps"):
            self._check(name, getattr(self, name) >= 0, "a number >= 0")
        for name in ("adam_beta1", "adam_beta2"):
            self._check(name, 0 <= getattr(self, name) < 1, "a number in [0, 1)")
        self._check("adam_epsilon", self.adam_epsilon > 0, "a number > 0")
        self._check("warmup_steps", 0 <= self.warmup_steps < math.inf, "a number >= 0")
        if self.warmup_steps and self.warmup_ratio:
            raise ValueError(
                f"--warmup_steps {self.warmup_steps:g} and --warmup_ratio {self.warmup_ratio:g}: give one of them"
            )
        self._check("warmup_ratio", 0 <= self.warmup_ratio <= 1, "a number in [0, 1]")
        self._check("num_train_epochs", self.num_train_epochs > 0, "a number > 0")
        self._check("max_steps", self.max_steps == -1 or self.max_steps >= 1, "a whole number >= 1, or -1")
        self._check("save_total_limit", self.save_total_limit is None or self.save_total_limit >= 1, ">= 1, or null")
        self._check("ref_cache", bool(self.ref_cache), "a folder, auto or none")
        schedulers, services = ("cosine", "linear", "constant"), ("none", "tensorboard", "wandb")
        self._check("lr_scheduler_type", self.lr_scheduler_type in schedulers, f"one of {', '.join(schedulers)}")
        self._check("report_to", self.report_to in services, f"one of {', '.join(services)}")

    def _check(self, name: str, fine: bool, expected: str) -> None:
        if not fine:
            raise ValueError(f"--{name}: expected {expected}, got {getattr(self, name)!r}")


def steps_per_epoch(items: int, batch: int) -> int:
    """Return the number of optimiser steps that visit every item once; the last one may be smaller."""
    return math.ceil(items / batch)


def total_steps(cfg: TrainConfig, items: int, batch: int) -> int:
    """Return the optimiser steps of a whole run of `items` rows, `batch` rows a step over all devices."""
    if cfg.max_steps > 0:
        return cfg.max_steps
    return math.ceil(cfg.num_train_epochs * steps_per_epoch(items, batch))


@lru_cache(maxsize=2)
def _order(items: int, seed: int, epoch: int) -> tuple[int, ...]:
    return tuple(np.random.default_rng([seed, epoch]).permutation(items).tolist())


def items_of_step(step: int, items: int, batch: int, seed: int) -> tuple[int, ...]:
    """Return the indices of the rows of one optimiser step (counted from 0): they depend on seed and epoch alone."""
    epoch, place = divmod(step, steps_per_epoch(items, batch))
    return _order(items, seed, epoch)[place * batch : (place + 1) * batch]


def learning_rate(cfg: TrainConfig, step: int, total: int) -> float:
    """Return the learning rate of one optimiser step, counted from 0.

    It rises in equal parts to its peak in the last warm-up step (the first step is not wasted on rate 0, as it is in
    transformers), then falls towards 0, which it would reach at step `total`.
    """
    asked = cfg.warmup_steps or cfg.warmup_ratio
    warmup = int(asked) if cfg.warmup_steps >= 1 else math.ceil(asked * total)
    if step < warmup:
        return cfg.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, total - warmup)
    factors = {"constant": 1.0, "linear": 1.0 - done, "cosine": 0.5 * (1.0 + math.cos(math.pi * done))}
    return cfg.learning_rate * factors[cfg.lr_scheduler_type]


def plain(config: Any) -> dict[str, Any]:
    """Return the settings of a dataclass by name; nothing of anything else."""
    return dataclasses.asdict(config) if dataclasses.is_dataclass(config) and not isinstance(config, type) else {}
