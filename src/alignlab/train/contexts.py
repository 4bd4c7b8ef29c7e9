"""One forward pass for completions under their prompt and under other prompts (`Groups.contexts`)."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from alignlab.core.types import Groups


def widened(batch: Groups, names: Sequence[str]) -> tuple[Groups, list[Tensor]]:
    """Return a batch that holds each completion once more per context that its prompt has.

    Args:
        batch: on one device. A prompt without a context has a row without tokens there.
        names: contexts to add; those that the batch has none of add nothing.

    Returns:
        Groups of ids, masks, groups and heads alone: the completions of `batch`, then those under each context in turn;
        and per name the indices into the completions of `batch` that follow.
    """
    prompts, masks, picked, groups = [batch.prompt_ids], [batch.prompt_mask], [], [batch.group]
    for name in names:
        ids, mask = batch.contexts.get(name, (batch.prompt_ids[:0], batch.prompt_mask[:0]))
        there = mask.any(1)[batch.group] if len(mask) else torch.zeros_like(batch.group, dtype=torch.bool)
        rows = there.nonzero()[:, 0]
        groups.append(batch.group[rows] + sum(len(p) for p in prompts))
        prompts.append(ids)
        masks.append(mask)
        picked.append(rows)
    width = max(p.shape[1] for p in prompts)
    rows = torch.cat([torch.arange(len(batch.ids), device=batch.ids.device), *picked])
    whole = Groups(
        prompt_ids=torch.cat([pad(p, (0, width - p.shape[1])) for p in prompts]),
        prompt_mask=torch.cat([pad(m, (0, width - m.shape[1])) for m in masks]),
        ids=batch.ids[rows], mask=batch.mask[rows], group=torch.cat(groups),
        head=None if batch.head is None else batch.head[rows],
    )  # fmt: skip
    return whole, picked


def split(logp: Tensor, batch: Groups, picked: Sequence[Tensor]) -> list[Tensor]:
    """Return the log-probabilities [N, T] under the prompt, then under each context; 0 for rows without it."""
    parts = logp.split([len(batch.ids), *map(len, picked)])
    return [parts[0], *(torch.zeros_like(parts[0]).index_copy(0, r, p) for r, p in zip(picked, parts[1:]))]
