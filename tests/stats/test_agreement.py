import math

import numpy as np
import pytest

from alignlab.stats.agreement import alpha

N = None
FOUR = list(zip(
    (1, 2, 3, 3, 2, 1, 4, 1, 2, N, N, N), (1, 2, 3, 3, 2, 2, 4, 1, 2, 5, N, 3),
    (N, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, N), (1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, N),
))  # fmt: skip
"""Krippendorff 2011, example D: four observers, twelve units"""


@pytest.mark.parametrize(("level", "value"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_published_example(level, value):
    assert alpha(FOUR, level=level).value == pytest.approx(value, abs=5e-4)


def test_limits():
    draw = np.random.default_rng(0)
    first = draw.integers(0, 3, 2000)
    assert alpha(list(zip(first, first))).value == pytest.approx(1.0)
    chance = alpha(list(zip(first, draw.integers(0, 3, 2000))), draws=100)
    assert chance.low < 0 < chance.high
    assert alpha([(0, 2), (2, 0), (0, 2), (2, 0)]).value < -0.5
    for nothing in ([(1, 1), (1, 1)], [(1, None), (None, 2)], []):
        assert math.isnan(alpha(nothing).value)
    with pytest.raises(ValueError, match="one entry per rater"):
        alpha([(1, 2), (1,)])


def test_far_apart_is_worse_than_near():
    near = [(0, 0), (1, 1), (2, 2), (0, 1)] * 5
    far = [(0, 0), (1, 1), (2, 2), (0, 2)] * 5
    assert alpha(near).value > alpha(far).value
    assert alpha(near, level="nominal").value == pytest.approx(alpha(far, level="nominal").value, abs=0.05)
