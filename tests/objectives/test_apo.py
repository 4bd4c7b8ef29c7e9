"""APO against independent formulas and the directions it promises."""

import math

import exactness
import pairwise
import pytest

from alignlab.objectives import apo


def formula(step, cfg):
    def of_pair(better, worse):
        r_w, r_l = cfg.beta * better.ratio(), cfg.beta * worse.ratio()
        if cfg.variant == "zero":
            return 1 - pairwise.sigmoid(r_w) + pairwise.sigmoid(r_l)
        return pairwise.sigmoid(r_w) + 1 - pairwise.sigmoid(r_w - r_l)

    return pairwise.mean_over_pairs(of_pair, step)


@pytest.mark.parametrize("variant", ["zero", "down"])
def test_exactness(variant):
    exactness.check(apo.loss, apo.Config(beta=0.3, variant=variant), formula)


def test_vectors():
    batch = pairwise.pair(*pairwise.BRIEF)
    # sigma(0.1) = 0.524979, sigma(-0.1) = 0.475021, sigma(0.2) = 0.549834
    for variant, by_hand in (("zero", 1 - 0.524979 + 0.475021), ("down", 0.524979 + 1 - 0.549834)):
        assert pairwise.value(apo, apo.Config(beta=0.1, variant=variant), batch) == pytest.approx(by_hand, abs=2e-6)


@pytest.mark.parametrize("at", [(0.0, 0.0), (1.0, -2.0), (-1.0, 0.5), (3.0, 3.0)])
def test_zero_raises_the_better_and_lowers_the_worse_everywhere(at):
    _, better, worse = pairwise.slopes(apo, apo.Config(beta=1.0), pairwise.ratios(*at))
    assert better < 0 < worse
    slope = [pairwise.sigmoid(r) * pairwise.sigmoid(-r) for r in at]
    assert (better, worse) == (pytest.approx(-slope[0]), pytest.approx(slope[1]))


def test_down_lowers_both_once_they_are_apart():
    assert pairwise.slopes(apo, apo.Config(variant="down", beta=1.0), pairwise.ratios(0.0, 0.0))[1:] == (
        pytest.approx(0.0, abs=1e-15),
        pytest.approx(0.25),
    )
    _, better, worse = pairwise.slopes(apo, apo.Config(variant="down", beta=1.0), pairwise.ratios(0.5, -2.0))
    assert better > 0, "the better one sinks too"
    assert worse > 0


def test_at_the_reference_both_are_one_and_both_are_bounded():
    for variant in ("zero", "down"):
        cfg = apo.Config(beta=1.0, variant=variant)
        assert pairwise.value(apo, cfg, pairwise.ratios(0, 0)) == pytest.approx(1.0)
        for at in ((900.0, -900.0), (-900.0, 900.0)):
            found = pairwise.slopes(apo, cfg, pairwise.ratios(*at))
            assert all(map(math.isfinite, found))
            assert 0 <= found[0] <= 2


def test_errors():
    pairwise.check_errors(apo, [{"beta": 0.0}, {"variant": "up"}])
