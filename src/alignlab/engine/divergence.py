"""How far two models are apart along given texts: the log-ratio of each token, and its exact mean, the KL."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
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
    return groups_after([before], texts, [0] * len(texts))


def groups_after(befores: Sequence[Sequence[int]], texts: Sequence[Sequence[int]], group: Sequence[int]) -> Groups:
    """Return texts of token ids as Groups, each after the prompt whose number `group` gives."""
    prompt_ids, prompt_mask = _padded(befores)
    ids, mask = _padded(texts)
    return Groups(prompt_ids=prompt_ids, prompt_mask=prompt_mask, ids=ids, mask=mask, group=torch.tensor(group))


def _padded(rows: Sequence[Sequence[int]]) -> tuple[Int[Tensor, "N T"], Bool[Tensor, "N T"]]:
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
    return ids, torch.tensor([[True] * len(row) + [False] * (longest - len(row)) for row in rows])


@torch.no_grad()
def log_probabilities(model: Any, before: Sequence[int], texts: Sequence[Sequence[int]]) -> list[Floats]:
    """Return the log-probability of each token of each text after one prompt, [T] each."""
    groups = groups_of(before, texts)
    logp = model.score(groups).logp.double().cpu().numpy()
    return [row[: len(ids)] for row, ids in zip(logp, texts)]


def apart(
    one: Any,
    other: Any,
    before: Sequence[int],
    texts: Sequence[Sequence[int]],
    other_before: Sequence[int] | None = None,
) -> list[Apart]:
    """Hold two models against each other along texts after one prompt; see `apart_after`."""
    return apart_after(one, other, [before], [texts], None if other_before is None else [other_before])[0]


@torch.no_grad()
def apart_after(
    one: Any,
    other: Any,
    befores: Sequence[Sequence[int]],
    texts: Sequence[Sequence[Sequence[int]]],
    other_befores: Sequence[Sequence[int]] | None = None,
) -> list[list[Apart]]:
    """Hold two models of one tokenizer against each other along texts after several prompts.

    A prompt shared by texts is computed once where the model allows it, and two adapters of one base go in one batch
    (`engine.adapters.score_all`).

    Args:
        one: P.
        other: Q.
        befores: token ids of the prompts.
        texts: for each prompt, token ids of texts, at least one each.
        other_befores: what Q reads before the texts, if not the same.

    Raises:
        ValueError: the tokenizers differ.
    """
    if one.tokenizer is not other.tokenizer and one.tokenizer.get_vocab() != other.tokenizer.get_vocab():
        raise ValueError("the two models have different vocabularies, so no token of one is a token of the other")
    others = befores if other_befores is None else other_befores
    same = list(map(list, others)) == list(map(list, befores))
    listed = [(number, ids) for number, some in enumerate(texts) for ids in some]
    size = len(one.tokenizer)
    rows = max(1, NUMBERS // (max(len(ids) for _, ids in listed) * size))
    found: list[list[Apart]] = [[] for _ in befores]
    for begin in range(0, len(listed), rows):
        part = [ids for _, ids in listed[begin : begin + rows]]
        numbers = [number for number, _ in listed[begin : begin + rows]]
        groups = groups_after(befores, part, numbers)
        at = torch.arange(size).expand(*groups.ids.shape, size)
        if same:
            p, q = score_all([one, other], groups, at)
        else:
            p, q = one.score(groups, at), other.score(groups_after(others, part, numbers), at)
        gap, exact = (p.logp - q.logp).double(), kl(_whole(p), _whole(q))
        for i, (number, ids) in enumerate(zip(numbers, part)):
            gaps, kls = (values[i, : len(ids)].cpu().numpy() for values in (gap, exact))
            found[number].append(Apart(gap=gaps, kl=kls))
    return found


def _whole(view: View) -> Float[Tensor, "N T V"]:
    """Return the log-probabilities of all tokens and, last, of all ids beyond the tokenizer's."""
    assert view.top_logp is not None
    assert view.rest is not None
    return torch.cat([view.top_logp, view.rest[..., None]], -1).double()


def kl(p: Float[Tensor, "*N V"], q: Float[Tensor, "*N V"]) -> Float[Tensor, "*N"]:
    """Return KL(P || Q) from log-probabilities, nats; where P is 0 it adds nothing."""
    return torch.where(p > -torch.inf, p.exp() * (p - q), 0.0).sum(-1)
