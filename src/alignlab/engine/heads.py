"""Reward heads: one number per token from the last hidden state, as transformers' own models with one label have them.

A reward model is a stock `AutoModelForSequenceClassification` with num_labels = 1 and a head `score`, so public ones
load here, and ours load there. What it says of prompt and completion up to token t is its head at the last token that
is not padding by `config.pad_token_id` (where that is the end-of-text token as well, the end is passed over, as the
stock model does). It goes through the one scoring path: asking for the value at token t is asking for what would be
predicted at t + 1, so no layout changes; a solution up to each of its steps is read once.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from alignlab.core.masks import masked
from alignlab.core.types import Groups, View
from alignlab.engine import products

Head = Literal["tokens", "trained", "fresh"]
"""a language model; a reward model whose head is in the checkpoint; one whose head is made where there is none"""

NAMES = {"tokens": "causal language model", "trained": "reward model", "fresh": "decoder to put a reward head on"}


def _base(module: nn.Module) -> nn.Module:
    return module.get_base_model() if hasattr(module, "get_base_model") else module


def scalar_head(module: nn.Module) -> nn.Module | None:
    """Return the reward head of a model, possibly under peft; None for a language model."""
    base = _base(module)
    head = getattr(base, "score", None)
    return head if isinstance(head, nn.Module) and getattr(base.config, "num_labels", 0) == 1 else None


def values_at(module: nn.Module, ids: Tensor, row: Tensor, position: Tensor, **inputs: Tensor) -> Tensor:
    """Return the head's numbers [M] at M (row, position) places of ids [B, S]; at least float32, under autocast too."""
    base, head = _base(module), scalar_head(module)
    with products.fast(base):
        hidden = base.base_model(input_ids=ids, use_cache=False, **inputs).last_hidden_state[row, position]
    with torch.autocast(hidden.device.type, enabled=False):
        if getattr(head, "weight", None) is None:
            return head(hidden)[:, 0].float()
        exact = torch.promote_types(hidden.dtype, torch.float32)
        bias = getattr(head, "bias", None)
        return linear(hidden.to(exact), head.weight.to(exact), None if bias is None else bias.to(exact))[:, 0]


def asked(groups: Groups, pad_id: int | None) -> tuple[Groups, Tensor]:
    """Return what `score` must be asked for, and where the answers lie.

    Args:
        groups: completions with mask [N, T].
        pad_id: the token that the model passes over, or None.

    Returns:
        Groups with one column more, in which the column after each wanted token is the scored one; and the column of
        each token's answer, [N, T].
    """
    ids = groups.ids.to(groups.mask.device)
    columns = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    last = columns if pad_id is None else torch.where(ids != pad_id, columns, -1).cummax(1).values
    place = last + 1
    mask = torch.zeros(len(ids), ids.shape[1] + 1, dtype=torch.bool, device=ids.device)
    n, t = groups.mask.nonzero(as_tuple=True)
    mask[n, place[n, t]] = True
    return replace(groups, ids=torch.cat([ids, torch.zeros_like(ids[:, :1])], 1), mask=mask), place


def valued(numbers: Tensor, place: Tensor, mask: Tensor) -> View:
    """Return the View of numbers [N, T + 1] that `asked` asked for; 0 where the mask is False, no log-probabilities."""
    return View(logp=numbers.new_zeros(mask.shape), value=masked(numbers.gather(1, place), mask))


def auto_model(head: Head) -> tuple[Any, dict[str, Any]]:
    """Return the class that loads a model with such a head, and its options."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    if head == "tokens":
        return AutoModelForCausalLM, {}
    # a head of another size is left to the check of what was loaded, which names it
    return AutoModelForSequenceClassification, (
        {"num_labels": 1, "ignore_mismatched_sizes": True} if head == "fresh" else {}
    )


def made_up(head: Head, missing: Iterable[str]) -> set[str]:
    """Return those of the missing weights that are wanted: a fresh head's."""
    return {name for name in missing if head == "fresh" and name.rpartition(".")[0] == "score"}


def settle(module: nn.Module, tokenizer: Any, head: Head, made: bool) -> None:
    """Give a model that had no reward head its first values and its tokenizer's padding; check one that had.

    Raises:
        ValueError: no head `score` with one label, so that there is no number to train or to read.
    """
    if head == "tokens":
        return
    score = scalar_head(module)
    if score is None:
        raise ValueError(
            f"{type(module).__name__} with {getattr(module.config, 'num_labels', 0)} label(s) is no reward model here:"
            " expected one label and a head `score` on the last hidden state, as decoders have"
        )
    if not made:
        return
    config = module.config.get_text_config()
    draw = torch.Generator().manual_seed(0)  # the same on every device, and whenever an adapter's base is made again
    with torch.no_grad():
        for parameter in score.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw) * getattr(config, "initializer_range", 0.02))
    if tokenizer.pad_token_id is not None:
        config.pad_token_id = tokenizer.pad_token_id


def pad_id_of(module: nn.Module) -> int | None:
    """Return the token that a reward model passes over."""
    pad: int | None = _base(module).config.get_text_config().pad_token_id
    return pad


def merged(module: nn.Module) -> nn.Module:
    """Return a reward model as one stock model: its adapter, where it has one, becomes part of its weights."""
    return module.merge_and_unload() if hasattr(module, "merge_and_unload") else module
