"""What trained rewards share: the number a reward model gives to an answer, its logs, and scoring of rows."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from alignlab.core.masks import last
from alignlab.core.types import Groups, Pairs, Row
from alignlab.engine.encode import Example, encode

BATCH = 32
"""rows handed over at once; the engine cuts them further where they are long"""


def values_of(batch: Groups, method: str) -> Tensor:
    """Return the reward [N] of each completion: the value of view `policy` at its last scored token.

    Raises ValueError for a model without a reward head.
    """
    value = batch.views["policy"].value
    if value is None:
        raise ValueError(f"{method} needs a reward model: load it with head='fresh' or head='trained'")
    return last(value, batch.mask)


def pair_logs(rewards: Tensor, pairs: Pairs) -> dict[str, Tensor]:
    """Return the metrics of pairs under TRL's names, one value per pair; a tie counts as wrong."""
    chosen, rejected = rewards.detach()[pairs.better], rewards.detach()[pairs.worse]
    return {
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "rewards/margins": chosen - rejected,
        "rewards/accuracies": (chosen > rejected).to(chosen),
    }


def is_reward(value: Any) -> bool:
    """Whether data hold a reward: a finite number, and not true or false."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def answers(row: Row) -> list[Row]:
    """Return one row per answer: of `chosen` and `rejected`, of each of `completions`, or the row itself."""
    bare = dataclasses.replace(row, chosen=None, rejected=None, completions=(), scores=(), facts={}, judgement=None)
    bare = dataclasses.replace(bare, completion=None, label=None, second_prompt=None)
    if row.chosen is not None and row.rejected is not None:
        asked = row.prompt if row.second_prompt is None else row.second_prompt
        return [
            dataclasses.replace(bare, completion=row.chosen),
            dataclasses.replace(bare, prompt=asked, completion=row.rejected),
        ]
    texts = row.completions or (() if row.completion is None else (row.completion,))
    return [dataclasses.replace(bare, completion=text) for text in texts]


def score_rows(
    model: Any, rows: Sequence[Row], encoded: Callable[..., Example] = encode
) -> list[list[float]]:  # fmt: skip
    """Return what a reward model gives to each completion of each row, without gradient.

    Args:
        model: a loaded reward model.
        rows: each with completions; a row that is too long for the model is an error.
        encoded: (row, tokenizer, *, max_length) -> Example.

    Raises:
        ValueError: a language model, a row without an answer, a row too long, or a score that is not finite; the
            message names the row.
    """
    found: list[list[float]] = []
    for start in range(0, len(rows), BATCH):
        examples = []
        for number, row in enumerate(rows[start : start + BATCH], start):
            try:
                examples.append(encoded(row, model.tokenizer, max_length=model.context_length))
            except ValueError as error:
                raise ValueError(f"row {row.meta.get('id', number)}: {error}") from error
        groups = model.collate([dataclasses.replace(e, pairs=(), labels=(), scores={}) for e in examples])
        with torch.no_grad():
            view = model.score(groups)
        batch = dataclasses.replace(groups, mask=groups.mask.to(view.logp.device), views={"policy": view})
        numbers = iter(values_of(batch, "scoring").tolist())
        found += [[next(numbers) for _ in example.completions] for example in examples]
    for number, (row, scores) in enumerate(zip(rows, found)):
        if not all(map(math.isfinite, scores)):
            raise ValueError(
                f"row {row.meta.get('id', number)}: the reward model gave {scores}, expected finite numbers"
            )
    return found


def score_answers(model: Any, rows: Sequence[Row]) -> list[float]:
    """Return the reward of each row's `completion`, as `score_rows` does."""
    for number, row in enumerate(rows):
        if row.completion is None:
            raise ValueError(f"row {row.meta.get('id', number)}: expected `completion`, one answer per row")
    return [scores[0] for scores in score_rows(model, [answers(row)[0] for row in rows])]
