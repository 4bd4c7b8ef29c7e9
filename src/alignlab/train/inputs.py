"""Whether the rows of a run are what its objective needs: all of them, before anything is trained or written."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from alignlab.core.types import Groups
from alignlab.engine.encode import Example, collate
from alignlab.train.batches import views_read

CHUNK = 64
"""examples shown to the loss at once"""


def views_of(
    loss: Callable[[Groups], Any], examples: Sequence[Example], pad_id: int | None, what: str = "row"
) -> set[str]:  # fmt: skip
    """Return the names of the views that a loss looks at in any of the examples.

    Args:
        loss: shown every example, beside others of its kind, with views of zeros.
        examples: the rows of a run.
        pad_id: for the padding.
        what: the examples are called so in messages.

    Raises:
        ValueError: naming the first row that the loss has no use for, with what the loss says of it; or that lacks a
            label, a score or a view that others have, so that it could not stand in one batch with them.
    """
    kinds: dict[Hashable, list[int]] = {}
    for number, example in enumerate(examples):
        kinds.setdefault(_kind(example), []).append(number)
    read: set[str] = set()
    for numbers in kinds.values():
        for start in range(0, len(numbers), CHUNK):
            chunk = numbers[start : start + CHUNK]
            try:
                read |= views_read(loss, collate([examples[i] for i in chunk], pad_id))
            except ValueError:
                for i in chunk:
                    _alone(loss, examples, i, pad_id, what)
                raise
    _alike(examples, what)
    return read


def _kind(example: Example) -> Hashable:
    """What a loss can tell rows apart by, numbers aside: without pairs beside others a row would go unnoticed."""
    names = (frozenset(part) for part in (example.scores, example.contexts, example.views))
    return bool(example.pairs), _labelled(example), bool(example.own_prompts), *names


def _labelled(example: Example) -> bool:
    return bool(example.labels) and None not in example.labels


def _alone(
    loss: Callable[[Groups], Any], examples: Sequence[Example], number: int, pad_id: int | None, what: str
) -> None:  # fmt: skip
    try:
        views_read(loss, collate([examples[number]], pad_id))
    except ValueError as error:
        raise ValueError(f"{what} {_name(examples, number)}: {error}") from error


def _alike(examples: Sequence[Example], what: str) -> None:
    has: dict[str, Callable[[Example], bool]] = {"label": _labelled}
    has |= {f"score {name!r}": lambda e, name=name: name in e.scores for e in examples for name in e.scores}
    has |= {f"view {name!r}": lambda e, name=name: name in e.views for e in examples for name in e.views}
    for thing, there in has.items():
        known = [there(example) for example in examples]
        if any(known) and not all(known):
            lacks, owns = (_name(examples, known.index(side)) for side in (False, True))
            raise ValueError(f"{what} {lacks} has no {thing}, but {what} {owns} has one; give it to all rows, or none")


def _name(examples: Sequence[Example], number: int) -> str:
    return examples[number].row_id or str(number + 1)
