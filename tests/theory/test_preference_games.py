import numpy as np
import pytest
from scipy.special import softmax

from alignlab.theory import optimum, preference_games
from alignlab.theory.preference_games import (
    CARD,
    WORLDS,
    Config,
    check,
    duality_gap,
    ipo_gradient,
    ipo_md,
    mixture,
    nash,
    nash_md,
    online_dpo,
    payoff,
    policy_gradient,
)

CYCLE = WORLDS["cycle"]
REF = np.array([0.5, 0.3, 0.2])
UNIFORM = np.full(3, 1 / 3)
TAU = 0.2


@pytest.mark.parametrize(
    ("game", "tau", "where", "dpo", "dpo_gap", "offline", "offline_gap", "skewed", "skewed_gap"),
    [
        ("cycle", 0.05, (0.414564, 0.369593, 0.215843), (0.438203, 0.342978, 0.218819), 0.002082,
         (0.106507, 0.786986, 0.106507), 0.196098, (0.000030, 0.997944, 0.002025), 0.398352),
        ("condorcet", 0.05, (0.686481, 0.295910, 0.017609), (0.969380, 0.023057, 0.007563), 0.040296,
         (0.118943, 0.878878, 0.002179), 0.081966, (0.002025, 0.997672, 0.000303), 0.129467),
        ("bradley_terry", 0.2, (0.242418, 0.614967, 0.142616), (0.017960, 0.980566, 0.001474), 0.161648,
         (0.247528, 0.612203, 0.140268), 0.000032, (0.258145, 0.600040, 0.141815), 0.000274),
    ],
)  # fmt: skip
def test_where_each_settles(game, tau, where, dpo, dpo_gap, offline, offline_gap, skewed, skewed_gap):
    preference = WORLDS[game]
    places = [
        (nash(preference, UNIFORM, tau), where, 0.0),
        (online_dpo(preference, UNIFORM, tau), dpo, dpo_gap),
        (optimum.ipo(UNIFORM, preference, UNIFORM, tau), offline, offline_gap),
        (optimum.ipo(UNIFORM, preference, np.array([0.1, 0.1, 0.8]), tau), skewed, skewed_gap),
    ]
    for found, expected, gap in places:
        assert found == pytest.approx(expected, abs=1e-6)
        assert duality_gap(found, preference, UNIFORM, tau) == pytest.approx(gap, abs=1e-6)


@pytest.mark.parametrize(
    ("mixing", "settled"),
    [
        (0.0, (0.477853, 0.294197, 0.227950)),
        (0.125, (0.478571, 0.291779, 0.229650)),
        (0.5, (0.483721, 0.282655, 0.233624)),
    ],
)
def test_fixed_points_of_ipo_md(mixing, settled):
    found = ipo_md(CYCLE, REF, TAU, mixing)
    assert found == pytest.approx(settled, abs=1e-6)
    sampler = mixture(found, REF, mixing)
    assert np.abs(ipo_gradient(found, sampler, CYCLE, REF, TAU)).max() < 1e-12
    assert duality_gap(sampler, CYCLE, REF, TAU / (1 - mixing)) < 1e-12
    if mixing == 0.5:
        assert sampler == pytest.approx((0.492211, 0.291446, 0.216343), abs=1e-6)


@pytest.mark.parametrize(
    ("policy", "gap"), [(REF, 0.001524), (UNIFORM, 0.032559), (np.array([0.98, 0.01, 0.01]), 0.390948)]
)
def test_duality_gaps(policy, gap):
    assert duality_gap(policy, CYCLE, REF, TAU) == pytest.approx(gap, abs=1e-6)
    replies = np.random.default_rng(0).dirichlet(np.ones(3), 2000)
    best = max(payoff(reply, policy, CYCLE, REF, TAU) for reply in replies)
    assert 2 * (best - 0.5) == pytest.approx(gap, abs=2e-3)  # the best of many replies comes near, from below
    assert 2 * (best - 0.5) <= gap + 1e-9


def test_mixtures():
    policy = np.array([0.6, 0.3, 0.1])
    assert mixture(policy, UNIFORM, 0.5) == pytest.approx((0.472734, 0.334273, 0.192993), abs=1e-6)
    assert mixture(policy, UNIFORM, 0.125) == pytest.approx((0.570204, 0.310906, 0.118891), abs=1e-6)
    other = np.array([0.2, 0.3, 0.5])
    assert mixture(policy, other, 0.25) == pytest.approx((0.503516, 0.331332, 0.165152), abs=1e-6)


def test_gradients():
    policy = np.array([0.2, 0.5, 0.3])
    found = ipo_gradient(policy, policy, CYCLE, REF, TAU)
    assert found == pytest.approx((-0.928068, -0.165937, 1.094005), abs=1e-6)
    ascent = policy_gradient(policy, policy, CYCLE, REF, TAU)
    assert -ascent == pytest.approx((-0.046403, -0.008297, 0.054700), abs=1e-6)
    assert found == pytest.approx(-(4 / TAU) * ascent)
    mixed = ipo_gradient(policy, mixture(policy, REF, 0.25), CYCLE, REF, TAU)
    assert mixed == pytest.approx((-1.107020, 0.183854, 0.923165), abs=1e-6)


def test_the_gradient_of_ipo_by_finite_differences():
    z = np.array([0.3, -0.4, 0.9])
    sampler = mixture(softmax(z), REF, 0.3)

    def loss(logits):
        d = np.log(softmax(logits)) - np.log(REF)
        gaps = d[:, None] - d[None, :] - (CYCLE - 0.5) / TAU
        return sampler @ gaps**2 @ sampler

    numeric = [(loss(z + s) - loss(z - s)) / 2e-5 for s in 1e-5 * np.eye(3)]
    assert ipo_gradient(softmax(z), sampler, CYCLE, REF, TAU) == pytest.approx(numeric, abs=1e-7)


def test_a_step_of_nash_md():
    between, after = nash_md(np.array([0.2, 0.5, 0.3]), CYCLE, REF, TAU, 0.5)
    assert between == pytest.approx((0.223125, 0.483626, 0.293249), abs=1e-6)
    assert after == pytest.approx((0.223902, 0.501072, 0.275026), abs=1e-6)


def test_invariants():
    even = np.full((3, 3), 0.5)
    assert nash(even, REF, TAU) == pytest.approx(REF)
    assert nash(CYCLE, REF, 1e6) == pytest.approx(REF, abs=1e-5)
    two = np.array([[0.5, 0.7], [0.3, 0.5]])
    for opponents in (np.array([0.5, 0.5]), np.array([0.9, 0.1])):
        ref = np.array([0.4, 0.6])
        found = optimum.ipo(ref, two, opponents, TAU)
        assert np.log(found[0] / found[1]) == pytest.approx(np.log(0.4 / 0.6) + 0.2 / TAU)
        assert nash(two, ref, TAU) == pytest.approx(found)
    assert payoff(REF, UNIFORM, CYCLE, REF, TAU) + payoff(UNIFORM, REF, CYCLE, REF, TAU) == pytest.approx(1)


@pytest.mark.parametrize("tau", [1.0, 0.05, 0.005])
def test_games_of_many_answers(tau):
    draw = np.random.default_rng(7)
    skew = draw.uniform(-0.5, 0.5, (40, 40))
    preference, ref = 0.5 + (skew - skew.T) / 2, draw.dirichlet(np.ones(40))
    assert duality_gap(nash(preference, ref, tau), preference, ref, tau) < 1e-10


def test_what_is_no_game_is_refused():
    with pytest.raises(ValueError, match="= 1, with 1/2"):
        nash(np.full((3, 3), 0.6), REF, TAU)
    with pytest.raises(ValueError, match="tau is 0"):
        nash(CYCLE, REF, 0)
    with pytest.raises(ValueError, match=r"--mixing in \[0, 1\)"):
        Config(mixing=1.0)


def test_claims_hold_and_wrong_fixed_points_are_noticed(monkeypatch):
    result = check(Config(games=2))
    found = {name: metric.value for name, metric in result.metrics.items()}
    assert all(claim.holds(found) for claim in CARD.claims)
    bars = result.figures["where each settles"].series["online DPO"]
    assert dict(zip(bars["label"], bars["y"])) == {game: found[f"dpo/gap: {game}"] for game in bars["label"]}
    right = preference_games.nash
    monkeypatch.setattr(preference_games, "nash", lambda p, ref, tau: right(p, ref, 1.2 * tau))
    wrong = {name: metric.value for name, metric in check(Config(games=2)).metrics.items()}
    broken = {c.metric for c in CARD.claims if not c.holds(wrong)}
    assert {"nash/gap", "nash/gradient_of_online_ipo", "ipo_md/gap_of_mixture"} <= broken
