"""Thumbs up or down, for the objectives of unpaired feedback (kto, bco)."""

import torch
from jaxtyping import Bool
from torch import Tensor

from alignlab.core.types import Groups


def proper(batch: Groups) -> Bool[Tensor, "N"]:
    """Whether each completion is a row's own, and not one that another row lent."""
    lent = [origin == "mismatched" for origin in batch.origin] or [False] * batch.mask.shape[0]
    return ~torch.tensor(lent, device=batch.mask.device)


def liked(batch: Groups, method: str) -> Bool[Tensor, "N"]:
    """Whether each completion is liked, by its label, or by the pair it stands in (the better one is).

    Raises:
        ValueError: neither labels nor pairs, or a completion that pairs call better here and worse there, or nothing.
    """
    if batch.label is not None:
        return batch.label
    if batch.pairs is None:
        raise ValueError(f"{method} needs thumbs: give rows with completion and label, or with chosen and rejected")
    counts = torch.zeros(2, batch.mask.shape[0], dtype=torch.bool, device=batch.mask.device)
    counts[0, batch.pairs.better], counts[1, batch.pairs.worse] = True, True
    if not bool((counts[0] ^ counts[1])[proper(batch)].all()):
        raise ValueError(f"{method} needs one verdict per completion, but a completion is in no pair, or on both sides")
    return counts[0]
