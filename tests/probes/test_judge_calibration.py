import json
import math

import numpy as np
import pytest

from alignlab.cli.main import main
from alignlab.core.types import Row
from alignlab.probes.judge_calibration import CARD, SHARE, Config, judged, measure
from alignlab.stats import judge


def rows(*pairs):
    return [Row(prompt=f"item {i}", facts={"verdict": v, "truth": t}) for i, (v, t) in enumerate(pairs)]


def values(found, cfg=None):
    return {name: metric.value for name, metric in measure(None, found, cfg or Config()).metrics.items()}


def test_errors_by_hand():
    found = values(rows(*[(True, True)] * 6, *[(False, True)] * 2, *[(True, False)] * 3, *[(False, False)] * 9,
                        (None, True), *[(True, None)] * 20))  # fmt: skip
    assert found["sensitivity"] == 6 / 8
    assert found["specificity"] == 9 / 12
    assert found["accuracy"] == 15 / 20
    assert found["kappa"] == pytest.approx((0.75 - (9 * 8 + 11 * 12) / 400) / (1 - (9 * 8 + 11 * 12) / 400))
    assert found["silent"] == pytest.approx(1 / 41)
    assert found["judged"] == pytest.approx(29.5 / 41)
    assert found["checked_alone"] == pytest.approx(9 / 21)
    weight = judge.power([1.0] * 20, [*[1] * 6, *[0] * 2, *[1] * 3, *[0] * 9, 0.5], [*[1] * 8, *[0] * 12, 1])
    assert found["weight"] == pytest.approx(weight)
    assert found["corrected"] == pytest.approx(weight + (9 - weight * 9.5) / 21)


def test_the_worlds_judge_is_corrected_at_the_stated_rate():
    """120 seeds: the judge's own interval misses the truth, the corrected one covers; so with a useless judge."""
    for faults in ({}, {"sensitivity": 0.5, "specificity": 0.5}):
        covered = fooled = 0
        for seed in range(120):
            cfg = Config(count=400, checked=60, silent=0.1, seed=seed, **faults)
            listed = judged(cfg)
            given = np.array([0.5 if r.facts["verdict"] is None else r.facts["verdict"] for r in listed], float)
            truth = np.array([r.facts["truth"] for r in listed[:60]], float)
            weight = judge.power(given[60:], given[:60], truth)
            found = judge.with_truth(given[60:], given[:60], truth, weight=weight, draws=400)
            covered += found.low <= SHARE <= found.high
            fooled += given.mean() > SHARE + 0.05
        assert covered >= 107
        assert fooled >= 84


def test_its_claims_hold_and_a_judge_by_coin_fails_one():
    assert all(claim.holds(values([])) for claim in CARD.claims)
    coin = values([], Config(sensitivity=0.5, specificity=0.5))
    assert not all(claim.holds(coin) for claim in CARD.claims)
    assert coin["worth_per_checked"] == pytest.approx(1, abs=0.1)


def test_probabilities_are_held_against_outcomes():
    pairs = [(0.9, True)] * 8 + [(0.9, False)] * 2 + [(0.2, False)] * 9 + [(0.2, True)] + [(0.4, None)] * 5
    result = measure(None, rows(*pairs), Config())
    assert result.metrics["calibration_error"].value == pytest.approx(0.1)
    assert result.metrics["brier"].value == pytest.approx((8 * 0.01 + 2 * 0.81 + 9 * 0.04 + 0.64) / 20)
    assert result.figures["reliability"].series["judge"]["y"] == pytest.approx([0.1, 0.8])


def test_truth_in_shares_and_all_checked():
    found = values(rows((True, 0.5), (False, 0.25), (True, 0.75), (None, None)))
    assert found["corrected"] == found["checked_alone"] == 0.5
    assert "accuracy" not in found
    whole = measure(None, rows(*[(True, True), (False, False)] * 5), Config())
    assert whole.metrics["weight"].value == 0
    assert "adds nothing" in whole.notes[1]
    assert not math.isnan(whole.metrics["corrected"].low)
    alike = values(rows(*[(True, True)] * 5, *[(True, None)] * 5))
    assert alike["corrected"] == 1
    assert math.isnan(alike["worth_per_checked"])


@pytest.mark.parametrize(
    ("pairs", "message"),
    [([(True, True), (True, None)], "1 of 2 rows have a fact 'truth'"),
     ([(None, True), (None, False)], "one a verdict"), ([("yes", True), (True, True)], "--columns facts.verdict"),
     ([(True, 2), (True, True)], "fact 'truth'")],
)  # fmt: skip
def test_bad_input_is_named(pairs, message):
    with pytest.raises(ValueError, match=message):
        values(rows(*pairs))
    with pytest.raises(ValueError, match="--checked"):
        judged(Config(count=10, checked=11))


def test_a_users_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = [{"prompt": str(i), "judge": i % 2 == 0, "human": (i % 2 == 0) if i < 10 else None} for i in range(30)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    argv = ["probe", "judge_calibration", "--dataset", "mine.jsonl", "--output_dir", "out"]
    assert main([*argv, "--columns", "facts.verdict=judge", "facts.truth=human"]) == 0
    found = json.loads((tmp_path / "out" / "result.json").read_text())["metrics"]
    assert found["accuracy"] == 1
    assert found["corrected"] == pytest.approx(0.5)
