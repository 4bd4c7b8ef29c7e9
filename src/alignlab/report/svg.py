"""SVG elements as escaped markup, and the shapes that tell series apart without colour."""

from typing import Any

from markupsafe import Markup, escape

from alignlab.core.answers import readable
from alignlab.report.text import show

COLOURS = 8
"""series classes s0 to s7 in page.css"""
DASHES = ("", "6 3", "2 3", "8 3 2 3")


def element(tag: str, *inside: Any, **attributes: Any) -> Markup:
    """Return one element; `class_` becomes class, `font_size` font-size; text and attributes are escaped."""
    parts = [tag]
    for name, value in attributes.items():
        if value is None or value == "":
            continue
        shown = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else readable(str(value))
        parts.append(f'{name.rstrip("_").replace("_", "-")}="{escape(shown)}"')
    body = Markup("").join(part if isinstance(part, Markup) else escape(show(part)) for part in inside)
    return Markup(f"<{' '.join(parts)}>{body}</{tag}>")


def marker(shape: int, x: float, y: float, size: float = 4.0) -> str:
    """Return the path of a marker centred on (x, y): disc, square, triangle, diamond, cross, inverted triangle."""
    r = size
    outlines = (
        f"M{x - r:.2f} {y:.2f}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0Z",
        f"M{x - 0.9 * r:.2f} {y - 0.9 * r:.2f}h{1.8 * r:.2f}v{1.8 * r:.2f}h{-1.8 * r:.2f}Z",
        f"M{x:.2f} {y - 1.15 * r:.2f}l{1.1 * r:.2f} {1.95 * r:.2f}h{-2.2 * r:.2f}Z",
        f"M{x:.2f} {y - 1.25 * r:.2f}l{1.25 * r:.2f} {1.25 * r:.2f}l{-1.25 * r:.2f} {1.25 * r:.2f}"
        f"l{-1.25 * r:.2f} {-1.25 * r:.2f}Z",
        f"M{x - 0.4 * r:.2f} {y - 1.2 * r:.2f}h{0.8 * r:.2f}v{0.8 * r:.2f}h{0.8 * r:.2f}v{0.8 * r:.2f}h{-0.8 * r:.2f}"
        f"v{0.8 * r:.2f}h{-0.8 * r:.2f}v{-0.8 * r:.2f}h{-0.8 * r:.2f}v{-0.8 * r:.2f}h{0.8 * r:.2f}Z",
        f"M{x:.2f} {y + 1.15 * r:.2f}l{1.1 * r:.2f} {-1.95 * r:.2f}h{-2.2 * r:.2f}Z",
    )
    return outlines[shape % len(outlines)]


def polyline(points: list[tuple[float, float]]) -> str:
    """Return the path through points in order."""
    return "M" + "L".join(f"{x:.2f} {y:.2f}" for x, y in points)


def colour(index: int) -> str:
    """Return the class of a series."""
    return f"s{index % COLOURS}"


def dash(index: int) -> str:
    """Return the dash pattern of a series: solid while colours last."""
    return DASHES[index // COLOURS % len(DASHES)]


def swatch(index: int, kind: str) -> Markup:
    """Return the legend's sign of a series."""
    if kind in ("bars", "cells"):
        opacity = 0.3 if kind == "cells" else None
        style = f"{'cell' if kind == 'cells' else 'bar'} {colour(index)}"
        inside = element("rect", class_=style, fill_opacity=opacity, x=3.0, y=2.0, width=16.0, height=10.0, rx=2.0)
    else:
        line = element("path", class_=f"line {colour(index)}", d="M0 7h22", stroke_dasharray=dash(index))
        dot = element("path", class_=f"dot {colour(index)}", d=marker(index, 11.0, 7.0))
        inside = line + dot if kind == "line" else dot
    return element("svg", inside, class_="swatch", viewBox="0 0 22 14", width=22, height=14, aria_hidden="true")
