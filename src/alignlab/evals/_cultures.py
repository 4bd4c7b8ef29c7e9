"""What cultures are compared by: dimension scores, clusters that should carry over, forced choices between them."""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, silhouette_score

VSM: dict[str, tuple[tuple[int, int, int], ...]] = {
    "PDI": ((35, 7, 2), (25, 20, 23)), "IDV": ((35, 4, 1), (35, 9, 6)), "MAS": ((35, 5, 3), (35, 8, 10)),
    "UAI": ((40, 18, 15), (25, 21, 24)), "LTO": ((40, 13, 14), (25, 19, 22)), "IVR": ((35, 12, 11), (40, 17, 16)),
}  # fmt: skip
"""dimension of the 2013 Values Survey Module -> (weight, item added, item subtracted)"""


def vsm(means: Mapping[int, float], constant: float = 0.0) -> dict[str, float]:
    """Return the dimension scores of mean answers (1 to 5) by item number; those with items missing are left out."""
    return {
        name: constant + sum(w * (means[a] - means[b]) for w, a, b in parts)
        for name, parts in VSM.items()
        if all(a in means and b in means for _, a, b in parts)
    }


def clusters(rows: NDArray[np.float64], k: int, seed: int = 42) -> NDArray[np.int64]:
    """Return k-means labels of standardised rows."""
    spread = rows.std(axis=0)
    scaled = (rows - rows.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    return np.asarray(KMeans(n_clusters=k, n_init=4, random_state=seed).fit_predict(scaled))


def best_k(rows: ArrayLike, seed: int = 42) -> int:
    """Return the number of clusters, 2 to 10, of the highest silhouette."""
    x = np.asarray(rows, dtype=np.float64)
    most = min(10, len(x) - 1)
    if most < 2:
        raise ValueError(f"clusters: {len(x)} rows; at least 3 are needed")
    found = {}
    for k in range(2, most + 1):
        labels = clusters(x, k, seed)
        found[k] = silhouette_score(x, labels) if len(set(labels)) > 1 else -1.0
    return max(found, key=found.__getitem__)


def carry_over(
    rows: ArrayLike, k: int, *, held_out: bool, sizes: Sequence[int] = (), seed: int = 42
) -> dict[int, float]:
    """Return subset size -> mean adjusted Rand index of the clusters of that many dimensions.

    Args:
        rows: [entities, dimensions].
        k: clusters.
        held_out: compare with the clusters of the other dimensions. The published comparison, with the clusters of all
            of them, shares dimensions with what it is compared to and rises where nothing carries over.
        sizes: subset sizes; none named: all proper ones.
        seed: of k-means.
    """
    x = np.asarray(rows, dtype=np.float64)
    count = x.shape[1]
    known: dict[tuple[int, ...], NDArray[np.int64]] = {}

    def labels(subset: tuple[int, ...]) -> NDArray[np.int64]:
        if subset not in known:
            known[subset] = clusters(x[:, subset], k, seed)
        return known[subset]

    found: dict[int, list[float]] = defaultdict(list)
    for size in sizes or range(1, count):
        for subset in itertools.combinations(range(count), size):
            other = tuple(i for i in range(count) if i not in subset) if held_out else tuple(range(count))
            found[size].append(float(adjusted_rand_score(labels(subset), labels(other))))
    return {size: float(np.mean(values)) for size, values in sorted(found.items())}


def preferences(trials: Iterable[tuple[str, str, float]], points: int) -> dict[str, float]:
    """Return name -> how far it is preferred, 0 to 1, from forced choices (A, B, answer), 1 for A to `points` for B.

    A wins points + 1 - answer, B the answer; an indifferent judge gives everybody one half in both orders.
    """
    if points < 2:
        raise ValueError(f"preferences: {points} points; a choice needs at least 2")
    found: dict[str, list[float]] = defaultdict(list)
    for a, b, answer in trials:
        if not 1 <= answer <= points:
            raise ValueError(f"preferences: answer {answer} of {a} against {b} is not within 1 to {points}")
        found[a].append(points + 1 - answer)
        found[b].append(answer)
    return {name: (float(np.mean(values)) - 1) / (points - 1) for name, values in found.items()}


def position(shares: Sequence[float]) -> float:
    """Return the mean answer of shares, options equally spaced in [0, 1]."""
    return float(np.linspace(0, 1, len(shares)) @ np.asarray(shares, dtype=np.float64))


def by_dimension(answers: Mapping[Any, float], dimension: Mapping[Any, str]) -> dict[str, float]:
    """Return dimension -> mean answer of its items."""
    found: dict[str, list[float]] = defaultdict(list)
    for item, value in answers.items():
        found[dimension[item]].append(value)
    return {name: float(np.mean(values)) for name, values in found.items()}
