import json
import sys
from types import SimpleNamespace

import pytest

from alignlab.cli import selftest
from alignlab.core.cards import Card, Claim

CARD = dict(
    title="t", paper="1", bibtex="@misc{a}", brief="b", status="faithful", summary="s",
    smoke="alignlab run x --output_dir {out}",
)  # fmt: skip
FALLS = Claim(metric="before - after", relation=">=", bound=0.3)


def write(folder, metrics):
    return f"import json; json.dump({{'metrics': {metrics!r}}}, open({str(folder / 'result.json')!r}, 'w'))"


@pytest.fixture
def card():
    return Card(**CARD, claims=(FALLS,))


@pytest.fixture
def runs(monkeypatch):
    """Let the smoke command be a Python snippet."""

    def script(code):
        monkeypatch.setattr(selftest, "command", lambda card, out: [sys.executable, "-c", code])

    return script


def test_a_tampered_value_flips_the_verdict(card, runs, tmp_path):
    runs(write(tmp_path, {"before": 0.9, "after": 0.2}))
    (outcome,) = selftest.prove("f/x", card, tmp_path, 60)
    assert outcome.holds
    assert outcome.observed == pytest.approx(0.7)
    assert "holds  f/x" in selftest.line(outcome)
    runs(write(tmp_path, {"before": 0.9, "after": 0.8}))
    (outcome,) = selftest.prove("f/x", card, tmp_path, 60)
    assert not outcome.holds
    assert "FAILS" in selftest.line(outcome)


@pytest.mark.parametrize(
    ("metrics", "error"), [({"before": 1.0}, "no metric 'after'"), ({"before": None, "after": 1.0}, "")]
)
def test_missing_and_empty_metrics_do_not_pass(card, runs, tmp_path, metrics, error):
    runs(write(tmp_path, metrics))
    (outcome,) = selftest.prove("f/x", card, tmp_path, 60)
    assert not outcome.holds
    assert error in outcome.error


def test_a_command_that_fails_or_leaves_nothing_does_not_pass(card, runs, tmp_path):
    runs("import sys; sys.exit('broken')")
    (outcome,) = selftest.prove("f/x", card, tmp_path, 60)
    assert not outcome.holds
    assert "broken" in outcome.error
    runs("pass")
    (outcome,) = selftest.prove("f/x", card, tmp_path / "empty", 60)
    assert not outcome.holds
    assert "result.json" in outcome.error


def test_a_command_that_hangs_is_stopped(card, runs, tmp_path):
    runs("import time; time.sleep(60)")
    (outcome,) = selftest.prove("f/x", card, tmp_path, 0.02)
    assert not outcome.holds
    assert not outcome.within_budget
    assert "stopped" in outcome.error


def test_a_card_without_claims_does_not_pass(runs, tmp_path):
    runs(write(tmp_path, {}))
    (outcome,) = selftest.prove("f/x", Card(**CARD, claims=()), tmp_path, 60)
    assert not outcome.holds


def test_the_command_is_ours_and_gets_its_folder(card, tmp_path):
    words = selftest.command(card, tmp_path / "a b")
    assert words == [sys.executable, "-m", "alignlab.cli.main", "run", "x", "--output_dir", str(tmp_path / "a b")]
    for smoke in ("rm -rf {out}", "alignlab run x"):
        with pytest.raises(ValueError, match="expected `alignlab"):
            selftest.command(Card(**(CARD | {"smoke": smoke}), claims=(FALLS,)), tmp_path)


def test_exit_code_and_json(card, runs, monkeypatch, capsys):
    module = SimpleNamespace(CARD=card)
    monkeypatch.setattr(selftest.about, "cards", lambda family: iter([("procedures", "x", module)]))
    runs("import json; json.dump({'metrics': {'before': 1.0, 'after': 0.0}}, open('result.json', 'w'))")
    assert selftest.selftest(["--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert record["method"] == "procedures/x"
    assert record["holds"] is True
    runs("import json; json.dump({'metrics': {'before': 0.0, 'after': 0.0}}, open('result.json', 'w'))")
    assert selftest.selftest([]) == 1
    assert "0 of 1 methods hold" in capsys.readouterr().err


def test_a_kept_folder_of_an_earlier_run_does_not_pass_for_this_one(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x.2").mkdir()
    assert selftest._fresh(tmp_path / "x") == tmp_path / "x.3"
