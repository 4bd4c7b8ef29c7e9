"""Agreement of two raters beyond chance: Cohen's kappa (1960) with a bootstrap interval."""

import math
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from alignlab.core.types import Metric
from alignlab.stats.resample import Index, numbered, statistic


def _kappa(first: Index, second: Index, labels: int) -> float:
    joint: NDArray[np.float64] = np.bincount(first * labels + second, minlength=labels**2).astype(np.float64)
    share = joint.reshape(labels, labels) / max(1, len(first))
    expected = float(share.sum(1) @ share.sum(0))
    return math.nan if math.isclose(expected, 1.0) else (float(np.trace(share)) - expected) / (1 - expected)


def kappa(
    first: Sequence[Hashable],
    second: Sequence[Hashable],
    *,
    clusters: Sequence[Hashable] | None = None,
    level: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> Metric:
    """Return kappa = (observed - expected agreement) / (1 - expected agreement) of nominal labels.

    NaN where both raters give every item one and the same label: there is nothing to agree beyond chance about.
    Raises ValueError for unequal lengths.
    """
    if len(first) != len(second):
        raise ValueError(f"kappa: {len(first)} labels against {len(second)}; both raters must label every item")
    places = numbered([*first, *second])
    a, b = places[: len(first)], places[len(first) :]
    labels = int(places.max()) + 1 if len(places) else 1
    return statistic(
        lambda index: _kappa(a[index], b[index], labels),
        range(len(a)) if clusters is None else clusters,
        level=level,
        draws=draws,
        seed=seed,
    )
