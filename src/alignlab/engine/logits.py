"""From token ids to log-probabilities at chosen places: the head runs there only, and float32 logits come in chunks."""

import contextlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from alignlab.core.types import View

CHUNK = 1 << 24
"""logits turned to float32 at once; above, the backward pass recomputes them chunk by chunk"""


def logits_at(module: nn.Module, ids: Tensor, row: Tensor, position: Tensor, **inputs: Any) -> Tensor:
    """Return logits [M, V] at M (row, position) places."""
    narrowed = False

    def narrow(head: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:  # noqa: ARG001
        nonlocal narrowed
        hidden = args[0]
        if hidden.shape[:2] != ids.shape:
            return None
        narrowed = True
        return (hidden[row, position][None], *args[1:])

    head = module.get_output_embeddings()
    handle = head.register_forward_pre_hook(narrow) if head is not None else contextlib.nullcontext()
    with handle:
        logits = module(input_ids=ids, use_cache=False, **inputs).logits
    return logits[0] if narrowed else logits[row, position]


def log_probs(logits: Tensor, wanted: Tensor, with_rest: bool, place: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return log-probabilities [M, w] of the wanted ids, and [M] of all but wanted[:, 1:] (zeros if not asked).

    `place` [M], ascending, says which of the logits [U, V] predict each; None: each its own.
    """
    rows = max(1, CHUNK // max(1, logits.shape[1]))
    if len(logits) <= rows:
        return _chunk_log_probs(logits, wanted, with_rest, place)
    starts = torch.arange(0, len(logits) + rows, rows).clamp(max=len(logits)).tolist()
    ends = starts if place is None else torch.searchsorted(place.contiguous(), place.new_tensor(starts)).tolist()
    parts = [
        checkpoint(
            _chunk_log_probs, logits[starts[i] : starts[i + 1]], wanted[ends[i] : ends[i + 1]], with_rest,
            None if place is None else place[ends[i] : ends[i + 1]] - starts[i], use_reentrant=False,
        )
        for i in range(len(starts) - 1)
    ]  # fmt: skip
    return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])


def _chunk_log_probs(logits: Tensor, wanted: Tensor, with_rest: bool, place: Tensor | None) -> tuple[Tensor, Tensor]:
    logits = logits if logits.dtype == torch.float64 else logits.float()
    total = logits.logsumexp(-1)
    if place is not None:
        total = total[place]
        logits = logits[place] if with_rest else logits
    if place is None or with_rest:
        values = logits.gather(1, wanted) - total[:, None]
    else:
        values = logits[place[:, None], wanted] - total[:, None]
    if not with_rest:
        return values, total.new_zeros(len(total))
    others = logits.scatter(1, wanted[:, 1:], -torch.inf)
    return values, others.logsumexp(-1) - total


def placed(parts: list[tuple[Tensor, Tensor]], mask: Tensor, at: Tensor | None, places: tuple) -> View:
    """Put values [M, 1 + k] and rests [M] where they belong; zeros elsewhere."""
    if not parts:
        zeros = torch.zeros(mask.shape, device=mask.device)
        return View(logp=zeros) if at is None else View(
            logp=zeros, top_ids=at, top_logp=zeros.new_zeros(at.shape), rest=zeros.clone()
        )  # fmt: skip
    values = torch.cat([v for v, _ in parts])
    logp = values.new_zeros(mask.shape).index_put(places, values[:, 0])
    if at is None:
        return View(logp=logp)
    top = values.new_zeros(at.shape).index_put(places, values[:, 1:])
    rest = values.new_zeros(mask.shape).index_put(places, torch.cat([r for _, r in parts]))
    return View(logp=logp, top_ids=at, top_logp=top, rest=rest)
