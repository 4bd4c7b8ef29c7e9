"""The plain path of scoring: one row per completion, packed to the left, so that the causal mask keeps padding out.

For models that cannot share prompts, and as the check on the first batch of those that can.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from alignlab.core.types import Groups, View
from alignlab.engine import attention, flex, routed, sharded, work
from alignlab.engine.heads import scalar_head, values_at
from alignlab.engine.logits import Said, placed, said_at


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Switch dropout off; afterwards, exceptions included, every submodule is back in the mode it had."""
    trained = [m for m in module.modules() if m.training]
    try:
        for m in trained:
            m.training = False
        yield
    finally:
        for m in trained:
            m.training = True


def unwrap(module: nn.Module) -> nn.Module:
    """Return the model inside DistributedDataParallel; anything else is returned as it is."""
    return module.module if isinstance(module, nn.parallel.DistributedDataParallel) else module


def context_length(module: nn.Module) -> int | None:
    """The most tokens the model takes, or None where its config does not say."""
    return getattr(attention.text_config(unwrap(module).config), "max_position_embeddings", None)


def batch_size_in_tokens(device: torch.device) -> int:
    """Tokens per batch without gradient: what stays in a CPU's caches (measured with 2M parameters), or fills a GPU."""
    return 6144 if device.type == "cpu" else 65536


def check_length(module: nn.Module, longest: int) -> None:
    """Raise ValueError where a prompt with its completion is longer than the model takes."""
    limit = context_length(module)
    if limit is not None and longest > limit:
        raise ValueError(
            f"a prompt with its completion has {longest} tokens, but the model takes {limit}; shorten it or use a "
            "model with a longer context"
        )


def plain_path(module, groups: Groups, prompts, at, device, batch_tokens: int | None, lent: list[int]) -> View:
    """Score what is only looked at by itself, where the rest gets a gradient."""
    if device.type == "cpu" and attention.text_config(module.config)._attn_implementation == flex.NAME:
        with flex.replaced(module):
            return plain_path(module, groups, prompts, at, device, batch_tokens, lent)
    if not (lent and torch.is_grad_enabled()):
        return _scored(module, groups, prompts, at, device, batch_tokens)
    aside = torch.zeros(len(groups.ids), dtype=torch.bool)
    aside[lent] = True
    parts, order = [], aside.to(torch.int8).argsort(stable=True)
    for rows, mode in zip(
        order.split([len(aside) - len(lent), len(lent)]), (contextlib.nullcontext(), torch.no_grad())
    ):
        there = rows.to(device)
        some = Groups(
            prompt_ids=groups.prompt_ids, prompt_mask=groups.prompt_mask, ids=groups.ids[rows],
            mask=groups.mask[there], group=groups.group[rows],
            head=None if groups.head is None else groups.head[rows.to(groups.head.device)],
        )  # fmt: skip
        with mode:
            parts.append(_scored(module, some, prompts, _of(at, there), device, batch_tokens))
    return _joined(parts, order.argsort().to(device), at)


def _of(at: Tensor | int | None, chosen: Tensor) -> Tensor | int | None:
    """Return what is asked for as well of some of the completions."""
    return at[chosen] if isinstance(at, Tensor) else at


def _scored(module, groups: Groups, prompts, at, device, batch_tokens: int | None) -> View:
    ids, keep, prompt_lengths = packed(groups, prompts, device)
    # what a reward model would predict after the last token is not read
    check_length(module, ids.shape[1] - (scalar_head(module) is not None))
    heads = routed.heads_of(module, groups)
    head = torch.tensor([0] * len(ids) if heads is None else heads, device=device)
    if torch.is_grad_enabled():
        return _view(module, ids, groups.mask, prompt_lengths, head, at)
    with evaluating(module):
        size = batch_size_in_tokens(device) if batch_tokens is None else batch_tokens
        return _in_batches(module, ids, keep, groups.mask, prompt_lengths, head, at, size)


def packed(groups: Groups, prompts: tuple[Tensor, Tensor], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return ids [N, S] and mask [N, S] of prompt + completion without gaps, and prompt lengths [N]."""
    prompt, prompt_mask, group = prompts[0].to(device), prompts[1].to(device), groups.group.to(device)
    if not bool(prompt_mask.any(1)[group].all()):
        raise ValueError("a prompt without tokens; a causal model needs one before the first scored token")
    mask = groups.mask
    # True up to the last scored token: what lies between scored tokens is read, what lies after is padding
    read = mask.flip(1).cumsum(1).flip(1) > 0
    keep = torch.cat([prompt_mask[group], read], 1)
    ids = torch.cat([prompt[group], groups.ids.to(device)], 1)
    order = (~keep).to(torch.int8).argsort(dim=1, stable=True)
    keep = keep.gather(1, order)
    longest = int(keep.sum(1).max())
    keep = keep[:, :longest]
    # Padding never reaches a scored position; a fixed id keeps values such as -100 out of the embedding
    ids = torch.where(keep, ids.gather(1, order[:, :longest]), 1)
    return ids, keep, prompt_mask.sum(1)[group]


def _in_batches(module, ids, keep, mask, prompt_lengths, head, at, batch_tokens) -> View:
    lengths = keep.sum(1)
    rows = max(1, batch_tokens // ids.shape[1])
    if len(ids) <= rows:
        return _view(module, ids, mask, prompt_lengths, head, at)
    parts, order = [], lengths.argsort(stable=True, descending=True)
    sizes, start = lengths[order].tolist(), 0
    while start < len(order):
        stop = start + max(1, batch_tokens // max(1, sizes[start]))
        chosen = order[start:stop]
        cut = ids[chosen, : sizes[start]]
        parts.append(_view(module, cut, mask[chosen], prompt_lengths[chosen], head[chosen], _of(at, chosen)))
        start = stop
    return _joined(parts, order.argsort(), at)


def _joined(parts: list[View], back: Tensor, at: Tensor | int | None) -> View:
    """Put views one behind the other, then in the order `back`."""
    joined = View(logp=torch.cat([p.logp for p in parts])[back])
    if at is None:
        return joined
    ids = at if isinstance(at, Tensor) else torch.cat([p.top_ids for p in parts])[back]
    top, rest = torch.cat([p.top_logp for p in parts])[back], torch.cat([p.rest for p in parts])[back]
    return replace(joined, top_ids=ids, top_logp=top, rest=rest)


def _view(
    module: nn.Module,
    ids: Int[Tensor, "N S"],
    mask: Bool[Tensor, "N T"],
    prompt_lengths: Int[Tensor, "N"],
    head: Int[Tensor, "N"],
    at: Int[Tensor, "N T k"] | int | None,
) -> View:
    """Score one batch of packed rows."""
    sharded.before_pass(module)
    row, column = mask.nonzero(as_tuple=True)
    counts = None
    if routed.routed_head(module) is not None:
        order = head[row].argsort(stable=True)
        row, column = row[order], column[order]
        counts = routed.counts_of(module, head[row].tolist())
    position = prompt_lengths[row] + column
    work.note(ids.numel(), len(row), len(ids) * ids.shape[1] ** 2)
    if scalar_head(module) is not None:
        values = values_at(module, ids[:, :-1], row, position - 1)
        return placed([Said(values[:, None], torch.zeros_like(values))], mask, None, (row, column))
    asked = at[row, column] if isinstance(at, Tensor) else at
    said = said_at(module, ids, row, position - 1, ids[row, position], asked, counts=counts)
    return placed([said], mask, at, (row, column))
