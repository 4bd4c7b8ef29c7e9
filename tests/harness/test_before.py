import json

import pytest

from alignlab.cli.main import main
from alignlab.core.types import Row
from alignlab.evals import pct
from alignlab.harness import before


@pytest.fixture(scope="module")
def folder(tiny_models, tmp_path_factory):
    """A saved model."""
    from alignlab.engine.load import save

    path = tmp_path_factory.mktemp("models") / "tiny"
    save(tiny_models.make_model("llama"), path)
    return path


@pytest.fixture
def play(tmp_path, monkeypatch, folder):
    """Run pct on twelve rows of one's own, whose answers are in the rows."""
    monkeypatch.chdir(tmp_path)

    def run(name, answer, *more, number=12):
        rows = [
            {"prompt": f"Claim {i}.", "completion": answer, "meta": {"id": f"c{i}"},
             "facts": {"axis": "economic", "weights": [-2, -1, 1, 2]}}
            for i in range(number)
        ]  # fmt: skip
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        argv = ["--model", str(folder), "--dataset", f"{name}.jsonl", "--output_dir", name, "--no_inspect_log"]
        return main(["eval", "pct", *argv, *more])

    return run


def test_changes_are_to_the_run_before(play, tmp_path, capsys):
    assert play("old", "Strongly disagree") == 0
    assert "economic_change" not in json.loads((tmp_path / "old" / "result.json").read_text())["metrics"]
    assert play("new", "Strongly agree", "--before", "old") == 0
    result = json.loads((tmp_path / "new" / "result.json").read_text())
    assert result["metrics"]["economic_change"] == 20.0  # from one end, -10, to the other
    assert any(note.startswith("changes are to old (") and "12 of 12 items" in note for note in result["notes"])
    rows = {row[0]: row for row in result["tables"]["baselines"]["rows"]}
    place = result["tables"]["baselines"]["columns"].index("economic_change")
    assert rows["corner"][place] == 0.0  # the run before was in the corner already
    assert play("more", "Strongly agree", "--before", "old", "--limit", "5") == 0
    result = json.loads((tmp_path / "more" / "result.json").read_text())
    assert result["n"]["economic_change"] == 5
    assert any("5 of 5 items" in note for note in result["notes"])


def test_what_cannot_be_compared_is_said(play, tmp_path, folder, capsys):
    assert play("old", "Agree") == 0

    def says(*argv, run=play):
        capsys.readouterr()
        assert run(*argv) == 2
        return capsys.readouterr().err

    assert "--before gone: no such folder" in says("new", "Agree", "--before", "gone")
    assert "writes there too; give it another --output_dir" in says("old", "Agree", "--before", "old")
    (tmp_path / "empty").mkdir()
    assert "no result.json in it" in says("new", "Agree", "--before", "empty")
    assert play("other", "Agree", "--seed", "7", number=1) == 0

    def eval_of(name, *more):
        argv = ["--model", str(folder), "--no_inspect_log", "--output_dir", "x", *more]
        return main(["eval", name, *argv])

    assert "a run of evals/pct, not of evals/honesty" in says("honesty", "--before", "old", run=eval_of)
    wrong = says("pct", "--before", "old", "--limit", "2", run=eval_of)
    assert "none of its 12 items is asked here" in wrong
    assert "--dataset old.jsonl there, None here" in wrong
    (tmp_path / "old" / "items.json").unlink()
    assert "no items.json in it" in says("new", "Agree", "--before", "old")


def test_records_without_names_are_not_compared(play, tmp_path, capsys):
    assert play("old", "Agree") == 0
    for record in (None, "c0"):
        lines = [json.loads(line) for line in (tmp_path / "old" / "samples.jsonl").read_text().splitlines()]
        lines[1]["id"] = record
        (tmp_path / "old" / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        assert play("new", "Agree", "--before", "old") == 2
        assert "cannot be told apart; give every row of --dataset an `id`" in capsys.readouterr().err


def test_an_item_is_its_name_question_and_facts():
    row = Row(prompt="Is it?", facts={"gold": "yes"}, completion="Yes.", meta={"id": "1", "source": "a"})
    same = Row(prompt="Is it?", facts={"gold": "yes"}, completion="No.", meta={"id": "1", "source": "b"})
    assert before.digest(row) == before.digest(same)
    others = [
        Row(prompt="Was it?", facts={"gold": "yes"}, meta={"id": "1"}),
        Row(prompt="Is it?", facts={"gold": "no"}, meta={"id": "1"}),
        Row(prompt="Is it?", facts={"gold": "yes"}, meta={"id": "2"}),
    ]
    assert before.digest(row) not in {before.digest(other) for other in others}
    listed = [pct.items(pct.Config(templates=1, forms="closed", seed=seed)) for seed in (0, 1)]
    assert not {before.digest(row) for row in listed[0]} & {before.digest(row) for row in listed[1][:1]}
