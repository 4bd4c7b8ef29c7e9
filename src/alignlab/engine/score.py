"""Log-probabilities of completions: each distinct node once where the model allows it, logits only where scored.

Shared path: `plan` lays prompts and completions out in rows without padding, and `attention` keeps them apart. Plain
path, for other models and as the check on the first batch: one row per completion, packed to the left, so the causal
mask alone keeps padding out. No attention mask is built on either, and a model sees the same positions whatever the
batch. The head runs on the scored positions only: a pre-hook on it hands it those, so whatever the model does after its
head (soft-capping, logit scale) is done by the model.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from alignlab.core.types import Groups, View
from alignlab.engine import attention, piecewise, routed, sharded, work
from alignlab.engine.agreement import agreed, agreeing, few, sharing_of
from alignlab.engine.hardware import keep_freed_memory
from alignlab.engine.heads import asked, pad_id_of, scalar_head, valued, values_at
from alignlab.engine.layouts import compiled
from alignlab.engine.logits import Said, placed, said_at
from alignlab.engine.plain import check_length, evaluating, plain_path, unwrap
from alignlab.engine.plan import PlannedRow, plan


def row_size_in_tokens(device: torch.device) -> int:
    """Tokens per row of shared prompts; there is no padding, so a short row on a CPU costs nothing but calls.

    With gradient all rows are kept at once, and each of them writes the gradients of all weights.
    """
    return 2048 if device.type == "cpu" and not torch.is_grad_enabled() else 65536


RECOMPUTED = "its activations are recomputed by a checkpoint without context_fn=attention.again"
COMPILED = "it is compiled, and rows of shared prompts differ in shape"


def score(
    module: nn.Module,
    groups: Groups,
    at: Int[Tensor, "N T k"] | int | None = None,
    *,
    context: str | None = None,
    batch_tokens: int | None = None,
    share: bool | None = None,
) -> View:
    """Return the log-probabilities of the completions under a causal language model, or their values by a reward model.

    Tokens of `groups.ids` before a row's last scored token are read by the model, scored or not; what follows is
    padding. Without gradient (`torch.no_grad`), dropout is off and large inputs are cut into rows or batches; with
    gradient the module keeps its mode. Autocast is the caller's. Completions of origin `mismatched` that stand beside
    others are only looked at: they get no gradient, and cost no backward pass.

    Args:
        module: a transformers causal LM or reward model (`engine.heads`), possibly under peft or
            DistributedDataParallel.
        groups: prompts and completions; moved to the module's device. Of a model with several output heads
            (`engine.routed`) each completion is scored by its `head`; of any other model that is not looked at.
        at: token ids to report as well, at every position; or k, for the k likeliest of each, likeliest first (the
            whole vocabulary where that is smaller). The result has top_ids, top_logp and rest.
        context: score the completions under `groups.contexts[context]` instead of the prompt.
        batch_tokens: tokens per row, or per padded batch on the plain path; None for what suits the device.
        share: None computes shared prompts once where a model can, once its first batch has agreed with the plain path
            (`agreement.TOLERANCE`), and warns once where it cannot. False takes the plain path.
            True shares, unchecked, or raises. Where hooks look at activations, which count positions in rows of one
            sequence, None takes the plain path too.

    Returns:
        A View on the module's device, nats, float32 (float64 for a float64 model), 0 where `groups.mask` is False. Of a
        reward model: `value`, what it says of prompt and completion up to and including each scored token; logp is 0.

    Raises:
        ValueError: a prompt without tokens, an unknown context, a row longer than the model, `at` of a reward model or
            below 1, several output heads and completions without `head`.
        RuntimeError: by autograd, for a second backward pass through the same View: the first one's gradient takes the
            place of the logits; score again instead of retain_graph=True.
        NotShared: `share` is True and the model cannot.
    """
    module = unwrap(module)
    device = next(module.parameters()).device
    if device.type == "cpu":
        keep_freed_memory()
    groups = replace(groups, mask=groups.mask.to(device))
    prompts = _prompts(groups, context)
    if scalar_head(module) is None:
        at = _asked(module, at, device)
        return _scored(module, groups, prompts, at, batch_tokens, share)
    if at is not None:
        raise ValueError("a reward model gives one number per token, no probabilities of others; leave `at` out")
    wanted, place = asked(groups, pad_id_of(module))
    return valued(_scored(module, wanted, prompts, None, batch_tokens, share).logp, place, groups.mask)


def score_adapters(
    module: nn.Module, groups: Groups, adapters: Sequence[str], at: Int[Tensor, "N T k"] | int | None = None
) -> list[View]:
    """Score the same completions under several adapters of one module in one batch; no gradient.

    Every adapter has a copy of each row of shared prompts, so that what it adds is never mixed with another's.

    Args:
        module: a peft model whose adapters are plain LoRA, in evaluation mode, that shares prompts.
        groups: as `score` takes them.
        adapters: their names in the module; `__base__` for none.
        at: as `score` takes it.

    Returns:
        One View per adapter, as `score` gives with that adapter on.

    Raises:
        ValueError: a prompt with its completion that is longer than the model takes.
        NotShared: the model cannot share prompts.
    """
    device = next(module.parameters()).device
    groups = replace(groups, mask=groups.mask.to(device))
    at = _asked(module, at, device)
    with torch.no_grad(), evaluating(module):
        rows = _rows(groups, _prompts(groups, None), max(1, row_size_in_tokens(device) // len(adapters)))
        check_length(module, max((row.longest + 1 for row in rows), default=0))
        parts = [_row_values(module, row, at, device, adapters) for row in rows]
    places = _places(rows, device)
    return [placed([part[k] for part in parts], groups.mask, at, places) for k in range(len(adapters))]


def _asked(module: nn.Module, at: Tensor | int | None, device: torch.device) -> Tensor | int | None:
    """Return the ids to report as well, where the model is; or how many, no more than there are."""
    if not isinstance(at, int):
        return None if at is None else at.to(device)
    if at < 1:
        raise ValueError(f"at: expected token ids, or a number of likeliest tokens >= 1, got {at}")
    return min(at, attention.text_config(module.config).vocab_size)


def _scored(module, groups: Groups, prompts, at, batch_tokens: int | None, share: bool | None) -> View:
    """Score by the path that fits; of a reward model, its numbers one token before each scored one stand for logp."""
    device, lent = groups.mask.device, looked_at(groups)

    def plain(size: int | None = None) -> View:
        return plain_path(module, groups, prompts, at, device, size or batch_tokens, lent)

    never = RECOMPUTED if attention.recomputed(module) else COMPILED if compiled(module) else None
    if share is None and (never or attention.watched(module) or sharing_of(module).reason is not None):
        share = False
    if share is False:
        return plain()
    if share and (reason := attention.refusal(module) or never):
        raise attention.NotShared(reason)
    size = row_size_in_tokens(device) if batch_tokens is None else batch_tokens
    rows = _rows(groups, prompts, size, lent, routed.heads_of(module, groups))
    every = [part for row in rows for part in (row, row.after) if part is not None]
    check_length(module, max((row.longest + (scalar_head(module) is None) for row in every), default=0))

    def shared() -> View:
        return _aside(_shared(module, rows, groups.mask, at, device), lent)

    if share is None and not agreed(module, rows) and (trial := few(module, groups, prompts)) is not None:
        with torch.no_grad(), work.measured():
            _scored(module, *trial, None, None, None)
        if sharing_of(module).reason is not None:
            return plain()
    return shared() if share else agreeing(module, rows, shared, plain)


def _prompts(groups: Groups, context: str | None) -> tuple[Tensor, Tensor]:
    """Return ids and mask of the prompts that the completions follow."""
    if context is None:
        return groups.prompt_ids, groups.prompt_mask
    if context in groups.contexts:
        return groups.contexts[context]
    raise ValueError(f"no context {context!r} in this batch; it has {', '.join(groups.contexts) or 'none'}")


# The shared path


def looked_at(groups: Groups) -> list[int]:
    """Return the completions of origin `mismatched`, where they stand beside others."""
    lent = [n for n, origin in enumerate(groups.origin) if origin == "mismatched"]
    return lent if len(lent) < len(groups.origin) else []


def _aside(view: View, lent: Sequence[int]) -> View:
    """Take what is only looked at out of the graph, as the plain path does."""
    if not (lent and view.logp.requires_grad):
        return view
    aside = torch.zeros(len(view.logp), dtype=torch.bool, device=view.logp.device)
    aside[list(lent)] = True

    def apart(values: Tensor | None) -> Tensor | None:
        """Return values of N completions."""
        if values is None or not values.requires_grad:
            return values
        return torch.where(aside.view(-1, *[1] * (values.dim() - 1)), values.detach(), values)

    return replace(view, logp=apart(view.logp), top_logp=apart(view.top_logp), rest=apart(view.rest))


def _rows(
    groups: Groups, prompts: tuple[Tensor, Tensor], size: int, lent: Sequence[int] = (),
    head: Sequence[int] | None = None,
) -> list[PlannedRow]:  # fmt: skip
    lists = [[i for i, m in zip(*row) if m] for row in zip(*(part.tolist() for part in prompts))]
    scored = [[t for t, m in enumerate(row) if m] for row in groups.mask.tolist()]
    ids, group = groups.ids.tolist(), groups.group.tolist()
    return plan(lists, ids, group, scored, row_tokens=size, looked_at=set(lent), head=head)


def _shared(module: nn.Module, rows: list[PlannedRow], mask: Tensor, at: Any, device: torch.device) -> View:
    parts, read = [], []
    with contextlib.nullcontext() if torch.is_grad_enabled() else evaluating(module):
        for row in rows:
            prompts: attention.Kept | None = None if row.after is None else {}
            parts += _row_values(module, row, at, device, keep=prompts)
            read.append(row)
            if row.after is not None:
                with torch.no_grad():
                    parts += _row_values(module, row.after, at, device, on=prompts)
                read.append(row.after)
    return placed(parts, mask, at, _places(read, device))


def _places(rows: list[PlannedRow], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return completion and column of every scored token."""
    places = torch.tensor([[n, t] for row in rows for _, n, t in row.scored], device=device).reshape(-1, 2)
    return places[:, 0], places[:, 1]


def _row_values(
    module, row: PlannedRow, at, device, adapters: Sequence[str] = (),
    *, keep: attention.Kept | None = None, on: attention.Kept | None = None,
) -> list[Said]:  # fmt: skip
    """Return what is said of the M scored tokens of a row, for each adapter that is named.

    `keep` receives the prompts' keys and values; a row of completions alone is read `on` them.
    """
    sharded.before_pass(module)
    copies = max(1, len(adapters))
    ids = torch.tensor([row.ids], device=device).expand(copies, -1)
    heads = torch.tensor(row.heads, device=device)
    copy = torch.arange(copies, device=device).repeat_interleave(len(heads))
    place, n, t = torch.tensor(row.scored, device=device, dtype=torch.long).reshape(-1, 3).T
    named = {"adapter_names": list(adapters)} if adapters else {}
    positions = torch.tensor([row.positions], device=device).expand(copies, -1)
    wanted, asked = torch.tensor(row.targets, device=device), at[n, t] if isinstance(at, Tensor) else at
    if copies > 1:
        place = (torch.arange(copies, device=device)[:, None] * len(heads) + place).flatten()
        wanted, heads = wanted.repeat(copies), heads.repeat(copies)
        asked = asked.repeat(copies, 1) if isinstance(asked, Tensor) else asked
    with attention.sharing(module, row.spans, keep=keep, on=on) as layout:
        if scalar_head(module) is not None:
            values = values_at(module, ids, copy, heads, position_ids=positions)[place]
            said = Said(values[:, None], torch.zeros_like(values))
        else:
            counts = routed.counts_of(module, row.routes)
            said = said_at(
                module, ids, copy, heads, wanted, asked, place, counts=counts, position_ids=positions, **named
            )
    block = piecewise.BLOCK[device.type == "cpu"]
    pairs = layout.products or work.done_for(row.spans, block, alone=on is not None, shared=layout.shared)
    work.note(copies * len(row.ids), copies * len(row.heads), copies * pairs)
    # even one chunk would have its gradient copied
    return [said] if copies == 1 else [
        Said(*(None if part is None else part.chunk(copies)[k] for part in said)) for k in range(copies)
    ]  # fmt: skip
