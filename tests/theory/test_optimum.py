import math

import numpy as np
import pytest
from scipy.special import softmax

from alignlab.theory import optimum
from alignlab.theory.optimum import (
    CARD,
    Config,
    Losses,
    bradley_terry,
    check,
    ipo,
    kl,
    maximin_gap,
    optimal_value,
    rpo,
    soft_values,
    tilt,
    value,
)

HALF = np.array([0.5, 0.5])
APART = 1 - np.eye(2)
VOTES = np.array([[0.5, 0.75], [0.25, 0.5]])


@pytest.mark.parametrize(("eta", "share"), [(0, 0.900000), (0.1, 0.886380), (1, 0.819448), (10, 0.760919)])
def test_two_actions(eta, share):
    found = rpo(HALF, VOTES, APART, beta=0.5, eta=eta, base=np.array([0.75, 0.25]))
    assert found[0] == pytest.approx(share, abs=1e-6)


def test_an_uncovered_answer_is_pushed_down_by_rpo_alone():
    third, pairs = np.full(3, 1 / 3), np.zeros((3, 3))
    pairs[0, 1] = pairs[1, 0] = 1
    preference = np.array([[0.5, 0.75, 0.5], [0.25, 0.5, 0.5], [0.5, 0.5, 0.5]])
    dpo = Losses(ref=third, preference=preference, pairs=pairs, beta=0.5)
    assert dpo(np.zeros(3))[1][2] == 0
    robust = Losses(ref=third, preference=preference, pairs=pairs, beta=0.5, eta=0.1, base=np.array([0.75, 0.25, 0.0]))
    assert robust(np.zeros(3))[1][2] == pytest.approx(0.016667, abs=1e-6)


def test_at_the_maximin_the_policy_meets_the_baseline_where_no_pair_reaches():
    pairs = np.zeros((3, 3))
    pairs[0, 1] = pairs[1, 0] = 1
    preference = np.array([[0.5, 0.75, 0.5], [0.25, 0.5, 0.5], [0.5, 0.5, 0.5]])
    base = np.array([0.6, 0.2, 0.2])
    ref = np.array([0.2, 0.3, 0.5])
    losses = Losses(ref=ref, preference=preference, pairs=pairs, beta=0.5, eta=0.3, base=base)
    found = rpo(ref, preference, pairs, beta=0.5, eta=0.3, base=base)
    assert found[2] == pytest.approx(0.2, abs=1e-9)
    assert maximin_gap(found, losses) == pytest.approx(0, abs=1e-9)


def test_the_gap_is_positive_away_from_the_saddle():
    base = np.array([0.75, 0.25])
    losses = Losses(ref=HALF, preference=VOTES, pairs=APART, beta=0.5, eta=1.0, base=base)
    assert maximin_gap(rpo(HALF, VOTES, APART, beta=0.5, eta=1.0, base=base), losses) < 1e-12
    assert maximin_gap(np.array([0.9, 0.1]), losses) > 1e-3
    assert maximin_gap(HALF, losses) > 1e-3


def test_limits_of_eta():
    base = np.array([0.6, 0.4])
    assert rpo(HALF, VOTES, APART, beta=0.5, eta=1e6, base=base) == pytest.approx(base, abs=1e-5)
    assert rpo(HALF, VOTES, APART, beta=0.5)[0] == pytest.approx(0.9)


def test_derivatives_against_finite_differences():
    draw = np.random.default_rng(0)
    skew = draw.uniform(-0.4, 0.4, (4, 4))
    losses = Losses(
        ref=draw.dirichlet(np.ones(4)), preference=0.5 + (skew - skew.T) / 2,
        pairs=draw.random((4, 4)) * (1 - np.eye(4)), beta=0.7, eta=0.3, base=draw.dirichlet(np.ones(4)),
    )  # fmt: skip
    losses = Losses(**{**vars(losses), "pairs": losses.pairs + losses.pairs.T})
    z, h = draw.normal(0, 1, 4), 1e-5
    _, gradient, hessian = losses(z)
    steps = h * np.eye(4)
    assert gradient == pytest.approx([(losses(z + s)[0] - losses(z - s)[0]) / (2 * h) for s in steps], abs=1e-8)
    for row, s in zip(hessian, steps):
        assert row == pytest.approx((losses(z + s)[1] - losses(z - s)[1]) / (2 * h), abs=1e-8)


def test_dpo_finds_rlhf_whatever_the_pairs_if_labels_are_bradley_terry():
    reward, ref = np.array([0.3, -0.2, 1.1]), np.array([0.5, 0.3, 0.2])
    chain = np.array([[0.0, 5.0, 0.0], [5.0, 0.0, 0.1], [0.0, 0.1, 0.0]])
    found = rpo(ref, bradley_terry(reward), chain, beta=0.3)
    assert found == pytest.approx(tilt(ref, reward, 0.3), abs=1e-8)


@pytest.mark.parametrize(
    ("mu", "found"),
    [((0.6, 0.3, 0.1), (0.365639, 0.247834, 0.386527)), ((0.1, 0.3, 0.6), (0.276491, 0.431222, 0.292287))],
)
def test_offline_ipo_depends_on_its_data(mu, found):
    w, v = 5 / 9, 4 / 9
    cycle = np.array([[0.5, w, v], [v, 0.5, w], [w, v, 0.5]])
    assert ipo(np.full(3, 1 / 3), cycle, np.array(mu), 0.1) == pytest.approx(found, abs=1e-6)


@pytest.mark.parametrize(
    ("gamma", "raw", "raw_kl", "lsc", "lsc_kl"),
    [
        (1.0, (0.015432, 0.068419, 0.916149), 1.239444, (0.148960, 0.374891, 0.476149), 0.316183),
        (0.5, (0.000113, 0.003704, 0.996183), 1.582259, (0.026954, 0.284539, 0.688507), 0.757363),
    ],
)
def test_tilting_by_rewards_and_by_log_sigmoid_centred_rewards(gamma, raw, raw_kl, lsc, lsc_kl):
    ref, reward = np.array([0.5, 0.3, 0.2]), np.array([-1.0, 1.0, 4.0])
    for u, expected, divergence in ((reward, raw, raw_kl), (-np.log1p(np.exp(1 - reward)), lsc, lsc_kl)):
        found = tilt(ref, u, gamma)
        assert found == pytest.approx(expected, abs=1e-6)
        assert kl(found, ref) == pytest.approx(divergence, abs=1e-6)


def test_tilt_is_the_maximum():
    ref, reward = np.array([0.5, 0.3, 0.2]), np.array([-1.0, 1.0, 4.0])
    best = optimal_value(ref, reward, 0.7)
    assert value(tilt(ref, reward, 0.7), ref, reward, 0.7) == pytest.approx(best)
    assert all(value(p, ref, reward, 0.7) < best for p in np.random.default_rng(0).dirichlet(np.ones(3), 200))
    assert tilt(ref, reward, 1e9) == pytest.approx(ref)
    assert kl(np.array([1.0, 0.0]), HALF) == pytest.approx(math.log(2))


def test_soft_values_of_the_specification():
    values, policies = soft_values(
        np.array([[1.0, 0.0], [2.0, -1.0]]), [np.array([0.6, 0.4]), np.array([[0.5, 0.5], [0.2, 0.8]])], 0.5
    )
    assert values[0] == pytest.approx(0.967777, abs=1e-6)
    assert values[1] == pytest.approx((0.716890, 1.200214), abs=1e-6)
    assert policies[0] == pytest.approx((0.363274, 0.636726), abs=1e-6)
    assert policies[1] == pytest.approx(np.array([[0.880797, 0.119203], [0.990182, 0.009818]]), abs=1e-6)


def test_soft_values_give_the_tilt_of_whole_texts():
    draw = np.random.default_rng(1)
    steps = [draw.dirichlet(np.ones(3), size=(3,) * t) for t in range(3)]
    reward = draw.normal(0, 1, (3, 3, 3))
    _, policies = soft_values(reward, steps, 0.4)

    def texts(parts):
        return parts[0][:, None, None] * parts[1][:, :, None] * parts[2]

    assert texts(policies).ravel() == pytest.approx(tilt(texts(steps).ravel(), reward.ravel(), 0.4))


def test_what_has_no_minimum_is_refused():
    certain = np.array([[0.5, 1.0], [0.0, 0.5]])
    with pytest.raises(RuntimeError, match="labels without noise"):
        optimum.minimise(Losses(ref=HALF, preference=certain, pairs=APART, beta=1e-3), np.zeros(2), steps=20)
    with pytest.raises(ValueError, match="= 1, with 1/2"):
        rpo(HALF, np.full((2, 2), 0.7), APART, beta=0.5)
    with pytest.raises(ValueError, match="needs the baseline"):
        rpo(HALF, VOTES, APART, beta=0.5, eta=1.0)
    with pytest.raises(ValueError, match="beta is 0"):
        tilt(HALF, HALF, 0)
    with pytest.raises(ValueError, match="--answers >= 3"):
        Config(answers=2)


def test_claims_hold_and_a_wrong_optimum_is_noticed(monkeypatch):
    result = check(Config(spaces=5))
    found = {name: metric.value for name, metric in result.metrics.items()}
    assert all(claim.holds(found) for claim in CARD.claims)
    drawn = {name: bars["y"] for name, bars in result.figures["one space"].series.items()}
    assert all(sum(policy) == pytest.approx(1) for policy in drawn.values())
    best = [policy[0] for policy in drawn.values()]  # of the answer with the highest reward
    assert best[1] == max(best) > best[3] > best[0] == min(best)  # pessimism stays nearer to the reference
    right = optimum.tilt
    monkeypatch.setattr(optimum, "tilt", lambda ref, reward, beta: right(ref, reward, 2 * beta))
    wrong = {name: metric.value for name, metric in check(Config(spaces=2)).metrics.items()}
    assert sum(not claim.holds(wrong) for claim in CARD.claims) >= 3
    monkeypatch.setattr(optimum, "tilt", right)
    monkeypatch.setattr(optimum, "rpo", lambda ref, *_, **__: softmax(np.log(ref)))
    wrong = {name: metric.value for name, metric in check(Config(spaces=2)).metrics.items()}
    assert {c.metric for c in CARD.claims if not c.holds(wrong)} == {
        "dpo/distance_to_rlhf", "rpo/duality_gap", "rpo/distance_to_maximin",
    }  # fmt: skip
