"""Attention of one piece by oneDNN's products, where they are the faster ones: float32 on AMD processors (`products`).

PyTorch's kernel multiplies blocks of 32 to 64 queries, head by head, through MKL: 37 to 60 GFLOP/s on one core of an
EPYC, where a product of some hundred rows gets 200 by oneDNN. So the query heads that share a key head are folded into
one product, for a block of queries at a time. The probabilities of short pieces are kept for the backward pass, those
of long ones computed again.

What is short stays with PyTorch's kernel, and so does everything where there are many threads: it deals out heads and
blocks to them, while here they would share small products.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from alignlab.engine.products import linear_map, preferred

BLOCK = 128
"""queries of a block, times the heads that share a key head: rows of a product"""
GRAIN = 64
"""queries and keys of a block are padded to multiples: oneDNN compiles a kernel for every shape"""
LEAST = 1 << 16
"""pairs of a query and a key that it sees, times the heads folded, from which on folding is the faster way"""
KEPT = 1 << 20
"""most probabilities of a piece, all heads together, that are kept; 4 MiB in each layer"""
THREADS = 4
"""most threads; measured with one and two"""


def folds(heads: int, offset: int, length: int) -> bool:
    """Whether a piece is computed here: `heads` to a key head, queries that see `offset` keys and their own."""
    seen = length * offset + length * (length + 1) // 2
    return heads * seen >= LEAST and torch.get_num_threads() <= THREADS and preferred()


def pairs(offset: int, length: int) -> float:
    """Return twice the (query, key) products of a piece, with those that blocks hide and pad."""
    return sum(2.0 * rows * seen for _, _, rows, seen in _blocks(offset, length))


def keeps(heads: int, offset: int, length: int) -> bool:
    """Whether the probabilities of a piece are few enough to be kept; `heads` of queries."""
    return heads * pairs(offset, length) <= 2 * KEPT


def _blocks(offset: int, length: int) -> list[tuple[int, int, int, int]]:
    """Return first and last query of each block, its rows to a head and its keys: in grains, for kernels to recur."""
    cuts = ((start, min(start + BLOCK, length)) for start in range(0, length, BLOCK))
    return [(start, stop, _grains(stop - start), _grains(offset + stop)) for start, stop in cuts]


def _grains(n: int) -> int:
    return -(-n // GRAIN) * GRAIN


class Row(NamedTuple):
    """A row's queries, keys and values as products take them: of each key head [rows, d], with a grain of zeros behind.

    A query's `shared` heads stand one below the other. What lies behind a piece is another's: keys there are hidden.
    """

    queries: Sequence[Tensor]
    keys: Sequence[Tensor]
    values: Sequence[Tensor]
    shared: int

    @classmethod
    def of(cls, query: Tensor, key: Tensor, value: Tensor, scale: float) -> "Row":
        """Lay out [heads, S, d], times the scale of the scores, and [key heads, S, d]."""
        number = len(key)
        return cls(by_head(query, number, scale), by_head(key, number), by_head(value, number), len(query) // number)

    def seen(self, which: int, begin: int, n: int, before: Sequence[Tensor]) -> list[Tensor]:
        """Return the keys (`which` 1) or values (2) of a piece, in whole grains: of each key head [m + padding, d].

        Args:
            which: field of this tuple.
            begin: the first of the piece's n queries.
            n: queries.
            before: of each key head [offset, d] that stands before the piece's own; none where it begins with itself.
        """
        own = _grains(n) if not before else _grains(len(before[0]) + n) - len(before[0])
        parts = [rows.narrow(0, begin, own) for rows in self[which]]
        return [torch.cat(both) for both in zip(before, parts)] if before else parts


def by_head(rows: Tensor, number: int, scale: float = 1.0) -> Sequence[Tensor]:
    """Return [heads, S, d] times a scale as `number` key heads of [(S + GRAIN) * shared, d], zeros at the end."""
    apart = rows.unflatten(0, (number, -1)).transpose(1, 2)
    found = rows.new_empty(number, apart.shape[1] + GRAIN, *apart.shape[2:])
    torch.mul(apart, scale, out=found[:, :-GRAIN])
    found[:, -GRAIN:] = 0.0
    return found.flatten(1, 2).unbind()


def forward(
    row: Row, begin: int, n: int, keys: Sequence[Tensor], values: Sequence[Tensor], offset: int, out: Tensor,
    *, keep: bool = False,
) -> list[Tensor]:  # fmt: skip
    """Write the output of a piece; return the probabilities of each key head's blocks if they are to be kept.

    Args:
        row: the whole row.
        begin: the piece's first query.
        n: its queries.
        keys: what it sees, of each key head: `Row.seen`.
        values: alike.
        offset: keys before its own.
        out: [S, heads, d], written from `begin` on.
        keep: whether `backward` is to have the probabilities.
    """
    linear, shared = linear_map(), row.shared
    kept: list[Tensor] = []
    outputs = out.unflatten(1, (len(keys), shared)).unbind(1)
    for queries, k, v, output in zip(row.queries, keys, values, outputs):
        v_turned = v.t()
        for start, stop, rows, seen in _blocks(offset, n):
            q = queries.narrow(0, shared * (begin + start), shared * rows)
            p = _probabilities(linear, q, k.narrow(0, 0, seen), offset + start, shared)
            found = linear(p, v_turned.narrow(1, 0, seen), None).view(rows, shared, -1)
            output.narrow(0, begin + start, stop - start).copy_(found.narrow(0, 0, stop - start))
            if keep:
                kept.append(_own(p, shared * (stop - start)))
    return kept


def backward(
    row: Row, begin: int, n: int, keys: Sequence[Tensor], values: Sequence[Tensor], offset: int,
    gradient: Sequence[Tensor], kept: Sequence[Tensor], for_query: Tensor, scale: float,
) -> tuple[list[Tensor], list[Tensor]]:  # fmt: skip
    """Write the gradient of a piece's queries; return those of the keys and values, of each key head [m + padding, d].

    Args:
        row: as in `forward`.
        begin: as in `forward`.
        n: as in `forward`.
        keys: as in `forward`.
        values: as in `forward`.
        offset: as in `forward`.
        gradient: of the output [S, heads, d], by `by_head`.
        kept: what `forward` returned, or nothing.
        for_query: [heads, S, d], written from `begin` on.
        scale: of the scores.
    """
    linear, shared, blocks = linear_map(), row.shared, _blocks(offset, n)
    for_queries = for_query.unflatten(0, (len(keys), shared)).transpose(1, 2).unbind()
    found: tuple[list[Tensor], list[Tensor]] = ([], [])
    for h, (queries, k, v) in enumerate(zip(row.queries, keys, values)):
        k_turned, sums = k.t(), []
        # the last block sees all keys, so that there is something to add the others to
        for number in reversed(range(len(blocks))):
            start, stop, rows, seen = blocks[number]
            q = queries.narrow(0, shared * (begin + start), shared * rows)
            g = gradient[h].narrow(0, shared * (begin + start), shared * rows)
            if kept:
                p = kept[h * len(blocks) + number]
            else:
                p = _probabilities(linear, q, k.narrow(0, 0, seen), offset + start, shared)
                p = _own(p, shared * (stop - start))
            s = torch._softmax_backward_data(linear(g, v.narrow(0, 0, seen), None), p, -1, p.dtype)
            of_q = linear(s, k_turned.narrow(1, 0, seen), None).view(rows, shared, -1).narrow(0, 0, stop - start)
            torch.mul(of_q, scale, out=for_queries[h].narrow(0, begin + start, stop - start))
            parts = linear(q.t(), s.t(), None), linear(g.t(), p.t(), None)
            if sums:
                for sum_, part in zip(sums, parts):
                    sum_.narrow(1, 0, seen).add_(part)
            else:
                sums = list(parts)
        for each, sum_ in zip(found, sums):
            each.append(sum_.t())
    return found


def _probabilities(linear: Callable[..., Tensor], q: Tensor, k: Tensor, first: int, shared: int) -> Tensor:
    """Return what each row of a block of queries gives to each key; the first query stands at `first`."""
    scores = linear(q, k, None)
    size, seen = scores.shape
    rows = size // shared
    diagonal = scores.as_strided((rows, shared, seen - first), (shared * seen, seen, 1), first)
    diagonal.add_(_hidden(rows, seen - first))
    return scores.softmax(-1)


def _own(p: Tensor, size: int) -> Tensor:
    """Set to zero what is of another piece's queries: all rows but the first `size`."""
    if size < len(p):
        p.narrow(0, size, len(p) - size).zero_()
    return p


@functools.lru_cache(maxsize=256)
def _hidden(rows: int, keys: int) -> Tensor:
    """Return [rows, 1, keys]: minus infinity where a key comes after a query."""
    return torch.full((rows, keys), -torch.inf).triu_(1)[:, None]
