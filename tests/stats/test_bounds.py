import math

import numpy as np
import pytest
from scipy.stats import ttest_1samp, ttest_rel

from alignlab.stats import bounds, proportion
from alignlab.stats.bounds import Side
from alignlab.stats.resample import standard_error


def test_two_independent_shares_have_newcombes_interval():
    sides = [
        Side(values=[i < 80 for i in range(117)], clusters=[("a", i) for i in range(117)]),
        Side(values=[i < 2 for i in range(92)], clusters=[("b", i) for i in range(92)], weight=-1.0),
    ]
    found = bounds.contrast(sides)
    assert (found.value, found.low, found.high) == pytest.approx((0.662022, 0.557909, 0.740884), abs=1e-6)


def test_missing_answers_move_each_side_to_its_extreme():
    sides = [
        Side(values=[True, True, None, False], clusters=list("abcd")),
        Side(values=[None, False, False, False], clusters=list("efgh"), weight=-1.0),
    ]
    found = bounds.contrast(sides)
    assert found.value == pytest.approx(2 / 3)
    assert found.low == pytest.approx(proportion.difference((2, 4), (1, 4)).low)
    assert found.high == pytest.approx(proportion.difference((3, 4), (0, 4)).high)
    silent = bounds.contrast([Side(values=[None] * 4, clusters="abcd"), Side(values=[None], clusters="a", weight=-1.0)])
    assert math.isnan(silent.value)
    assert (silent.low, silent.high) == (-1.0, 1.0)
    assert bounds.contrast([Side(values=[], clusters=[])]).low is None


def test_one_cluster_has_the_bounds_of_its_gaps_alone():
    found = bounds.mean([1.0, 0.0, None, 0.5], ["one"] * 4)
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.375, 0.625))
    assert bounds.mean([1.0, 0.0], ["one"] * 2).low is None
    assert bounds.share([True, None], ["one"] * 2).high == 1.0
    assert bounds.share([True, False], ["one"] * 2).high is None
    assert bounds.between([0.2], [0.4], ["one"], value=0.3).high == pytest.approx(0.4)
    assert bounds.between([], [], [], value=0.3).low is None


def test_answers_that_are_all_alike_have_wilsons_ends_of_their_clusters():
    for value, hits in ((0.0, 0), (1.0, 8), (0.5, 4)):
        found = bounds.mean([value] * 32, [i % 8 for i in range(32)])
        assert (found.low, found.high) == pytest.approx(proportion.wilson(hits, 8))
    found = bounds.between([0.0] * 8, [0.0] * 8, range(8), value=0.0, least=-1.0)
    assert (found.low, found.high) == pytest.approx([2 * end - 1 for end in proportion.wilson(4, 8)])


def test_graded_answers_have_the_interval_of_a_t_test():
    """One row per cluster is the textbook's interval; clusters of equal size have that of their means."""
    values, earlier = [0.3, 0.4, 0.45, 0.6, 0.7, 0.55], [0.2, 0.45, 0.3, 0.5, 0.6, 0.35]
    known = ttest_1samp(values, 0).confidence_interval(0.95)
    found = bounds.mean(values, range(6))
    assert (found.low, found.high) == pytest.approx(tuple(known))
    twice = bounds.mean([v + d for v in values for d in (-0.1, 0.1)], [i for i in range(6) for _ in range(2)])
    assert (twice.low, twice.high) == pytest.approx(tuple(known))
    scaled = bounds.between([1 + 4 * v for v in values], [1 + 4 * v for v in values], value=3.0, least=1.0, most=5.0)
    assert (scaled.low, scaled.high) == pytest.approx(tuple(1 + 4 * end for end in known))
    known = ttest_rel(values, earlier).confidence_interval(0.95)
    found = bounds.change(values, earlier, range(6))
    assert (found.low, found.high) == pytest.approx(tuple(known))


def test_a_change_is_paired():
    """Scenarios differ by far more than the two runs do."""
    draw = np.random.default_rng(0)
    level = draw.uniform(size=40)
    old, new = list(level * 0.8), list(level * 0.8 + 0.1 + draw.normal(size=40) * 0.02)
    found = bounds.change(new, old, range(40))
    assert found.low < 0.1 < found.high < found.low + 0.03
    gaps = bounds.change([*new[:-1], None], old, range(40))
    assert gaps.value == pytest.approx(np.mean(new[:-1]) - np.mean(old[:-1]))
    assert gaps.low <= found.low < found.high <= gaps.high


@pytest.mark.parametrize("scenarios", [8, 16])
def test_intervals_over_few_scenarios_hold_the_truth(scenarios):
    """The planted difference is .3 for scenarios whose own level varies, four answers to each; gaps only widen."""
    held = gaps = 0
    for seed in range(200):
        draw = np.random.default_rng(seed)
        level, effect = draw.uniform(0, 0.6, size=scenarios), draw.choice((0.1, 0.5), size=scenarios) * 0.8 + 0.06
        ids = [i for i in range(scenarios) for _ in range(4)]
        sides = [
            Side(values=(draw.uniform(size=4 * scenarios) < p[ids]).tolist(), clusters=ids, weight=weight)
            for p, weight in ((level + effect, 1.0), (level, -1.0))
        ]
        found = bounds.contrast(sides)
        held += found.low <= 0.3 <= found.high
        part = [Side(values=[None if i % 7 == 0 else v for i, v in enumerate(s.values)], clusters=ids, weight=s.weight)
                for s in sides]  # fmt: skip
        found = bounds.contrast(part)
        gaps += found.low <= 0.3 <= found.high
    assert held >= 182
    assert gaps >= held


def test_silence_widens_and_moves_no_value():
    verdicts = [1.0] * 60 + [0.0] * 40
    full, gaps = bounds.mean(verdicts, range(100)), bounds.mean([*verdicts, *[None] * 25], range(125))
    assert full.value == gaps.value == 0.6
    assert gaps.low < full.low
    assert gaps.high > full.high
    assert gaps.n == 125
    assert gaps.low == pytest.approx(proportion.wilson(60, 125)[0])
    none = bounds.mean([None] * 3, range(3))
    assert math.isnan(none.value)
    assert (none.low, none.high, none.n) == (0.0, 1.0, 3)


@pytest.mark.parametrize(("least", "most"), [(0.0, 1.0), (-1.0, 1.0), (1.0, 5.0)])
def test_items_all_alike_at_an_end_of_the_scale_have_a_width(least, most):
    """Wilson's far end for k of k is 1 / (1 + z^2 / k), here scaled; clusters count, not items."""
    far = (most - least) * 1.959964**2 / (12 + 1.959964**2)
    for clusters, count in ((None, 12), ([i // 2 for i in range(24)], 24)):
        for end in (least, most):
            found = bounds.between([end] * count, [end] * count, clusters, value=end, least=least, most=most)
            ends = (least, least + far) if end == least else (most - far, most)
            assert (found.low, found.high) == pytest.approx(ends, abs=1e-5)
    middle = (least + most) / 2
    inside = bounds.between([middle] * 12, [middle] * 12, value=middle, least=least, most=most)
    assert (inside.low - least, most - inside.high) == pytest.approx([(most - least) * proportion.wilson(6, 12)[0]] * 2)
    won, open_ = bounds.between([1.0] * 8, [1.0] * 8, value=1.0), bounds.between([0.0] * 8, [1.0] * 8, value=1.0)
    assert 0.6 < won.low < 0.7
    assert (open_.low, open_.high) == (0.0, 1.0)


def test_the_bound_covers_although_refusals_are_not_random():
    """The judge is silent exactly where the model loses: the valid verdicts alone mislead, the bound does not."""
    covered = naive = 0
    for seed in range(200):
        draw = np.random.default_rng(seed)
        verdicts = draw.binomial(1, 0.5, 120)
        silent = (verdicts == 0) & (draw.uniform(size=120) < 0.4)
        heard = [None if quiet else float(v) for v, quiet in zip(verdicts, silent)]
        found = bounds.mean(heard, range(120))
        covered += found.low <= 0.5 <= found.high
        naive += abs(verdicts[~silent].mean() - 0.5) <= 1.96 * standard_error(verdicts[~silent])
    assert covered >= 187  # its lower end is met exactly here, so about 97.5 % cover
    assert naive < 120
