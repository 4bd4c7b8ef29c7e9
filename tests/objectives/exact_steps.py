"""Steps written down as plain lists, and their many layouts as tensors; `exactness` compares the two."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from alignlab.core.types import Groups, Pairs, View

FIELDS = ("logp", "value", "top_logp", "rest")
"""what of a view may carry a gradient"""


@dataclasses.dataclass
class Scored:
    """What one model says of one completion, per scored token."""

    logp: list[float]
    value: list[float] | None = None
    top_ids: list[list[int]] | None = None
    top_logp: list[list[float]] | None = None
    rest: list[float] | None = None


@dataclasses.dataclass
class Completion:
    """One completion of a prompt."""

    views: dict[str, Scored]
    label: bool | None = None
    scores: dict[str, float] = dataclasses.field(default_factory=dict)
    advantage: list[float] | None = None
    head: int | None = None
    origin: str | None = None

    def __len__(self) -> int:
        return len(next(iter(self.views.values())).logp)

    def logp(self, view: str = "policy") -> float:
        """Sum of the token log-probabilities."""
        return math.fsum(self.views[view].logp)

    def ratio(self) -> float:
        """Log-ratio of policy to reference."""
        return self.logp("policy") - self.logp("ref")


@dataclasses.dataclass
class Pair:
    """A preference between two completions of one prompt."""

    better: int
    worse: int
    p: float = 1.0
    weight: float = 1.0
    margin: float = 0.0


@dataclasses.dataclass
class Prompt:
    """What stays together when a step is cut: one example."""

    completions: list[Completion]
    pairs: list[Pair] = dataclasses.field(default_factory=list)


def ordered_pairs(prompts: Sequence[Prompt]) -> list[tuple[Completion, Completion, Pair]]:
    """All pairs of a step as (better, worse, pair)."""
    return [(x.completions[pair.better], x.completions[pair.worse], pair) for x in prompts for pair in x.pairs]


def prompts(
    seed: int, *, count: int = 7, completions: tuple[int, int] = (2, 4), tokens: tuple[int, int] = (1, 8),
    views: Sequence[str] = ("policy", "ref"), pairs: bool = True, soft: bool = True, weighted: bool = True,
    labels: bool = False, scores: Sequence[str] = (), advantage: bool = False, heads: int = 0, top: int = 0,
    spread: float = 0.6,
) -> list[Prompt]:  # fmt: skip
    """Return a random step; every number is a float32, so that both precisions start from the same one.

    Args:
        seed: of the draw.
        count: prompts; `completions`, `tokens`: least and most per prompt and per completion, both included.
        views: names; each is the first one's log-probabilities with noise of standard deviation `spread` per token.
        pairs: one to three random pairs per prompt; `soft`: p in [0.5, 1], else 1; `weighted`: weights in [0.1, 3].
        labels: thumbs; both kinds occur.
        scores: names of random scores.
        advantage: a random number per token.
        heads: completions get a random head out of as many.
        top: each view also has as many largest log-probabilities per token over the ids of the first view, and `rest`.
    """
    draw = np.random.default_rng(seed)

    def f32(values: Any) -> Any:
        return np.float32(values).astype(np.float64).tolist()

    def scored(n: int) -> dict[str, Scored]:
        base, logits = -draw.exponential(1.5, n) - 0.05, draw.normal(size=(n, top + 4)) * 2
        ids = np.argsort(-logits)[:, :top]
        found = {}
        for name in views:
            noisy = np.minimum(base + draw.normal(size=n) * spread * bool(found), -0.01)
            found[name] = Scored(logp=f32(noisy))
            if top:
                other = logits + draw.normal(size=logits.shape) * spread * (len(found) > 1)
                logp = other - np.log(np.exp(other).sum(-1, keepdims=True))
                kept = np.take_along_axis(logp, ids, -1)
                found[name].top_ids, found[name].top_logp = ids.tolist(), f32(kept)
                found[name].rest = f32(np.log1p(-np.exp(kept).sum(-1)))
        return found

    step = []
    for i in range(count):
        given = []
        for k in range(int(draw.integers(completions[0], completions[1] + 1))):
            n = int(draw.integers(tokens[0], tokens[1] + 1))
            one = Completion(views=scored(n), scores={name: f32(draw.normal()) for name in scores})
            one.label = bool(draw.random() < 0.4 if i else k % 2) if labels else None
            one.advantage = f32(draw.normal(size=n)) if advantage else None
            one.head = int(draw.integers(heads)) if heads else None
            given.append(one)
        judged = []
        for _ in range(int(draw.integers(1, 4)) if pairs else 0):
            better, worse = draw.choice(len(given), 2, replace=False).tolist()
            p, weight = (draw.uniform(0.5, 1) if soft else 1.0), (draw.uniform(0.1, 3) if weighted else 1.0)
            judged.append(Pair(better, worse, f32(p), f32(weight), f32(draw.uniform(0, 1))))
        step.append(Prompt(given, judged))
    return step


@dataclasses.dataclass
class Layout:
    """How a step becomes tensors. A completion's row is shuffled, padded, and holed where nothing is scored."""

    cut: Sequence[int] = ()
    """prompts per micro-batch; empty: one batch"""
    dtype: torch.dtype = torch.float64
    padding: float = math.nan
    wider: int = 0
    holes: bool = False
    shuffle: int | None = None
    """seed of the order of prompts, completions and pairs; None: as given"""
    ranked: bool = False
    """completions of one prompt keep their order, whatever stands between them"""


def lay_out(step: Sequence[Prompt], layout: Layout, trained: Sequence[str]) -> list[tuple[Groups, list[Any]]]:
    """Return micro-batches, each with (prompt, completion, positions) per row."""
    draw = np.random.default_rng(layout.shuffle)
    keep = layout.shuffle is None
    order = list(range(len(step))) if keep else draw.permutation(len(step)).tolist()
    edges = [0, *np.cumsum(layout.cut or [len(step)]).tolist()]
    assert edges[-1] == len(step), "the cut does not add up to the step"
    parts = []
    for low, high in zip(edges, edges[1:]):
        rows = [(i, k) for i in order[low:high] for k in range(len(step[i].completions))]
        rows = rows if keep else [rows[j] for j in draw.permutation(len(rows))]
        if layout.ranked:
            turn = {i: iter(range(len(step[i].completions))) for i in order[low:high]}
            rows = [(i, next(turn[i])) for i, _ in rows]
        sizes = [len(step[i].completions[k]) for i, k in rows]
        spare = layout.wider + 2 * layout.holes
        places = []
        for n in sizes:
            room = np.arange(n + 2) if layout.holes else np.arange(n)
            places.append(np.sort(draw.choice(room, n, replace=False)) if layout.holes else room)
        parts.append(_groups(step, order[low:high], rows, places, max(sizes) + spare, layout, trained, draw))
    return parts


def _groups(step, chosen, rows, places, width, layout, trained, draw):
    def padded(values: Sequence[Any], filler: float, dtype: torch.dtype) -> torch.Tensor:
        tail = np.shape(values[0])[1:]
        whole = torch.full((len(rows), width, *tail), filler, dtype=dtype)
        for n, (value, place) in enumerate(zip(values, places)):
            whole[n, torch.as_tensor(place)] = torch.tensor(value, dtype=dtype)
        return whole

    given = [step[i].completions[k] for i, k in rows]
    views = {}
    for name in given[0].views:
        said = [one.views[name] for one in given]
        fields = {f: [getattr(s, f) for s in said] for f in FIELDS if getattr(said[0], f) is not None}
        tensors = {
            f: padded(v, layout.padding, layout.dtype).requires_grad_(name in trained) for f, v in fields.items()
        }
        if said[0].top_ids is not None:
            tensors["top_ids"] = padded([s.top_ids for s in said], 0, torch.long)
        views[name] = View(**tensors)
    row_of = {key: n for n, key in enumerate(rows)}
    pairs = [(row_of[i, q.better], row_of[i, q.worse], q.p, q.margin, q.weight) for i in chosen for q in step[i].pairs]
    if layout.shuffle is not None:
        pairs = [pairs[j] for j in draw.permutation(len(pairs))]
    columns = list(zip(*pairs))
    groups = Groups(
        prompt_ids=torch.ones(len(chosen), 2, dtype=torch.long),
        prompt_mask=torch.ones(len(chosen), 2, dtype=torch.bool),
        ids=torch.ones(len(rows), width, dtype=torch.long),
        mask=padded([[1] * len(one) for one in given], 0, torch.bool),
        group=torch.tensor([list(chosen).index(i) for i, _ in rows]),
        views=views,
        origin=() if given[0].origin is None else tuple(one.origin for one in given),
        head=None if given[0].head is None else torch.tensor([one.head for one in given]),
        label=None if given[0].label is None else torch.tensor([one.label for one in given]),
        advantage=None
        if given[0].advantage is None
        else padded([one.advantage for one in given], layout.padding, layout.dtype),
        scores={s: torch.tensor([one.scores[s] for one in given], dtype=layout.dtype) for s in given[0].scores},
        pairs=Pairs(
            **{name: torch.tensor(columns[c]) for c, name in enumerate(("better", "worse"))},
            **{n: torch.tensor(columns[c], dtype=layout.dtype) for c, n in ((2, "p"), (3, "margin"), (4, "weight"))},
        )
        if pairs
        else None,
    )
    return groups, [(i, k, torch.as_tensor(place)) for (i, k), place in zip(rows, places)]
