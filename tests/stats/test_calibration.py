import math

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

from alignlab.stats.calibration import brier, expected_calibration_error, reliability

CONFIDENCE, CORRECT = [0.95, 0.95, 0.55, 0.55, 0.55, 0.05], [1, 0, 1, 1, 0, 0]


def test_known_bins():
    bins = reliability(CONFIDENCE, CORRECT)
    assert [(b.low, b.n) for b in bins] == [(0.0, 1), (0.5, 3), (0.9, 2)]
    assert [b.accuracy for b in bins] == pytest.approx([0.0, 2 / 3, 0.5])
    want = (1 * 0.05 + 3 * (2 / 3 - 0.55) + 2 * 0.45) / 6
    assert expected_calibration_error(CONFIDENCE, CORRECT) == pytest.approx(want)


def test_edges_of_bins_belong_to_the_left_bin():
    assert [b.low for b in reliability([0.0, 0.1, 0.5, 1.0], [0, 0, 1, 1], bins=2)] == [0.0, 0.5]
    assert [b.n for b in reliability([0.0, 0.1, 0.5, 1.0], [0, 0, 1, 1], bins=2)] == [3, 1]


def test_equal_mass():
    bins = reliability([0.9, 0.1, 0.8, 0.2], [1, 0, 1, 1], bins=2, binning="mass")
    assert [(b.low, b.high, b.n, b.accuracy) for b in bins] == [(0.1, 0.2, 2, 0.5), (0.8, 0.9, 2, 1.0)]
    assert sum(b.n for b in reliability([0.5], [1], bins=5, binning="mass")) == 1


def test_calibrated_and_overconfident():
    generator = np.random.default_rng(0)
    p = generator.uniform(size=20_000)
    y = (generator.uniform(size=20_000) < p).astype(float)
    assert expected_calibration_error(p, y) < 0.02
    assert expected_calibration_error(np.clip(p + 0.2, 0, 1), y) > 0.1
    assert brier(p, y) == pytest.approx(brier_score_loss(y, p))
    assert brier(p, y) == pytest.approx(1 / 6, abs=0.01)


def test_empty_is_nan_and_nonsense_is_named():
    assert math.isnan(expected_calibration_error([], []))
    assert math.isnan(brier([], []))
    for confidence, correct in (([1.5], [1]), ([0.5], [2]), ([math.nan], [1]), ([0.5, 0.5], [1])):
        with pytest.raises(ValueError, match="calibration"):
            brier(confidence, correct)
    with pytest.raises(ValueError, match="bins"):
        reliability([0.5], [1], bins=0)
