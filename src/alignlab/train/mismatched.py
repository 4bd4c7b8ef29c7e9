"""Completions of other rows, as KTO's reference point needs them: chosen once per optimiser step, before it is cut."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from alignlab.engine.encode import Example
from alignlab.train.batches import fingerprint


@dataclass(frozen=True)
class Rows:
    """The rows of a run, followed by prompts with the completions of other rows, where these are wanted."""

    examples: Sequence[Example]
    rows: int
    """rows proper: the first so many of `examples`"""
    place: Mapping[tuple[int, int], int] | None = None
    """(row, row that lends its completions) -> index into `examples`; None: nothing is lent"""
    key: Mapping[int, str] = field(default_factory=dict)
    """row -> digest of its content"""

    def of_step(self, items: Sequence[int]) -> list[int] | None:
        """Return the indices of one step's mismatched examples, none where it has a single row; None: not wanted."""
        if self.place is None:
            return None
        return [self.place[pair] for pair in partners(items, self.examples, self.key)]

    def beside(self, items: Sequence[int], lent: Sequence[int]) -> list[int]:
        """Return rows of a step, each with its mismatched example of those in `lent` behind it."""
        borrower = {example: row for (row, _), example in (self.place or {}).items()}
        behind = {borrower[example]: example for example in lent}
        return [index for i in items for index in (i, behind.get(i)) if index is not None]


def partners(items: Sequence[int], examples: Sequence[Example], key: Mapping[int, str]) -> list[tuple[int, int]]:
    """Give each row of a step the completions of another row of that step.

    The rows stand in the order of `key`, a digest of their content, so that neither their order nor the cut into
    micro-batches matters. Each takes the next row that asks something else; where all ask the same, the next row.

    Args:
        items: the rows of the step.
        examples: all rows.
        key: row -> digest of its content.

    Returns:
        (row, lender) for every row; nothing for a step of a single row.
    """
    ordered = sorted(items, key=lambda i: key[i])
    pairs = []
    for k, i in enumerate(ordered):
        others = [*ordered[k + 1 :], *ordered[:k]]
        asks = examples[i].prompt_ids
        lender = next((j for j in others if examples[j].prompt_ids != asks), next(iter(others), None))
        if lender is not None:
            pairs.append((i, lender))
    return pairs


def extended(examples: Sequence[Example], steps: Iterable[Sequence[int]], *, lend: bool) -> Rows:
    """Return the rows of a run, with what each of its steps needs of mismatched ones, each once.

    Args:
        examples: rows with labels or pairs.
        steps: the rows of each step.
        lend: whether mismatched examples are wanted at all: prompts whose completions are another row's, of origin
            `mismatched`, in no pair; what labels and scores say of them means nothing.

    Raises:
        ValueError: they are wanted, but no step has a second row to borrow from.
    """
    if not lend:
        return Rows(examples, len(examples))
    whole, place, key = list(examples), {}, {}
    for items in steps:
        key |= {i: fingerprint([examples[i]]) for i in items if i not in key}
        for i, j in partners(items, examples, key):
            if (i, j) not in place:
                place[i, j] = len(whole)
                whole.append(_lent(examples[i], examples[j].completions))
    if examples and not place:
        raise ValueError(
            "this objective looks at the completions of other rows of a step, but a step has a single row; raise"
            " --per_device_train_batch_size or --gradient_accumulation_steps, or give more rows"
        )
    return Rows(whole, len(examples), place, key)


def _lent(row: Example, completions: Sequence[list[int]]) -> Example:
    borrowed = tuple(completions[k % len(completions)] for k in range(len(row.completions)))
    # labels and scores stay, meaningless, but let these rows stack with the others
    return replace(row, completions=borrowed, origins=("mismatched",) * len(borrowed), pairs=(), views={})
