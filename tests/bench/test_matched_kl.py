"""Objectives at one KL: the arithmetic on curves made by hand, and a run in miniature that is stopped and goes on."""

import json

import numpy as np
import pytest

from alignlab.cli import docs, matched
from alignlab.core.find import names


@pytest.fixture(scope="module")
def matched_kl(script):
    return script("matched_kl.py")


def test_every_objective_that_reads_preferences_alone(matched_kl):
    found = matched_kl.objectives()
    others = {"adpa", "cut", "dckd", "mah_dpo", "poft", "spin", "weak_to_strong"}
    assert set(found) == set(names("objectives")) - others
    assert (found["dpo"], found["kto"], found["ranked"], found["sft"]) == ("pairs", "thumbs", "lists", "demonstrations")
    assert matched_kl.settings_of("kto").beta == 0.1


def test_the_same_facts_are_asked_in_words_that_training_does_not_show(matched_kl):
    learnt, held_out = matched_kl.asked(0, 6)
    assert len(held_out) == 6
    assert {row.meta["id"] for row in learnt} == {row.meta["id"] for row in held_out}
    assert not {str(row.prompt) for row in learnt} & {str(row.prompt) for row in held_out}
    for row in held_out:
        trained = {one.rejected for one in learnt if one.meta["id"] == row.meta["id"]}
        assert row.rejected not in {*trained, row.chosen}
    again, other = matched_kl.asked(0, 6), matched_kl.asked(1, 6)
    assert again == (learnt, held_out) != other
    assert [row.prompt for row in other[1]] == [row.prompt for row in held_out], "seeds share their facts"


def test_forms_say_the_same(matched_kl):
    (row,) = matched_kl.asked(0, 1)[1]
    assert matched_kl.in_form(row, "pairs") == [row]
    up, down = matched_kl.in_form(row, "thumbs")
    assert (up.completion, up.label, down.completion, down.label) == (row.chosen, True, row.rejected, False)
    (ranked,) = matched_kl.in_form(row, "lists")
    assert (ranked.completions, ranked.scores, ranked.chosen) == ((row.chosen, row.rejected), (1.0, 0.0), None)
    (told,) = matched_kl.in_form(row, "demonstrations")
    assert (told.completion, told.rejected) == (row.chosen, None)


def test_where_a_run_last_rises_past_a_kl(matched_kl):
    curves = np.array([[0, 0.1, 10], [1, 0.5, 20], [3, 0.7, 40], [2, 0.9, 50], [4, 0.2, 60]])
    assert matched_kl.at_kl(curves, 2.5) == pytest.approx([2.5, 0.725, 52.5]), (
        "not between 1 and 3, nor on the way back"
    )
    assert matched_kl.at_kl(curves, 2.0) == pytest.approx([2, 0.6, 30])
    assert matched_kl.at_kl(curves, 1.0) == pytest.approx([1, 0.5, 20])
    assert matched_kl.at_kl(curves[:4], 2.5) == pytest.approx([2.5, 0.65, 35]), "it ends below"
    assert matched_kl.at_kl(curves, 4.5) is None


def test_the_common_kl_is_the_largest_that_so_many_reach(matched_kl):
    reached = [4.0, 3.0, 2.0, 1.239]
    assert matched_kl.common_kl(reached, 1.0) == 1.23
    assert matched_kl.common_kl(reached, 0.75) == 2.0
    assert matched_kl.common_kl(reached, 0.5) == 3.0
    assert matched_kl.common_kl([5.0], 0.1) == 5.0


def made(rates, rows=200, noise=0.3, seed=0):
    """Runs whose KL rises by one a checkpoint and whose gold by a rate of its own; every row scatters around that."""
    draw, t = np.random.default_rng(seed), np.arange(5.0)[:, None]
    flat = np.ones((5, rows))
    scatter = draw.normal(0, noise, rows)
    return [np.stack([t * flat, rate * t + scatter, 0.5 * flat, 0.5 * flat, 4 * flat], 1) for rate in rates]


def test_intervals_are_over_seeds_and_rows(matched_kl):
    at = matched_kl.compared(made((0.1, 0.1, 0.1)), 2.5, every=10)
    value, low, high = at["gold"]
    assert value == pytest.approx(0.25, abs=0.05)
    assert high - low == pytest.approx(2 * 1.96 * 0.3 / 200**0.5, rel=0.15)
    assert at["length"] == [4, 4, 4]
    assert at["step"] == [25, 25, 25]
    value, low, high = matched_kl.compared(made((0.0, 0.1, 0.2), noise=0.0), 2.5, every=10)["gold"]
    assert (value, low, high) == pytest.approx((0.25, 0.0, 0.5), abs=0.09), "seeds differ where rows do not"
    assert matched_kl.compared(made((0.1, 0.1)), 4.5, every=10) is None


MINIATURE = [
    "--seeds", "2", "--only", "dpo", "kto", "sft", "--facts", "4", "--steps", "4", "--every", "2", "--answers", "1",
    "--batch", "4", "--learning_rate", "1e-3",
]  # fmt: skip


def test_a_run_in_miniature_goes_on_where_it_stopped(matched_kl, tmp_path, monkeypatch, capsys):
    out, work = tmp_path / "bench" / "results" / "matched_kl.json", tmp_path / "work"
    out.parent.mkdir(parents=True)
    command = [*MINIATURE, "--work_dir", str(work), "--output", str(out), "--share", "0.6"]
    matched_kl.main(command)
    found = json.loads(out.read_text())
    assert [row["objective"] for row in found["rows"]] == ["dpo", "kto", "sft"]
    assert found["facts"] == 4
    assert found["reference"]["kl"] == 0
    assert found["reference"]["reward_accuracy"] == 0.5
    for row in found["rows"]:
        assert row["step"] == [0, 2, 4]
        assert all(len(curve) == 3 for curves in row["curves"].values() for curve in curves)
        assert [max(curve) for curve in row["curves"]["kl"]] == row["reached"]
        assert all(kl > 0 for kl in row["reached"])
        assert (row["at"] is None) == (min(row["reached"]) < found["kl"])
    assert sum(row["at"] is not None for row in found["rows"]) == 2
    page = matched.page(tmp_path)
    (left,) = [row for row in found["rows"] if row["at"] is None]
    (empty,) = [line for line in page.splitlines() if line.endswith("|  |  |  |  |  |")]
    assert f"[{left['objective']}](" in empty
    assert f"| {min(left['reached']):.2f} |" in empty
    assert page.count("| [") == 3
    assert "95 % intervals over seeds and facts" in page

    (work / "kto-1.json").unlink()
    done = []
    inner = matched_kl.run
    monkeypatch.setattr(matched_kl, "run", lambda *given: done.append(given[:3]) or inner(*given))
    matched_kl.main(command)
    assert done == [("kto", "thumbs", 1)]
    again = json.loads(out.read_text())
    assert [row["curves"] for row in again["rows"]] == [row["curves"] for row in found["rows"]], "to the digit"
    with pytest.raises(SystemExit):
        matched_kl.main([*command, "--only", "dpo", "nonsense"])
    assert "nonsense" in capsys.readouterr().err


def test_the_page_is_one_of_the_generated_ones(tmp_path, monkeypatch):
    assert matched.RECORD.endswith("matched_kl.json")
    (tmp_path / "README.md").write_text(f"{docs.BEGIN}\n{docs.END}\n")
    (tmp_path / "bench" / "results").mkdir(parents=True)
    (tmp_path / matched.RECORD).write_text("{}")
    monkeypatch.setattr(matched, "page", lambda root: "made")
    assert docs.pages(tmp_path)[tmp_path / matched.PAGE] == "made"
