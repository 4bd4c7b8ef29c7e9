"""Scored lists of completions, for the objectives of rankings (ranked, plackett_luce)."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from alignlab.core.types import Groups


def score_of(batch: Groups, method: str) -> Float[Tensor, "N"]:
    """Return the scores of a batch: the higher, the better.

    Raises:
        ValueError: there are none, or one is not finite.
    """
    if "score" not in batch.scores:
        raise ValueError(f"{method} needs ranked lists: give rows with completions and scores, one score each")
    score = batch.scores["score"]
    if not bool(torch.isfinite(score).all()):
        bad = int((~torch.isfinite(score)).nonzero()[0])
        raise ValueError(
            f"{method}: the score of completion {bad} of the batch is {score[bad].item()}; leave out its row"
        )
    return score


def above(score: Float[Tensor, "N"], group: Int[Tensor, "N"]) -> Bool[Tensor, "N N"]:
    """Return whether completion i stands strictly above completion j of the same prompt; tied ones are not compared."""
    return (score[:, None] > score[None, :]) & (group[:, None] == group[None, :])


def per_prompt(values: Float[Tensor, "N"], batch: Groups) -> Float[Tensor, "P"]:
    """Add up one number per completion over each prompt."""
    return values.new_zeros(batch.prompt_ids.shape[0]).index_add(0, batch.group, values)


def best_nll(
    per_completion: Float[Tensor, "N"], score: Float[Tensor, "N"], batch: Groups
) -> tuple[Float[Tensor, "P"], Float[Tensor, "P"]]:
    """Return the loss of the best completion of each prompt, the mean over tied ones, and whether it has any token.

    Args:
        per_completion: loss of each completion.
        score: the higher, the better.
        batch: for groups and mask.
    """
    scored = batch.mask.any(1)
    highest = score.new_full((batch.prompt_ids.shape[0],), -torch.inf).scatter_reduce(0, batch.group, score, "amax")
    top = (score == highest[batch.group]) & scored
    count = per_prompt(top.to(per_completion), batch)
    lost = per_prompt(torch.where(top, per_completion, 0.0), batch)
    return lost / count.clamp(min=1), (count > 0).float()
