import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignlab.report.scales import Bands, finite, fit, linear, names_of, nice_ticks, text_width


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0.1, 0.9], (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)),
        ([3, 47], (0, 10, 20, 30, 40, 50)),
        ([0.981, 0.999], (0.98, 0.985, 0.99, 0.995, 1.0)),
        ([-1.25, 2.5], (-2, -1, 0, 1, 2, 3)),
    ],
)
def test_ticks_people_would_choose(values, ticks):
    assert linear(values, 0, 100).ticks == pytest.approx(ticks)


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9), st.integers(2, 8))
def test_ticks_cover_and_are_few(low, span, count):
    high = low + span
    if high - low < 1e-9 * max(abs(low), abs(high)):
        return
    ticks = nice_ticks(low, high, count)
    slack = 1e-6 * (high - low)
    assert ticks[0] <= low + slack
    assert ticks[-1] >= high - slack
    assert 2 <= len(ticks) <= count + 3


@pytest.mark.parametrize("values", [[], [0.5], [0, 0], [None, math.nan], [-3, -3], [1e-300], [1e12]])
def test_degenerate_data_have_a_scale(values):
    for zero in (False, True):
        scale = linear(values, 10, 110, zero=zero)
        assert scale.high > scale.low
        assert scale(scale.low) == 10
        assert scale(scale.high) == pytest.approx(110)
        assert scale.low <= 0 <= scale.high or not zero


def test_labels_share_their_decimals():
    assert [t for _, t in linear([0.981, 0.999], 0, 1).labels()] == ["0.980", "0.985", "0.990", "0.995", "1.000"]
    assert [t for _, t in linear([-1.25, 2.5], 0, 1).labels()] == ["−2", "−1", "0", "1", "2", "3"]
    assert [t for _, t in linear([0, 50_000], 0, 1).labels()][-1] == "50,000"


def test_bands():
    bands = Bands(names_of([["b", "a"], ["a", 3]]), 0, 30)
    assert bands.names == ("b", "a", "3")
    assert (bands("b"), bands(3), bands.step) == (5, 25, 10)


def test_text_fits():
    assert fit("short", 100) == "short"
    cut = fit("a rather long label", 60)
    assert cut.endswith("…")
    assert text_width(cut) <= 60
    assert text_width("漢字") > text_width("ab")


def test_finite():
    assert [finite(v) for v in (1, 0.5, "1", None, math.nan, math.inf)] == [1.0, 0.5, None, None, None, None]
