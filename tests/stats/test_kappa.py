import math

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from alignlab.stats.kappa import kappa


def test_textbook_table():
    first = ["yes"] * 25 + ["no"] * 25
    second = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    found = kappa(first, second)
    assert (found.value, found.n) == (pytest.approx(0.4), 50)
    assert found.low < 0.4 < found.high


def test_agrees_with_scikit_learn():
    draw = np.random.default_rng(0)
    first = draw.integers(4, size=300)
    second = np.where(draw.uniform(size=300) < 0.6, first, draw.integers(5, size=300))
    assert kappa(first.tolist(), second.tolist(), draws=20).value == pytest.approx(cohen_kappa_score(first, second))


def test_chance_and_certainty():
    draw = np.random.default_rng(1)
    a, b = draw.integers(2, size=(2, 4000)).tolist()
    assert kappa(a, b, draws=20).value == pytest.approx(0, abs=0.05)
    assert kappa(a, a, draws=20).value == 1.0
    assert kappa(a, [1 - x for x in a], draws=20).value == pytest.approx(-1, abs=0.01)
    assert math.isnan(kappa(["x"] * 5, ["x"] * 5).value)
    assert math.isnan(kappa([], []).value)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="1 labels against 2"):
        kappa(["a"], ["a", "b"])
