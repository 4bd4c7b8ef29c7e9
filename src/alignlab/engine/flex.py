"""Attention of a whole row by PyTorch's FlexAttention, for models loaded with `attn_implementation="flex_attention"`.

One kernel takes the place of a call per piece. A query sees two runs of keys at most: a part of its prompt and a part
of its own piece, both cut short by a sliding window. From the bounds of these runs come the mask inside a block and the
list of blocks that are visited; no table of queries times keys is made. The list is made once per row and window, and
all layers use it.

On CUDA the kernel is compiled, once for rows of any length. Its speed there has not been measured. A processor
computes the whole square, uncompiled, and has no gradient: with gradient, and wherever else `refusal` gives a reason,
attention goes piece by piece as for other models.
"""

import contextlib
import functools
import importlib.util
import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, no_type_check

import torch
from torch import Tensor, nn

from alignlab.engine.plan import Span

NAME = "flex_attention"
"""transformers' name"""
BLOCK = 128
"""queries and keys of a block: PyTorch's own choice, a multiple of every tile that its kernels work on"""
LEAST_HEAD = 16
"""dimensions of a head from which on there are kernels for CUDA"""
COMPILED = (torch.float32, torch.bfloat16, torch.float16)
"""formats that there are kernels for on CUDA"""
KERNELS = 64
"""most that are compiled in one process: by head size, format, scale, soft-cap, with gradient and without"""

CHOICES = ("eager", "sdpa", NAME, "flash_attention_2", "flash_attention_3")
"""attention that a model may be loaded with; further names would have transformers fetch code from the hub"""


def chosen(name: str | None) -> dict[str, str]:
    """Return transformers' option for a choice of attention, none for None. Raises ValueError for another name."""
    if name is not None and name not in CHOICES:
        raise ValueError(f"attn_implementation {name!r}; expected {', '.join(CHOICES)}")
    return {} if name is None else {"attn_implementation": name}


class Piece(NamedTuple):
    """Queries that lie together in a row, and the two runs of keys before a window cuts them."""

    queries: int
    prompt: int
    """first key of the prompt"""
    offset: int
    """keys of the prompt; 0 where it is in the piece's own run"""
    low: int
    """first key of the own run"""
    own: int
    """key of the first query; each query sees the own run up to itself"""


def pieces_of(spans: Sequence[Span], alone: bool) -> list[Piece]:
    """Return the pieces of a row, in order.

    Args:
        spans: of the row.
        alone: the row holds completions alone; the keys of all prompts stand before its own, in the spans' order.
    """
    found, at, first = [], sum(span.prompt for span in spans) if alone else 0, 0
    for span in spans:
        rest = span.completions
        if not alone:
            # the first completion is read on with its prompt, as one causal square
            first, size = at, span.prompt + sum(rest[:1])
            found.append(Piece(size, first, 0, first, at))
            at, rest = at + size, rest[1:]
        for length in rest:
            joined = first + span.prompt == at
            found.append(Piece(length, first, 0 if joined else span.prompt, first if joined else at, at))
            at += length
        first += span.prompt
    return found


def bounds_of(pieces: Sequence[Piece], window: int | None) -> Tensor:
    """Return [4, S]: of each query, the first key and the end of its run in the prompt, then of its own run."""
    table = torch.tensor(pieces, dtype=torch.int32).T
    sizes = table[0].long()
    step = torch.arange(int(sizes.sum()), dtype=torch.int32)
    step = step - (sizes.cumsum(0) - sizes).int().repeat_interleave(sizes)
    _, prompt, offset, low, own = table.repeat_interleave(sizes, 1)
    stop, end = prompt + offset, own + step + 1
    if window is not None:
        prompt = torch.minimum(torch.maximum(prompt, stop + step + 1 - window), stop)
        low = torch.maximum(low, end - window)
    return torch.stack((prompt, stop, low, end))


def blocks_of(pieces: Sequence[Piece], bounds: Tensor, keys: int) -> tuple[Tensor, Tensor]:
    """Return which blocks [query blocks, key blocks] hold a pair that sees each other, and which hold no other."""
    starts = list(itertools.accumulate((piece.queries for piece in pieces), initial=0))
    size = starts.pop()
    shape = -(-size // BLOCK), -(-keys // BLOCK)
    some, whole = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.int32)
    # inside a stretch of queries, of one piece and one block, bounds only grow: its ends tell all
    cuts = sorted({*starts, *range(0, size, BLOCK)})
    lasts = [cut - 1 for cut in (*cuts[1:], size)]
    for start, last, head, tail in zip(cuts, lasts, bounds[:, cuts].T.tolist(), bounds[:, lasts].T.tolist()):
        row = start // BLOCK
        for run in (slice(0, 2), slice(2, 4)):
            (low, early), (late, end) = head[run], tail[run]
            if low < end:
                some[row, low // BLOCK : -(-end // BLOCK)] = True
                whole[row, -(-late // BLOCK) : early // BLOCK] += last - start + 1
    return some, whole == BLOCK


class Mask(NamedTuple):
    """What a row's queries see."""

    blocks: Any
    """PyTorch's BlockMask"""
    visited: int
    """blocks in which something is computed"""


def mask_of(spans: Sequence[Span], alone: bool, window: int | None, device: torch.device) -> Mask:
    """Return the mask of a row, see `pieces_of`, for layers with this window."""
    from torch.nn.attention.flex_attention import BlockMask

    pieces = pieces_of(spans, alone)
    bounds = bounds_of(pieces, window)
    size = bounds.shape[1]
    keys = size + (sum(span.prompt for span in spans) if alone else 0)
    some, whole = blocks_of(pieces, bounds, keys)
    lists = [part.to(device) for table in (some & ~whole, whole) for part in _listed(table)]
    # tensors of their own: a compiled kernel wants aligned ones
    prompt, stop, low, end = (part.to(device, copy=True) for part in bounds)

    @no_type_check  # PyTorch traces what is called, and cannot trace a checker
    def seen(_batch: Tensor, _head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return ((k >= prompt[q]) & (k < stop[q])) | ((k >= low[q]) & (k < end[q]))

    blocks = BlockMask.from_kv_blocks(*lists, BLOCK_SIZE=BLOCK, mask_mod=seen, seq_lengths=(size, keys))
    return Mask(blocks, int(some.sum()))


def _listed(table: Tensor) -> tuple[Tensor, Tensor]:
    """Return how many blocks each row of a table names, and which, those first."""
    number = table.int()
    return number.sum(1).int()[None, None], number.argsort(dim=1, descending=True, stable=True).int()[None, None]


def refusal(query: Tensor, key: Tensor, value: Tensor, kwargs: Mapping[str, Any]) -> str | None:
    """Return why FlexAttention cannot do what a layer asks for; None where it can."""
    kind = query.device.type
    gradient = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (query, key, value))
    checks = (
        (kind not in ("cpu", "cuda"), f"it is not used on {kind}"),
        (kind == "cpu" and gradient, "it has no gradient on processors"),
        (kind == "cuda" and query.dtype not in COMPILED, f"it is not compiled for {query.dtype}"),
        (kind == "cuda" and min(query.shape[-1], value.shape[-1]) < LEAST_HEAD,
         f"it is not compiled for heads of less than {LEAST_HEAD} dimensions"),
        (kind == "cuda" and not _triton(), "it is compiled by Triton, which is not installed"),
        (bool(kwargs.get("dropout")), "it cannot drop attention weights"),
        (kwargs.get("s_aux") is not None, "it knows no attention sinks"),
    )  # fmt: skip
    return next((reason for found, reason in checks if found), None)


@functools.cache
def _triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def instead(reason: str, kwargs: Mapping[str, Any]) -> str:
    """Return the attention that can do what a layer asks for, and warn, once for each reason."""
    _warn(reason)
    return "sdpa" if kwargs.get("softcap") is None and kwargs.get("s_aux") is None else "eager"


@functools.cache
def _warn(reason: str) -> None:
    warnings.warn(f"attention is computed piece by piece without FlexAttention: {reason}", stacklevel=2)


def attend(
    layout: Any, module: nn.Module, window: int | None, query: Tensor, key: Tensor, value: Tensor,
    kwargs: Mapping[str, Any], otherwise: Callable[..., Any],
) -> Tensor:  # fmt: skip
    """Attend within the spans of a layout, in autocast's dtype where that is on.

    Args:
        layout: `attention.Layout` of the row; keeps the mask for the next layers.
        module: the attention layer.
        window: its sliding window.
        query: [B, heads, S, d].
        key: [B, key heads, S, d].
        value: [B, key heads, S, d].
        kwargs: scaling, softcap, ...
        otherwise: takes the layer, and those that follow it, where FlexAttention cannot: `attention.rectangles`.

    Returns:
        Attention output [B, S, heads, d].
    """
    if reason := refusal(query, key, value, kwargs):
        layout.inner[id(module.config)], layout.products = instead(reason, kwargs), 0.0
        found: Tensor = otherwise(module, query, key, value, None, **kwargs)[0]
        return found
    layout.calls += 1
    layout.remember(module, key, value)
    if layout.on is not None:
        before = layout.on[id(module)]
        key, value = (torch.cat((*(pair[n] for pair in before), own), 2) for n, own in enumerate((key, value)))
    mask = layout.masks.get((window, query.device))
    if mask is None:
        mask = mask_of(layout.spans, layout.on is not None, window, query.device)
        layout.masks[window, query.device] = mask
        square = 2.0 * query.shape[2] * key.shape[2]
        visited = square if query.device.type == "cpu" else 2.0 * mask.visited * BLOCK**2
        layout.products = max(layout.products, visited)
    kind = query.device.type
    if torch.is_autocast_enabled(kind) and query.dtype != torch.float64:
        query, key, value = (tensor.to(torch.get_autocast_dtype(kind)) for tensor in (query, key, value))
    run = compiled() if kind == "cuda" else _uncompiled
    with as_constants():
        return run(query, key, value, mask.blocks, kwargs.get("scaling"), kwargs.get("softcap")).transpose(1, 2)


@no_type_check
def flex(query: Tensor, key: Tensor, value: Tensor, mask: Any, scale: float | None, softcap: float | None) -> Tensor:
    """Call FlexAttention; what is compiled. Shapes as in `attend`, output [B, heads, S, d]."""
    from torch.nn.attention.flex_attention import flex_attention

    def capped(score: Tensor, _batch: Tensor, _head: Tensor, _q: Tensor, _k: Tensor) -> Tensor:
        return softcap * torch.tanh(score / softcap)

    found: Tensor = flex_attention(
        query, key, value, score_mod=None if softcap is None else capped, block_mask=mask, scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )  # fmt: skip
    return found


def as_constants() -> Any:
    """Compile a scale or a soft-cap as the constant that it is: FlexAttention cannot trace one that may change.

    Models of several scales, with gradient and without, may then need more kernels than PyTorch allows a function.
    """
    from torch._dynamo import config

    return config.patch(specialize_float=True, recompile_limit=KERNELS)


def _uncompiled(*args: Any) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="flex_attention called without torch.compile")
        return flex(*args)


@functools.cache
def compiled(backend: Any = "inductor") -> Any:
    """Return `flex` compiled by one of PyTorch's backends, for rows of any length.

    What cannot be compiled is an error (`fullgraph`): PyTorch would make the whole square of a long row in silence.
    """
    return torch.compile(flex, dynamic=True, fullgraph=True, backend=backend)


@contextlib.contextmanager
def replaced(module: nn.Module) -> Iterator[None]:
    """Inside, a model that names FlexAttention uses SDPA, or where it cannot, its eager function."""
    from transformers import PretrainedConfig

    found = {id(c): c for part in module.modules() if isinstance(c := getattr(part, "config", None), PretrainedConfig)}
    named = [config for config in found.values() if config._attn_implementation == NAME]
    base = module.get_base_model() if hasattr(module, "get_base_model") else module
    try:
        for config in named:
            config._attn_implementation_internal = "sdpa" if getattr(base, "_supports_sdpa", False) else "eager"
        yield
    finally:
        for config in named:
            config._attn_implementation_internal = NAME
