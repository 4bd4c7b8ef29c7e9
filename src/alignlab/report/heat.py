"""Heat maps: cells shaded by value in two hues around zero, or coloured by name."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from alignlab.core.types import Figure
from alignlab.report.marks import Drawing, label_at
from alignlab.report.scales import Bands, finite, fit, names_of, text_width
from alignlab.report.svg import colour, element
from alignlab.report.text import number, show


def kinds_of(figure: Figure) -> tuple[str, ...]:
    """Return the distinct text values of a heat map in order of appearance; empty when its values are numbers."""
    columns = [series["value"] for series in figure.series.values()]
    return names_of([[value for value in column if isinstance(value, str)] for column in columns])


def heatmap(figure: Figure, width: float) -> Drawing:
    """Draw one cell per (x, y); the optional column `text` is written in place of the number."""
    cells = [
        dict(zip(series, row)) for series in figure.series.values() for row in zip(*(series[key] for key in series))
    ]
    columns, rows = names_of([[c["x"] for c in cells]]), names_of([[c["y"] for c in cells]])
    gutter = min(max((text_width(show(row, 60)) for row in rows), default=0.0) + 10, width * 0.34)
    plain = Bands(columns, gutter, width - 2)
    tilted = max((text_width(show(column, 40)) for column in columns), default=0.0) > plain.step - 4
    longest = max((min(text_width(show(column, 40)), 110.0) for column in columns), default=0.0)
    x = Bands(columns, gutter, width - 2 - (longest * 0.45 if tilted else 0.0))
    top = (longest * 0.8 + 18 if tilted else 24.0) + (18 if figure.x_label else 0)
    y = Bands(rows, top, top + 30.0 * len(rows))
    size = max((abs(v) for c in cells if (v := finite(c["value"])) is not None), default=1.0) or 1.0
    kinds = kinds_of(figure)
    caption = " × ".join(fit(show(label), width / 2 - 10) for label in (figure.y_label, figure.x_label) if label)
    parts = [label_at(0.0, 12.0, caption, class_="label")]
    for column in columns:
        label, at = fit(show(column, 40), 110.0), x(column)
        turn = {"transform": f"rotate(-55 {at + 4:.1f} {top - 6:.1f})", "text_anchor": "start"}
        how = turn if tilted else {"text_anchor": "middle"}
        parts.append(label_at(at + (4 if tilted else 0), top - 6, label, class_="tick", **how))
    for row in rows:
        label = fit(show(row, 60), gutter - 8)
        parts.append(label_at(gutter - 8, y(row) + 4, label, text_anchor="end", class_="tick"))
    parts += [_cell(cell, x, y, size, kinds) for cell in cells]
    return Drawing(width, y.end + 6, Markup("").join(parts))


def _cell(cell: Mapping[str, Any], x: Bands, y: Bands, size: float, kinds: tuple[str, ...]) -> Markup:
    value = finite(cell["value"])
    if isinstance(cell["value"], str):
        style, opacity = f"cell {colour(kinds.index(cell['value']))}", 0.3
    else:
        style = "cell missing" if value is None else "cell hot" if value >= 0 else "cell cold"
        opacity = 1.0 if value is None else 0.06 + 0.94 * abs(value) / size
    left, top = x(cell["x"]) - x.step / 2 + 1, y(cell["y"]) - y.step / 2 + 1
    tip = element("title", f"{show(cell['y'], 60)}, {show(cell['x'], 60)}: {number(cell['value'])}")
    box = {"x": left, "y": top, "width": max(1.0, x.step - 2), "height": y.step - 2}
    out = element("rect", tip, class_=style, fill_opacity=opacity, rx=3.0, **box)
    shown = show(cell["text"], 40) if cell.get("text") is not None else _short(cell["value"])
    tone = "on" if "hot" in style and opacity > 0.7 or "cold" in style and opacity > 0.7 else "off"
    if text_width(shown, 11) <= x.step - 4:
        out += label_at(x(cell["x"]), y(cell["y"]) + 4, shown, text_anchor="middle", class_=f"value {tone}")
    return out


def _short(value: Any) -> str:
    small = finite(value)
    return f"{small:.2f}".replace("-", "−") if small is not None and abs(small) < 10 else number(value)
