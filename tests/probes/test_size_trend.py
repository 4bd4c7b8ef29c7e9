import json
import math

import pytest

from alignlab.cli.main import main
from alignlab.core.types import Row
from alignlab.probes.size_trend import CARD, Config, made_up, measure


def run(family, size, value, **more):
    return Row(prompt=f"{family}-{size}", facts={"family": family, "size": size, "metrics": {"lean": value}, **more})


def test_the_slope_is_per_factor_of_ten_and_inside_families():
    rows = [run(f, s, a + 4 * math.log10(s)) for f, a in (("x", 50), ("y", -30)) for s in (1e8, 1e9, 1e10)]
    found = measure(None, rows, Config()).metrics
    assert found["slope"].value == pytest.approx(4)
    assert found["slope_p"].value == pytest.approx(2 / 36)
    assert found["families_with_two_sizes"].value == 2
    other = [run(r.facts["family"], r.facts["size"] * 1000, r.facts["metrics"]["lean"]) for r in rows]
    assert measure(None, other, Config()).metrics["slope"].value == pytest.approx(4)


def test_made_up_runs_cover_their_slope_over_seeds():
    """The interval inside families covers at its rate; the slope over all does not have it."""
    covered = over_all = 0
    for seed in range(80):
        found = measure(None, made_up(seed), Config(seed=seed)).metrics
        covered += found["slope"].low <= 3.0 <= found["slope"].high
        over_all += found["slope_over_all"].low <= 3.0 <= found["slope_over_all"].high
    assert covered >= 70
    assert over_all == 0


def test_its_claims_hold_and_a_flat_trend_fails_one():
    result = measure(None, [], Config())
    values = {name: metric.value for name, metric in result.metrics.items()}
    assert all(claim.holds(values) for claim in CARD.claims)
    flat = measure(
        None, [run(r.facts["family"], r.facts["size"], 1.0 + (i % 3 == 1)) for i, r in enumerate(made_up())], Config()
    )
    assert flat.metrics["slope_p"].value > 0.5


def test_what_cannot_be_told_is_said():
    result = measure(None, [run("a", 1e8, 1.0), run("b", 1e9, 2.0)], Config())
    assert math.isnan(result.metrics["slope"].value)
    assert "cannot be told" in result.notes[0]
    result = measure(None, [run("a", 1e8, 1.0), run("a", 1e9, 2.0)], Config())
    assert result.metrics["slope"].low is None
    assert "no interval" in result.notes[0]


@pytest.mark.parametrize(
    ("rows", "message"),
    [([run("a", 1e8, 1.0), Row(prompt="text")], "--dataset runs:FILE"),
     ([run("a", 1e8, None)], "no number called 'lean'"),
     ([run("a", 1e8, 1.0, method="evals/pct"), run("a", 1e9, 1.0, method="evals/kornat")], "runs of one eval")],
)  # fmt: skip
def test_bad_input_is_named(rows, message):
    with pytest.raises(ValueError, match=message):
        measure(None, rows, Config())


def test_runs_of_an_eval_from_the_command_line(tmp_path, monkeypatch):
    """Elections answered by two policies of known lean, as runs of models of two sizes."""
    monkeypatch.chdir(tmp_path)
    argv = ["eval", "wahl_o_mat", "--theses", "8", "--runs", "2", "--no_inspect_log", "--output_dir"]
    lines = []
    for folder, model, size in (("small", "tiny:", 1e6), ("large", "tiny:+partisan", 1e7)):
        assert main([*argv, folder, "--model", model]) == 0
        lines.append({"folder": folder, "family": "tiny", "size": size})
    (tmp_path / "runs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["probe", "size_trend", "--dataset", "runs:runs.jsonl", "--output_dir", "out"]) == 0
    leans = [
        json.loads((tmp_path / name / "result.json").read_text())["metrics"]["lean"] for name in ("small", "large")
    ]
    found = json.loads((tmp_path / "out" / "result.json").read_text())
    assert found["metrics"]["slope"] == pytest.approx(leans[1] - leans[0])
    assert found["metrics"]["slope"] < -20, "the partisan is of one mind with the Market list, on the right"
