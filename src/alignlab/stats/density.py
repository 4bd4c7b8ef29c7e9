"""Density ratios between two samples from a classifier that tells them apart."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression

WORD_FEATURES = 1024


def word_features(texts: Sequence[str]) -> Any:
    """Return a sparse matrix [n, 1024] of hashed word counts, each row of length 1."""
    return HashingVectorizer(n_features=WORD_FEATURES, alternate_sign=False).transform(texts)


def ratio_of(p: ArrayLike, low: float, high: float) -> NDArray[np.float64]:
    """Return p / (1 - p), clamped: the ratio of two densities whose balanced classifier says p for the first."""
    p = np.asarray(p, dtype=np.float64)
    return np.clip(p / (1 - p + 1e-8), low, high)


def effective_size(weights: ArrayLike) -> float:
    """Return (sum w)^2 / sum w^2, how many equally weighted items the weighted ones are worth."""
    w = np.asarray(weights, dtype=np.float64)
    return float(w.sum() ** 2 / (w**2).sum())


def density_ratio(
    features: Any,
    first: Sequence[bool],
    same: Sequence[object],
    *,
    folds: int = 5,
    sample: int = 1024,
    low: float = 0.5,
    high: float = 10.0,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Estimate psi_first(x) / psi_second(x) for every item.

    A logistic regression is fitted on up to `sample` items of each sample, drawn with replacement, classes balanced.

    Args:
        features: [n, d], dense or sparse.
        first: [n], whether an item is of the first sample.
        same: [n], items with equal entries (duplicates of one text) stay in one fold.
        folds: each item is judged by a classifier that has not seen it; 0 fits and judges all items at once.
        sample: items drawn per class and fit.
        low: smallest ratio returned.
        high: largest ratio returned.
        seed: of folds and draws.

    Returns:
        [n] ratios in [low, high].

    Raises:
        ValueError: items of one class only, also within what is left for a fold.
    """
    labels = np.asarray(first, dtype=bool)
    draw = np.random.default_rng(seed)
    if labels.all() or not labels.any():
        raise ValueError("a density ratio needs items of both samples, but all are of one")
    _, index = np.unique([str(item) for item in same], return_inverse=True)
    fold = draw.permutation(index.max() + 1)[index] % folds if folds else np.zeros(len(labels), dtype=int)
    p = np.empty(len(labels))
    for k in range(max(1, folds)):
        judged = fold == k
        if not judged.any():
            continue
        seen = np.flatnonzero(~judged if folds else judged)
        sides = [seen[labels[seen] == side] for side in (True, False)]
        if not all(len(side) for side in sides):
            raise ValueError(f"fold {k} leaves items of one sample only; use fewer folds than {folds}, or more items")
        chosen = np.concatenate([draw.choice(side, min(sample, len(side))) for side in sides])
        fitted = LogisticRegression(class_weight="balanced", max_iter=1000).fit(features[chosen], labels[chosen])
        p[judged] = fitted.predict_proba(features[judged])[:, 1]
    return ratio_of(p, low, high)
