"""Distributions over a teacher's likeliest tokens and all the others together, for distillation (dckd, adpa)."""

import torch
from jaxtyping import Float
from torch import Tensor

from alignlab.core.types import Groups, View


def view_of(batch: Groups, name: str, method: str) -> View:
    """Return a view with log-probabilities of the teacher's top tokens; ValueError says what is missing."""
    if name not in batch.views:
        raise ValueError(
            f"{method} needs the view {name!r}: train with --{name}_model, a model with the same tokenizer"
        )
    view = batch.views[name]
    if view.top_logp is None or view.rest is None:
        raise ValueError(
            f"{method} needs top-k log-probabilities in the view {name!r}; it has those of the tokens alone"
        )
    return view


def same_tokens(batch: Groups, one: View, other: View, method: str) -> None:
    """Raise ValueError where two views speak of other tokens at a scored position."""
    if one.top_ids is None or other.top_ids is None:
        return
    different = (one.top_ids != other.top_ids).any(-1) & batch.mask
    if one.top_ids.shape != other.top_ids.shape or bool(different.any()):
        raise ValueError(
            f"{method}: the views hold the log-probabilities of different tokens; score all at the same ids"
        )


def with_rest(view: View, batch: Groups) -> Float[Tensor, "N T k1"]:
    """Return log-probabilities of the top tokens and, last, of all others together; 0 where nothing is scored."""
    whole = torch.cat([view.top_logp, view.rest[..., None]], -1)  # type: ignore[list-item, index]
    return torch.where(batch.mask[..., None], whole, 0.0)


def forward_kl(teacher: Float[Tensor, "N T k1"], student: Float[Tensor, "N T k1"]) -> Float[Tensor, "N T"]:
    """Return the sum of p_teacher * (log p_teacher - log p_student), nats; what the teacher rules out adds 0."""
    there = teacher > -torch.inf
    teacher, student = torch.where(there, teacher, 0.0), torch.where(there, student, 0.0)
    return torch.where(there, teacher.exp() * (teacher - student), 0.0).sum(-1)
