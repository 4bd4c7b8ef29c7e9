"""Metrics as figures."""

import math
from collections.abc import Mapping
from typing import Any

from alignlab.core.types import Figure, Metric


def bars(name: str, shown: Mapping[str, Metric], y_label: str) -> dict[str, Figure]:
    """Return a figure by name: one bar per metric, with its interval. NaN is left out, as is an empty figure."""
    known = {label: m for label, m in shown.items() if not math.isnan(m.value)}
    series: dict[str, list[Any]] = {
        "label": list(known), "y": [m.value for m in known.values()],
        "low": [m.value if m.low is None else m.low for m in known.values()],
        "high": [m.value if m.high is None else m.high for m in known.values()],
    }  # fmt: skip
    return {name: Figure(kind="bars", series={y_label: series}, y_label=y_label)} if known else {}
