"""The adapter of low rank that is nearest to what tuning all weights has learnt."""

from typing import Any

import torch

from alignlab.engine.load import LanguageModel


@torch.no_grad()
def copy_into(adapted: LanguageModel, learnt: LanguageModel) -> None:
    """Set a fresh adapter to the best approximation of `learnt` minus its base, in place.

    Of each adapted matrix the difference D = U S V' is cut to the adapter's rank r (Eckart & Young 1936), and U S^(1/2)
    becomes B, S^(1/2) V' becomes A, both over the square root of the adapter's scale. What is not adapted stays the
    base's.

    Args:
        adapted: a model with one plain LoRA adapter, e.g. `load(base, lora=Lora(...))`; embeddings may be adapted too.
        learnt: the same model after tuning, without an adapter.

    Raises:
        ValueError: a weight that `learnt` lacks or has in another shape; a rank above that of the matrix.
    """
    weights = learnt.module.state_dict()
    for name, layer in adapted.module.named_modules():
        if not hasattr(layer, "lora_A"):
            continue
        wanted = f"{name.removeprefix('base_model.model.')}.weight"
        base = layer.get_base_layer().weight
        if wanted not in weights or weights[wanted].shape != base.shape:
            raise ValueError(f"{learnt.name} has no weight {wanted} of shape {tuple(base.shape)}")
        difference = weights[wanted].float() - base.float()
        _set(name, layer, difference.T if getattr(layer, "fan_in_fan_out", False) else difference)


def _set(name: str, layer: Any, difference: torch.Tensor) -> None:
    """Set the adapter of a layer to a difference [outputs, inputs], of an embedding [V, D]."""
    (adapter,) = layer.active_adapters
    rank, scale = layer.r[adapter], layer.scaling[adapter]
    if rank > min(difference.shape):
        raise ValueError(f"{name}: an adapter of rank {rank} for a matrix of {tuple(difference.shape)}; lower its rank")
    left, sizes, right = torch.linalg.svd(difference, full_matrices=False)
    half = (sizes[:rank] / scale).sqrt()
    up, down = left[:, :rank] * half, half[:, None] * right[:rank]
    if adapter in layer.lora_embedding_A:  # of an embedding [V, D] peft stores A as [r, V] and B as [D, r]
        layer.lora_embedding_A[adapter].copy_(up.T)
        layer.lora_embedding_B[adapter].copy_(down.T)
    else:
        layer.lora_A[adapter].weight.copy_(down)
        layer.lora_B[adapter].weight.copy_(up)
