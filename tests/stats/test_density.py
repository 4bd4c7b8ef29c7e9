"""Density ratios: the clamps by hand, a known ratio found again, no leak from an item to its own judgement."""

import random

import numpy as np
import pytest

from alignlab.stats.density import density_ratio, effective_size, ratio_of, word_features


def test_clamps_of_the_brief():
    assert ratio_of([0.5, 0.8, 0.2, 0.95], 0.5, 10).tolist() == pytest.approx([1, 4, 0.5, 10])
    assert ratio_of([1.0, 0.0], 0.5, 10).tolist() == [10, 0.5]


def topics(n=600, share=0.8, seed=0):
    """First sample mostly about tea, second mostly about clocks; every text has its own number."""
    draw = random.Random(seed)
    first = [draw.random() < 0.5 for _ in range(n)]
    tea = [draw.random() < (share if side else 1 - share) for side in first]
    return [f"tell me of {'tea' if t else 'clocks'} number {i}" for i, t in enumerate(tea)], first, tea


@pytest.mark.parametrize("folds", [0, 2, 5])
def test_a_known_ratio_is_found_again(folds):
    texts, first, tea = topics()
    found = density_ratio(word_features(texts), first, texts, folds=folds, low=0.01, high=100)
    about_tea, about_clocks = found[np.array(tea)].mean(), found[~np.array(tea)].mean()
    assert 2.5 < about_tea < 6, "the truth is 4"
    assert 1 / 6 < about_clocks < 1 / 2.5
    assert np.array_equal(found, density_ratio(word_features(texts), first, texts, folds=folds, low=0.01, high=100))


def test_no_difference_gives_weights_near_one_only_when_cross_fitted():
    draw = np.random.default_rng(0)
    features, first = draw.normal(size=(80, 60)), draw.random(80) < 0.5
    own = [str(i) for i in range(80)]
    fitted, crossed = (density_ratio(features, first, own, folds=f, low=0, high=1e9) for f in (0, 4))
    right = np.where(first, fitted, 1 / fitted) > 1
    assert right.mean() > 0.7, "one fit knows by heart the two in three items that it has drawn"
    assert abs((np.where(first, crossed, 1 / crossed) > 1).mean() - 0.5) < 0.25


def test_duplicates_of_a_text_stay_together():
    features = np.repeat(np.eye(4), 5, axis=0)
    first = [True, False, True, False, True] * 4
    same = [str(k) for k in range(4) for _ in range(5)]
    found = density_ratio(features, first, same, folds=2)
    assert all(len(set(found[5 * k : 5 * k + 5])) == 1 for k in range(4))


def test_effective_size():
    assert effective_size([1, 1, 1, 1]) == pytest.approx(4)
    assert effective_size([10, 0.5, 0.5]) == pytest.approx(121 / 100.5)


def test_one_sample_only_is_an_error():
    with pytest.raises(ValueError, match="both samples"):
        density_ratio(np.eye(3), [True] * 3, "abc")
    with pytest.raises(ValueError, match="fold . leaves items of one sample only; use fewer folds than 3"):
        density_ratio(np.eye(3), [True, False, True], "abc", folds=3)
