import math

import pytest

from alignlab.core.facts import finite, number


def test_a_number_or_its_default():
    assert number({"p": 1}, "p", 0.5, 0, 1) == 1.0
    assert number({"margin": -2.5}, "margin", 0.0) == -2.5
    assert number({}, "p", 0.5, 0, 1) == number({"p": None}, "p", 0.5, 0, 1) == 0.5


@pytest.mark.parametrize("value", [80, -0.01, math.nan, math.inf, "0.8", "high", True, [0.5]])
def test_anything_else_is_named(value):
    with pytest.raises(ValueError, match=r"field 'facts\.p': expected a finite number in \[0, 1\], got"):
        number({"p": value}, "p", 1.0, 0, 1)
    assert not finite(value) or isinstance(value, (int, float))


def test_the_range_is_said():
    with pytest.raises(ValueError, match=r"'facts\.weight': expected a finite number >= 0, got -1"):
        number({"weight": -1}, "weight", 1.0, 0)
    with pytest.raises(ValueError, match=r"'facts\.margin': expected a finite number, got nan"):
        number({"margin": math.nan}, "margin", 1.0)
    assert number({"weight": 1e9}, "weight", 1.0, 0) == 1e9
