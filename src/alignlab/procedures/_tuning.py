"""How procedures tune a copy of their student on rows: the copy, its settings, its examples."""

import contextlib
import math
from collections.abc import Sequence
from typing import Any, Protocol

from alignlab.core.types import Context, Row
from alignlab.engine.encode import Example, TooLong, encode
from alignlab.engine.hardware import fast_bfloat16
from alignlab.engine.load import LanguageModel, Lora, load
from alignlab.train.config import TrainConfig


class Adapted(Protocol):
    """The fields of a configuration that say which weights are tuned."""

    @property
    def use_peft(self) -> bool: ...
    @property
    def lora_r(self) -> int: ...
    @property
    def lora_target_modules(self) -> str: ...


def copy(spec: str, cfg: Adapted, seed: int, dropout: float = 0.0) -> LanguageModel:
    """Return a fresh copy of the model `spec`, with an adapter of scale 2 where the configuration asks for one."""
    if not cfg.use_peft:
        return load(spec)
    adapter = Lora(r=cfg.lora_r, alpha=2 * cfg.lora_r, dropout=dropout, target_modules=cfg.lora_target_modules,
                   seed=seed)  # fmt: skip
    return load(spec, lora=adapter)


def epsilon(model: LanguageModel, share: float) -> float:
    """Return Adam's epsilon as a multiple of the root mean square of a gradient of norm 1; 0 gives Adam's own 1e-8.

    Adam moves a weight whose gradient is mere noise as far as any other, and with it what the model knew; beside an
    epsilon of the size of usual gradients such a weight stays where it is. A norm of 1 is where gradients are clipped.
    """
    trained = sum(p.numel() for p in model.module.parameters() if p.requires_grad)
    return share / math.sqrt(trained) if share else 1e-8


def settings(
    *, seed: int, steps: int, batch: int, learning_rate: float, longest: int | None, dropout: float = 0.0,
    adam_epsilon: float = 1e-8,
) -> TrainConfig:  # fmt: skip
    """Return the settings of one tuning stage of `batch` rows per step; a killed stage goes on from its checkpoint."""
    rows = next(size for size in range(min(16, batch), 0, -1) if batch % size == 0)
    return TrainConfig(
        learning_rate=learning_rate, per_device_train_batch_size=rows, gradient_accumulation_steps=batch // rows,
        max_steps=steps, warmup_ratio=0.05, lr_scheduler_type="cosine", weight_decay=0.01, adam_beta2=0.98,
        adam_epsilon=adam_epsilon, bf16=fast_bfloat16(), seed=seed, save_steps=max(50, steps // 3), save_total_limit=1,
        resume_from_checkpoint=True, max_length=longest or 4096, disable_dropout=dropout == 0,
    )  # fmt: skip


def encoded(ctx: Context, rows: Sequence[Row], model: Any) -> list[Example]:
    """Return the tokenised rows; those that the model has no room for are left out and counted."""
    found = []
    for row in rows:
        with contextlib.suppress(TooLong):
            found.append(encode(row, model.tokenizer, max_length=model.context_length))
    if len(found) < len(rows):
        with ctx.stage("training rows that the model can hold", len(rows), len(rows)) as stage:
            stage.rows_out = len(found)
            stage.reason = f"prompt and answer are longer than the model's {model.context_length} tokens"
    return found
