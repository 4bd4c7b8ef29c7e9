"""From token ids to log-probabilities at chosen places: the head runs there only, and float32 logits come in chunks.

Where no gradient is wanted, logits are there a chunk at a time altogether.
"""

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from alignlab.core.types import View
from alignlab.engine import attention, products, sharded
from alignlab.engine.routed import routing

CHUNK = 1 << 24
"""logits turned to float32 at once; where more than one is asked of each, the backward pass recomputes beyond that"""
PIECE = 1 << 19
"""of them on a CPU, whose caches are to hold them"""

AT_ONCE = 1 << 26
"""logits that the head makes at once where no gradient is wanted"""

UNLIKELY = -64.0
"""nats"""


class Said(NamedTuple):
    """What logits say at M places."""

    logp: Tensor
    """[M, 1 + k]: log-probabilities of the scored token and of those asked for as well"""
    rest: Tensor
    """[M]: of all but the latter; zeros if not asked"""
    top: Tensor | None = None
    """[M, k]: the ids of the latter, where the likeliest were asked for"""


def logits_at(
    module: nn.Module, ids: Tensor, row: Tensor, position: Tensor, *, counts: Sequence[int] | None = None, **inputs: Any
) -> Tensor:
    """Return logits [M, V] at M (row, position) places; `counts`: how many of them are of each output head, in turn."""
    narrowed = False

    def narrow(head: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:  # noqa: ARG001
        nonlocal narrowed
        hidden = args[0]
        if hidden.shape[:2] != ids.shape:
            return None
        narrowed = True
        return (hidden[row, position][None], *args[1:])

    # whoever looks on with a gradient is to see activations of the graph, and logits that nothing is written over
    watched = torch.is_grad_enabled() and attention.watched(module)
    head = module.get_output_embeddings()
    handle = head.register_forward_pre_hook(narrow) if head is not None else contextlib.nullcontext()
    with handle, routing(counts), contextlib.nullcontext() if watched else products.fast(module):
        logits = module(input_ids=ids, use_cache=False, **inputs).logits
    logits = logits.clone() if watched else logits
    # not logits[0], whose gradient would be copied into zeros
    return logits.squeeze(0) if narrowed else logits[row, position]


def said_at(
    module: nn.Module, ids: Tensor, row: Tensor, position: Tensor, wanted: Tensor, at: Tensor | int | None,
    place: Tensor | None = None, *, counts: Sequence[int] | None = None, **inputs: Any,
) -> Said:  # fmt: skip
    """Return what the logits at M (row, position) places say of the tokens that they predict.

    Args:
        module: a causal language model, unwrapped.
        ids: [B, S].
        row: of each place.
        position: of each place.
        wanted: ids [m] of the tokens.
        at: ids [m, k] that are asked for as well; or k, for the likeliest; None for neither.
        place: as of `log_probs`.
        counts: as of `logits_at`.
        inputs: of the model.
    """
    whole = torch.is_grad_enabled() or len(row) <= (size := places_at_once(module))
    if whole or module.get_output_embeddings() is None:
        return _said(logits_at(module, ids, row, position, counts=counts, **inputs), wanted, at, place)
    return _in_chunks(module, ids, row, position, wanted, at, place, size, counts, inputs)


def places_at_once(module: nn.Module) -> int:
    """Return at how many places logits are made at once where no gradient is wanted."""
    return max(1, AT_ONCE // int(attention.text_config(module.config).vocab_size))


def _said(logits: Tensor, wanted: Tensor, at: Tensor | int | None, place: Tensor | None) -> Said:
    if not isinstance(at, int):
        wanted = wanted[:, None] if at is None else torch.cat([wanted[:, None], at], 1)
        return Said(*log_probs(logits, wanted, at is not None, place))
    parts = logits.detach().split(_rows(logits, CHUNK))
    top = torch.cat([part.topk(at).indices for part in parts])
    top = top if place is None else top[place]
    return Said(*log_probs(logits, torch.cat([wanted[:, None], top], 1), True, place), top)


def _in_chunks(module, ids, row, position, wanted, at, place, size, counts, inputs) -> Said:
    """Say the same without gradient, from the logits of `size` places at a time.

    The layers run once; the head, and what the model does after it, once for each chunk.
    """
    head, layers = module.get_output_embeddings(), _layers(module)
    hidden: Tensor | None = None
    output: Any = None
    parts: list[Said] = []

    def narrow(head: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:  # noqa: ARG001
        nonlocal hidden
        if hidden is None:
            if args[0].shape[:2] != ids.shape:
                return None
            hidden = args[0][row, position]
        return (hidden[None, start:stop], *args[1:])

    def keep(layers: nn.Module, args: Any, given: Any) -> None:  # noqa: ARG001
        nonlocal output
        output = given

    with contextlib.ExitStack() as during:
        during.enter_context(products.fast(module))
        during.callback(head.register_forward_pre_hook(narrow).remove)
        if layers is not None:
            during.callback(layers.register_forward_hook(keep).remove)
        for start, stop, first, last in _cuts(len(row), place, size):
            if parts:
                sharded.before_pass(module)
            with routing(None if counts is None else _between(counts, start, stop)):
                logits = module(input_ids=ids, use_cache=False, **inputs).logits
            if hidden is None:
                return _said(logits[row, position], wanted, at, place)
            if output is not None and not parts:
                during.enter_context(_answering(layers, output))
            some = at[first:last] if isinstance(at, Tensor) else at
            own = None if place is None else place[first:last] - start
            parts.append(_said(logits.squeeze(0), wanted[first:last], some, own))
            del logits  # before the next ones are made
    logp, rest, top = zip(*parts)
    return Said(torch.cat(logp), torch.cat(rest), torch.cat(top) if isinstance(at, int) else None)


def _layers(module: nn.Module) -> nn.Module | None:
    """Return the part of a model that its head comes after; None where it is not known, and runs for every chunk."""
    base = module.get_base_model() if hasattr(module, "get_base_model") else module
    found = base.get_decoder() if hasattr(base, "get_decoder") else None
    return None if found is base else found


@contextlib.contextmanager
def _answering(part: nn.Module, output: Any) -> Iterator[None]:
    """Let a part of a model give this output, whatever it is asked; afterwards, exceptions included, as before."""
    before = vars(part).get("forward")
    part.forward = lambda *_, **__: output  # type: ignore[method-assign]
    try:
        yield
    finally:
        if before is None:
            del part.forward
        else:
            part.forward = before  # type: ignore[method-assign]


def _between(counts: Sequence[int], start: int, stop: int) -> list[int]:
    """Return how many of the places from `start` to `stop` are of each output head."""
    ends = itertools.accumulate(counts)
    return [max(0, min(stop, end) - max(start, end - count)) for count, end in zip(counts, ends)]


def log_probs(logits: Tensor, wanted: Tensor, with_rest: bool, place: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return log-probabilities [M, w] of the wanted ids, and [M] of all but wanted[:, 1:] (zeros if not asked).

    `place` [M], ascending, says which of the logits [U, V] predict each; None: each its own. Without rest, but with
    gradient, the logits are written over: in the end the gradient stands in their place.
    """
    if not with_rest:
        place = torch.arange(len(logits), device=logits.device) if place is None else place
        values: Tensor = _LogProbs.apply(logits, place, wanted[:, 0])
        return values[:, None], values.new_zeros(len(values))
    if (size := _rows(logits, CHUNK)) >= len(logits):
        return _with_rest(logits, wanted, place)
    parts = [
        checkpoint(
            _with_rest, logits[start:stop], wanted[first:last], None if place is None else place[first:last] - start,
            use_reentrant=False,
        )
        for start, stop, first, last in _cuts(len(logits), place, size)
    ]  # fmt: skip
    return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])


def _rows(logits: Tensor, numbers: int) -> int:
    return max(1, numbers // max(1, logits.shape[1]))


def _cuts(length: int, place: Tensor | None, size: int) -> list[tuple[int, int, int, int]]:
    """Return pieces of the logits: first and last row, and what of `place` falls on them."""
    starts = [*range(0, length, size), length]
    ends = starts if place is None else torch.searchsorted(place.contiguous(), place.new_tensor(starts)).tolist()
    return [(*rows, *wanted) for rows, wanted in zip(itertools.pairwise(starts), itertools.pairwise(ends))]


def _exact(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def _logsumexp(logits: Tensor, one: Tensor, *, keep: bool) -> Tensor:
    """Return the log of the sum of exp of logits [U, V]; `one` [U]: an id of each row, from which it may be told.

    `keep`: softmax takes the place of the logits.
    """
    if logits.device.type != "cpu":
        return logits.logsumexp(-1)
    # each of the two is one operation, where PyTorch's logsumexp is four
    at = one[:, None]
    said = (p := logits.softmax(-1)).gather(1, at).log() if keep else logits.log_softmax(-1).gather(1, at)
    # what is next to impossible, or masked, says nothing of the sum within rounding
    total = (logits.gather(1, at) - said)[:, 0] if bool((said > UNLIKELY).all()) else logits.logsumexp(-1)
    if keep:
        logits.copy_(p)
    return total


class _LogProbs(torch.autograd.Function):
    """Log-probability of one id at each place [M]; the gradient of the logits takes their place, so it comes once.

    On a CPU softmax stands there in between, which the backward pass would have to compute again.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, place: Tensor, ids: Tensor) -> Tensor:
        on_cpu = logits.device.type == "cpu"
        cuts = _cuts(len(logits), place, _rows(logits, PIECE if on_cpu else CHUNK))
        # the first wanted id of each row of logits
        rows = torch.arange(len(logits), device=logits.device)
        one = ids[torch.searchsorted(place.contiguous(), rows).clamp(max=len(ids) - 1)]
        said = _exact(logits[place, ids])
        ctx.softmaxed = on_cpu and ctx.needs_input_grad[0] and said.dtype == logits.dtype
        numbers = logits.detach()  # what is written to may not be a view of another function's output
        totals = [
            _logsumexp(_exact(numbers[start:stop]), one[start:stop], keep=ctx.softmaxed) for start, stop, *_ in cuts
        ]
        total = torch.cat(totals) if totals else _exact(logits).sum(-1)
        ctx.save_for_backward(numbers, place, ids)
        ctx.cuts, ctx.spent = cuts, False
        return said - total[place]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        logits, place, ids = ctx.saved_tensors
        if ctx.spent:  # where tensors are saved through hooks, autograd does not see that they were written over
            raise RuntimeError("a second backward pass through the same log-probabilities; score again instead")
        ctx.spent = True
        mass = gradient.new_zeros(len(logits)).index_add_(0, place, gradient)
        for start, stop, first, last in ctx.cuts:
            # d log p / d logits: one at the id, less the distribution
            piece = _exact(logits[start:stop])
            p = piece if ctx.softmaxed else piece.softmax(-1)
            torch.mul(p, -mass[start:stop, None], out=piece)
            piece.index_put_((place[first:last] - start, ids[first:last]), gradient[first:last], accumulate=True)
            if piece.dtype != logits.dtype:
                logits[start:stop] = piece
        return logits, None, None


def _with_rest(logits: Tensor, wanted: Tensor, place: Tensor | None) -> tuple[Tensor, Tensor]:
    logits = _exact(logits)
    total = logits.logsumexp(-1)
    if place is not None:
        total, logits = total[place], logits[place]
    others = logits.scatter(1, wanted[:, 1:], -torch.inf)
    return logits.gather(1, wanted) - total[:, None], others.logsumexp(-1) - total


def placed(parts: list[Said], mask: Tensor, at: Tensor | int | None, places: tuple) -> View:
    """Put what was told where it belongs; zeros elsewhere. `at`: as `said_at` had it, but for ids [N, T, k]."""
    if isinstance(at, int):
        top_ids = torch.zeros((*mask.shape, at), dtype=torch.long, device=mask.device)
        if parts:
            top_ids = top_ids.index_put(places, torch.cat([part.top for part in parts if part.top is not None]))
    elif at is not None:
        top_ids = at
    if not parts:
        zeros = torch.zeros(mask.shape, device=mask.device)
        return View(logp=zeros) if at is None else View(
            logp=zeros, top_ids=top_ids, top_logp=zeros.new_zeros(top_ids.shape), rest=zeros.clone()
        )  # fmt: skip
    values = torch.cat([part.logp for part in parts])
    logp = values.new_zeros(mask.shape).index_put(places, values[:, 0])
    if at is None:
        return View(logp=logp)
    top = values.new_zeros(top_ids.shape).index_put(places, values[:, 1:])
    rest = values.new_zeros(mask.shape).index_put(places, torch.cat([part.rest for part in parts]))
    return View(logp=logp, top_ids=top_ids, top_logp=top, rest=rest)
