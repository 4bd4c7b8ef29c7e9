import math

import numpy as np
import pytest
from scipy.special import expit

from alignlab.core.types import Row
from alignlab.probes import superficial
from alignlab.probes._superficial_laws import LAWS, fit, power_law, smoothed, weights
from alignlab.probes.superficial import CARD, Config, Curve, compare, curves_of, measure, resampled, shared_variance

D, P = (100, 500, 1000, 5000), (0.20, 0.30, 0.36, 0.52)
QUICK = Config(draws=40, planted=1)


def run_table(shares=P, sizes=D, seeds=(0,), **facts):
    return [
        Row(prompt="maths", facts={"examples": d, "correct": round(1000 * p), "n": 1000, "seed": seed, **facts})
        for seed in seeds
        for d, p in zip(sizes, shares)
    ]


def test_the_line_of_the_specification():
    line = power_law(D, P)
    assert line.exponent == pytest.approx(0.244822, abs=1e-6)
    assert 1 / line.exponent == pytest.approx(4.084605, abs=1e-6)
    assert line.scale == pytest.approx(0.065313, abs=1e-6)
    assert line.r_squared == pytest.approx(0.999074, abs=1e-6)
    assert line.at(7500) == pytest.approx(0.580360, abs=1e-6)
    error = power_law(D, 1 - np.array(P))
    assert error.exponent == pytest.approx(-0.130539, abs=1e-6)
    assert error.scale == pytest.approx(1.516600, abs=1e-6)


def test_an_exact_law_is_recovered():
    sizes = np.array([100.0, 1000, 10000])
    exact = 0.05 * sizes**0.25
    assert exact == pytest.approx([0.158114, 0.281171, 0.5], abs=1e-6)
    line = power_law(sizes, exact)
    assert (line.scale, line.exponent, line.r_squared) == pytest.approx((0.05, 0.25, 1.0), abs=1e-9)
    scaled = power_law(7 * sizes, exact)
    assert scaled.exponent == pytest.approx(0.25)
    assert scaled.scale == pytest.approx(0.05 * 7**-0.25)
    assert power_law(sizes, np.full(3, 0.3)).exponent == pytest.approx(0)


def test_kinds_of_error():
    total = (0.80, 0.70, 0.64, 0.48)
    assert shared_variance(total, (0.50, 0.45, 0.41, 0.31)) == pytest.approx(0.996971, abs=1e-6)
    assert shared_variance(total, (0.30, 0.10, 0.06, 0.05)) == pytest.approx(0.664300, abs=1e-6)


def test_zeros_are_smoothed():
    assert smoothed(np.array([0.0, 5.0]), np.array([10.0, 10.0])).tolist() == [0.05, 0.5]
    with pytest.raises(ValueError, match="smooth zeros first"):
        power_law((1, 2), (0.0, 0.5))
    with pytest.raises(ValueError, match="two different sizes"):
        power_law((5, 5), (0.1, 0.5))


@pytest.mark.parametrize("name", list(LAWS))
def test_each_law_is_found_from_exact_counts(name):
    sizes, truth = superficial.SIZES, np.array(superficial.PLANTED[name])
    share = LAWS[name].predict(truth, sizes)
    assert ((share > 0) & (share < 1)).all()
    n = np.full(len(sizes), 1e7)
    found = fit(name, sizes, share * n, n)
    assert np.array(found.parameters) == pytest.approx(truth, abs=2e-3)
    assert LAWS[name].predict(np.array(found.parameters), sizes) == pytest.approx(share, abs=1e-5)
    others = {law: fit(law, sizes, share * n, n) for law in LAWS}
    assert max(others, key=lambda law: others[law].log_likelihood) == name
    assert weights(others)[name] > 0.9  # the error law is a limit of the saturating one, which pays for its ceiling


def test_likelihood_and_criterion_by_hand():
    sizes, n = np.array([10.0, 100, 1000, 10000, 1e5]), np.full(5, 50.0)
    correct = np.array([10.0, 15, 20, 25, 30])
    found = fit("logarithmic", sizes, correct, n)
    p = found.parameters[0] + found.parameters[1] * np.log(sizes)
    by_hand = float((correct * np.log(p) + (n - correct) * np.log(1 - p)).sum())
    assert found.log_likelihood == pytest.approx(by_hand)
    assert found.aicc == pytest.approx(2 * 2 - 2 * by_hand + 2 * 2 * 3 / (5 - 2 - 1))
    assert p == pytest.approx([0.2, 0.3, 0.4, 0.5, 0.6], abs=1e-4)


def test_few_points_tell_nothing():
    found = {name: fit(name, np.array([1.0, 2, 3]), np.array([1.0, 2, 3]), np.full(3, 10.0)) for name in LAWS}
    assert all(math.isnan(share) for share in weights(found).values())


def test_intervals_cover_the_truth():
    draw = np.random.default_rng(0)
    covered = 0
    for seed in range(40):
        curve = superficial.planted("power", 500, draw)
        exponents = np.random.default_rng(seed)
        again = [resampled(curve, exponents) for _ in range(100)]
        low, high = np.quantile([power_law(c.sizes, c.correct / c.n).exponent for c in again], [0.025, 0.975])
        covered += low <= 0.25 <= high
    assert covered >= 33


def test_seeds_are_resampled_whole():
    curve = curves_of(run_table(seeds=(0, 1, 2)))["maths"]
    marked = Curve(sizes=curve.sizes, correct=np.array([float(s) for s in curve.seeds]), n=curve.n, seeds=curve.seeds)
    again = resampled(marked, np.random.default_rng(1))
    counts = {s: int((again.correct == s).sum()) for s in (0.0, 1.0, 2.0)}
    assert sum(counts.values()) == 12
    assert all(count % 4 == 0 for count in counts.values())
    assert sorted(counts.values()) != [4, 4, 4]


def test_the_largest_size_is_held_out():
    sizes = np.array([100.0, 200, 400, 800, 1600])
    share = np.array([0.2, 0.3, 0.4, 0.5, 0.2])  # the last one breaks every law
    _, _, _, misses = compare(Curve(sizes=sizes, correct=1000 * share, n=np.full(5, 1000.0)), QUICK)
    assert misses["logarithmic"] == pytest.approx(0.4, abs=0.01)
    assert misses["power"] > 0.3


def test_a_run_table():
    rows = run_table(model="m") + run_table(sizes=(0,), shares=(0.1,), model="m")  # no logarithm of no examples
    result = measure(None, rows, QUICK)
    found = {name: metric.value for name, metric in result.metrics.items()}
    assert found["maths m/exponent"] == pytest.approx(0.244822, abs=1e-6)
    low, high = result.metrics["maths m/exponent"].low, result.metrics["maths m/exponent"].high
    assert low < 0.244822 < high
    assert len(result.tables["laws"].rows) == 4
    assert measure(None, rows, QUICK) == result or math.isnan(found["maths m/weight/power"])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([Row(prompt="t", facts={"examples": 3})], "row 0: expected facts with numbers"),
        ([Row(prompt="t", facts={"examples": 3, "correct": 4, "n": 2})], "row 0: expected 0 <= correct <= n"),
        ([Row(prompt="t", facts={"examples": 3, "correct": 1, "n": 2})], "at least two are needed"),
    ],
)
def test_broken_tables_are_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        measure(None, rows, QUICK)


def test_planted_laws_and_the_claims():
    found = {name: metric.value for name, metric in measure(None, [], QUICK).metrics.items()}
    assert all(claim.holds(found) for claim in CARD.claims)
    assert not CARD.claims[0].holds({**found, "planted/told_apart": 0.4})
    assert expit(superficial.PLANTED["saturating"][0]) == pytest.approx(0.85)
    with pytest.raises(ValueError, match="--draws"):
        Config(draws=1)
