"""Tokenised rows, and batches of them."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from alignlab.core.types import Groups, Origin, Pairs, View


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a frozen model says of an example, one row per scored token of its completions, in order; on the host."""

    logp: Float[Tensor, "n"]
    top_ids: Int[Tensor, "n k"]
    top_logp: Float[Tensor, "n k"]
    rest: Float[Tensor, "n"]


@dataclass(frozen=True, kw_only=True)
class Example:
    """One tokenised Row. Pair indices count within `completions`; `collate` shifts them to the batch."""

    prompt_ids: list[int]
    completions: tuple[list[int], ...]
    """token ids, each ending in the end-of-turn (chat) or end-of-text token"""
    pairs: tuple[tuple[int, int, float, float, float], ...] = ()
    """(better, worse, p, margin, weight)"""
    labels: tuple[bool | None, ...] = ()
    """thumbs per completion, or empty"""
    contexts: Mapping[str, list[int]] = field(default_factory=dict)
    """name -> ids of another prompt for the same completions"""
    scores: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """name -> one number per completion; `head`: of the output head that scores it, counted from 0"""
    origins: tuple[Origin, ...] = ()
    row_id: str = ""
    own_prompts: Mapping[int, list[int]] = field(default_factory=dict)
    """completion -> ids of its prompt, where that is not `prompt_ids`"""
    views: Mapping[str, Told] = field(default_factory=dict)
    """name -> what a frozen model says of the completions, where that was asked once for all"""

    def prompt_of(self, completion: int) -> list[int]:
        """Return the prompt of one completion."""
        return self.own_prompts.get(completion, self.prompt_ids)


def _padded(sequences: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Return ids [n, longest] int64 and mask [n, longest] bool, padded on the right."""
    width = max((len(s) for s in sequences), default=0)
    ids = torch.tensor([[*s, *[pad_id] * (width - len(s))] for s in sequences], dtype=torch.long)
    lengths = torch.tensor([len(s) for s in sequences])
    return ids.reshape(len(sequences), width), torch.arange(width) < lengths[:, None]


def collate(examples: Sequence[Example], pad_id: int | None) -> Groups:
    """Stack examples into Groups on the CPU, padded on the right.

    Args:
        examples: at least one.
        pad_id: fills the padding; no value or gradient depends on it. None stands for 0.

    Returns:
        Groups whose pairs count over the whole batch. `label` and each entry of `scores` are given when every
        completion of the batch has one, and None (absent) when none has; `head` is the score of that name. A prompt
        without a context that another prompt has is a row without tokens there.

    Raises:
        ValueError: no examples, or labels, scores or views on some of the examples only.
    """
    if not examples:
        raise ValueError("collate needs at least one example")
    pad = 0 if pad_id is None else pad_id
    # each example's prompt, then those that single completions have of their own
    asked = [[e.prompt_ids, *e.own_prompts.values()] for e in examples]
    starts = list(itertools.accumulate(map(len, asked), initial=0))
    place = [{k: i for i, k in enumerate(e.own_prompts, 1)} for e in examples]
    prompts, prompt_mask = _padded([ids for some in asked for ids in some], pad)
    ids, mask = _padded([c for e in examples for c in e.completions], pad)
    group = torch.tensor(
        [starts[n] + place[n].get(k, 0) for n, e in enumerate(examples) for k in range(len(e.completions))]
    )
    labels = _on_all("label", [e.labels if None not in e.labels else () for e in examples])
    names = {name for e in examples for name in e.scores}
    scores = {name: torch.tensor(_on_all(name, [e.scores.get(name, ()) for e in examples])) for name in sorted(names)}
    contexts = {}
    for name in sorted({name for e in examples for name in e.contexts}):
        known = [[e.contexts.get(name, []), *([] for _ in e.own_prompts)] for e in examples]
        contexts[name] = _padded([ids for some in known for ids in some], pad)
    return Groups(
        prompt_ids=prompts, prompt_mask=prompt_mask, ids=ids, mask=mask, group=group, contexts=contexts,
        origin=tuple(o for e in examples for o in (e.origins or ("dataset",) * len(e.completions))),
        label=torch.tensor(labels) if labels else None, scores=scores, pairs=_pairs(examples),
        views=_views(examples, mask), head=scores["head"].long() if "head" in scores else None,
    )  # fmt: skip


def _on_all(name: str, parts: list[Sequence[Any]]) -> list[Any]:
    """Join the parts; an error when some examples have them and some do not."""
    missing = [i for i, part in enumerate(parts) if not part]
    if missing and len(missing) < len(parts):
        raise ValueError(f"{name!r} is given for some examples of the batch, but not for example {missing[0]}")
    return [value for part in parts for value in part]


def _views(examples: Sequence[Example], mask: Tensor) -> dict[str, View]:
    """Put what frozen models say of each example where its tokens are; zeros elsewhere."""
    found = {}
    for name in sorted({name for e in examples for name in e.views}):
        told: list[Told] = _on_all(name, [[e.views[name]] if name in e.views else [] for e in examples])
        if sum(len(t.logp) for t in told) != int(mask.sum()):
            raise ValueError(f"the view {name!r} does not speak of as many tokens as the examples have")
        columns = {f: torch.cat([getattr(t, f) for t in told]) for f in ("logp", "top_ids", "top_logp", "rest")}
        found[name] = View(**{f: _at(mask, c.long() if f == "top_ids" else c) for f, c in columns.items()})
    return found


def _at(mask: Tensor, rows: Tensor) -> Tensor:
    return rows.new_zeros((*mask.shape, *rows.shape[1:])).index_put((mask,), rows)


def _pairs(examples: Sequence[Example]) -> Pairs | None:
    rows, shift = [], 0
    for example in examples:
        rows += [(b + shift, w + shift, p, margin, weight) for b, w, p, margin, weight in example.pairs]
        shift += len(example.completions)
    if not rows:
        return None
    better, worse, p, margin, weight = zip(*rows)
    return Pairs(
        better=torch.tensor(better), worse=torch.tensor(worse), p=torch.tensor(p), margin=torch.tensor(margin),
        weight=torch.tensor(weight),
    )  # fmt: skip
