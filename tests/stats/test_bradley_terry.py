import math

import numpy as np
import pytest
from scipy.optimize import check_grad
from scipy.special import expit

from alignlab.stats.bradley_terry import Games, _losses, fit, win_rate_interval

NAMES = ("base", "a", "b", "c")
TRUE = {"base": 0.0, "a": 0.8, "b": -0.5, "c": 1.4}


def two(outcomes):
    return Games(left=["m"] * len(outcomes), right=["base"] * len(outcomes), outcome=outcomes)


def test_two_players_have_a_closed_form():
    found = fit(two([1, 1, 1, 0.5, 0]), anchor="base")
    assert found.strength["m"] == pytest.approx(math.log(3.5 / 1.5), abs=1e-4)
    assert found.win_rate("m", "base") == pytest.approx(0.7, abs=1e-5)


def test_arena_gap_of_the_specification():
    entries = [1, 1, 1, 1, 1, 1, 1, 0.5, 0, 0, 0.5, 1]
    found = fit(two(entries), anchor="base")
    assert np.mean(entries) == 0.75
    assert found.elo()["m"] - found.elo()["base"] == pytest.approx(190.848502, abs=1e-3)
    assert found.elo(base=0.0)["base"] == 0.0


def played(seed, n=4000, ties="half", tie=0.0, features=None, slopes=()):
    draw = np.random.default_rng(seed)
    left, right = draw.integers(4, size=(2, 3 * n))
    keep = np.flatnonzero(left != right)[:n]
    left, right = left[keep], right[keep]
    s = np.array([TRUE[name] for name in NAMES])
    gap = s[left] - s[right]
    x = None
    if slopes:
        x = draw.normal(size=(len(keep), len(slopes)))
        gap = gap + x @ np.array(slopes)
    if ties == "davidson":
        p = np.stack([np.exp(gap / 2), np.exp(-gap / 2), np.full_like(gap, tie)])
    elif ties == "rao_kupper":
        p = np.stack([expit(gap - tie), expit(-gap - tie), 1 - expit(gap - tie) - expit(-gap - tie)])
    else:
        p = np.stack([expit(gap), 1 - expit(gap), np.zeros_like(gap)])
    p = p / p.sum(0)
    u = draw.uniform(size=len(gap))
    outcome = np.where(u < p[0], 1.0, np.where(u < p[0] + p[1], 0.0, 0.5))
    return Games(left=[NAMES[i] for i in left], right=[NAMES[i] for i in right], outcome=outcome, features=x)


@pytest.mark.parametrize(("ties", "tie"), [("half", 0.0), ("davidson", 0.7), ("rao_kupper", 0.6)])
def test_recovers_what_was_planted(ties, tie):
    found = fit(played(0, ties=ties, tie=tie), anchor="base", ties=ties)
    assert found.strength == pytest.approx(TRUE, abs=0.15)
    assert found.tie == pytest.approx(tie, abs=0.08)


def test_half_ties_shrink_strengths_that_davidson_keeps():
    games = played(1, ties="davidson", tie=1.0)
    half, own = fit(games, anchor="base"), fit(games, anchor="base", ties="davidson")
    assert abs(half.strength["c"]) < 0.8 * abs(own.strength["c"])


def test_features_are_controlled_for():
    games = played(2, slopes=(0.9, -0.4))
    found = fit(games, anchor="base")
    assert found.coefficients == pytest.approx((0.9, -0.4), abs=0.12)
    assert found.strength == pytest.approx(TRUE, abs=0.15)


@pytest.mark.parametrize("ties", ["half", "davidson", "rao_kupper"])
def test_gradients(ties):
    y = np.array([1.0, 0.0, 0.5, 1.0])

    def value(theta):
        return float(_losses(theta[:4], y, theta[4], ties)[0].sum())

    def slope(theta):
        _, by_gap, by_tie = _losses(theta[:4], y, theta[4], ties)
        return np.append(by_gap, by_tie.sum())

    assert check_grad(value, slope, np.array([0.3, -0.7, 0.2, 1.5, -0.4])) < 1e-6


@pytest.mark.parametrize("ties", ["davidson", "rao_kupper"])
def test_outcomes_have_probability_one(ties):
    gap = np.array([0.7, -2.0])
    total = sum(np.exp(-_losses(gap, np.full(2, y), 0.3, ties)[0]) for y in (0.0, 0.5, 1.0))
    assert total == pytest.approx(np.ones(2))


def test_swapping_sides_changes_nothing():
    games = played(3, n=500, ties="davidson", tie=0.5)
    turned = Games(left=games.right, right=games.left, outcome=1 - np.asarray(games.outcome))
    for ties in ("half", "davidson", "rao_kupper"):
        one, other = fit(games, anchor="base", ties=ties), fit(turned, anchor="base", ties=ties)
        assert one.strength == pytest.approx(other.strength, abs=1e-4)


def test_weights_count_games():
    twice = Games(left=["m", "m"], right=["base", "base"], outcome=[1, 0], weight=[3, 1])
    assert fit(twice, anchor="base").strength == pytest.approx(fit(two([1, 1, 1, 0]), anchor="base").strength, abs=1e-4)


def test_a_player_without_a_loss_stays_finite():
    assert 5 < fit(two([1, 1, 1]), anchor="base").strength["m"] < 30


def test_interval_is_by_question():
    """Three copies of each verdict, one question: clusters see through them."""
    draw = np.random.default_rng(4)
    outcomes = np.repeat(draw.binomial(1, 0.7, 60), 3).astype(float)
    games, ids = two(outcomes), np.repeat(np.arange(60), 3).tolist()
    honest = win_rate_interval(games, "m", "base", clusters=ids)
    naive = win_rate_interval(games, "m", "base", clusters=range(180))
    assert honest.low < honest.value < honest.high
    assert naive.high - naive.low < 0.75 * (honest.high - honest.low)


@pytest.mark.parametrize(
    ("games", "message"),
    [
        (two([1.5]), "in \\[0, 1\\]"),
        (Games(left=["a"], right=["b"], outcome=[1]), "no chain of games"),
        (Games(left=["a"], right=["base", "b"], outcome=[1]), "1 left, 2 right"),
        (two([]), "at least one game"),
    ],
)
def test_bad_input_is_named(games, message):
    with pytest.raises(ValueError, match=message):
        fit(games, anchor="base")


def test_soft_verdicts_need_half():
    with pytest.raises(ValueError, match="be 0, 0.5 or 1"):
        fit(two([0.3, 0.9]), anchor="base", ties="davidson")
    assert fit(two([0.3, 0.9]), anchor="base").win_rate("m", "base") == pytest.approx(0.6, abs=1e-5)
