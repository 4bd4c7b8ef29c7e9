"""Figures of held-out rows: each a ratio of sums over rows, with a 95 % interval over rows."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from alignlab.core.types import Groups, Pairs, View
from alignlab.engine.encode import Example
from alignlab.stats import bootstrap, proportion
from alignlab.train.log import Sums, ratios

SHARES = ("accuracy", "accuracies")
"""how the names of metrics end that are shares of hits"""


def rows_of(batch: Groups, examples: Sequence[Example]) -> Iterator[Groups]:
    """Cut a batch, with its views, back into the examples that were stacked in it, one batch each."""
    first, asked = 0, 0
    for example in examples:
        mine = slice(first, first + len(example.completions))
        prompts = slice(asked, asked + 1 + len(example.own_prompts))
        yield dataclasses.replace(
            batch, prompt_ids=batch.prompt_ids[prompts], prompt_mask=batch.prompt_mask[prompts], ids=batch.ids[mine],
            mask=batch.mask[mine], group=batch.group[mine] - asked, origin=batch.origin[mine],
            contexts={name: (ids[prompts], mask[prompts]) for name, (ids, mask) in batch.contexts.items()},
            head=None if batch.head is None else batch.head[mine],
            advantage=None if batch.advantage is None else batch.advantage[mine],
            label=None if batch.label is None else batch.label[mine],
            views={name: _rows(view, mine) for name, view in batch.views.items()},
            scores={name: values[mine] for name, values in batch.scores.items()}, pairs=_within(batch.pairs, mine),
        )  # fmt: skip
        first, asked = mine.stop, prompts.stop


def _rows(view: View, rows: slice) -> View:
    parts = {field.name: getattr(view, field.name) for field in dataclasses.fields(view)}
    return View(**{name: None if part is None else part[rows] for name, part in parts.items()})


def _within(pairs: Pairs | None, rows: slice) -> Pairs | None:
    if pairs is None:
        return None
    mine = (pairs.better >= rows.start) & (pairs.better < rows.stop)
    if not bool(mine.any()):
        return None
    return Pairs(
        better=pairs.better[mine] - rows.start, worse=pairs.worse[mine] - rows.start, p=pairs.p[mine],
        margin=pairs.margin[mine], weight=pairs.weight[mine],
    )  # fmt: skip


def figures(rows: Sequence[Sums], weights: Mapping[str, float]) -> dict[str, float]:
    """Return the loss and every metric over all rows, with the ends of its interval as `NAME/low` and `NAME/high`.

    The intervals are bootstrapped by row, shares of hits get Wilson's. There is none where all rows give the same
    number, such as a statistic of the step, or where it is not finite.

    Args:
        rows: sums of numerators and denominators by name, one mapping per row.
        weights: of the terms of the loss, by name.
    """
    names = sorted({name for row in rows for name in row})
    num, den = (np.array([[row.get(n, (0.0, 0.0))[k] for n in names] for row in rows]) for k in (0, 1))
    sums = {n: (math.fsum(num[:, i]), math.fsum(den[:, i])) for i, n in enumerate(names)}
    terms = {name: weight for name, weight in weights.items() if sums[name][1] != 0.0}
    found = {"loss": sum(weight * sums[n][0] / sums[n][1] for n, weight in terms.items())} | ratios(sums)
    wanted = {name: [float(name == other) for other in names] for name in found if name != "loss"}
    wanted["loss"] = [terms.get(name, 0.0) for name in names]
    finite = {n: mix for n, mix in wanted.items() if math.isfinite(found[n]) and _vary(num, den, mix, n)}
    spread = bootstrap.ratios(num, den, finite)
    for name in finite:
        low, high = spread[name].low, spread[name].high
        if name.endswith(SHARES) and (hits := _hits(num[:, names.index(name)], den[:, names.index(name)])) is not None:
            low, high = proportion.wilson(*hits)
        if low is not None and high is not None:
            found |= {f"{name}/low": low, f"{name}/high": high}
    return found


def _vary(num: np.ndarray, den: np.ndarray, mix: Sequence[float], name: str) -> bool:
    """Whether rows differ in a figure; hits may all be alike."""
    if name.endswith(SHARES):
        return True
    used = np.flatnonzero(mix)
    return any(np.ptp(num[den[:, i] != 0, i] / den[den[:, i] != 0, i]) > 0 for i in used)


def _hits(num: np.ndarray, den: np.ndarray) -> tuple[int, int] | None:
    """Return hits and rows where each row is one hit or miss of the same weight."""
    counted = den != 0
    if not counted.any() or np.ptp(den[counted]) > 0 or not np.isin(num[counted] / den[counted], (0.0, 1.0)).all():
        return None
    return int((num[counted] != 0).sum()), int(counted.sum())
