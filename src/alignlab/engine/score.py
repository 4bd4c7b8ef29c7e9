"""Log-probabilities of completions: one plain batched path, with logits only where a token is scored.

Rows are packed to the left (prompt, then completion), so the causal mask alone keeps padding out: no attention mask is
built, and a model sees the same positions whatever the batch. The head runs on the scored positions only: a pre-hook
on it hands it those, so whatever the model does after its head (soft-capping, logit scale) is done by the model.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from alignlab.core.types import Groups, View

CHUNK = 1 << 24
"""logits turned to float32 at once; above, the backward pass recomputes them chunk by chunk"""


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
    config = unwrap(module).config
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    return getattr(config, "max_position_embeddings", None)


def batch_size_in_tokens(device: torch.device) -> int:
    """Tokens per batch without gradient: what stays in a CPU's caches (measured with 2M parameters), or fills a GPU."""
    return 6144 if device.type == "cpu" else 65536


def score(
    module: nn.Module,
    groups: Groups,
    at: Int[Tensor, "N T k"] | None = None,
    *,
    context: str | None = None,
    batch_tokens: int | None = None,
) -> View:
    """Return the log-probabilities of the completions under a causal language model.

    Tokens of `groups.ids` before a row's last scored token are read by the model, scored or not; what follows is
    padding. Without gradient (`torch.no_grad`), dropout is off and large inputs are cut into batches of similar length;
    with gradient the whole input is one batch and the module keeps its mode. Autocast is the caller's.

    Args:
        module: a transformers causal LM, possibly under peft or DistributedDataParallel.
        groups: prompts and completions; moved to the module's device.
        at: token ids to report as well, at every position; the result has top_ids, top_logp and rest.
        context: score the completions under `groups.contexts[context]` instead of the prompt.
        batch_tokens: tokens per batch, padding included, where no gradient is wanted; None for `batch_size_in_tokens`.

    Returns:
        A View on the module's device, nats, float32 (float64 for a float64 model), 0 where `groups.mask` is False.

    Raises:
        ValueError: a prompt without tokens, an unknown context, or a row longer than the model.
    """
    device = next(module.parameters()).device
    ids, keep, prompt_lengths = _packed(groups, context, device)
    mask = groups.mask.to(device)
    at = None if at is None else at.to(device)
    limit, longest = context_length(module), ids.shape[1]
    if limit is not None and longest > limit:
        raise ValueError(
            f"a prompt with its completion has {longest} tokens, but the model takes {limit}; shorten it or use a "
            "model with a longer context"
        )
    if torch.is_grad_enabled():
        return _view(module, ids, mask, prompt_lengths, at)
    with evaluating(module):
        size = batch_size_in_tokens(device) if batch_tokens is None else batch_tokens
        return _in_batches(module, ids, keep, mask, prompt_lengths, at, size)


def _packed(groups: Groups, context: str | None, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return ids [N, S] and mask [N, S] of prompt + completion without gaps, and prompt lengths [N]."""
    if context is None:
        prompt, prompt_mask = groups.prompt_ids, groups.prompt_mask
    elif context in groups.contexts:
        prompt, prompt_mask = groups.contexts[context]
    else:
        raise ValueError(f"no context {context!r} in this batch; it has {', '.join(groups.contexts) or 'none'}")
    prompt, prompt_mask, group = prompt.to(device), prompt_mask.to(device), groups.group.to(device)
    if not bool(prompt_mask.any(1)[group].all()):
        raise ValueError("a prompt without tokens; a causal model needs one before the first scored token")
    mask = groups.mask.to(device)
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


def _in_batches(module, ids, keep, mask, prompt_lengths, at, batch_tokens) -> View:
    lengths = keep.sum(1)
    rows = max(1, batch_tokens // ids.shape[1])
    if len(ids) <= rows:
        return _view(module, ids, mask, prompt_lengths, at)
    parts, order = [], lengths.argsort(stable=True, descending=True)
    sizes, start = lengths[order].tolist(), 0
    while start < len(order):
        stop = start + max(1, batch_tokens // max(1, sizes[start]))
        chosen = order[start:stop]
        part_at = None if at is None else at[chosen]
        parts.append(_view(module, ids[chosen, : sizes[start]], mask[chosen], prompt_lengths[chosen], part_at))
        start = stop
    back = order.argsort()
    joined = View(logp=torch.cat([p.logp for p in parts])[back])
    if at is None:
        return joined
    top, rest = torch.cat([p.top_logp for p in parts])[back], torch.cat([p.rest for p in parts])[back]
    return replace(joined, top_ids=at, top_logp=top, rest=rest)


def _view(
    module: nn.Module,
    ids: Int[Tensor, "N S"],
    mask: Bool[Tensor, "N T"],
    prompt_lengths: Int[Tensor, "N"],
    at: Int[Tensor, "N T k"] | None,
) -> View:
    """Score one batch of packed rows."""
    row, column = mask.nonzero(as_tuple=True)
    position = prompt_lengths[row] + column
    logits = _logits_at(module, ids, row, position - 1)
    wanted = ids[row, position][:, None]
    if at is not None:
        wanted = torch.cat([wanted, at[row, column]], 1)
    values, rest = _log_probs(logits, wanted, at is not None)
    logp = values.new_zeros(mask.shape).index_put((row, column), values[:, 0])
    if at is None:
        return View(logp=logp)
    top = values.new_zeros(at.shape).index_put((row, column), values[:, 1:])
    return View(logp=logp, top_ids=at, top_logp=top, rest=values.new_zeros(mask.shape).index_put((row, column), rest))


def _logits_at(module: nn.Module, ids: Tensor, row: Tensor, position: Tensor) -> Tensor:
    """Return logits [M, V] at M (row, position) places."""
    narrowed = False

    def narrow(head: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:  # noqa: ARG001
        nonlocal narrowed
        hidden = args[0]
        if hidden.shape[:2] != ids.shape:
            return None
        narrowed = True
        return (hidden[row, position][None], *args[1:])

    head = unwrap(module).get_output_embeddings()
    handle = head.register_forward_pre_hook(narrow) if head is not None else contextlib.nullcontext()
    with handle:
        logits = module(input_ids=ids, use_cache=False).logits
    return logits[0] if narrowed else logits[row, position]


def _log_probs(logits: Tensor, wanted: Tensor, with_rest: bool) -> tuple[Tensor, Tensor]:
    """Return log-probabilities [M, w] of the wanted ids, and [M] of all but wanted[:, 1:] (zeros if not asked)."""
    rows = max(1, CHUNK // max(1, logits.shape[1]))
    if len(logits) <= rows:
        return _chunk_log_probs(logits, wanted, with_rest)
    parts = [
        checkpoint(_chunk_log_probs, logits[i : i + rows], wanted[i : i + rows], with_rest, use_reentrant=False)
        for i in range(0, len(logits), rows)
    ]
    return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])


def _chunk_log_probs(logits: Tensor, wanted: Tensor, with_rest: bool) -> tuple[Tensor, Tensor]:
    logits = logits if logits.dtype == torch.float64 else logits.float()
    total = logits.logsumexp(-1)
    values = logits.gather(1, wanted) - total[:, None]
    if not with_rest:
        return values, total.new_zeros(len(total))
    others = logits.scatter(1, wanted[:, 1:], -torch.inf)
    return values, others.logsumexp(-1) - total
