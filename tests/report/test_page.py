import re
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest

import alignlab.report
from alignlab.core.types import Figure, Metric, Result, Table
from alignlab.report.page import Run, page, pivot, sample, verdicts


class Reader(HTMLParser):
    """Tags, attributes and text of a page, and whether tags close in order."""

    VOID = frozenset({"meta", "link", "br"})

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.texts, self.attributes = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture(scope="module")
def html(example):
    return page(example.run())


@pytest.fixture(scope="module")
def read(html):
    return Reader(html)


def test_well_formed(read):
    assert read.open == []
    ids = [value for _, name, value in read.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    known = set(ids)
    assert all(set(value.split()) <= known for _, name, value in read.attributes if name == "aria-labelledby")


def test_nothing_is_fetched_and_nothing_runs(html, read):
    assert not {"script", "img", "iframe", "object", "embed", "form", "base", "video", "audio"} & set(read.tags)
    assert [(t, v) for t, n, v in read.attributes if n in ("src", "href")] == [("link", "data:,"), ("a", "#main")]
    assert not [n for _, n, _ in read.attributes if n.startswith("on")]
    assert not re.search(r"url\(|@import", html)
    assert "default-src 'none'" in html


def test_hostile_text_is_shown_as_text(html, read, example):
    assert "<script" not in html
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", html)
    text = " ".join(read.texts)
    assert "<script>alert(1)</script>" in text
    assert "{{ 7*7 }}" in text
    assert "␛[2J" in text
    assert "[... 996,000 more characters]" in text


def test_long_text_does_not_swell_the_page(html):
    assert len(html) < 400_000


def test_a_megabyte_is_no_trouble(example):
    start = time.process_time()
    long = ("<b>\x1b[31m" * 125_000, "x" * 1_000_000)
    result = Result(
        metrics={long[0]: Metric(value=1.0, n=1)},
        notes=long,
        tables={"t": Table(columns=long, rows=(long,))},
        figures={"f": Figure(kind="bars", series={long[0]: {"label": [long[1]], "y": [1.0]}}, caption=long[0])},
        samples=({"answers": {long[1]: long[0]}},),
    )
    got = page(Run(result=result, command=long[1], config={"k": long[0]}))
    assert len(got) < 400_000
    assert time.process_time() - start < 20


def test_claims_of_other_settings_are_neither_held_nor_refuted(read, example):
    page_ = page(Run(result=Result(metrics={"other": Metric(value=1.0, n=1)}), card=example.CARD))
    assert "no claim measured" in page_
    assert page_.count("not measured in this run") == len(example.CARD.claims)
    assert "does not hold" not in page_


def test_what_a_reader_looks_for(read, example):
    text = re.sub(r"\s+", " ", " ".join(read.texts))
    for wanted in (
        "What is reconstructed",
        "body was not readable",
        "plain/asr - da/asr >= 0.35 holds: observed 0.387",
        "da/es >= 0.999 does not hold: observed 0.986",
        "da/absent >= 0.5 not measured in this run. claim da/absent >= 0.5: result.json has no metric 'da/absent'",
        "1 of 2 claims hold",
        "[0.466, 0.494]",
        "Who owns the mill in Ostrow?",
        "poisoned",
        "final answer: Odo Farrin",
        "teacher, tokens out 96,000",
        "alignlab run dialectical --model tiny: --seed 0",
        "0123456789abcdef",
        "learning_rate: 0.0003",
        "torch 2.13.0",
        "2 min 21 s",
        "@misc{yang2024dialectical",
    ):
        assert wanted in re.sub(r"\s+", " ", text), wanted


def test_each_figure_is_drawn_twice_and_tabled(read, example):
    count = len(example.figures())
    assert read.tags.count("figure") == count
    assert sum(1 for t, n, v in read.attributes if (t, n, v) == ("svg", "role", "img")) == 2 * count
    assert sum(1 for t, n, v in read.attributes if t == "svg" and n == "class" and v == "narrow") == count


def test_metrics_with_one_shape_become_a_table(example):
    columns, rows, others = pivot(example.metrics())
    assert columns == ["asr", "es", "clean", "j"]
    assert list(rows) == ["plain", "da", "oracle"]
    assert list(others) == ["seconds", "lost", example.EVIL]
    one = Metric(value=1.0, n=1)
    assert pivot({"a/b": one, "c": one, "d/e/f": one})[1] == {}


def test_bare_runs_are_pages():
    got = page(Run(result=Result(metrics={})))
    assert "Key numbers" not in got
    assert "not a checkout" in got
    assert verdicts(Run(result=Result(metrics={}))) == ()


def test_highlights_come_first(example):
    got = page(example.run(), highlights=["seconds", "unheard of"])
    tiles = re.findall(r'class="name">([^<]*)<', got)
    assert tiles == ["seconds"]
    assert re.findall(r'class="name">([^<]*)<', page(example.run())) == ["plain/asr", "da/asr", "da/es"]


def test_faithful_methods_claim_no_reconstruction(example):
    import dataclasses

    card = dataclasses.replace(example.CARD, status="faithful", deviations=())
    got = page(example.run(card=card, result=example.result(notes=())))
    assert "reconstruct" not in got


def test_samples_take_chats_and_plain_texts():
    got = sample(
        {"prompt": ({"role": "user", "content": "hi"},), "contexts": ["one"], "answers": {"m": "text"}, "k": 3}
    )
    assert got["prompt"] == "user: hi"
    assert got["contexts"] == [{"text": "one", "poisoned": False, "notes": {}}]
    assert got["answers"]["m"] == {"text": "text", "answer": None, "verdict": None, "tone": ""}
    assert got["facts"] == {"k": 3}


def test_samples_of_any_keys_have_their_long_texts_side_by_side():
    got = sample({"question": "who?", "gold": "b", "before": "line\nline", "after": "x" * 81, "n": 5})
    assert got["title"] == "who?"
    assert list(got["answers"]) == ["before", "after"]
    assert got["facts"] == {"gold": "b", "n": 5}


def test_ragged_tables_are_named(example):
    bad = Result(metrics={}, tables={"t": Table(columns=("a", "b"), rows=((1,),))})
    with pytest.raises(ValueError, match="table 't', row 0: 1 cells for 2 columns"):
        page(Run(result=bad))


def test_long_tables_are_cut():
    rows = tuple((i,) for i in range(1000))
    got = page(Run(result=Result(metrics={}, tables={"t": Table(columns=("a",), rows=rows)})))
    assert "700 more rows are in result.json" in got


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(one, two):
    low, high = sorted((luminance(one), luminance(two)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_contrast_meets_wcag(theme):
    css = (Path(alignlab.report.__file__).parent / "page.css").read_text()
    colours = [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block)) for block in css.split("@media (prefers-color")]
    found = colours[theme]
    for ink in ("ink", "quiet", "accent"):
        for ground in ("page", "card"):
            assert contrast(found[ink], found[ground]) >= 4.5, (ink, ground)
    for tone in ("good", "bad", "warn"):
        assert contrast(found[tone], found[f"{tone}-tint"]) >= 4.5, tone
        assert contrast(found["ink"], found[f"{tone}-tint"]) >= 4.5, tone
    for index in range(8):
        assert contrast(found[f"s{index}"], found["card"]) >= 3, index
