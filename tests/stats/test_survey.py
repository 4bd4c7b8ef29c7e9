import numpy as np
import pytest

from alignlab.stats.survey import margin, rake, weighted, weights

CENSUS = {"M20": 0.25, "M50": 0.25, "F20": 0.20, "F50": 0.30}
SIZES = {"M20": 40, "M50": 20, "F20": 30, "F50": 10}
COUNTS = {"M20": (24, 16), "M50": (10, 10), "F20": (9, 21), "F50": (2, 8)}


def test_post_stratification_of_the_specification():
    w = weights(CENSUS, SIZES)
    assert list(w.values()) == pytest.approx([0.625, 1.25, 2 / 3, 3])
    found = weighted(COUNTS, w)
    assert found.values[0] == pytest.approx(0.395)
    assert weighted(COUNTS, dict.fromkeys(COUNTS, 1.0)).values[0] == pytest.approx(0.45)
    assert found.design_effect == pytest.approx(1.502083, abs=1e-6)
    assert found.n_eff == pytest.approx(66.574202, abs=1e-6)
    assert margin(219) == pytest.approx(0.066223, abs=3e-6)  # which takes 1.96 for the quantile


def test_weights_meet_the_census_whatever_its_unit():
    w = weights({cell: 1000 * share for cell, share in CENSUS.items()}, SIZES)
    assert w == pytest.approx(weights(CENSUS, SIZES))
    assert sum(w[c] * SIZES[c] for c in SIZES) == pytest.approx(100)
    assert weights(CENSUS, SIZES, trim=(0.7, 2.0)) == pytest.approx({**w, "M20": 0.7, "F20": 0.7, "F50": 2.0})


@pytest.mark.parametrize(
    ("census", "sizes", "match"),
    [
        ({"a": 1}, {"a": 3, "b": 2}, "lacks the cells b"),
        ({"a": 1, "b": 1}, {"a": 3}, "nobody in the sample is of b"),
        ({"a": -1, "b": 2}, {"a": 3, "b": 1}, "not negative"),
        ({"a": 0.0}, {"a": 3}, "not all 0"),
    ],
)
def test_cells_that_do_not_fit(census, sizes, match):
    with pytest.raises(ValueError, match=match):
        weights(census, sizes)


def test_other_errors():
    with pytest.raises(ValueError, match="0 <= least"):
        weights(CENSUS, SIZES, trim=(3, 1))
    with pytest.raises(ValueError, match="one count per option"):
        weighted({"a": (1, 2), "b": (1,)}, {"a": 1, "b": 1})
    with pytest.raises(ValueError, match="positive weight"):
        weighted({"a": (0, 0)}, {"a": 1})
    with pytest.raises(ValueError, match="out of range"):
        margin(0)


def test_raking_meets_every_margin():
    draw = np.random.default_rng(0)
    sex, age = draw.choice(["m", "f"], 300, p=[0.7, 0.3]), draw.choice(["20", "50"], 300, p=[0.8, 0.2])
    margins = {"sex": {"m": 0.5, "f": 0.5}, "age": {"20": 0.4, "50": 0.6}}
    w = rake({"sex": list(sex), "age": list(age)}, margins)
    assert w.mean() == pytest.approx(1)
    assert w[sex == "m"].sum() / w.sum() == pytest.approx(0.5, abs=1e-6)
    assert w[age == "50"].sum() / w.sum() == pytest.approx(0.6, abs=1e-6)
    groups, size = ["m", "f", "m", "f"], [int(((sex == s) & (age == a)).sum()) for a in ("20", "50") for s in "mf"]
    cells = rake({"sex": groups, "age": ["20", "20", "50", "50"]}, margins, size)
    for weight, (s, a) in zip(cells, (("m", "20"), ("f", "20"), ("m", "50"), ("f", "50")), strict=True):
        assert w[(sex == s) & (age == a)] == pytest.approx(weight)  # a group weighs as each of its respondents
    assert cells @ size / sum(size) == pytest.approx(1)
    assert rake({"age": list(age)}, {"age": margins["age"]}, trim=(0.9, 1.1)).max() == pytest.approx(1.1)
    # where the cells are known, the same variable alone is post-stratification
    alone = rake({"age": list(age)}, {"age": margins["age"]})
    by_cell = weights(margins["age"], {v: int((age == v).sum()) for v in ("20", "50")})
    assert alone == pytest.approx([by_cell[v] for v in age])
    with pytest.raises(ValueError, match="nobody in the sample is of x"):
        rake({"sex": list(sex)}, {"sex": {"m": 1, "f": 1, "x": 1}})


def test_margins_that_contradict_are_noticed():
    sample = {"sex": ["m", "f"], "age": ["20", "50"]}
    with pytest.raises(ValueError, match="do the margins contradict"):
        rake(sample, {"sex": {"m": 0.5, "f": 0.5}, "age": {"20": 0.9, "50": 0.1}})


def test_weighted_shares_recover_the_population():
    """A young cell that is asked three times too often: raw shares are off, weighted ones are not, over seeds."""
    agree, census = {"young": 0.8, "old": 0.3}, {"young": 0.3, "old": 0.7}
    truth = sum(census[c] * agree[c] for c in census)
    raw, fixed, held = [], [], 0
    for seed in range(200):
        draw = np.random.default_rng(seed)
        yes = {"young": int(draw.binomial(120, agree["young"])), "old": int(draw.binomial(100, agree["old"]))}
        counts = {"young": (yes["young"], 120 - yes["young"]), "old": (yes["old"], 100 - yes["old"])}
        raw.append(sum(yes.values()) / 220)
        found = weighted(counts, weights(census, {"young": 120, "old": 100}))
        fixed.append(found.values[0])
        held += abs(fixed[-1] - truth) <= margin(found.n_eff, found.values[0])
    assert np.mean(fixed) == pytest.approx(truth, abs=0.01)
    assert np.mean(raw) > truth + 0.1
    assert held >= 186  # Kish's margin is a little wide here, since cells are homogeneous
