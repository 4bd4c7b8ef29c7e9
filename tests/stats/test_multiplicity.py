import numpy as np
import pytest

from alignlab.stats.multiplicity import adjusted

P = {"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}


def test_holm_by_hand():
    # in order: 4 * 0.005, 3 * 0.01, 2 * 0.03, then 0.04, each at least what came before
    assert adjusted(P) == pytest.approx({"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06})


def test_others_by_hand():
    assert adjusted(P, "bonferroni") == pytest.approx({"a": 0.04, "b": 0.16, "c": 0.12, "d": 0.02})
    assert adjusted(P, "fdr_bh") == pytest.approx({"d": 0.02, "a": 0.02, "c": 0.04, "b": 0.04})
    assert adjusted(P, "fdr_by")["b"] == pytest.approx(0.04 * (1 + 1 / 2 + 1 / 3 + 1 / 4))
    assert adjusted({}) == {}


def test_family_wise_error_under_the_null():
    draw = np.random.default_rng(0)
    runs = [min(adjusted(dict(enumerate(draw.uniform(size=20)))).values()) <= 0.05 for _ in range(400)]
    assert 0.02 <= np.mean(runs) <= 0.085
    naive = [draw.uniform(size=20).min() <= 0.05 for _ in range(400)]
    assert np.mean(naive) > 0.5


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="of 'b' is 1.2"):
        adjusted({"a": 0.5, "b": 1.2})
