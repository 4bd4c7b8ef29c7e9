"""P-values of many tests at once: family-wise error (Holm) or false discovery rate (Benjamini, Hochberg, Yekutieli)."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from scipy.stats import false_discovery_control

Correction = Literal["holm", "bonferroni", "fdr_bh", "fdr_by"]


def adjusted(p_values: Mapping[str, float], method: Correction = "holm") -> dict[str, float]:
    """Return name -> adjusted p-value, to be compared with the level itself.

    Args:
        p_values: name -> p-value of one test.
        method: `holm` (no assumption, default) and `bonferroni` bound the chance of any false alarm; `fdr_bh`
            (independent or positively dependent tests) and `fdr_by` (any) bound the expected share of false alarms.

    Raises:
        ValueError: a p-value outside [0, 1].
    """
    for name, p in p_values.items():
        if not 0 <= p <= 1:
            raise ValueError(f"adjusted: the p-value of {name!r} is {p}; expected a number in [0, 1]")
    if not p_values:
        return {}
    given = np.array(list(p_values.values()), dtype=np.float64)
    if method in ("fdr_bh", "fdr_by"):
        found = false_discovery_control(given, method=method.removeprefix("fdr_"))
    elif method == "bonferroni":
        found = np.minimum(1.0, given * len(given))
    else:
        order = np.argsort(given)
        found = np.empty_like(given)
        found[order] = np.minimum(1.0, np.maximum.accumulate(given[order] * np.arange(len(given), 0, -1)))
    return {name: float(p) for name, p in zip(p_values, found)}
