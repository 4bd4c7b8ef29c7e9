"""What frozen teachers say of completions: their likeliest tokens, asked once, before training."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from alignlab.core.types import Groups
from alignlab.engine.examples import Example, Told
from alignlab.engine.load import LanguageModel
from alignlab.engine.logits import logits_at
from alignlab.engine.plain import evaluating, packed

BATCH = 32
"""examples that teachers read at once"""


@torch.no_grad()
def top_tokens(model: LanguageModel, groups: Groups, k: int) -> Int[Tensor, "N T k"]:
    """Return the k likeliest tokens at every scored position, likeliest first; 0 elsewhere.

    Args:
        model: a causal language model.
        groups: prompts and completions.
        k: tokens; the whole vocabulary where that is smaller.
    """
    device = model.device
    mask = groups.mask.to(device)
    on_device = dataclasses.replace(groups, mask=mask)
    ids, _, prompt_lengths = packed(on_device, (groups.prompt_ids, groups.prompt_mask), device)
    row, column = mask.nonzero(as_tuple=True)
    with evaluating(model.module):
        logits = logits_at(model.module, ids, row, prompt_lengths[row] + column - 1)
    top = logits.topk(min(k, logits.shape[1])).indices
    return top.new_zeros((*mask.shape, top.shape[1])).index_put((row, column), top)


def annotated(
    examples: Sequence[Example],
    teachers: Mapping[str, LanguageModel],
    student: LanguageModel,
    k: int,
    advance: Callable[[int], None] = lambda _: None,
) -> list[Example]:
    """Return the examples with what each teacher says of their completions, at the first teacher's k likeliest tokens.

    Args:
        examples: in any order; completions of any number.
        teachers: name of the view -> model; the first one chooses the tokens, so that all speak of the same.
        student: whose tokenizer the teachers must share.
        k: tokens kept per position; all the others are one bucket, `rest`.
        advance: called with the number of examples done.

    Raises:
        ValueError: a teacher with another vocabulary than the student's.
    """
    vocabulary = student.tokenizer.get_vocab()
    for name, teacher in teachers.items():
        if teacher.tokenizer.get_vocab() != vocabulary:
            raise ValueError(f"{name} {teacher.identity} has another tokenizer than the student; token ids must agree")
    found: list[Example] = list(examples)
    order = sorted(range(len(examples)), key=lambda i: -max(map(len, examples[i].completions), default=0))
    first = next(iter(teachers.values()))
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        groups = first.collate([dataclasses.replace(examples[i], views={}) for i in chosen])
        at = top_tokens(first, groups, k)
        parts = {name: _told(teacher, groups, at, [examples[i] for i in chosen]) for name, teacher in teachers.items()}
        for n, i in enumerate(chosen):
            found[i] = dataclasses.replace(examples[i], views={name: told[n] for name, told in parts.items()})
        advance(len(chosen))
    return found


@torch.no_grad()
def _told(model: LanguageModel, groups: Groups, at: Tensor, examples: Sequence[Example]) -> list[Told]:
    """Score a batch; return what was said, cut into its examples."""
    view, mask = model.score(groups, at), groups.mask
    columns: list[Any] = [view.logp, at.to(torch.int32), view.top_logp, view.rest]
    sizes = [sum(map(len, example.completions)) for example in examples]
    cut = [column.cpu()[mask].split(sizes) for column in columns]
    return [Told(logp=a, top_ids=b, top_logp=c, rest=d) for a, b, c, d in zip(*cut)]
