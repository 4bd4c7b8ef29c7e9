"""Clusters of sentences: density by cosine distance, what is kept of them, and how two groupings agree."""

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Labels = NDArray[np.int64]


def dense(vectors: Vectors, eps: float, least: int) -> Labels:
    """Return DBSCAN's cluster of each unit vector, -1 for noise.

    Args:
        vectors: [n, d].
        eps: greatest cosine distance of neighbours, in [0, 2].
        least: neighbours of a core point, itself included.
    """
    from sklearn.cluster import DBSCAN

    if len(vectors) < least:
        return np.full(len(vectors), -1, dtype=np.int64)
    return np.asarray(DBSCAN(eps=eps, min_samples=least, metric="cosine").fit_predict(vectors), dtype=np.int64)


def kept(labels: Labels, smallest: int, largest: float) -> list[NDArray[np.int64]]:
    """Return the members of each cluster of at least `smallest`, below the share `largest` of all clustered ones."""
    sizes = Counter(labels[labels >= 0].tolist())
    whole = sum(sizes.values())
    return [
        np.flatnonzero(labels == name) for name, n in sorted(sizes.items()) if n >= smallest and n < largest * whole
    ]


def representative(vectors: Vectors, members: NDArray[np.int64]) -> int:
    """Return the member nearest (Euclidean) to the members' mean; the first of equals."""
    some = vectors[members].astype(np.float64)
    return int(members[np.argmin(((some - some.mean(0)) ** 2).sum(1).round(12))])


def merged(vectors: Vectors, within: float) -> list[int]:
    """Return for each vector the group of those linked by cosine distances of at most `within`."""
    near = 1 - vectors.astype(np.float64) @ vectors.astype(np.float64).T <= within
    found = [-1] * len(vectors)
    for start in range(len(vectors)):
        if found[start] < 0:
            name, reached = max(found) + 1, [start]
            found[start] = name
            while reached:
                for other in np.flatnonzero(near[reached.pop()]).tolist():
                    if found[other] < 0:
                        found[other] = name
                        reached.append(other)
    return found


def pair_f1(found: Sequence[Hashable], truth: Sequence[Hashable]) -> float:
    """Return F1 over pairs: those put together against those that belong together; None belongs to nothing.

    NaN without a pair that belongs together.
    """
    if len(found) != len(truth):
        raise ValueError(f"pair_f1: {len(found)} labels against {len(truth)}")

    def pairs(labels: Sequence[Hashable]) -> int:
        return sum(n * (n - 1) // 2 for n in Counter(x for x in labels if x is not None).values())

    both = pairs([None if a is None or b is None else (a, b) for a, b in zip(found, truth)])
    together, belong = pairs(found), pairs(truth)
    return 2 * both / (together + belong) if belong else float("nan")


def jaccard(first: set[str], second: set[str]) -> float:
    """Return the shared part of two sets; NaN for two empty ones."""
    return len(first & second) / len(first | second) if first | second else float("nan")
