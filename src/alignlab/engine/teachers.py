"""What frozen teachers say of completions: their likeliest tokens, asked once, before training."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from alignlab.core.types import View
from alignlab.engine.encode import same_token_ids
from alignlab.engine.examples import Example, Told
from alignlab.engine.load import LanguageModel

BATCH = 32
"""examples that teachers read at once"""


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
    for name, teacher in teachers.items():
        same_token_ids(student.tokenizer, teacher, name, "the student")
    found: list[Example] = list(examples)
    order = sorted(range(len(examples)), key=lambda i: -max(map(len, examples[i].completions), default=0))
    first = next(iter(teachers.values()))
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        groups = first.collate([dataclasses.replace(examples[i], views={}) for i in chosen])
        at: Any = k
        parts = {}
        for name, teacher in teachers.items():
            with torch.no_grad():
                view = teacher.score(groups, at)
            at = view.top_ids
            parts[name] = _cut(view, groups.mask, [examples[i] for i in chosen])
        for n, i in enumerate(chosen):
            found[i] = dataclasses.replace(examples[i], views={name: told[n] for name, told in parts.items()})
        advance(len(chosen))
    return found


def _cut(view: View, mask: Tensor, examples: Sequence[Example]) -> list[Told]:
    """Cut what was said of a batch into its examples."""
    assert view.top_ids is not None  # narrows types
    columns: list[Any] = [view.logp, view.top_ids.to(torch.int32), view.top_logp, view.rest]
    sizes = [sum(map(len, example.completions)) for example in examples]
    cut = [column.cpu()[mask].split(sizes) for column in columns]
    return [Told(logp=a, top_ids=b, top_logp=c, rest=d) for a, b, c, d in zip(*cut)]
