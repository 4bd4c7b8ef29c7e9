import re
import xml.etree.ElementTree as ET

import pytest

from alignlab.core.types import Figure
from alignlab.report import figures, marks
from alignlab.report.scales import text_width

SPACE = "{http://www.w3.org/2000/svg}"


def parse(svg):
    return ET.fromstring(str(svg).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


def of_class(root, name):
    return [node for node in root.iter() if name in (node.get("class") or "").split()]


def draw(figure):
    drawn = figures.draw("a_figure", figure, "k")
    return parse(drawn.wide), parse(drawn.narrow), drawn


LINE = Figure(
    kind="line",
    series={
        "plain": {"x": [0, 0.5, 1], "y": [0.0, 0.5, 1.0], "low": [0.0, 0.4, 0.9], "high": [0.1, 0.6, 1.0]},
        "other": {"x": [0, 0.5, 1], "y": [0.2, None, 0.4]},
    },
    x_label="ratio",
    y_label="asr",
)


def test_a_line_goes_where_the_numbers_say():
    wide, narrow, _ = draw(LINE)
    for root in (wide, narrow):
        line = of_class(root, "line")[0].get("d")
        points = [tuple(map(float, pair.split())) for pair in line[1:].split("L")]
        assert len(points) == 3
        (x0, y0), (x1, y1), (x2, y2) = points
        assert x1 - x0 == pytest.approx(x2 - x1, abs=0.02)
        assert y0 - y1 == pytest.approx(y1 - y2, abs=0.02)
        assert y0 > y2  # up is more
        assert len(of_class(root, "band")) == 1
        assert len(of_class(root, "dot")) == 5
        assert len(of_class(root, "line")) == 1  # the other series is two lone points


def test_everything_stays_inside_the_box(example):
    for name, figure in example.figures().items():
        for root in draw(figure)[:2]:
            _, _, width, height = map(float, root.get("viewBox").split())
            for node in root.iter():
                if node.get("x") is not None and "swatch" not in (node.get("class") or ""):
                    assert -1 <= float(node.get("x")) <= width, name
                    assert -1 <= float(node.get("y")) <= height, name
                if node.tag == f"{SPACE}text" and not node.get("transform"):
                    size, anchor = text_width(node.text, 11.0), node.get("text-anchor", "start")
                    left = float(node.get("x")) - {"start": 0, "middle": size / 2, "end": size}[anchor]
                    assert left >= -4, (name, node.text)
                    assert left + size <= width + 6, (name, node.text)


@pytest.mark.parametrize("kind", ["line", "scatter", "bars", "heatmap"])
def test_every_kind_is_accessible_and_has_its_data(example, kind):
    figure = next(f for f in example.figures().values() if f.kind == kind)
    wide, narrow, drawn = draw(figure)
    assert of_class(wide, {"line": "dot", "scatter": "dot", "bars": "bar", "heatmap": "cell"}[kind])
    for root in (wide, narrow):
        ids = root.get("aria-labelledby").split()
        found = {node.get("id"): node.tag.removeprefix(SPACE) for node in root.iter() if node.get("id")}
        assert [found[i] for i in ids] == ["title", "desc"]
        assert root.get("role") == "img"
    assert drawn.data.columns[0] == "series"
    first = {"bars": "label"}.get(kind, "x")
    assert len(drawn.data.rows) == sum(len(s[first]) for s in figure.series.values())


def test_bars_are_as_long_as_their_values():
    figure = Figure(
        kind="bars",
        series={
            "s": {"label": ["a", "b", "c"], "y": [0.25, 0.75, None], "low": [0.2, 0.7, None], "high": [0.3, 0.8, None]}
        },
    )
    wide, _, _ = draw(figure)
    a, b = (float(node.get("width")) for node in of_class(wide, "bar"))
    assert b == pytest.approx(3 * a, abs=0.05)
    assert len(of_class(wide, "error")) == 2


def test_bars_lie_down_with_values_labelled_below():
    series = {"s": {"label": ["a", "b"], "y": [0.2, 0.9]}}
    wide, _, _ = draw(Figure(kind="bars", series=series, x_label="scenario", y_label="share right"))
    height = {n.text: float(n.get("y")) for n in of_class(wide, "label")}
    bar = [float(n.get("y")) for n in of_class(wide, "bar")]
    assert height["scenario"] < min(bar) < max(bar) < height["share right"]


def test_negative_bars_go_left():
    wide, _, _ = draw(Figure(kind="bars", series={"s": {"label": ["a", "b"], "y": [-1.0, 2.0]}}))
    a, b = of_class(wide, "bar")
    assert float(a.get("x")) + float(a.get("width")) == pytest.approx(float(b.get("x")), abs=0.02)
    assert float(b.get("width")) == pytest.approx(2 * float(a.get("width")), abs=0.02)


def test_heat_is_darker_where_more_and_cold_below_zero():
    figure = Figure(
        kind="heatmap", series={"s": {"x": ["a", "b", "c", "d"], "y": ["r"] * 4, "value": [0.1, 0.9, -0.5, None]}}
    )
    wide, _, _ = draw(figure)
    cells = of_class(wide, "cell")
    shade = [float(c.get("fill-opacity")) for c in cells]
    assert shade[0] < shade[2] < shade[1]
    assert [c.get("class") for c in cells] == ["cell hot", "cell hot", "cell cold", "cell missing"]


def test_named_heat_has_a_legend():
    figure = Figure(kind="heatmap", series={"s": {"x": ["a", "b", "c"], "y": ["r"] * 3, "value": ["P3", "P0", "P3"]}})
    wide, _, drawn = draw(figure)
    assert [label for _, label in drawn.legend] == ["P3", "P0"]
    cells = of_class(wide, "cell")
    assert cells[0].get("class") == cells[2].get("class") != cells[1].get("class")


def test_names_on_the_x_axis():
    wide, _, _ = draw(Figure(kind="line", series={"s": {"x": ["clean", "pca", "ike"], "y": [1.0, 0.5, 0.7]}}))
    texts = [node.text for node in wide.iter(f"{SPACE}text")]
    assert [t for t in texts if t in ("clean", "pca", "ike")] == ["clean", "pca", "ike"]


def test_frontiers_have_bars_across_and_labels_that_do_not_collide(example):
    wide, _, _ = draw(example.figures()["frontier"])
    assert len(of_class(wide, "error")) == 10
    labels = [n for n in of_class(wide, "note") if n.text in example.MODELS]
    assert len(labels) >= 4
    places = [(float(n.get("x")), float(n.get("y"))) for n in labels]
    assert all(abs(a[0] - b[0]) > 20 or abs(a[1] - b[1]) >= 10 for i, a in enumerate(places) for b in places[:i])


def test_series_differ_without_colour():
    series = {f"s{i}": {"x": [0, 1], "y": [i, i]} for i in range(12)}
    wide, _, drawn = draw(Figure(kind="line", series=series))
    dots = [(re.sub(r"^M[^a-z]+", "", n.get("d")), n.get("class")) for n in of_class(wide, "dot")[::2]]
    assert len(set(dots)) == 12
    assert len({shape for shape, _ in dots[:6]}) == 6
    assert len(drawn.legend) == 12


def test_many_points_are_thinned(monkeypatch):
    monkeypatch.setattr(marks, "MOST_POINTS", 50)
    wide, _, drawn = draw(Figure(kind="scatter", series={"s": {"x": list(range(999)), "y": list(range(999))}}))
    assert 40 <= len(of_class(wide, "dot")) <= 50
    assert len(drawn.data.rows) == 999


@pytest.mark.parametrize(
    ("figure", "message"),
    [
        (
            Figure(kind="line", series={"s": {"x": [1, 2], "y": [1]}}),
            "figure 'f', series 's': 1 values of 'y' for 2 of 'x'",
        ),
        (Figure(kind="bars", series={"s": {"x": [1], "y": [1]}}), "column 'label' is missing"),
        (Figure(kind="line", series={}), "no data"),
        (Figure(kind="line", series={"s": {"x": [], "y": []}}), "no data"),
    ],
)
def test_bad_figures_are_named(figure, message):
    with pytest.raises(ValueError, match=message):
        figures.draw("f", figure, "k")


def test_hostile_names_stay_text(example):
    evil = example.EVIL
    for kind, columns in (("line", ("x", "y")), ("bars", ("label", "y")), ("heatmap", ("x", "y", "value"))):
        data = {c: [evil] if c in ("x", "label") or c == "y" and kind == "heatmap" else [0.5] for c in columns}
        drawn = figures.draw(
            evil, Figure(kind=kind, series={evil: data}, x_label=evil, y_label=evil, caption=evil), "k"
        )
        for svg in (drawn.wide, drawn.narrow):
            tags = {node.tag.removeprefix(SPACE) for node in parse(svg).iter()}
            assert tags <= {"svg", "title", "desc", "text", "path", "rect"}
            assert "\x1b" not in svg
            assert "\u202e" not in svg
