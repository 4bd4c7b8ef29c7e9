"""Masked sums and means over completion positions: where a mask is False, nothing leaks, NaN included."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def masked(values: Float[Tensor, "*axes"], mask: Bool[Tensor, "*axes"]) -> Float[Tensor, "*axes"]:
    """Return `values` with exact zeros where `mask` is False; no gradient flows there, even from NaN."""
    return torch.where(mask, values, torch.zeros((), dtype=values.dtype, device=values.device))


def seq_sum(values: Float[Tensor, "N T"], mask: Bool[Tensor, "N T"]) -> Float[Tensor, "N"]:
    """Sum over the scored tokens of each completion."""
    return masked(values, mask).sum(-1)


def last(values: Float[Tensor, "N T"], mask: Bool[Tensor, "N T"]) -> Float[Tensor, "N"]:
    """Return the value at the last scored token of each completion; 0 for a completion without any."""
    columns = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    return seq_sum(values, mask & (columns == (mask * columns).amax(-1, keepdim=True)))


def lengths(mask: Bool[Tensor, "N T"]) -> Float[Tensor, "N"]:
    """Number of scored tokens of each completion, as float32."""
    return mask.sum(-1).float()


def seq_mean(values: Float[Tensor, "N T"], mask: Bool[Tensor, "N T"]) -> Float[Tensor, "N"]:
    """Mean over the scored tokens of each completion; 0 for a completion without any."""
    return seq_sum(values, mask) / mask.sum(-1).clamp(min=1).to(values.dtype)
