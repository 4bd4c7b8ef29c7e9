"""The shared path against the plain one: compared on the first batch of every run, and given up where they differ."""

import itertools
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from alignlab.core.types import Groups, View
from alignlab.engine import attention, piecewise, work
from alignlab.engine.folded import folds
from alignlab.engine.plan import PlannedRow, Span

TOLERANCE = {"float64": (1e-4, 1e-4), "float32": (1e-4, 1e-4), "bfloat16": (5e-2, 5e-3), "float16": (5e-2, 5e-3)}
"""largest and mean difference, in nats, at which the shared path counts as the plain one, by dtype of computation"""
NOISE = 4.0
"""or so many times what the plain path differs from itself when it is batched in another way: in 16 bits, logits of 20
are 1/8 apart, and a rounding falls one way or the other"""
TRIAL = 64
"""tokens of a prompt, its last, and of a completion, its first, that are compared of a large first batch"""


class Case(NamedTuple):
    """What a batch puts to the test."""

    dtype: str
    """of matrix products"""
    windowed: bool
    """sequences longer than the sliding window"""
    branching: bool
    """prompts with several completions"""
    packed: bool
    """rows of several prompts"""
    after: bool
    """completions read after the row of their prompt"""
    blocks: bool
    """rectangles of more than one block of queries"""
    folded: bool
    """pieces that `engine.folded` computes"""

    def covers(self, other: "Case") -> bool:
        """Whether a batch like `other` holds nothing that this one did not."""
        return self.dtype == other.dtype and all(mine >= theirs for mine, theirs in zip(self[1:], other[1:]))


@dataclass
class Sharing:
    """What is known of one model's ability to score shared prompts."""

    reason: str | None
    """why it cannot, or None"""
    checked: dict[Case, tuple[float, float]] = field(default_factory=dict)
    """largest and mean difference from the plain path, in nats"""


_known: WeakKeyDictionary[nn.Module, Sharing] = WeakKeyDictionary()


def sharing_of(module: nn.Module) -> Sharing:
    """Return what is known of a model; warn, once, where its class alone says that it cannot share prompts."""
    found = _known.get(module)
    if found is None:
        found = _known[module] = Sharing(attention.refusal(module))
        _warn(module, found.reason)
    return found


def check_again(module: nn.Module) -> None:
    """Forget what is known of a model, so that the next batch is compared with the plain path."""
    _known.pop(module, None)


def agreed(module: nn.Module, rows: Sequence[PlannedRow]) -> bool:
    """Whether both paths were compared on a batch like this, and agreed."""
    known, case = sharing_of(module), _case(module, rows)
    return known.reason is None and any(done.covers(case) for done in known.checked)


def few(
    module: nn.Module, groups: Groups, prompts: tuple[Tensor, Tensor]
) -> tuple[Groups, tuple[Tensor, Tensor]] | None:
    """Return a trial of a large batch: short prompts that hold what it holds, cut to `TRIAL`, and their completions.

    One that attention computes in blocks, or folded, is cut to what is still computed so. Nothing is cut where a
    sequence is longer than the model's sliding window. None where the batch is of eight trials' tokens at most, or a
    trial not much smaller.
    """
    group, (ids, mask) = groups.group.cpu(), prompts
    read = (groups.mask * torch.arange(1, groups.mask.shape[1] + 1, device=groups.mask.device)).amax(1).cpu()
    before = mask.sum(1).cpu()
    lengths = read + before[group]
    aside = torch.tensor([origin == "mismatched" for origin in groups.origin] or [False] * len(group))
    sizes = torch.zeros(len(ids), dtype=torch.long).index_add_(0, group, lengths).tolist()
    limits = _long(module, before.tolist(), _longest(group[~aside], read[~aside]), sizes)
    chosen = _chosen(group, aside, read, _short(group, aside, sizes) | set(limits))
    window = getattr(attention.text_config(module.config), "sliding_window", None)
    kept = groups.mask[chosen.to(groups.mask.device)]
    if window is None or int(lengths.max()) < window:
        limit = torch.full((len(ids), 1), TRIAL)
        for k, tokens in limits.items():
            limit[k] = tokens
        mask = mask & (mask.flip(1).cumsum(1).flip(1) <= limit.to(mask.device))
        cut = kept & (torch.arange(kept.shape[1]) < limit[group[chosen]]).to(kept.device)
        if bool(cut.any(1).all()):
            kept = cut[:, : int(limit[group[chosen]].max())]
    tried = int(mask.sum(1).cpu()[group[chosen]].sum()) + int(kept.sum())
    if int(lengths.sum()) <= max(8 * TRIAL, 2 * tried):
        return None
    trial = Groups(
        prompt_ids=groups.prompt_ids, prompt_mask=groups.prompt_mask, ids=groups.ids[chosen][:, : kept.shape[1]],
        mask=kept, group=groups.group[chosen],
        origin=tuple(groups.origin[n] for n in chosen.tolist()) if groups.origin else (),
        head=None if groups.head is None else groups.head[chosen.to(groups.head.device)],
    )  # fmt: skip
    return trial, (ids, mask)


def _longest(group: Tensor, read: Tensor) -> dict[int, list[int]]:
    """Return the tokens of the two longest completions of each prompt."""
    found: dict[int, list[int]] = {}
    for k, tokens in sorted(zip(group.tolist(), read.tolist()), key=lambda one: -one[1]):
        found[k] = [*found.get(k, ()), tokens][:2]
    return found


def _long(
    module: nn.Module, before: Sequence[int], read: Mapping[int, Sequence[int]], sizes: Sequence[int]
) -> dict[int, int]:
    """Return the shortest prompt with a rectangle of several blocks, and the shortest with a folded piece, if any.

    And to how many tokens prompt and completions may be cut for that to stay so.
    """

    def holds(k: int, most: int) -> tuple[bool, bool]:
        span = Span(min(before[k], most), tuple(min(tokens, most) for tokens in read[k]))
        blocks, folded = zip(*(_holds(module, *piece) for piece in span.pieces()))
        return any(blocks), any(folded)

    found: dict[int, int] = {}
    for which in (0, 1):
        able = [k for k in read if holds(k, max(before[k], *read[k]))[which]]
        if able:
            k = min(able, key=lambda k: sizes[k])
            most = next(most for most in itertools.count(TRIAL, TRIAL // 2) if holds(k, most)[which])
            found[k] = max(most, found.get(k, 0))
    return found


def _holds(module: nn.Module, offset: int, length: int) -> tuple[bool, bool]:
    """Return whether a rectangle is of several blocks, and whether a piece is folded."""
    device = next(module.parameters()).device.type
    config = attention.text_config(module.config)
    heads = config.num_attention_heads // (getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
    plain = device == "cpu" and computes_in(module) == torch.float32
    return offset > 0 and length > piecewise.BLOCK[device == "cpu"], plain and folds(heads, offset, length)


def _short(group: Tensor, aside: Tensor, sizes: Sequence[int]) -> set[int]:
    """Return few prompts: the shortest two, one that branches, one with a completion that is only looked at."""
    own, lent = (group[which].bincount(minlength=len(sizes)).tolist() for which in (~aside, aside))
    order = sorted((k for k in range(len(sizes)) if own[k] + lent[k]), key=lambda k: sizes[k])
    kinds = (order[:1], order[1:2], [k for k in order if own[k] > 1], [k for k in order if lent[k]])
    return {kind[0] for kind in kinds if kind}


def _chosen(group: Tensor, aside: Tensor, read: Tensor, wanted: Collection[int]) -> Tensor:
    """Return the completions of some prompts: of each the two longest, and the two longest that are looked at."""
    found = []
    for k in wanted:
        for which in (aside, ~aside):
            mine = ((group == k) & which).nonzero()[:, 0]
            found += mine[read[mine].argsort(descending=True)[:2]].tolist()
    return torch.tensor(sorted(found))


def agreeing(
    module: nn.Module, rows: Sequence[PlannedRow], shared: Callable[[], View], plain: Callable[[int | None], View]
) -> View:
    """Score by the shared path, once both were compared on a batch like this; by the plain one where they differ.

    Args:
        module: a model that `sharing_of` has nothing against.
        rows: what `shared` scores.
        shared: the shared path.
        plain: the plain path, given the tokens of a batch, or None for the usual ones.

    Returns:
        What the path taken returned, under the caller's gradient mode.
    """
    known, case = sharing_of(module), _case(module, rows)
    if any(done.covers(case) for done in known.checked):
        return shared()
    with torch.no_grad():
        with work.measured() as one:
            expected = plain(None)
        try:
            with work.measured() as other:
                found = shared()
        except attention.NotShared as error:
            known.reason = str(error)
        else:
            known.checked[case] = apart = difference(found.logp, expected.logp)
            with work.measured():
                known.reason = _too_far(case.dtype, apart, lambda: difference(plain(1).logp, expected.logp))
    _warn(module, known.reason)
    if not torch.is_grad_enabled():
        kept = one if known.reason else other
        work.note(kept.tokens, kept.heads, kept.pairs)
        return expected if known.reason else found
    return plain(None) if known.reason else shared()


def _too_far(dtype: str, apart: tuple[float, float], noise: Callable[[], tuple[float, float]]) -> str | None:
    allowed = TOLERANCE[dtype]
    if all(found <= most for found, most in zip(apart, allowed)):
        return None
    if dtype in ("bfloat16", "float16"):
        allowed = tuple(max(most, NOISE * other) for most, other in zip(allowed, noise()))
        if all(found <= most for found, most in zip(apart, allowed)):
            return None
    return (
        f"on its first batch in {dtype} the shared path differs by {apart[0]:.2g} nats (mean {apart[1]:.2g}; allowed"
        f" {allowed[0]:.2g} and {allowed[1]:.2g})"
    )


def _case(module: nn.Module, rows: Sequence[PlannedRow]) -> Case:
    window = getattr(attention.text_config(module.config), "sliding_window", None)
    pieces = {piece for row in rows for span in row.spans for piece in span.pieces()}
    pieces |= {piece for row in rows if row.after for span in row.after.spans for piece in span.pieces(alone=True)}
    held = [_holds(module, *piece) for piece in pieces]
    return Case(
        dtype=str(computes_in(module)).removeprefix("torch."),
        windowed=window is not None
        and any(part.longest >= window for row in rows for part in (row, row.after) if part is not None),
        branching=any(len(span.completions) > 1 for row in rows for span in row.spans),
        packed=any(len(row.spans) > 1 for row in rows),
        after=any(row.after is not None for row in rows),
        blocks=any(several for several, _ in held),
        folded=any(folded for _, folded in held),
    )


def _warn(module: nn.Module, reason: str | None) -> None:
    if reason is not None:
        kind = getattr(getattr(module, "config", None), "model_type", type(module).__name__)
        warnings.warn(f"{kind}: prompts are read once per completion, because {reason}", stacklevel=4)


def computes_in(module: nn.Module) -> torch.dtype:
    """Return the dtype of matrix products, autocast included."""
    parameter = next(module.parameters())
    kind = parameter.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else parameter.dtype


def difference(found: Tensor, expected: Tensor) -> tuple[float, float]:
    """Return the largest and the mean difference over scored tokens; where both are NaN or infinite alike, none."""
    same = (found == expected) | (found.isnan() & expected.isnan())
    apart = torch.where(same, 0.0, (found - expected).abs())
    scored = (expected != 0).sum().clamp(min=1)
    return (apart.max().item() if apart.numel() else 0.0), (apart.sum() / scored).item()
