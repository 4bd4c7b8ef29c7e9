"""Scales of a figure: data to pixels, with ticks that people can read."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from alignlab.report.text import number

FONT = 12.0
"""size of the text in a figure, pixels"""


def finite(value: Any) -> float | None:
    """Return a number, or None for text, None, NaN and infinity."""
    if isinstance(value, (int, float)) and math.isfinite(value):
        return float(value)
    return None


def text_width(text: str, size: float = FONT) -> float:
    """Estimate the width of text in pixels."""
    return sum(1.0 if ord(char) > 0x2E80 else 0.6 for char in text) * size


def fit(text: str, width: float, size: float = FONT) -> str:
    """Return text cut with an ellipsis to a width in pixels."""
    if text_width(text, size) <= width:
        return text
    kept = text
    while kept and text_width(kept + "…", size) > width:
        kept = kept[:-1]
    return kept.rstrip() + "…"


@dataclass(frozen=True)
class Linear:
    """Numbers from `low` to `high` on pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]

    def __call__(self, value: float) -> float:
        """Return the pixel of a number."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def labels(self) -> list[tuple[float, str]]:
        """Return (pixel, text) of each tick, all with the same number of decimals."""
        step = min((b - a for a, b in zip(self.ticks, self.ticks[1:])), default=1.0)
        if not 1e-4 <= step < 1e6:
            return [(self(tick), number(tick)) for tick in self.ticks]
        decimals = max(0, -math.floor(math.log10(step) + 1e-9))
        if decimals and round(step * 10**decimals, 6) % 1:
            decimals += 1
        return [(self(t), f"{t + 0.0:,.{decimals}f}".replace("-", "−")) for t in self.ticks]


@dataclass(frozen=True)
class Bands:
    """Names side by side, in order."""

    names: tuple[str, ...]
    start: float
    end: float

    @property
    def step(self) -> float:
        """Pixels from one name to the next."""
        return (self.end - self.start) / max(1, len(self.names))

    def __call__(self, name: Any) -> float:
        """Return the pixel at the middle of a name's band."""
        return self.start + (self.names.index(str(name)) + 0.5) * self.step

    def labels(self) -> list[tuple[float, str]]:
        """Return (pixel, text) of each name."""
        return [(self(name), name) for name in self.names]


Scale = Linear | Bands


def nice_ticks(low: float, high: float, count: int) -> tuple[float, ...]:
    """Return about `count` multiples of 1, 2, 2.5 or 5 times a power of ten that cover [low, high]."""
    span = high - low
    power = 10.0 ** math.floor(math.log10(span / max(1, count)))
    step = next(m * power for m in (1, 2, 2.5, 5, 10, 20) if span / (m * power) <= count)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return tuple(float(f"{i * step:.12g}") for i in range(first, last + 1))


def linear(values: Iterable[Any], start: float, end: float, *, zero: bool = False, count: int = 5) -> Linear:
    """Return a scale that holds the values; shares that spread get the whole of [0, 1]."""
    found = [value for value in map(finite, values) if value is not None] or [0.0, 1.0]
    low, high = min(found), max(found)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if low >= 0 and high <= 1 and high - low > 0.25:
        low, high = 0.0, 1.0
    if high - low <= max(1e-12 * max(abs(high), abs(low)), 1e-250):
        pad = abs(high) / 10 if abs(high) > 1e-250 else 1.0
        low, high = (low if zero and low == 0 else low - pad), (high if zero and high == 0 and low < 0 else high + pad)
    ticks = nice_ticks(low, high, count)
    return Linear(ticks[0], ticks[-1], start, end, ticks)


def names_of(columns: Iterable[Sequence[Any]]) -> tuple[str, ...]:
    """Return the distinct names of several columns in order of appearance."""
    return tuple(dict.fromkeys(str(name) for column in columns for name in column))
