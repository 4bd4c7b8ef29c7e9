"""Ranking accuracy against win rate: the arithmetic on curves made by hand, and one run in miniature."""

import json

import numpy as np
import pytest


@pytest.fixture(scope="module")
def win_rate(script):
    return script("preference_rankings/win_rate.py")


def test_pairs_of_facts_that_are_told_so_often(win_rate):
    rows = win_rate.pairs("trained on", 0, 5)
    assert len(rows) == 10
    assert len({row.meta["id"] for row in rows}) == 5
    assert all(row.facts["gold"] in row.chosen and row.facts["gold"] not in row.rejected for row in rows)
    assert rows == win_rate.pairs("trained on", 0, 5)
    assert rows != win_rate.pairs("trained on", 1, 5)
    assert not {row.meta["id"] for row in rows} & {row.meta["id"] for row in win_rate.pairs("other facts", 0, 400)}


def test_correlations_before_and_after_a_known_peak(win_rate):
    """Answers rise, then fall; rankings rise all the way: + before, - after, and the peak is where it was put."""
    count, answers = 40, np.array([0.1, 0.3, 0.5, 0.7, 0.9, 0.7, 0.5, 0.3])
    ranked = np.linspace(0.2, 0.9, 8)
    found = win_rate.correlated(
        np.repeat(ranked[:, None], 2 * count, 1), np.repeat(answers[:, None], 2 * count, 1),
        [f"fact-{i // 2}" for i in range(2 * count)],
    )  # fmt: skip
    for name in ("halves", "same"):
        assert found[f"{name}/peak"].value == 4
        before, after = found[f"{name}/up to the peak"], found[f"{name}/from the peak on"]
        assert (before.value, before.low, before.high) == pytest.approx((1, 1, 1))
        assert (after.value, after.low, after.high) == pytest.approx((-1, -1, -1))
        assert (before.n, after.n) == (5, 4)
    assert found["halves/peak"].n == count  # half of the facts, both wordings
    falling = win_rate.correlated(ranked[:, None] * np.ones(8), -ranked[:, None] * np.ones(8), list("abcdefgh"))
    assert falling["halves/from the peak on"].value == pytest.approx(-1)
    assert np.isnan(falling["halves/up to the peak"].value)


def test_a_run_in_miniature(win_rate, tmp_path):
    """Settings, curves from the reference on, and numbers that are each other's arithmetic."""
    win_rate.main([
        "--seeds", "1", "--facts", "6", "--others", "4", "--steps", "4", "--every", "2", "--answers", "2", "--batch",
        "4", "--learning_rate", "1e-3", "--output", str(tmp_path / "x" / "found.json"),
    ])  # fmt: skip
    found = json.loads((tmp_path / "x" / "found.json").read_text())
    assert [one["group"] for one in found["runs"]] == ["trained on", "other facts"]
    assert [one["pairs"] for one in found["runs"]] == [12, 8]
    for one in found["runs"]:
        curves = one["curves"]
        assert curves["step"] == [0, 2, 4]
        assert curves["win_rate"][0] == 0.5
        assert curves["dpo_loss"][0] == pytest.approx(np.log(2), abs=1e-4)
        assert curves["squared_distance"][0] == 0 < curves["squared_distance"][1] < curves["squared_distance"][2]
        won = [0.5 + (true - curves["true"][0]) / 2 for true in curves["true"]]
        assert curves["win_rate"] == pytest.approx(won, abs=2e-4)
    assert found["runs"][0]["curves"]["dpo_loss"][2] < 0.69


def test_the_record_is_of_these_settings(win_rate):
    """What the log speaks of: three seeds, every curve whole."""
    found = json.loads(win_rate.OUT.read_text())
    assert found["settings"]["seeds"] == 3
    assert len(found["runs"]) == 6
    points = found["settings"]["steps"] // found["settings"]["every"] + 1
    assert all(len(curve) == points for one in found["runs"] for curve in one["curves"].values())
