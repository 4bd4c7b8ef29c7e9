import math

import numpy as np
import pytest

from alignlab.stats.reliability import (
    components,
    dispersion,
    mean_difference,
    nearest,
    percentile,
    spread_of_means,
    unpaired,
    variance_shares,
    weighted_mean_difference,
    yardstick,
)

A, B = (1, 2, 3, 4), (2, 3, 4, 4)


def test_format_effects_of_the_specification():
    assert weighted_mean_difference(A, B) == pytest.approx(0.375)
    assert mean_difference(A, B) == pytest.approx(0.75)
    assert unpaired(A, B) == pytest.approx(40 / 70)
    assert weighted_mean_difference((3,) * 4, (3,) * 2) == pytest.approx(1.0)
    assert mean_difference((3,) * 4, (3,) * 2) == 0
    assert spread_of_means([(0.2, 0.4), (0.5, 0.7), (0.6, 0.8)]) == pytest.approx(0.169967, abs=1e-6)


def test_a_constant_moves_only_the_published_statistic():
    short = (2, 3)
    for shift in (1.0, -7.5):
        moved = [v + shift for v in A], [v + shift for v in short]
        assert mean_difference(*moved) == pytest.approx(mean_difference(A, short))
        assert spread_of_means(moved) == pytest.approx(spread_of_means([A, short]))
        assert weighted_mean_difference(*moved) != pytest.approx(weighted_mean_difference(A, short))


def test_random_splits_agree_with_all_of_them():
    assert unpaired(A, B, draws=60) == pytest.approx(40 / 70, abs=0.2)  # 70 splits: too many, so drawn
    draw = np.random.default_rng(0)
    p = [unpaired(draw.normal(size=8), draw.normal(size=8), draws=99, seed=i) for i in range(200)]
    assert np.mean(np.array(p) <= 0.05) <= 0.1
    assert unpaired(draw.normal(size=20), draw.normal(3, 1, size=20), draws=199) < 0.02


def test_distances_of_the_specification():
    human, model = [(0, 0), (1, 0), (0, 1)], [(0.5, 0.5), (0.5, 0.5), (1, 0.5)]
    assert dispersion(human) == pytest.approx(1.138071, abs=1e-6)
    assert dispersion(model) == pytest.approx(1 / 3)
    assert dispersion(model) / dispersion(human) == pytest.approx(0.292893, abs=1e-6)
    assert dispersion(human[::-1]) == pytest.approx(dispersion(human))  # the same people give a ratio of 1
    assert math.isnan(dispersion([(1, 2)]))
    assert nearest(human, human).tolist() == [0, 1, 2]
    assert nearest([(0.9, 0.2)], human).tolist() == [1]


def test_percentile():
    rows = np.random.default_rng(0).random((12, 5))
    assert percentile(dispersion(rows), rows, 12, draws=5) == 0.0  # all of them: never below itself
    assert percentile(10.0, rows, 4, draws=50) == 1.0
    assert 0 < percentile(dispersion(rows), rows, 4, draws=200) < 1
    with pytest.raises(ValueError, match="cannot draw 13 of 12"):
        percentile(1.0, rows, 13)


def test_yardstick():
    assert yardstick([(0.2, 0.4), (0.5, 0.5)]) == pytest.approx([0.1, 0.0])


def grid(items, order, wording, draw, effects):
    """A balanced design with known effects: [items, order, wording] and its factors."""
    base = np.linspace(0, 1, items)[:, None, None] * effects["item"]
    shift = effects["order"] * np.arange(order)[None, :, None] + effects["wording"] * np.arange(wording)[None, None]
    cross = effects["cross"] * draw.choice((-1, 1), (items, order))[:, :, None]
    table = base + shift + cross + draw.normal(0, effects["noise"], (items, order, wording))
    places = np.indices(table.shape).reshape(3, -1)
    return table.ravel(), dict(zip(("item", "order", "wording"), places.tolist()))


def test_variance_shares():
    draw = np.random.default_rng(0)
    silent = {"item": 0.0, "order": 0.0, "wording": 0.0, "cross": 0.0, "noise": 0.0}
    y, factors = grid(20, 2, 3, draw, {**silent, "order": 1.0})
    assert variance_shares(y, factors)["order"] == pytest.approx(1)
    y, factors = grid(20, 2, 3, draw, {**silent, "cross": 1.0})
    found = variance_shares(y, factors)
    assert found["item:order"] + found["item"] + found["order"] == pytest.approx(1)
    assert found["item:order"] > 0.3
    y, factors = grid(40, 2, 3, draw, {"item": 1.0, "order": 0.5, "wording": 0.0, "cross": 0.0, "noise": 0.3})
    found = variance_shares(y, factors)
    assert sum(found.values()) == pytest.approx(1)
    truth = {"item": np.var(np.linspace(0, 1, 40)), "order": 0.25**2, "noise": 0.09}
    assert found["order"] == pytest.approx(truth["order"] / sum(truth.values()), abs=0.09)
    assert found["item"] > found["order"] > found["wording"]
    assert variance_shares(y + 5, factors) == pytest.approx(found)
    assert math.isnan(variance_shares([1, 1], {"item": [0, 1]})["item"])
    with pytest.raises(ValueError, match="factor order has 1 levels for 2"):
        variance_shares([1, 2], {"order": [1]})


def test_components_recover_what_was_planted():
    """Means over 200 seeds are unbiased, and the coefficient is what items share with their means."""
    truth, found = (0.04, 0.01, 0.02), []
    for seed in range(200):
        draw = np.random.default_rng(seed)
        table = draw.normal(0, 0.2, (40, 1)) + draw.normal(0, 0.1, (1, 8)) + draw.normal(0, math.sqrt(0.02), (40, 8))
        some = components(table)
        found.append((some.item, some.condition, some.rest))
    assert np.mean(found, axis=0) == pytest.approx(truth, rel=0.1)
    some = components(table)
    assert some.dependability(8) > some.dependability(1)
    n = some.needed(0.8)
    assert some.dependability(int(n)) >= 0.8
    assert n == 1 or some.dependability(int(n) - 1) < 0.8


def test_components_at_the_borders():
    steady = components([[0.1, 0.1], [0.9, 0.9]])
    assert (steady.dependability(), steady.needed()) == (1.0, 1.0)
    blind = components([[0.0, 1.0], [0.0, 1.0]])
    assert (blind.item, blind.dependability(), blind.needed()) == (0.0, 0.0, math.inf)
    with pytest.raises(ValueError, match="conditions >= 2"):
        components([[1.0], [2.0]])
    with pytest.raises(ValueError, match=r"must lie in \(0, 1\)"):
        steady.needed(1.0)
    for bad in ([], [math.nan]):
        with pytest.raises(ValueError, match="at least one number and no NaN"):
            mean_difference(bad, [1])
