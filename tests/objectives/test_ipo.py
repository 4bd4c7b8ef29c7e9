"""IPO against the brief's vectors, an independent formula and its optimum."""

import exactness
import pairwise
import pytest

from alignlab.objectives import ipo


def formula(step, cfg):
    def of_pair(better, worse):
        a, b = (x.ratio() / (len(x) if cfg.form == "mean" else 1) for x in (better, worse))
        return (a - b - 0.5 / cfg.beta) ** 2

    return pairwise.mean_over_pairs(of_pair, step)


@pytest.mark.parametrize("form", ["mean", "sum"])
def test_exactness(form):
    exactness.check(ipo.loss, ipo.Config(beta=0.3, form=form), formula)


@pytest.mark.parametrize(("form", "vector"), [("sum", 9.0), ("mean", 21.855625)])
def test_vectors(form, vector):
    batch = pairwise.pair(*pairwise.BRIEF)
    value, better, worse = pairwise.slopes(ipo, ipo.Config(beta=0.1, form=form), batch)
    assert value == pytest.approx(vector, abs=5e-7)
    miss = 2 - 5 if form == "sum" else 1 / 5 + 1 / 8 - 5
    assert (better, worse) == tuple(
        pytest.approx(sign * 2 * miss / (n if form == "mean" else 1)) for sign, n in ((1, 5), (-1, 8))
    )


def test_the_form_that_the_authors_confirmed_is_the_default():
    assert ipo.Config().form == "mean"


def test_at_the_reference_it_is_the_target_squared():
    for form in ("mean", "sum"):
        assert pairwise.value(ipo, ipo.Config(beta=0.2, form=form), pairwise.ratios(0, 0)) == pytest.approx(1 / 0.16)


def test_the_gradient_turns_at_the_target():
    cfg = ipo.Config(beta=0.25)
    below, at, beyond = (pairwise.slopes(ipo, cfg, pairwise.ratios(2 + d, 0.0))[1] for d in (-1, 0, 1))
    assert below < 0 < beyond
    assert at == pytest.approx(0, abs=1e-12)


def test_the_optimum_is_finite_and_linear_in_the_preference():
    # additive preferences, so that every pair's target can be met at once
    pairs = pairwise.all_pairs(lambda a, b: 0.5 + (a - b) / 4)
    found = pairwise.log_ratio(pairwise.optimum(ipo, ipo.Config(beta=0.3, form="sum"), pairwise.REF, pairs))
    wanted = pairwise.centred(pairwise.REWARDS) / (4 * 0.3)
    assert pairwise.centred(found).tolist() == pytest.approx(wanted.tolist(), abs=1e-6)
    certain = pairwise.optimum(ipo, ipo.Config(beta=0.3), (0.0, 0.0), [exactness.Pair(0, 1)])
    assert (certain[0] - certain[1]).item() == pytest.approx(1 / 0.6, abs=1e-6), "where DPO would run away"


def test_errors():
    pairwise.check_errors(ipo, [{"beta": 0.0}, {"form": "median"}])
