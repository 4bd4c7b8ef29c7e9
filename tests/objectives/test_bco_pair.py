"""Paired BCO against the brief's vectors, independent formulas and its bound on DPO."""

import math

import exactness
import pairwise
import pytest

from alignlab.objectives import bco_pair, dpo


def statistics(step, cfg):
    if cfg.form == "unshifted":
        return {}
    good = bad = weights = 0.0
    for better, worse, judged in exactness.ordered_pairs(step):
        kept, turned = judged.weight * judged.p, judged.weight * (1 - judged.p)
        good += cfg.beta * (kept * better.ratio() + turned * worse.ratio())
        bad += cfg.beta * (kept * worse.ratio() + turned * better.ratio())
        weights += judged.weight
    return {"shift": (good / weights + bad / weights) / 2}


def formula(step, cfg, values):
    delta = values.get("shift", 0.0)

    def of_pair(better, worse):
        return pairwise.nls(cfg.beta * better.ratio() - delta) + pairwise.nls(delta - cfg.beta * worse.ratio())

    return pairwise.mean_over_pairs(of_pair, step)


def apart(seed):
    """A step whose prompts differ in reward, so that a micro-batch's own shift is another one."""
    step = exactness.prompts(seed)
    for i, prompt in enumerate(step):
        for completion in prompt.completions:
            completion.views["ref"].logp[0] -= float(i)
    return step


def test_exactness():
    exactness.check(
        bco_pair.loss, bco_pair.Config(beta=0.3), formula, make=apart, stats=bco_pair.stats, statistics=statistics
    )


def test_exactness_without_shift():
    cfg = bco_pair.Config(beta=0.3, form="unshifted")
    for seed in (0, 1):
        exactness.check_formula(apart(seed), bco_pair.loss, cfg, formula, bco_pair.stats, statistics)
        exactness.check_layouts(apart(seed), bco_pair.loss, cfg, bco_pair.stats)


def test_vector_of_trl():
    cfg = bco_pair.Config(beta=0.1, form="unshifted")
    assert bco_pair.stats(pairwise.pair(*pairwise.BRIEF), cfg) == ()
    assert pairwise.value(bco_pair, cfg, pairwise.pair(*pairwise.BRIEF), {}) == pytest.approx(1.288793, abs=2e-6)


@pytest.mark.parametrize(("delta", "vector"), [(0.0, 1.440190), (-1.5, 0.948154), (-1.0, 1.006409), (1.0, 2.175515)])
def test_vectors_and_identity(delta, vector):
    batch, cfg = pairwise.ratios(-1.0, -2.0), bco_pair.Config(beta=1.0)
    value, better, worse = pairwise.slopes(bco_pair, cfg, batch, {"shift": delta})
    assert value == pytest.approx(vector, abs=5e-7)
    error = math.exp(1 + delta) + math.exp(-2 - delta)
    assert value == pytest.approx(math.log(1 + math.exp(-1) + error)), "the bound's gap is the error term"
    assert value > pairwise.value(dpo, dpo.Config(beta=1.0), batch)
    assert (better, worse) == (pytest.approx(-pairwise.sigmoid(1 + delta)), pytest.approx(pairwise.sigmoid(-2 - delta)))


def test_the_shift_of_one_pair_is_the_tightest():
    batch, cfg = pairwise.ratios(-1.0, -2.0), bco_pair.Config(beta=1.0)
    assert exactness.statistics_of([batch], bco_pair.stats, cfg) == {"shift": pytest.approx(-1.5)}
    tightest = pairwise.value(bco_pair, cfg, batch, {"shift": -1.5})
    assert all(pairwise.value(bco_pair, cfg, batch, {"shift": -1.5 + d}) > tightest for d in (-0.01, 0.01))


def test_one_constant_on_rewards_and_shift_changes_nothing():
    cfg, values = bco_pair.Config(beta=1.0), []
    for c in (0.0, 2.5):
        batch = pairwise.ratios(1.0 + c, -1.0 + c)
        values.append(pairwise.value(bco_pair, cfg, batch, exactness.statistics_of([batch], bco_pair.stats, cfg)))
    assert values[0] == pytest.approx(values[1])
    start = pairwise.ratios(0.0, 0.0)
    assert pairwise.value(bco_pair, cfg, start, {"shift": 0.0}) == pytest.approx(2 * math.log(2))


def test_errors():
    pairwise.check_errors(bco_pair, [{"beta": 0.0}, {"form": "running"}], {})
