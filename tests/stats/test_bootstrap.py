import math

import numpy as np
import pytest
import scipy.stats

from alignlab.stats.bootstrap import Part, combination, mean, means, paired_difference, ratios

RNG = np.random.default_rng(7)
SKEWED = RNG.exponential(size=60)


@pytest.mark.parametrize(("method", "theirs"), [("bca", "BCa"), ("percentile", "percentile")])
def test_agrees_with_scipy_where_scipy_can(method, theirs):
    ours = mean(SKEWED, method=method, draws=60_000)
    want = scipy.stats.bootstrap((SKEWED,), np.mean, n_resamples=60_000, method=theirs, rng=np.random.default_rng(1))
    assert (ours.value, ours.n) == (pytest.approx(SKEWED.mean()), 60)
    assert (ours.low, ours.high) == pytest.approx(tuple(want.confidence_interval), abs=0.012)


def test_methods_differ_on_skewed_data():
    assert mean(SKEWED, draws=20_000).high > mean(SKEWED, method="percentile", draws=20_000).high


def test_seeded_and_chunked(monkeypatch):
    first = mean(SKEWED, seed=3)
    assert mean(SKEWED, seed=3) == first
    assert mean(SKEWED, seed=4) != first
    monkeypatch.setattr("alignlab.stats.bootstrap.CHUNK", 100)
    again = mean(SKEWED, seed=3)
    assert (again.low, again.high) == pytest.approx((first.low, first.high), rel=1e-12)


def test_copies_in_a_cluster_buy_no_precision():
    values = np.repeat(RNG.normal(size=40), 25)
    honest = mean(values, clusters=[i // 25 for i in range(1000)])
    single = mean(values[::25])
    naive = mean(values)
    assert (honest.low, honest.high) == pytest.approx((single.low, single.high))
    assert honest.n == 1000
    assert naive.high - naive.low < 0.3 * (honest.high - honest.low)


def test_ratios_of_sums_are_means_over_clusters():
    values, clusters = RNG.exponential(size=90), sorted(RNG.integers(0, 25, size=90).tolist())
    num, den = np.bincount(clusters, values), np.bincount(clusters).astype(float)
    num, den = num[den > 0], den[den > 0]
    other = RNG.normal(size=len(num))
    table = np.stack([num, other], 1), np.stack([den, np.ones_like(den)], 1)
    got = ratios(*table, {"one": [1, 0], "two": [0.5, -2.0]})
    want = mean(values, clusters=clusters)
    assert (got["one"].value, got["one"].low, got["one"].high) == pytest.approx((want.value, want.low, want.high))
    drawn = RNG.multinomial(len(num), np.full(len(num), 1 / len(num)), size=20_000)
    both = 0.5 * (drawn @ num) / (drawn @ den) - 2.0 * (drawn @ other) / len(num)
    assert (got["two"].low, got["two"].high) == pytest.approx(tuple(np.quantile(both, [0.025, 0.975])), abs=0.1)
    alone = ratios(table[0][:1], table[1][:1], {"one": [1, 0]})["one"]
    assert (alone.value, alone.low) == (num[0] / den[0], None)


def test_clusters_of_unequal_size_keep_the_item_mean():
    got = mean([1.0, 1.0, 1.0, 0.0], clusters=["a", "a", "a", "b"])
    assert got.value == 0.75
    assert (got.low, got.high) == (0.0, 1.0)


def test_pairing_removes_what_is_shared():
    base = RNG.normal(scale=10, size=200)
    right = base + RNG.normal(scale=0.1, size=200)
    got = paired_difference(base + 1.0, right)
    assert got.low - 0.01 < 1.0 < got.high + 0.01
    assert got.high - got.low < 0.05
    apart = mean(base + 1.0).high - mean(base + 1.0).low
    assert apart > 2.0
    flipped = paired_difference(right, base + 1.0)
    assert flipped.value == pytest.approx(-got.value)


def test_combination_is_joint_over_clusters():
    """Two parts over the same subjects that move together: the difference is sharp, unlike with separate subjects."""
    skill = RNG.normal(size=300)
    names = [f"s{i}" for i in range(300)]
    joint = combination([Part(values=skill, clusters=names), Part(values=skill, weight=-1.0, clusters=names)])
    assert (joint.value, joint.low, joint.high) == pytest.approx((0, 0, 0))
    apart = combination(
        [Part(values=skill, clusters=names), Part(values=skill, weight=-1.0, clusters=[f"t{i}" for i in range(300)])]
    )
    want = 2 * 1.96 * math.sqrt(2 * skill.var() / 300)
    assert apart.high - apart.low == pytest.approx(want, rel=0.1)


def test_combination_weighs_means_not_items():
    parts = [Part(values=[1.0] * 10), Part(values=[0.0, 1.0], weight=-0.5), Part(values=[1.0] * 50, weight=-0.5)]
    got = combination(parts, draws=50)
    assert (got.value, got.n) == (pytest.approx(0.25), 62)


def test_edges():
    assert math.isnan(mean([]).value)
    assert mean([]).low is None
    one = mean([0.5, 0.7], clusters=["a", "a"])
    assert (one.value, one.low) == (pytest.approx(0.6), None)
    flat = mean([1, 1, 1])
    assert (flat.value, flat.low, flat.high) == (1.0, 1.0, 1.0)
    assert mean(np.array([True, False])).value == 0.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean([1.0, math.nan]), "NaN"),
        (lambda: mean([1.0, 2.0], clusters=["a"]), "1 cluster ids for 2"),
        (lambda: paired_difference([1.0], [1.0, 2.0]), "1 values against 2"),
        (lambda: mean([1.0], level=1.0), "level"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_coverage(method):
    """Of 95 % intervals over clustered data, about 95 % cover the truth; ignoring clusters far fewer do."""
    generator = np.random.default_rng(0)
    clusters = [i // 5 for i in range(300)]
    runs, covered, naive = 300, 0, 0
    for run in range(runs):
        values = 2.0 + np.repeat(generator.normal(size=60), 5) + generator.normal(size=300)
        got = mean(values, clusters=clusters, draws=400, seed=run, method=method)
        covered += got.low <= 2.0 <= got.high
        blind = mean(values, draws=200, seed=run, method=method)
        naive += blind.low <= 2.0 <= blind.high
    assert 0.91 <= covered / runs <= 0.985
    assert naive / runs < 0.85


def test_means_are_the_mean_of_each_column():
    draw = np.random.default_rng(0)
    columns = {"a": draw.normal(size=30), "b": draw.random(30) < 0.2, "c": np.ones(30)}
    ids = [i // 3 for i in range(30)]
    for method in ("bca", "percentile"):
        found = means(columns, clusters=ids, method=method)
        for name, values in columns.items():
            alone = mean(values, clusters=ids, method=method)
            assert (found[name].value, found[name].low, found[name].high, found[name].n) == pytest.approx(
                (alone.value, alone.low, alone.high, alone.n)
            )
    assert means({}) == {}
    assert math.isnan(means({"a": []})["a"].value)
    assert means({"a": [1.0, 2.0]}, clusters=[0, 0])["a"].low is None
    with pytest.raises(ValueError, match="different lengths"):
        means({"a": [1.0], "b": [1.0, 2.0]})
