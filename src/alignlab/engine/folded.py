"""Attention of one piece by oneDNN's products, where they are the faster ones: float32 on AMD processors (`products`).

PyTorch's kernel multiplies blocks of 32 to 64 queries, head by head, through MKL: 37 to 60 GFLOP/s on one core of an
EPYC, where a product of some hundred rows gets 200 by oneDNN. So the query heads that share a key head are folded into
one product, for a block of queries at a time, and the backward pass computes the probabilities again.

What is short stays with PyTorch's kernel, and so does everything where there are many threads: it deals out heads and
blocks to them, while here they would share small products.
"""

import functools
from collections.abc import Iterator

import torch
from torch import Tensor

from alignlab.engine.products import preferred, product

BLOCK = 128
"""queries of a block, times the heads that share a key head: rows of a product"""
GRAIN = 64
"""queries and keys of a block are padded to multiples: oneDNN compiles a kernel for every shape"""
LEAST = 1 << 16
"""pairs of a query and a key that it sees, times the heads folded, from which on folding is the faster way"""
THREADS = 4
"""most threads; measured with one and two"""


def folds(heads: int, offset: int, length: int) -> bool:
    """Whether a piece is computed here: `heads` to a key head, queries that see `offset` keys and their own."""
    seen = length * offset + length * (length + 1) // 2
    return heads * seen >= LEAST and torch.get_num_threads() <= THREADS and preferred()


def pairs(offset: int, length: int) -> float:
    """Return twice the (query, key) products of a piece, with those that blocks hide and pad."""
    return sum(2.0 * rows * seen for _, _, rows, seen in _blocks(offset, length))


def _blocks(offset: int, length: int) -> list[tuple[int, int, int, int]]:
    """Return first and last query of each block, its rows to a head and its keys: in grains, for kernels to recur."""
    cuts = ((start, min(start + BLOCK, length)) for start in range(0, length, BLOCK))
    return [(start, stop, _grains(stop - start), _grains(offset + stop)) for start, stop in cuts]


def _grains(n: int) -> int:
    return -(-n // GRAIN) * GRAIN


def forward(query: Tensor, key: Tensor, value: Tensor, out: Tensor, scale: float) -> None:
    """Write the output of a piece.

    Args:
        query: [heads, n, d]: the last n of m positions.
        key: [key heads, m, d].
        value: [key heads, m, d].
        out: [n, heads, d], written.
        scale: of the scores.
    """
    shared, offset = len(query) // len(key), key.shape[1] - query.shape[1]
    parts = out.unflatten(1, (len(key), shared))
    for h, (q, k, v) in enumerate(_heads(query, key, value, scale)):
        for start, stop, rows, seen in _blocks(offset, query.shape[1]):
            p = _probabilities(q[shared * start : shared * (start + rows)], k[:seen], offset + start, shared)
            parts[start:stop, h] = product(p, v[:seen].t()).view(rows, shared, -1)[: stop - start]


def backward(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, for_query: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Write the gradient of a piece's queries; return those of the keys and values, [key heads, m, d].

    Args:
        gradient: of the output, [n, heads, d].
        query: as in `forward`.
        key: as in `forward`.
        value: as in `forward`.
        for_query: [heads, n, d], written.
        scale: as in `forward`.
    """
    shared, offset = len(query) // len(key), key.shape[1] - query.shape[1]
    size = (len(key), key.shape[2], _grains(key.shape[1]))
    for_key, for_value = query.new_zeros(size), query.new_zeros(size)
    for h, (q, k, v) in enumerate(_heads(query, key, value, scale)):
        g = _padded(gradient.unflatten(1, (len(key), shared))[:, h])
        q_gradient = for_query.unflatten(0, (len(key), shared))[h]
        for start, stop, rows, seen in _blocks(offset, query.shape[1]):
            mine = slice(shared * start, shared * (start + rows))
            p = _probabilities(q[mine], k[:seen], offset + start, shared)
            for_value[h, :, :seen] += product(g[mine].t(), p.t())
            s = torch._softmax_backward_data(product(g[mine], v[:seen]), p, -1, p.dtype)
            found = product(s, k[:seen].t()).view(rows, shared, -1)[: stop - start]
            torch.mul(found.transpose(0, 1), scale, out=q_gradient[:, start:stop])
            for_key[h, :, :seen] += product(q[mine].t(), s.t())
    own = slice(key.shape[1])
    return for_key[:, :, own].transpose(1, 2), for_value[:, :, own].transpose(1, 2)


def _heads(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield, for each key head, its queries times the scale [rows * heads, d], and its keys and values [keys, d]."""
    for q, k, v in zip(query.unflatten(0, (len(key), -1)), key, value):
        yield _padded(q.transpose(0, 1)).mul_(scale), _padded(k), _padded(v)


def _padded(rows: Tensor) -> Tensor:
    """Return [n, d], or [n, heads, d] as [n * heads, d], in a new tensor that rows of zeros fill to whole grains."""
    found = rows.new_zeros(_grains(len(rows)), *rows.shape[1:])
    found[: len(rows)] = rows
    return found.view(-1, rows.shape[-1])


def _probabilities(q: Tensor, k: Tensor, first: int, shared: int) -> Tensor:
    """Return what each row of a block of queries gives to each key; the first query stands at `first`."""
    scores = product(q, k)
    rows = len(q) // shared
    scores.view(rows, shared, len(k))[:, :, first:].add_(_hidden(rows, len(k) - first))
    return scores.softmax(-1)


@functools.lru_cache(maxsize=256)
def _hidden(rows: int, keys: int) -> Tensor:
    """Return [rows, 1, keys]: minus infinity where a key comes after a query."""
    return torch.full((rows, keys), -torch.inf).triu_(1)[:, None]
