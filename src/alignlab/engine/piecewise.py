"""Attention over the pieces of a row as one node of the graph, on processors.

PyTorch's kernel is called for each piece, forwards and backwards, as it is by `scaled_dot_product_attention`; what is
saved is what surrounds it. Autograd would keep every piece's output beside the row of them, and the keys of a prompt
once more for each completion that reads them; here queries, keys, values and output are kept once (and of pieces that
`folded` computes the probabilities, where they are few), and the gradients of a piece are written where they belong.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from alignlab.engine import folded
from alignlab.engine.products import as_it_is

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
BLOCK = {True: 128, False: 1024}
"""most queries of a masked product, on a CPU and on a GPU, where every call counts"""


class Block(NamedTuple):
    """Some queries of a piece, and the keys that they see."""

    queries: tuple[int, int]
    keys: tuple[int, int]
    mask: Tensor | None
    """additive [1, 1, queries, keys]; None where SDPA's own causal mask will do"""


class Piece(NamedTuple):
    """Queries that lie together in a row; their keys are a prompt's, if there is one before them, and their own."""

    queries: tuple[int, int]
    prompt: tuple[int, int]
    """place of the prompt in the row; empty where the piece begins with it, or where it was read before"""
    before: tuple[Tensor, Tensor] | None
    """keys and values [B, key heads, P, d] of a prompt that was read before, without gradient"""
    blocks: Sequence[Block]
    folded: bool = False
    """computed by `folded`"""

    @property
    def size(self) -> int:
        """Its queries."""
        return self.queries[1] - self.queries[0]

    @property
    def offset(self) -> int:
        """Keys before its own."""
        return self.prompt[1] - self.prompt[0] if self.before is None else self.before[0].shape[2]


def unhidden(offset: int, length: int, window: int | None) -> bool:
    """Whether a window hides nothing of a piece whose first query is at `offset`."""
    return window is None or window >= offset + length


def cut(offset: int, length: int, window: int | None, sdpa: bool, like: Tensor) -> list[Block]:
    """Cut a piece whose first query is at `offset`: a masked product computes what it hides, the less the shorter."""
    seen = unhidden(offset, length, window)
    if sdpa and seen and not offset:
        return [Block((0, length), (0, length), None)]
    number = -(-length // BLOCK[like.device.type == "cpu"])
    cuts = [length * k // number for k in range(number + 1)]
    found = []
    for start, stop in itertools.pairwise(cuts):
        keys = (0 if seen else max(0, offset + start - window + 1), offset + stop)
        query = torch.arange(offset + start, offset + stop, device=like.device)[:, None]
        distance = query - torch.arange(*keys, device=like.device)
        hidden = distance < 0 if seen else (distance < 0) | (distance >= window)
        # Additive, never boolean: eager attention would add a boolean mask as ones
        mask = like.new_zeros(hidden.shape).masked_fill_(hidden, torch.finfo(like.dtype).min)[None, None]
        found.append(Block((start, stop), keys, mask))
    return found


def able(query: Tensor, key: Tensor, value: Tensor, dropout: float) -> bool:
    """Whether the kernel takes these."""
    alike = query.shape[-1] == key.shape[-1] == value.shape[-1]
    alike = alike and query.stride(-1) == key.stride(-1) == value.stride(-1) == 1
    return alike and query.device.type == "cpu" and query.dtype in FLOATS and not dropout


def shared_heads(query: Tensor, key: Tensor) -> int:
    """Return the query heads to a key head where `folded` may compute pieces; 0 where it may not."""
    fits = query.dtype == torch.float32 and len(query) == 1 and not torch.is_autocast_enabled("cpu")
    return query.shape[1] // key.shape[1] if fits else 0


def attend(query: Tensor, key: Tensor, value: Tensor, pieces: Sequence[Piece], scale: float | None) -> Tensor:
    """Attend piece by piece, in autocast's dtype where that is on.

    Args:
        query: [B, heads, S, d].
        key: [B, key heads, S, d].
        value: [B, key heads, S, d].
        pieces: cover the row, in order.
        scale: of the scores; None for 1 / sqrt(d).

    Returns:
        Attention output [B, S, heads, d].
    """
    if torch.is_autocast_enabled("cpu") and query.dtype != torch.float64:
        query, key, value = (tensor.to(torch.get_autocast_dtype("cpu")) for tensor in (query, key, value))
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    with as_it_is():
        found: Tensor = _Pieces.apply(query, key, value, pieces, scale)
    return found


class _Pieces(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, pieces: Sequence[Piece], scale: float) -> Tensor:
        out = query.new_empty(query.shape[0], query.shape[2], query.shape[1], query.shape[3])
        if not _finite(query, key, value, pieces):
            pieces = [piece._replace(folded=False) for piece in pieces]
        row = _folded_row(query, key, value, pieces, scale)
        saved: list[list[Tensor]] = []
        for piece in pieces:
            saved.append([])
            if piece.folded:
                keep = any(ctx.needs_input_grad) and folded.keeps(query.shape[1], piece.offset, piece.size)
                both = _seen_by_head(row, piece)
                saved[-1] = folded.forward(
                    row, piece.queries[0], piece.size, *both, piece.offset, out[0], keep=keep
                )  # fmt: skip
                continue
            keys, values = _seen(key, piece, 0), _seen(value, piece, 1)
            for places, seen, block in _blocks(piece):
                found, total = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                    query[:, :, places], keys[:, :, seen], values[:, :, seen], 0.0, block.mask is None,
                    attn_mask=block.mask, scale=scale,
                )  # fmt: skip
                out[:, places] = found.transpose(1, 2)
                saved[-1].append(total)
        ctx.pieces, ctx.scale, ctx.numbers = pieces, scale, list(map(len, saved))
        ctx.save_for_backward(query, key, value, out, *itertools.chain(*saved))
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out, *flat = ctx.saved_tensors
        saved = iter(flat)
        # every query, and every key as one of its own piece, is written once before anything is added to it
        for_query, for_key, for_value = (torch.empty_like(tensor) for tensor in (query, key, value))
        row = _folded_row(query, key, value, ctx.pieces, ctx.scale)
        by_head = folded.by_head(gradient[0].transpose(0, 1), key.shape[1]) if row else ()
        for piece, number in zip(ctx.pieces, ctx.numbers):
            mine = list(itertools.islice(saved, number))
            if piece.folded:
                of_keys, of_values = folded.backward(
                    row, piece.queries[0], piece.size, *_seen_by_head(row, piece), piece.offset,
                    by_head, mine, for_query[0], ctx.scale,
                )  # fmt: skip
                for h, (of_key, of_value) in enumerate(zip(of_keys, of_values)):
                    _give(for_key[0, h], piece, of_key)
                    _give(for_value[0, h], piece, of_value)
                continue
            keys, values = _seen(key, piece, 0), _seen(value, piece, 1)
            whole: tuple[Tensor, Tensor] | None = None
            for (places, seen, block), total in zip(_blocks(piece), mine, strict=True):
                part, *both = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                    gradient[:, places].transpose(1, 2), query[:, :, places], keys[:, :, seen], values[:, :, seen],
                    out[:, places].transpose(1, 2), total, 0.0, block.mask is None,
                    attn_mask=block.mask, scale=ctx.scale,
                )  # fmt: skip
                for_query[:, :, places] = part
                if len(piece.blocks) == 1 and block.keys == (0, keys.shape[2]):
                    whole = both[0], both[1]
                    continue
                whole = whole or (torch.zeros_like(keys), torch.zeros_like(values))
                for sum_, more in zip(whole, both):
                    sum_[:, :, seen] += more
            if whole is not None:
                _give(for_key, piece, whole[0])
                _give(for_value, piece, whole[1])
        return for_query, for_key, for_value, None, None


def _folded_row(query: Tensor, key: Tensor, value: Tensor, pieces: Sequence[Piece], scale: float) -> folded.Row | None:
    return folded.Row.of(query[0], key[0], value[0], scale) if any(piece.folded for piece in pieces) else None


def _finite(query: Tensor, key: Tensor, value: Tensor, pieces: Sequence[Piece]) -> bool:
    """Whether pieces may be folded: products hide a neighbour behind zeros, and zero times infinity is not zero."""
    if not any(piece.folded for piece in pieces):
        return True
    rows = (query, key, value, *(rows for piece in pieces for rows in piece.before or ()))
    return bool(torch.stack([part.sum() for part in rows]).isfinite().all())


def _seen_by_head(row: folded.Row, piece: Piece) -> tuple[list[Tensor], list[Tensor]]:
    """Return the keys and the values of a folded piece, of each key head."""
    found = []
    for which in (1, 2):
        before: Sequence[Tensor] = ()
        if piece.before is not None:
            before = piece.before[which - 1][0].unbind()
        elif piece.offset:
            before = [rows[slice(*piece.prompt)] for rows in row[which]]
        found.append(row.seen(which, piece.queries[0], piece.size, before))
    return found[0], found[1]


def _blocks(piece: Piece) -> Iterator[tuple[slice, slice, Block]]:
    """Yield the place in the row of each block's queries, that of its keys among the piece's, and the block."""
    for block in piece.blocks:
        yield slice(*(piece.queries[0] + place for place in block.queries)), slice(*block.keys), block


def _seen(tensor: Tensor, piece: Piece, which: int) -> Tensor:
    """Return the keys, or the values, that a piece sees."""
    own = tensor[:, :, slice(*piece.queries)]
    if piece.before is not None:
        return torch.cat((piece.before[which], own), 2)
    return torch.cat((tensor[:, :, slice(*piece.prompt)], own), 2) if piece.prompt[0] < piece.prompt[1] else own


def _give(row: Tensor, piece: Piece, gradient: Tensor) -> None:
    """Write the gradient [..., m or more, d] of a piece's m keys or values to the row, and add its prompt's part."""
    offset, size = piece.prompt[1] - piece.prompt[0], piece.size
    row.narrow(-2, piece.queries[0], size).copy_(gradient.narrow(-2, piece.offset, size))
    if offset:
        row.narrow(-2, piece.prompt[0], offset).add_(gradient.narrow(-2, 0, offset))
