"""The marks of each kind of figure, drawn at a given width; `figures.py` adds legend, description and data.

Optional columns beyond those of `core.types.Figure`: `x_low` and `x_high` (error bars across) and `text` (a label
beside the point). A line joins its points in the order given, so that it can be a frontier.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from alignlab.core.types import Figure
from alignlab.report.scales import FONT, Bands, Linear, Scale, finite, fit, linear, names_of, text_width
from alignlab.report.svg import colour, dash, element, marker, polyline
from alignlab.report.text import number, show

Series = Mapping[str, Sequence[Any]]
MOST_POINTS = 2000
"""points of one series that are drawn; the data table and result.json have the rest"""


@dataclass(frozen=True)
class Drawing:
    """Elements and the size of the box they fill."""

    width: float
    height: float
    inside: Markup


@dataclass(frozen=True)
class Point:
    """One point in pixels, with the ends of its intervals."""

    x: float
    y: float
    low: float | None
    high: float | None
    left: float | None
    right: float | None
    text: str
    tip: str


def _columns(figure: Figure, *names: str) -> list[Any]:
    return [value for series in figure.series.values() for name in names for value in series.get(name, ())]


def label_at(x: float, y: float, text: str, **attributes: Any) -> Markup:
    """Return a text element, nothing for no text."""
    if not text:
        return Markup("")
    return element("text", text, x=x, y=y, **attributes)


def _frame(figure: Figure, x: Scale, y: Scale, grid: bool = True) -> Markup:
    """Axes with ticks, grid, labels: x along the bottom, y along the left."""
    parts = []
    for at, label in y.labels():
        if grid:
            parts.append(element("path", class_="grid", d=f"M{x.start:.2f} {at:.2f}H{x.end:.2f}"))
        parts.append(label_at(x.start - 7, at + 4, label, text_anchor="end", class_="tick"))
    labels = x.labels()
    room = (x.end - x.start) / max(1, len(labels))
    every = 1 if isinstance(x, Bands) else max(1, -(-int(max(text_width(t) for _, t in labels) + 6) // int(room + 1)))
    for at, label in labels[::every]:
        parts.append(element("path", class_="axis", d=f"M{at:.2f} {y.start:.2f}v4"))
        anchor = "middle" if at + text_width(label) / 2 < x.end + 12 else "end"
        shown = fit(label, room - 4) if isinstance(x, Bands) else label
        parts.append(label_at(at, y.start + 17, shown, text_anchor=anchor, class_="tick"))
    parts.append(element("path", class_="axis", d=f"M{x.start:.2f} {y.start:.2f}H{x.end:.2f}"))
    middle = (x.start + x.end) / 2
    parts.append(
        label_at(middle, y.start + 36, fit(show(figure.x_label), x.end - x.start), text_anchor="middle", class_="label")
    )
    parts.append(label_at(0.0, 12.0, fit(show(figure.y_label), x.end), class_="label"))
    return Markup("").join(parts)


def xy(figure: Figure, width: float) -> Drawing:
    """Draw `line` and `scatter`: lines with interval bands, or points with error bars."""
    height = 330.0 if width > 400 else 280.0
    top, bottom = 26.0, height - (44.0 if figure.x_label else 24.0)
    y = linear(_columns(figure, "y", "low", "high"), bottom, top, count=6)
    gutter = max(text_width(label) for _, label in y.labels()) + 12
    xs = _columns(figure, "x")
    x: Scale
    if all(finite(value) is not None or value is None for value in xs):
        x = linear(_columns(figure, "x", "x_low", "x_high"), gutter, width - 12, count=6 if width > 400 else 4)
    else:
        x = Bands(names_of([xs]), gutter, width - 4)
    layers = [_series(figure.kind, i, _points(name, s, x, y)) for i, (name, s) in enumerate(figure.series.items())]
    under, over = Markup("").join(a for a, _ in layers), Markup("").join(b for _, b in layers)
    return Drawing(width, height, _frame(figure, x, y) + under + over + _labels(figure, x, y, width))


def _points(name: str, series: Series, x: Scale, y: Linear) -> list[Point | None]:
    """Return the points in pixels; None where a value is missing."""
    total = len(series["x"])
    stride = -(-total // MOST_POINTS) if total > MOST_POINTS else 1
    return [_point(name, {key: column[i] for key, column in series.items()}, x, y) for i in range(0, total, stride)]


def _point(name: str, row: Mapping[str, Any], x: Scale, y: Linear) -> Point | None:
    across, up = finite(row["x"]), finite(row["y"])
    if up is None or (isinstance(x, Linear) and across is None):
        return None

    def at(scale: Scale, key: str) -> float | None:
        value = finite(row.get(key))
        return scale(value) if value is not None and isinstance(scale, Linear) else None

    bounds = f" [{number(row['low'])}, {number(row['high'])}]" if finite(row.get("low")) is not None else ""
    text = show(row["text"], 60) if row.get("text") is not None else ""
    return Point(
        x=x(across) if isinstance(x, Linear) and across is not None else x(row["x"]),
        y=y(up),
        low=at(y, "low"),
        high=at(y, "high"),
        left=at(x, "x_low"),
        right=at(x, "x_high"),
        text=text,
        tip=f"{show(name, 60)}{': ' + text if text else ''} at {number(row['x'])}: {number(row['y'])}{bounds}",
    )


def _labels(figure: Figure, x: Scale, y: Linear, width: float) -> Markup:
    """Place the points' labels where they hide neither a point nor each other; the legend names what finds no room."""
    groups = [_points(name, series, x, y) for name, series in figure.series.items()]
    points = [point for group in groups for point in group if point is not None]
    taken = [(p.x - 5, p.y - 5, p.x + 5, p.y + 5) for p in points]
    parts = []
    for point in points:
        size = text_width(point.text, 11.0)
        right, left, middle = point.x + 8, point.x - 8 - size, point.x - size / 2
        places = [(right, 0), (left, 0), (middle, -14), (middle, 14), (right, 13), (left, 13), (right, 26), (left, 26)]
        for start, shift in places if point.text else ():
            box = (start, point.y + shift - 6, start + size, point.y + shift + 6)
            inside = box[0] >= x.start - 10 and box[2] <= width and box[1] >= 14 and box[3] <= y.start
            if inside and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                parts.append(label_at(start, point.y + shift + 4, point.text, class_="note"))
                break
    return Markup("").join(parts)


Box = tuple[float, float, float, float]


def _overlap(one: Box, two: Box) -> bool:
    return one[0] < two[2] and two[0] < one[2] and one[1] < two[3] and two[1] < one[3]


def _series(kind: str, index: int, points: list[Point | None]) -> tuple[Markup, Markup]:
    """Return what lies under every series (bands, lines) and over them (markers, labels)."""
    style, found = colour(index), [point for point in points if point is not None]
    runs = _runs(points) if kind == "line" else []
    crosses = any(point.left is not None for point in found)
    under, over = [], []
    for run in runs:
        band = [p for p in run if p.low is not None and p.high is not None]
        if len(band) > 1 and len(band) == len(run) and not crosses:
            outline = [(p.x, p.high or 0.0) for p in band] + [(p.x, p.low or 0.0) for p in reversed(band)]
            under.append(element("path", class_=f"band {style}", d=polyline(outline) + "Z"))
        if len(run) > 1:
            line = polyline([(p.x, p.y) for p in run])
            under.append(element("path", class_=f"line {style}", d=line, stroke_dasharray=dash(index)))
    banded = {
        id(p) for run in runs if len(run) > 1 and not crosses and all(q.low is not None for q in run) for p in run
    }
    size = 4.0 if len(found) <= 60 else 2.5
    for point in found:
        if id(point) not in banded:
            under.append(_errors(point, style))
        tip = element("title", point.tip)
        over.append(element("path", tip, class_=f"dot {style}", d=marker(index, point.x, point.y, size)))
    return Markup("").join(under), Markup("").join(over)


def _runs(points: Iterable[Point | None]) -> list[list[Point]]:
    """Cut a series where values are missing."""
    runs: list[list[Point]] = [[]]
    for point in points:
        if point is None:
            runs.append([])
        else:
            runs[-1].append(point)
    return [run for run in runs if run]


def _errors(point: Point, style: str) -> Markup:
    parts = []
    if point.low is not None and point.high is not None:
        d = f"M{point.x - 3:.2f} {point.low:.2f}h6m-3 0V{point.high:.2f}m-3 0h6"
        parts.append(element("path", class_=f"error {style}", d=d))
    if point.left is not None and point.right is not None:
        d = f"M{point.left:.2f} {point.y - 3:.2f}v6m0 -3H{point.right:.2f}m0 -3v6"
        parts.append(element("path", class_=f"error {style}", d=d))
    return Markup("").join(parts)


def bars(figure: Figure, width: float) -> Drawing:
    """Draw bars lying down, grouped by label (x), as long as their values (y), with error bars and numbers."""
    labels = names_of(series["label"] for series in figure.series.values())
    longest = max((text_width(show(label, 60)) for label in labels), default=0.0)
    beside = longest <= width * 0.32
    gutter, thick = (longest + 10 if beside else 0.0), (15.0 if len(labels) * len(figure.series) <= 16 else 9.0)
    head = 0.0 if beside else FONT + 6
    step = len(figure.series) * (thick + 2) + head + 12
    top = 22.0 if figure.x_label else 6.0
    bottom = top + step * len(labels)
    ends = _columns(figure, "y", "low", "high")
    room = 44.0 if any((finite(value) or 0.0) < 0 for value in ends) else 0.0  # for the numbers left of negative bars
    x = linear(ends, gutter + room, width - 48, zero=True, count=5 if width > 400 else 4)
    parts = [label_at(0.0, 12.0, fit(show(figure.x_label), width), class_="label")]
    for at, label in x.labels():
        parts.append(element("path", class_="grid", d=f"M{at:.2f} {top:.2f}V{bottom:.2f}"))
        anchor = "start" if at < text_width(label) / 2 else "middle"
        parts.append(label_at(at, bottom + 15, label, text_anchor=anchor, class_="tick"))
    parts.append(element("path", class_="axis", d=f"M{x(0.0):.2f} {top:.2f}V{bottom:.2f}"))
    for row, label in enumerate(labels):
        start, shown = top + row * step, show(label, 60)
        height = step - head - 12
        at_y = start + 6 + height / 2 + 4 if beside else start + FONT + 2
        edge = {"x": gutter - 8, "text_anchor": "end"} if beside else {"x": 0.0}
        parts.append(element("text", fit(shown, width), y=at_y, class_="tick strong", **edge))
        for index, (name, series) in enumerate(figure.series.items()):
            parts.append(_bar(index, name, label, series, x, start + 6 + head + index * (thick + 2), thick))
    if figure.y_label:
        shown = fit(show(figure.y_label), width)
        parts.append(label_at((gutter + width - 48) / 2, bottom + 33, shown, text_anchor="middle", class_="label"))
    return Drawing(width, bottom + (42 if figure.y_label else 24), Markup("").join(parts))


def _bar(index: int, name: str, label: str, series: Series, x: Linear, top: float, thick: float) -> Markup:
    place = next((i for i, own in enumerate(series["label"]) if str(own) == label), None)
    value = finite(series["y"][place]) if place is not None else None
    if place is None or value is None:
        return Markup("")
    low, high = (finite(series[key][place]) if key in series else None for key in ("low", "high"))
    bounds = f" [{number(low)}, {number(high)}]" if low is not None else ""
    tip = element("title", f"{show(name, 60)}, {show(label, 60)}: {number(value)}{bounds}")
    left, right, middle = min(x(0.0), x(value)), max(x(0.0), x(value)), top + thick / 2
    span = max(right - left, 1.0)  # a zero is a mark too
    out = element("rect", tip, class_=f"bar {colour(index)}", x=left, y=top, width=span, height=thick, rx=2.0)
    end = (left if value < 0 else right) if low is None else 0.0
    if low is not None and high is not None:
        d = f"M{x(low):.2f} {middle - 3:.2f}v6m0 -3H{x(high):.2f}m0 -3v6"
        out += element("path", class_="error ink", d=d)
        end = min(left, x(low)) if value < 0 else max(right, x(high))
    where = {"x": end - 5, "text_anchor": "end"} if value < 0 else {"x": end + 5}
    return out + element("text", number(value), y=middle + 4, class_="note", **where)
