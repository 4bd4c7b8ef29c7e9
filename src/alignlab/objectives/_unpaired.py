"""Thumbs up or down, for the objectives of unpaired feedback (kto, bco)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from alignlab.core.types import Groups, Pairs


def proper(batch: Groups) -> Bool[Tensor, "N"]:
    """Whether each completion is a row's own, and not one that another row lent."""
    lent = [origin == "mismatched" for origin in batch.origin] or [False] * batch.mask.shape[0]
    return ~torch.tensor(lent, device=batch.mask.device)


def thumbs(batch: Groups, method: str, like: Tensor) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"]]:
    """Return how often each completion counts as liked, and how often as disliked; neither, where it is lent.

    A label is one thumb. A pair of weight w whose label holds with probability p is p w thumbs up and (1 - p) w down
    for its better completion, and the other way round for its worse one; of a completion in several pairs, their mean.

    Args:
        batch: with labels, or pairs.
        method: for the error.
        like: gives the precision.

    Raises:
        ValueError: neither labels nor pairs, or a completion that pairs call better here and worse there, or nothing.
    """
    own = proper(batch).to(like.dtype)
    if batch.label is not None:
        up = batch.label.to(like.dtype)
        return own * up, own * (1 - up)
    if batch.pairs is None:
        raise ValueError(f"{method} needs thumbs: give rows with completion and label, or with chosen and rejected")
    better, worse = (_added(batch, side, torch.ones_like(batch.pairs.weight)) for side in _sides(batch.pairs))
    if not bool(((better > 0) ^ (worse > 0))[proper(batch)].all()):
        raise ValueError(f"{method} needs one verdict per completion, but a completion is in no pair, or on both sides")
    pairs, count = batch.pairs, (better + worse).clamp(min=1)
    right, wrong = pairs.weight * pairs.p, pairs.weight * (1 - pairs.p)
    up, down = (
        sum(_added(batch, side, part) for side, part in zip(_sides(pairs), parts)) / count
        for parts in ((right, wrong), (wrong, right))
    )
    return own * up.to(like.dtype), own * down.to(like.dtype)


def _sides(pairs: Pairs) -> tuple[Tensor, Tensor]:
    return pairs.better, pairs.worse


def _added(batch: Groups, side: Tensor, parts: Tensor) -> Tensor:
    return parts.new_zeros(batch.mask.shape[0]).index_add(0, side, parts)


def of(share: Float[Tensor, "N"], values: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
    """Return share times values, exactly 0 where the share is."""
    return torch.where(share > 0, share * values, 0.0)


def right_side(
    up: Float[Tensor, "N"], down: Float[Tensor, "N"], gain: Float[Tensor, "N"]
) -> Float[Tensor, "N"]:  # fmt: skip
    """Return the share of each completion's thumbs on whose side its gain lies; a gain of 0 lies on neither."""
    hits = of(up, (gain > 0).to(gain)) + of(down, (gain < 0).to(gain))
    return hits / torch.where(up + down > 0, up + down, 1.0)
