"""AdamW over the trained parameters of a model."""

from collections.abc import Iterable

import torch
from torch import nn

from alignlab.train.config import TrainConfig


def in_float32(parameters: Iterable[nn.Parameter]) -> None:
    """Turn trained weights of 16 bits into float32, in place."""
    for parameter in parameters:
        if parameter.requires_grad and parameter.dtype in (torch.bfloat16, torch.float16):
            # AdamW's small steps vanish in 8 bits of mantissa; autocast computes in bfloat16 all the same
            parameter.data = parameter.data.float()


def adamw(parameters: list[nn.Parameter], cfg: TrainConfig) -> torch.optim.AdamW:
    """Return the optimiser of a run; biases and norms are spared weight decay.

    Raises:
        ValueError: no parameters.
    """
    if not parameters:
        raise ValueError("the model has no parameter to train; load it in full, or with a trainable adapter")
    matrices, others = ([p for p in parameters if (p.ndim >= 2) == wanted] for wanted in (True, False))
    decayed = ((matrices, cfg.weight_decay), (others, 0.0))
    return torch.optim.AdamW(
        [{"params": group, "weight_decay": decay} for group, decay in decayed if group], lr=cfg.learning_rate,
        betas=(cfg.adam_beta1, cfg.adam_beta2), eps=cfg.adam_epsilon, fused=True,
    )  # fmt: skip
