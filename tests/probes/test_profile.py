import numpy as np
import pytest

from alignlab.core.types import Row
from alignlab.probes import profile
from alignlab.probes.profile import (
    CARD,
    Config,
    alignment,
    by_requested_score,
    factors_of,
    joint_fit,
    measure,
    planted,
    report,
    signs,
    tau,
)


def array(*values):
    return np.array(values)


def test_tau_of_six_pairs():
    more = signs(array(5.0, 2, 1, 3, 6, 4), array(3.0, 4, 3, 3, 2, 1))
    preference = array(1, 1, -1, 1, -1, 1)
    assert tau(preference, more) == pytest.approx(1 / 6)
    assert tau(preference, more, "13") == pytest.approx(0.2)
    assert tau(preference, more, "10") == pytest.approx(0.0)


def test_pairs_without_preference_are_dropped():
    more = signs(array(1.0, 2, 1, 9), array(0.0, 2, 5, 3))
    assert tau(array(0, 1, -1, 1), more) == pytest.approx(2 / 3)
    assert np.isnan(tau(array(0, 0), array(1, 1)))


def test_tau_of_a_generator():
    preferred, other = by_requested_score([1, 2, 3, 4, 5], [40, 55, 55, 80, 70])
    assert len(preferred) == 10
    ones = np.ones(10, dtype=int)
    assert tau(ones, signs(preferred, other)) == pytest.approx(0.7)
    assert tau(ones, signs(preferred, other), "13") == pytest.approx(0.777778, abs=1e-6)


def test_two_profiles():
    found = alignment((-0.10, 0.45, 0.30, 0.20, -0.25), (0.60, 0.25, 0.30, 0.05, -0.05))
    assert found == pytest.approx({"spearman": 0.3, "kendall": 0.2, "pearson": 0.093021}, abs=1e-6)
    with pytest.raises(ValueError, match="same three or more"):
        alignment((1, 2), (1, 2))


def test_invariants():
    draw = np.random.default_rng(0)
    preference = draw.choice([-1, 1], 300)
    a, b = draw.normal(size=300), draw.normal(size=300)
    assert tau(preference, signs(-a, -b)) == pytest.approx(-tau(preference, signs(a, b)))
    assert tau(-preference, signs(b, a)) == pytest.approx(tau(preference, signs(a, b)))
    assert tau(preference, signs(np.ones(300), np.ones(300))) == 0
    assert abs(tau(preference, signs(a, b))) < 0.2
    coarse = signs(np.round(a), np.round(b))
    assert abs(tau(preference, coarse)) <= abs(tau(preference, coarse, "13"))
    assert signs(array(100.0), array(104.0), 0.05) == 0
    assert signs(array(100.0), array(110.0), 0.05) == -1


def test_tau_credits_a_factor_without_weight_and_the_joint_fit_does_not():
    preference, factors = planted(4000, 1)
    result = report({"human": preference}, factors, Config())
    found = {name: metric.value for name, metric in result.metrics.items()}
    assert found["human/length"] > 0.3
    joint = result.metrics["human/joint/length"]
    assert joint.low < 0 < joint.high
    for name, weight in profile.PLANTED.items():
        fitted = result.metrics[f"human/joint/{name}"]
        assert fitted.low - 0.1 <= weight <= fitted.high + 0.1
    rows = {row[1]: row for row in result.tables["factors"].rows}
    assert abs(rows["length"][4]) < 0.12  # among pairs level on facts
    assert all(claim.holds(found) for claim in CARD.claims)
    assert not all(claim.holds({**found, "human/joint/length": 0.5}) for claim in CARD.claims)


def test_joint_fit_covers_the_truth():
    covered = 0
    for seed in range(30):
        draw = np.random.default_rng(seed)
        gaps = draw.normal(size=(400, 2))
        preference = np.where(draw.random(400) < 1 / (1 + np.exp(-gaps @ [1.0, -0.5])), 1, -1)
        weights, errors = joint_fit(preference, gaps)
        covered += abs(weights[0] - 1.0) < 1.96 * errors[0]
    assert covered >= 25


def test_joint_fit_refuses_what_has_no_answer():
    with pytest.raises(ValueError, match="without error"):
        joint_fit(array(1, 1, -1, -1), array([1.0], [2.0], [-1.0], [-3.0]))
    with pytest.raises(ValueError, match="more pairs"):
        joint_fit(array(1, 0), np.ones((2, 1)))


def test_factors_from_text_and_from_rows():
    row = Row(
        prompt="tell me of the mill",
        chosen="the mill is old",
        rejected="a ferry",
        facts={"factors": {"facts": [2, 0]}},
    )
    found = factors_of([row, row])
    assert {name: (v[0][0], v[1][0]) for name, v in found.items()} == {
        "length": (4, 2),
        "novel_words": (0.5, 1.0),
        "facts": (2, 0),
    }


def test_a_model_as_judge(tiny_model):
    texts = ["the mill", "the old harbour by the mill", "a ferry", "tea at noon in the town"]
    rows = [Row(prompt="Where?", chosen=" " + a, rejected=" " + b) for a in texts for b in texts if a != b]
    result = measure(tiny_model, rows, Config())
    found = {name: metric.value for name, metric in result.metrics.items()}
    assert found["human/length"] == 0  # every pair stands in both orders
    assert 0 <= found["agreement"] <= 1
    assert found["agreement"] == 0.5
    longer = measure(tiny_model, rows, Config(length_normalised=False)).metrics["model/length"].value
    assert longer < -0.5  # a sum of log-probabilities favours short answers
    with pytest.raises(ValueError, match="row 0: expected 'chosen'"):
        measure(tiny_model, [Row(prompt="?", completion="x")], Config())
    with pytest.raises(ValueError, match="facts.factors.x"):
        measure(tiny_model, [Row(prompt="?", chosen="x", rejected="y", facts={"factors": {"x": [1]}})], Config())
    with pytest.raises(ValueError, match="--pairs"):
        Config(pairs=3)
