"""A figure as data becomes inline SVG: one drawing for wide and one for narrow boxes, a legend, and its numbers."""

from collections.abc import Callable
from dataclasses import dataclass

from markupsafe import Markup

from alignlab.core.types import Figure, Table
from alignlab.report import heat, marks
from alignlab.report.svg import element, swatch
from alignlab.report.text import show

WIDE, NARROW = 540.0, 300.0
NEEDS = {"line": ("x", "y"), "scatter": ("x", "y"), "bars": ("label", "y"), "heatmap": ("x", "y", "value")}
DRAW: dict[str, Callable[[Figure, float], marks.Drawing]] = {
    "line": marks.xy,
    "scatter": marks.xy,
    "bars": marks.bars,
    "heatmap": heat.heatmap,
}


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What the page shows of a figure."""

    title: str
    caption: str
    wide: Markup
    narrow: Markup
    legend: tuple[tuple[Markup, str], ...]
    data: Table


def check(name: str, figure: Figure) -> None:
    """Raise ValueError naming the figure, the series and the column that is missing or of another length."""
    if figure.kind not in NEEDS:
        raise ValueError(f"figure {name!r}: unknown kind {figure.kind!r}; kinds: {', '.join(NEEDS)}")
    if not any(len(column) for series in figure.series.values() for column in series.values()):
        raise ValueError(f"figure {name!r} has no data; leave it out of the result or give it a series")
    for label, series in figure.series.items():
        if missing := [column for column in NEEDS[figure.kind] if column not in series]:
            raise ValueError(f"figure {name!r}, series {label!r}: column {missing[0]!r} is missing")
        first = NEEDS[figure.kind][0]
        for column, values in series.items():
            if len(values) != len(series[first]):
                raise ValueError(
                    f"figure {name!r}, series {label!r}: {len(values)} values of {column!r} for "
                    f"{len(series[first])} of {first!r}"
                )


def draw(name: str, figure: Figure, key: str) -> Drawn:
    """Draw a checked figure; `key` makes its element ids unique on the page."""
    check(name, figure)
    title, about = show(name.replace("_", " "), 200), _describe(figure)
    return Drawn(
        title=title,
        caption=show(figure.caption, 1000),
        wide=_svg(DRAW[figure.kind](figure, WIDE), title, about, f"{key}-wide"),
        narrow=_svg(DRAW[figure.kind](figure, NARROW), title, about, f"{key}-narrow"),
        legend=_legend(figure),
        data=_data(figure),
    )


def _legend(figure: Figure) -> tuple[tuple[Markup, str], ...]:
    """Name the series, or a heat map's text values; a lone series needs no legend but for a line."""
    if figure.kind == "heatmap":
        return tuple((swatch(index, "cells"), show(label, 80)) for index, label in enumerate(heat.kinds_of(figure)))
    if len(figure.series) == 1 and figure.kind != "line":
        return ()
    return tuple((swatch(index, figure.kind), show(label, 80)) for index, label in enumerate(figure.series))


def _svg(drawing: marks.Drawing, title: str, about: str, key: str) -> Markup:
    heading = element("title", title, id=f"{key}-title") + element("desc", about, id=f"{key}-desc")
    return element(
        "svg",
        heading,
        drawing.inside,
        viewBox=f"0 0 {drawing.width:.0f} {drawing.height:.0f}",
        role="img",
        aria_labelledby=f"{key}-title {key}-desc",
        class_=key.rpartition("-")[2],
    )


def _describe(figure: Figure) -> str:
    first = NEEDS[figure.kind][0]
    sizes = "; ".join(f"{show(name, 60)}: {len(series[first])} values" for name, series in figure.series.items())
    axes = ", ".join(
        f"{axis}: {show(label, 100)}" for axis, label in (("x", figure.x_label), ("y", figure.y_label)) if label
    )
    return f"{figure.kind} figure. {axes + '. ' if axes else ''}{sizes}. The numbers follow in a table."


def _data(figure: Figure) -> Table:
    columns = tuple(dict.fromkeys(column for series in figure.series.values() for column in series))
    rows = tuple(
        (name, *(series[column][i] if column in series else None for column in columns))
        for name, series in figure.series.items()
        for i in range(len(series[NEEDS[figure.kind][0]]))
    )
    return Table(columns=("series", *columns), rows=rows)
