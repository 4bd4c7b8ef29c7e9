"""What cultures are compared by: dimension scores, clusters that should carry over, forced choices between them."""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
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
    """Return k-means labels of standardised rows; fewer clusters where fewer rows differ."""
    spread = rows.std(axis=0)
    scaled = (rows - rows.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    k = min(k, len(np.unique(scaled, axis=0)))
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


@dataclass(frozen=True, kw_only=True)
class CarryOver:
    """How far the clusters of some dimensions are those of others, as mean adjusted Rand index by subset size."""

    published: dict[int, float]
    """against the clusters of all dimensions: shared ones lift it, so it rises where nothing carries over"""
    held_out: dict[int, float]
    """against the clusters of the dimensions left out"""
    p: float
    """of the held-out index of halves, had each half's clusters been of other entities; a little too small: of 100
    worlds of eight cultures that nothing ties, ten lay at .05 or below"""


def carry_over(rows: ArrayLike, k: int, *, draws: int = 199, seed: int = 42) -> CarryOver:
    """Return how far clusters of [entities, dimensions] carry over between dimensions, over all proper subsets.

    Args:
        rows: [entities, dimensions], at least two dimensions.
        k: clusters.
        draws: random permutations of the entities; the observed order counts as one.
        seed: of k-means and of the permutations.
    """
    x = np.asarray(rows, dtype=np.float64)
    whole = tuple(range(x.shape[1]))
    subsets = [some for size in whole[1:] for some in itertools.combinations(whole, size)]
    known = {some: clusters(x[:, some], k, seed) for some in (*subsets, whole)}
    rest = {some: tuple(i for i in whole if i not in some) for some in subsets}

    def curve(other: Mapping[tuple[int, ...], tuple[int, ...]]) -> dict[int, float]:
        found: dict[int, list[float]] = defaultdict(list)
        for some in subsets:
            found[len(some)].append(float(adjusted_rand_score(known[some], known[other[some]])))
        return {size: float(np.mean(values)) for size, values in sorted(found.items())}

    held_out = curve(rest)
    halves = [some for some in subsets if len(some) == len(whole) // 2]
    pairs = [(known[some], known[rest[some]]) for some in halves]
    p = permuted(pairs, draws=draws, seed=seed)
    return CarryOver(published=curve(dict.fromkeys(subsets, whole)), held_out=held_out, p=p)


def permuted(pairs: Sequence[tuple[ArrayLike, ArrayLike]], *, draws: int, seed: int) -> float:
    """Return the p-value of the mean adjusted Rand index of pairs of partitions, the second ones' entities permuted.

    One permutation serves all pairs of a draw, since their partitions are not independent.
    """
    generator, gained = np.random.default_rng(seed), np.zeros(draws + 1)
    orders = [np.arange(len(np.asarray(pairs[0][0])))]
    orders += [generator.permutation(orders[0]) for _ in range(draws)]
    for left, right in pairs:
        a, b = (np.asarray(side)[:, None] == np.asarray(side)[None] for side in (left, right))
        np.fill_diagonal(a, False)
        n = len(a) * (len(a) - 1)
        expected, most = a.sum() * (b.sum() - len(b)) / n, (a.sum() + b.sum() - len(b)) / 2
        if most > expected:  # two partitions of one cluster each, or of single ones, are alike in every order
            gained += [((a & b[np.ix_(o, o)]).sum() - expected) / (most - expected) for o in orders]
    return float(np.mean(gained >= gained[0] - 1e-12))


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
