"""Models whose weights are spread over ranks (FSDP2): forward passes in step, and tensors made whole or cut.

A forward pass gathers every layer's weights from all ranks. No rank may make a pass more than another, or all wait for
ever; yet how many a batch takes depends on what is in it: rows, prompts that are read first, the check of a first
batch. So ranks tell each other before each pass what they are about to do, and who has nothing left to do makes an
empty pass, of one token, that counts for nothing.
"""

import warnings
from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from alignlab.engine import routed
from alignlab.engine.attention import text_config

DONE, LOOK, LEARN = 0, 1, 2
"""nothing left to do; a pass without gradient; a pass with one"""

_empty: WeakKeyDictionary[nn.Module, list[Tensor]] = WeakKeyDictionary()
"""model -> zeros that hang on the empty passes since the last `finish`, whose backward passes are still to come"""


def keep_in_step(module: nn.Module) -> None:
    """Have ranks agree on each pass of a model under `fully_shard` from now on; every rank must call this."""
    # `logits` writes over logits, but detached ones: what FSDP has hung on the others stays there
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")
    _empty[module] = []


def is_sharded(module: nn.Module) -> bool:
    """Whether the weights of a model are spread over ranks."""
    return module in _empty


def before_pass(module: nn.Module) -> None:
    """Wait until all ranks make a pass of this kind, with gradient or without; nothing is done for a whole model."""
    if not is_sharded(module):
        return
    wanted = LEARN if torch.is_grad_enabled() else LOOK
    while (now := _agreed(module, wanted)) != wanted:
        _empty_pass(module, now)


def finish(module: nn.Module) -> Tensor | None:
    """Make empty passes until every rank has made its own; every rank must call this before it does anything else.

    Returns:
        A zero that must be added to the loss, because the ranks' backward passes have to go in step as well. None where
        this rank has made no empty pass with gradient.
    """
    if not is_sharded(module):
        return None
    while (now := _agreed(module, DONE)) != DONE:
        _empty_pass(module, now)
    if not torch.is_grad_enabled():
        # what the last layers gathered for a backward pass would stand in for the parameters
        for part in layers_of(module):
            part.reshard()
    zeros, _empty[module] = _empty[module], []
    return torch.stack(zeros).sum() if zeros else None


def layers_of(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the parts whose weights are gathered together."""
    from torch.distributed.fsdp import FSDPModule

    return (part for part in module.modules() if isinstance(part, FSDPModule))


def _agreed(module: nn.Module, mine: int) -> int:
    """Return the kind of pass that all ranks make next; looking goes before learning."""
    device = next(module.parameters()).device
    kinds = [torch.zeros(1, dtype=torch.long, device=device) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(kinds, torch.tensor([mine], device=device))
    return min((kind for kind in torch.cat(kinds).tolist() if kind != DONE), default=DONE)


def _empty_pass(module: nn.Module, kind: int) -> None:
    first = torch.zeros(1, dtype=torch.long, device=next(module.parameters()).device)
    token = first + (text_config(module.config).pad_token_id == 0)  # of padding alone transformers warns
    with torch.set_grad_enabled(kind == LEARN), routed.routing(routed.counts_of(module, [0])):
        logits = module(input_ids=token[None], use_cache=False).logits
    if kind == LEARN:
        _empty[module].append(logits.float().sum() * 0.0)


def is_cut(tensor: Any) -> bool:
    """Whether a tensor is held in parts by several ranks."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Any) -> Tensor:
    """Return a tensor with the parts that other ranks hold: all must ask, in the same order. Others are left alone."""
    return tensor.full_tensor() if is_cut(tensor) else tensor


def cut_like(value: Tensor, parameter: Any) -> Tensor:
    """Return a whole tensor as its parameter is held: on its device, and this rank's part alone where it is spread."""
    value = value.to(parameter.device)
    if not is_cut(parameter) or value.shape != parameter.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    # every rank has the whole one at hand: nothing needs to be sent
    return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)
