"""Where things are inside a model: the one place that knows module names."""

import re
from collections.abc import Iterator
from typing import Any

from torch import nn

_ATTENTION = re.compile(r"(?:^|\.)((?:self_attn|attn|attention|self_attention)\.[\w.]+)$")


def attention_projections(module: nn.Module) -> tuple[str, ...]:
    """Return the names, below the layer, of the linear maps inside attention, such as `self_attn.q_proj`.

    Tuning these alone changes what a model looks at and leaves alone what its other weights remember.
    Raises ValueError for a model without any.
    """
    found: dict[str, None] = {}
    for name, part in module.named_modules():
        match = _ATTENTION.search(name)
        if match and getattr(part, "weight", None) is not None and part.weight.ndim == 2:
            found[match[1]] = None
    if not found:
        raise ValueError(f"no attention projections in {type(module).__name__}; name the target modules yourself")
    return tuple(found)


CHECKPOINT = "CheckpointWrapper"
"""PyTorch's class around a layer that is computed again in the backward pass"""


def recomputing(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the parts whose activations are computed again in the backward pass, by transformers' ways or PyTorch's."""
    for part in module.modules():
        if type(part).__name__ == CHECKPOINT or getattr(part, "gradient_checkpointing", False):
            yield part


def compiled(module: nn.Module) -> bool:
    """Whether a part of a model is compiled by `torch.compile`, which cannot follow what is done to models here."""
    return any(part._compiled_call_impl is not None or "_orig_mod" in part._modules for part in module.modules())


def decoder_layers(module: nn.Module) -> list[nn.Module]:
    """Return the layers that a decoder runs one after the other. Raises ValueError for a model without such a list."""
    base: Any = module.get_base_model() if hasattr(module, "get_base_model") else module
    config = base.config.get_text_config() if hasattr(base.config, "get_text_config") else base.config
    lists = [part for part in module.modules() if isinstance(part, nn.ModuleList)]
    found = next((part for part in lists if len(part) == config.num_hidden_layers), None)
    if found is None:
        raise ValueError(f"{type(base).__name__} has no list of its {config.num_hidden_layers} layers")
    return list(found)


def stores_inputs_first(module: nn.Module) -> bool:
    """Whether linear maps keep their weights as [inputs, outputs], the transpose of nn.Linear's, as GPT-2's do."""
    from transformers.pytorch_utils import Conv1D

    return any(isinstance(part, Conv1D) for part in module.modules())
