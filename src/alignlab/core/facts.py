"""Numbers among the facts of a row, which come from a file and may be anything."""

import math
from collections.abc import Mapping
from typing import Any


def finite(value: Any) -> bool:
    """Whether a value is a finite number; true and false are none, though Python counts with them."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def number(
    facts: Mapping[str, Any], name: str, default: float, low: float = -math.inf, high: float = math.inf
) -> float:  # fmt: skip
    """Return a number among the facts of a row; `default` where it is absent or null, as in a column with gaps.

    Raises ValueError, naming the field and what was expected, for anything but a finite number in [low, high].
    """
    value = facts.get(name)
    if value is None:
        return default
    if not finite(value) or not low <= value <= high:
        place = "" if low == -math.inf else f" >= {low:g}" if high == math.inf else f" in [{low:g}, {high:g}]"
        raise ValueError(f"field 'facts.{name}': expected a finite number{place}, got {value!r}")
    return float(value)
