import numpy as np
import pytest

from alignlab.stats.permutation import sign_flip, within_blocks


def test_exact_small_cases():
    assert sign_flip([1, 2, 3], [0, 0, 0], alternative="greater") == pytest.approx(1 / 8)
    assert sign_flip([1, 2, 3], [0, 0, 0]) == pytest.approx(2 / 8)
    assert sign_flip([0, 0, 0], [1, 2, 3], alternative="greater") == 1.0
    # sums at least 1 + 2 - 3 = 0: of (6, 4, 2, 0, 0, -2, -4, -6) five
    assert sign_flip([1, 2, 0], [0, 0, 3], alternative="greater") == pytest.approx(5 / 8)
    assert sign_flip([0, 0, 0], [1, 2, 3], alternative="less") == pytest.approx(1 / 8)


def test_one_pair_says_nothing_but_its_sign():
    assert sign_flip([1], [0]) == 1.0
    assert sign_flip([1], [0], alternative="greater") == 0.5
    assert sign_flip([0], [1], alternative="greater") == 1.0
    assert sign_flip([0], [0], alternative="less") == 1.0


def test_random_flips_agree_with_exact():
    left, right = np.random.default_rng(1).normal(0.4, 1, 13), np.zeros(13)
    exact = sign_flip(left, right, draws=2**13)
    assert sign_flip(left, right, draws=8000) == pytest.approx(exact, abs=0.02)
    assert sign_flip(left, right, draws=8000) == sign_flip(left, right, draws=8000)


def test_never_zero():
    assert sign_flip(np.ones(100), np.zeros(100), draws=99) == pytest.approx(2 / 100)


def test_clusters_flip_together():
    left = np.repeat([1.0, 2.0, 3.0], 50)
    assert sign_flip(left, np.zeros(150), clusters=[i // 50 for i in range(150)]) == pytest.approx(0.25)
    assert sign_flip(left, np.zeros(150), draws=999) < 0.01


def test_level_under_the_null():
    generator = np.random.default_rng(3)
    rejected = [sign_flip(generator.normal(size=10), np.zeros(10), draws=1024) <= 0.05 for _ in range(300)]
    assert 0.02 <= np.mean(rejected) <= 0.09


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sign_flip([], []), "at least one"),
        (lambda: sign_flip([1], [1, 2]), "against"),
        (lambda: sign_flip([float("nan")], [1]), "NaN"),
        (lambda: sign_flip([1, 2], [0, 0], clusters=["a"]), "cluster ids"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_within_blocks_sees_conditions_through_items():
    draw = np.random.default_rng(5)
    items = draw.normal(scale=10, size=(30, 1))
    moved = items + draw.normal(size=(30, 4)) + np.array([0, 0, 0, 1.5])
    assert within_blocks(moved, draws=499) < 0.01
    assert within_blocks(items + draw.normal(size=(30, 4)), draws=499) > 0.02
    assert within_blocks(np.repeat(items, 4, axis=1), draws=99) == 1.0


def test_within_blocks_of_two_conditions_is_the_sign_flip():
    left, right = np.random.default_rng(6).normal(0.5, 1, size=(2, 12))
    exact = sign_flip(left, right, draws=2**12)
    assert within_blocks(np.stack([left, right], axis=1), draws=6000) == pytest.approx(exact, abs=0.02)


def test_within_blocks_keeps_its_level():
    draw = np.random.default_rng(7)
    rejected = [within_blocks(draw.integers(2, size=(15, 3)), draws=99, seed=i) <= 0.05 for i in range(300)]
    assert 0.01 <= np.mean(rejected) <= 0.085


@pytest.mark.parametrize("values", [[[1.0]], [], [[1.0, float("nan")]]])
def test_within_blocks_names_bad_input(values):
    with pytest.raises(ValueError, match="within_blocks: expected"):
        within_blocks(values)
