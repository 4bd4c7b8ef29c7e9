"""The page of checks: every check that applies is shown for every objective, and no mark outlives its proof."""

import ast
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

import proofs
from alignlab.cli import checks, docs
from alignlab.core.find import names

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def record():
    return json.loads((ROOT / checks.RECORD).read_text())


def test_everything_that_applies_is_shown_of_every_objective(record):
    assert checks.missing(record) == []
    assert set(record) == set(checks.methods())
    assert set(checks.methods()) == {*names("objectives"), "bradley_terry", "order_classifier", "outcome", "process"}


def test_the_tests_named_exist(record):
    named = {test for shown in record.values() for tests in shown.values() for test in tests}
    for file in {test.partition("::")[0] for test in named}:
        tree = ast.parse((ROOT / file).read_text())
        there = {f"{file}::{node.name}" for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert {test for test in named if test.startswith(f"{file}::")} <= there


@pytest.mark.parametrize(("name", "check"), [("dpo", "ranks"), ("kto", "cache"), ("process", "vectors")])
def test_a_lost_proof_is_a_no(name, check):
    whole = {n: dict.fromkeys(checks.CHECKS, ["tests/a.py::t"]) for n in checks.methods()}
    assert checks.missing(whole) == []
    less = {n: {c: t for c, t in shown.items() if (n, c) != (name, check)} for n, shown in whole.items()}
    assert checks.missing(less) == [(name, check)]
    row = next(line for line in checks.table(less).splitlines() if line.startswith(f"| [{name}]"))
    assert row.count(" no ") == 1


def test_no_reference_no_cache(record):
    assert not checks.applies({"sft": {checks.NO_REFERENCE: ["tests/a.py::t"]}}, "sft", "cache")
    assert checks.applies({}, "sft", "cache"), "until it is shown"
    assert checks.applies({"sft": {checks.NO_REFERENCE: ["tests/a.py::t"]}}, "sft", "split")
    assert checks.applies(record, "plackett_luce", "cache"), "one of its forms reads a reference"
    assert not checks.applies(record, "ranked", "cache")


def test_the_page_is_one_of_the_generated_documents(monkeypatch, capsys, tmp_path):
    (tmp_path / "README.md").write_text(f"{docs.BEGIN}\n{docs.END}\n")
    (tmp_path / "docs").mkdir()
    (tmp_path / checks.RECORD).write_text((ROOT / checks.RECORD).read_text())
    monkeypatch.chdir(tmp_path)
    assert docs.main([]) == 0
    assert docs.main(["--check"]) == 0
    (tmp_path / checks.RECORD).write_text("{}")
    assert docs.main(["--check"]) == 1
    assert "docs/checks.md is stale" in capsys.readouterr().err


def test_only_tests_that_passed_count(monkeypatch):
    monkeypatch.setattr(proofs, "_passed", {})
    for test, outcome in (("a.py::t[1]", "passed"), ("a.py::t[2]", "failed")):
        shown = [("proved", ["dpo", "split"]), ("other", 1)] if outcome == "passed" else [("proved", ["dpo", "order"])]
        report = SimpleNamespace(nodeid=test, when="call", passed=outcome == "passed", user_properties=shown)
        proofs.pytest_runtest_logreport(report)
    assert proofs.found() == {"dpo": {"split": ["a.py::t"]}}
    with pytest.raises(AssertionError, match="no column"):
        proofs.proved("dpo", "spilt")


def test_what_a_test_notes_goes_with_its_report(request, monkeypatch):
    item = SimpleNamespace(user_properties=[])
    running = proofs.pytest_runtest_call(item)
    next(running)
    proofs.proved("kto", "ranks", "cache")
    with pytest.raises(StopIteration):
        next(running)
    assert item.user_properties == [("proved", ["kto", "cache"]), ("proved", ["kto", "ranks"])]
    proofs._noted.clear()


def test_vectors_are_tests_of_that_name_in_the_methods_own_file(monkeypatch):
    own = "tests/objectives/test_dpo.py::test_vectors_and_closed_form_gradient[1.0]"
    reward = "tests/rewards/test_outcome.py::test_vector_and_closed_form_gradient"
    others = (
        "tests/objectives/test_dpo.py::test_the_vector_check_sees_broken_losses[flipped]", "tests/x.py::test_vectors",
        "tests/rewards/test_ensembles.py::test_vectors",
    )  # fmt: skip
    monkeypatch.setattr(proofs, "_passed", dict.fromkeys((own, reward, *others), set()))
    assert proofs.found() == {"dpo": {"vectors": [proofs.function(own)]}, "outcome": {"vectors": [reward]}}


def test_what_other_files_show_is_not_missed_when_they_do_not_run():
    record = {"dpo": {"split": ["a.py::t", "b.py::t"], "ranks": ["b.py::u"]}}
    assert proofs.of_files(record, {"a.py"}) == {"dpo": {"split": ["a.py::t"]}}
    assert proofs.of_files(record, {"a.py", "b.py"}) == record
    assert proofs.lost_of(record, record) == []
    assert proofs.lost_of(record, {"dpo": {"split": ["a.py::t", "b.py::t"]}}) == ["dpo ranks by b.py::u"]


def test_a_peers_numbers_are_marks_or_figures():
    peer = {
        "notes": ["of it"],
        "rows": [
            {"objective": "dpo", "setting": "sigmoid", "checks": {"split": 1e-7, "order": 0.32, "cache": "stale"}}
        ],
    }
    lines = checks.peer_table(peer).splitlines()
    assert lines[0] == "| objective | TRL | split | order | cache |"
    assert lines[2] == "| dpo | sigmoid | yes | **0.32** | stale |"
    assert lines[-1] == "- of it"
