"""How far two models are apart along given texts: the log-ratio of each token, and its exact mean, the KL."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from alignlab.core.types import Groups, View
from alignlab.engine.adapters import score_all

Floats = NDArray[np.float64]
NUMBERS = 1 << 24
"""log-probabilities held at once"""


@dataclass(frozen=True, kw_only=True)
class Apart:
    """Two models along one text of T tokens, nats."""

    gap: Floats
    """[T] log P(token) - log Q(token)"""
    kl: Floats
    """[T] KL(P || Q) over the next token, summed over the vocabulary: the mean of `gap` over texts of P"""


def groups_of(before: Sequence[int], texts: Sequence[Sequence[int]]) -> Groups:
    """Return texts of token ids after one prompt as Groups."""
    longest = max(map(len, texts))
    return Groups(
        prompt_ids=torch.tensor([list(before)]),
        prompt_mask=torch.ones(1, len(before), dtype=torch.bool),
        ids=torch.tensor([[*ids, *[0] * (longest - len(ids))] for ids in texts]),
        mask=torch.tensor([[True] * len(ids) + [False] * (longest - len(ids)) for ids in texts]),
        group=torch.zeros(len(texts), dtype=torch.long),
    )


@torch.no_grad()
def log_probabilities(model: Any, before: Sequence[int], texts: Sequence[Sequence[int]]) -> list[Floats]:
    """Return the log-probability of each token of each text after one prompt, [T] each."""
    groups = groups_of(before, texts)
    logp = model.score(groups).logp.double().cpu().numpy()
    return [row[: len(ids)] for row, ids in zip(logp, texts)]


@torch.no_grad()
def apart(
    one: Any,
    other: Any,
    before: Sequence[int],
    texts: Sequence[Sequence[int]],
    other_before: Sequence[int] | None = None,
) -> list[Apart]:
    """Hold two models of one tokenizer against each other along texts after a prompt.

    A prompt shared by the texts is computed once where the model allows it, and two adapters of one base go in one
    batch (`engine.adapters.score_all`).

    Args:
        one: P.
        other: Q.
        before: token ids of the prompt.
        texts: token ids, at least one each.
        other_before: what Q reads before the texts, if not the same.

    Raises:
        ValueError: the tokenizers differ.
    """
    if one.tokenizer is not other.tokenizer and one.tokenizer.get_vocab() != other.tokenizer.get_vocab():
        raise ValueError("the two models have different vocabularies, so no token of one is a token of the other")
    size = len(one.tokenizer)
    rows = max(1, NUMBERS // (max(map(len, texts)) * size))
    found = []
    for begin in range(0, len(texts), rows):
        part = texts[begin : begin + rows]
        groups = groups_of(before, part)
        at = torch.arange(size).expand(*groups.ids.shape, size)
        if other_before is None or list(other_before) == list(before):
            p, q = score_all([one, other], groups, at)
        else:
            p, q = one.score(groups, at), other.score(groups_of(other_before, part), at)
        gap, exact = (p.logp - q.logp).double(), kl(_whole(p), _whole(q))
        found += [
            Apart(gap=gap[i, : len(ids)].cpu().numpy(), kl=exact[i, : len(ids)].cpu().numpy())
            for i, ids in enumerate(part)
        ]
    return found


def _whole(view: View) -> Float[Tensor, "N T V"]:
    """Return the log-probabilities of all tokens and, last, of all ids beyond the tokenizer's."""
    assert view.top_logp is not None
    assert view.rest is not None
    return torch.cat([view.top_logp, view.rest[..., None]], -1).double()


def kl(p: Float[Tensor, "*N V"], q: Float[Tensor, "*N V"]) -> Float[Tensor, "*N"]:
    """Return KL(P || Q) from log-probabilities, nats; where P is 0 it adds nothing."""
    return torch.where(p > -torch.inf, p.exp() * (p - q), 0.0).sum(-1)
