import math

import numpy as np
import pytest
from scipy.special import expit

from alignlab.stats import judge
from alignlab.stats.resample import standard_error


def test_order_bias_of_the_specification():
    found = judge.orders(0.4, 0.8)
    assert (found.first, found.second, found.mean) == pytest.approx((0.768525, 0.401312, 0.584919), abs=1e-6)
    assert expit(0.4) == pytest.approx(0.598688, abs=1e-6)
    assert (found.win, found.loss, found.adjusted) == pytest.approx((0.308418, 0.138581, 0.584919), abs=1e-6)
    assert judge.unbiased([found.first], [found.second]) == pytest.approx([expit(0.4)])


def test_without_bias_both_orders_agree():
    found = judge.orders(0.7, 0.0)
    assert found.first == found.second == found.mean
    assert found.adjusted == pytest.approx(found.mean)


def test_one_order_has_the_mean_of_two_and_more_spread():
    """300 draws of 60 items; the brief refutes a gap of a point over 2,000."""
    draw = np.random.default_rng(0)
    both, one = [], []
    for _ in range(300):
        gap = draw.normal(0.4, 0.6, 60)
        side = draw.choice([-1, 1], 60)
        one.append(draw.binomial(1, expit(gap + 0.8 * side)).mean())
        both.append(np.mean([draw.binomial(1, expit(gap + 0.8 * s)).mean() for s in (-1, 1)]))
    assert np.mean(one) == pytest.approx(np.mean(both), abs=0.01)
    assert np.var(one) > 1.4 * np.var(both)


def judged(seed, n=150, quality=1.2, length=0.8, order=0.5):
    """Both orders of n comparisons by a judge with known faults."""
    draw = np.random.default_rng(seed)
    gap, long = np.repeat(draw.normal(size=n), 2), np.repeat(np.tanh(draw.normal(size=n)), 2)
    side = np.tile([1.0, -1.0], n)
    verdicts = draw.binomial(1, expit(quality * gap + length * long + order * side))
    return verdicts, {"quality": gap, "length": long, "order": side}, np.repeat(np.arange(n), 2).tolist()


def test_bias_is_recovered_and_its_intervals_cover():
    truth = {"quality": 1.2, "length": 0.8, "order": 0.5}
    covered, values = dict.fromkeys(truth, 0), {name: [] for name in truth}
    for seed in range(200):
        verdicts, causes, clusters = judged(seed)
        for name, metric in judge.bias(verdicts, causes, clusters=clusters).items():
            covered[name] += metric.low <= truth[name] <= metric.high
            values[name].append(metric.value)
    for name, value in truth.items():
        assert np.mean(values[name]) == pytest.approx(value, abs=0.06)
        assert 0.90 <= covered[name] / 200 <= 0.99


def test_a_fair_judge_shows_no_bias():
    hits = 0
    for seed in range(60):
        verdicts, causes, clusters = judged(seed, n=60, order=0.0)
        found = judge.bias(verdicts, causes, clusters=clusters)["order"]
        hits += not found.low <= 0 <= found.high
    assert hits <= 8


def test_order_bias_without_knowing_qualities():
    values, covered = [], 0
    for seed in range(200):
        verdicts, _, _ = judged(seed, n=300, quality=2.0)
        found = judge.order_bias(verdicts[::2], verdicts[1::2])
        values.append(found.value)
        covered += found.low <= 0.5 <= found.high
    assert np.mean(values) == pytest.approx(0.5, abs=0.03)
    assert covered / 200 >= 0.93
    assert judge.order_bias([1, 1, 0.5], [0, 1, 0]).n == 1
    assert math.isnan(judge.order_bias([1], [1]).value)
    assert judge.order_bias([0, 0], [1, 1]).value == -math.inf


def test_consistency():
    found = judge.consistency([1, 0, 0.5, 0.9], [0.8, 1, 0.5, 0.1])
    assert (found.value, found.n) == (0.5, 4)


def test_truth_on_a_few_corrects_a_biased_judge():
    """Truth 0.4; the judge likes what is false as often as not, so its own mean is far off."""
    covered = naive = 0
    for seed in range(200):
        draw = np.random.default_rng(seed)
        truth = draw.binomial(1, 0.4, 240)
        verdict = np.where(truth == 1, draw.binomial(1, 0.9, 240), draw.binomial(1, 0.4, 240))
        found = judge.with_truth(verdict[80:], verdict[:80], truth[:80], draws=150, method="percentile", seed=seed)
        covered += found.low <= 0.4 <= found.high
        naive += abs(verdict.mean() - 0.4) <= 1.96 * standard_error(verdict)
    assert 0.90 <= covered / 200 <= 0.99
    assert naive < 30


def test_rogan_gladen():
    assert judge.rogan_gladen(0.9 * 0.3 + 0.2 * 0.7, 0.9, 0.8) == pytest.approx(0.3)
    assert judge.rogan_gladen(0.05, 0.9, 0.8) == 0.0
    assert math.isnan(judge.rogan_gladen(0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: judge.bias([1.0], {"order": [1.0, -1.0]}), "1 verdicts"),
        (lambda: judge.bias([1.0, 0.0], {"order": [1.0, 2.0], "length": [2.0, 4.0]}), "cannot be told apart"),
        (lambda: judge.consistency([1.0], []), "both orders"),
        (lambda: judge.order_bias([1.0], []), "both orders"),
        (lambda: judge.with_truth([1.0], [1.0], []), "one per item"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_weight_of_least_variance():
    """Brute force over the variance of w mean(judged) + mean(truth - w checked), with one variance of verdicts."""
    draw = np.random.default_rng(3)
    truth = draw.uniform(size=50) < 0.4
    checked, judged = np.where(draw.uniform(size=50) < 0.8, truth, ~truth), draw.uniform(size=170) < 0.5
    found = judge.power(judged, checked, truth)
    spread, together = np.concatenate([checked, judged]).var(ddof=1), np.cov(truth, checked)[0, 1]
    weights = np.linspace(0, 1, 10_001)
    variance = weights**2 * spread / 170 + (truth.var(ddof=1) - 2 * weights * together + weights**2 * spread) / 50
    assert found == pytest.approx(weights[variance.argmin()], abs=1e-4)
    whole = judge.with_truth(judged, checked, truth, weight=found)
    assert whole.value == pytest.approx(found * judged.mean() + np.mean(truth - found * checked))
    assert whole.high - whole.low < 0.95 * (lambda m: m.high - m.low)(judge.with_truth(judged, checked, truth))


def test_a_judge_that_says_nothing_is_not_heeded():
    truth = [0, 1] * 10
    assert judge.power([1] * 30, [1] * 20, truth) == 0
    assert judge.power([0, 1] * 15, [1 - t for t in truth], truth) == 0, "against the truth: clipped"
    assert judge.power([0, 1] * 1500, truth, truth) == pytest.approx(1, abs=0.1)
