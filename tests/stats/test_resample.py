import math

import numpy as np
import pytest
from scipy import stats

from alignlab.stats import bootstrap
from alignlab.stats.resample import hierarchical, numbered, standard_error, statistic

VALUES, CLUSTERS = (1, 0, 1, 1, 0, 1), (0, 0, 1, 1, 2, 2)


def test_standard_errors_of_the_specification():
    assert standard_error(VALUES) == pytest.approx(0.210819, abs=1e-6)
    assert standard_error(VALUES, CLUSTERS) == pytest.approx(0.166667, abs=1e-6)
    assert math.isnan(standard_error([1.0]))
    assert math.isnan(standard_error([1.0, 2.0], ["a", "a"]))


def test_standard_error_is_that_of_a_regression_on_a_constant():
    import statsmodels.api as sm

    draw = np.random.default_rng(0)
    clusters = np.repeat(np.arange(12), 5)
    x = draw.normal(size=12)[clusters] + draw.normal(size=60)
    fit = sm.OLS(x, np.ones(60)).fit(cov_type="cluster", cov_kwds={"groups": clusters, "use_correction": False})
    assert standard_error(x, clusters) == pytest.approx(fit.bse[0] * math.sqrt(12 / 11))


def test_the_mean_as_a_statistic_agrees_with_the_bootstrap_of_means():
    draw = np.random.default_rng(1)
    clusters = np.repeat(np.arange(40), 4)
    x = draw.normal(size=40)[clusters] + draw.normal(size=160)
    ours = statistic(lambda i: x[i].mean(), clusters, draws=4000)
    want = bootstrap.mean(x, clusters=clusters, method="percentile", draws=20_000)
    assert (ours.value, ours.n) == (pytest.approx(want.value), 160)
    assert (ours.low, ours.high) == pytest.approx((want.low, want.high), abs=0.03)


def test_draws_that_are_undefined_are_left_out():
    found = statistic(lambda i: math.nan if 0 in i else float(len(set(i.tolist()))), range(5), draws=200)
    assert math.isnan(found.value)
    assert found.low >= 1
    assert statistic(lambda i: math.nan, range(5)).low is None
    assert statistic(lambda i: 1.0, ["a", "a"]).low is None


def test_numbered():
    assert numbered(["b", "a", "b"]).tolist() == [0, 1, 0]


def test_hierarchical_without_inner_levels_is_the_clustered_bootstrap():
    draw = np.random.default_rng(2)
    clusters = np.repeat(np.arange(30), 6)
    x = draw.normal(size=30)[clusters] + draw.normal(size=180)
    ours = hierarchical(x, [clusters], items=False, draws=20_000)
    want = bootstrap.mean(x, clusters=clusters, method="percentile", draws=20_000)
    assert (ours.low, ours.high) == pytest.approx((want.low, want.high), abs=0.02)
    wider = hierarchical(x, [clusters], items=True, draws=20_000)
    assert wider.high - wider.low > ours.high - ours.low


def test_hierarchical_weighs_a_unit_by_all_its_parents():
    """By brute force: draw topics, in them questions, in them answers, one after the other."""
    draw = np.random.default_rng(3)
    topics, questions = np.repeat(np.arange(4), 9), np.tile(np.repeat(np.arange(3), 3), 4)
    x = draw.normal(size=4)[topics] + draw.normal(size=36)
    ours = hierarchical(x, [topics, questions], draws=8000)
    means = []
    for _ in range(4000):
        kept = []
        for t in draw.integers(4, size=4):
            for q in draw.integers(3, size=3):
                kept += draw.choice(x[(topics == t) & (questions == q)], 3).tolist()
        means.append(np.mean(kept))
    assert (ours.low, ours.high) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.06)


def test_coverage_of_nested_data():
    draw = np.random.default_rng(4)
    outer, inner = np.repeat(np.arange(25), 8), np.tile(np.repeat(np.arange(4), 2), 25)
    covered = 0
    for run in range(200):
        x = draw.normal(size=25)[outer] + draw.normal(size=100)[outer * 4 + inner] + draw.normal(size=200)
        found = hierarchical(x, [outer, inner], items=False, draws=300, seed=run)
        covered += found.low <= 0 <= found.high
    assert 0.90 <= covered / 200 <= 0.99


def test_edges():
    assert math.isnan(hierarchical([], [[]]).value)
    assert hierarchical([1.0, 2.0], [["a", "a"]]).low is None
    assert statistic(lambda i: 0.0, []).n == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: hierarchical([1.0, math.nan], [[0, 1]]), "NaN"),
        (lambda: hierarchical([1.0, 2.0], [[0, 1], [0]]), "level 1 has 1 ids for 2"),
        (lambda: standard_error([1.0, 2.0], [0]), "1 cluster ids for 2"),
        (lambda: statistic(lambda i: 0.0, range(3), level=2.0), "level"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_few_clusters_get_the_width_of_a_t_interval():
    """Twelve near-normal values: a plain percentile interval is narrower by a seventh."""
    x = stats.norm.ppf((np.arange(12) + 0.5) / 12)
    found = statistic(lambda index: float(x[index].mean()), range(12), draws=20_000)
    half = stats.t.ppf(0.975, 11) * x.std(ddof=1) / math.sqrt(12)
    assert found.high - found.low == pytest.approx(2 * half, rel=0.03)
