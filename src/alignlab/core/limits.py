"""Limits of settings, said by the name of the flag."""

from collections.abc import Mapping
from typing import Any


def at_least(settings: Any, bounds: Mapping[str, float]) -> None:
    """Raise ValueError, naming the flag, for the first field of `settings` that is below its bound."""
    for name, bound in bounds.items():
        if getattr(settings, name) < bound:
            raise ValueError(f"--{name}: expected a number >= {bound}, got {getattr(settings, name)}")
