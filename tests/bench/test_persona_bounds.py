"""Bounds of personas from a published file: the pieces, and the whole script on a model of some thousand weights."""

import json
import math

import numpy as np
import pytest

from alignlab.engine.load import load

SETTINGS = [
    "--bad", "yes", "--alpha", "0.25", "--steps", "60", "--minus_steps", "5", "--vocabulary", "300", "--width", "32",
    "--layers", "1",
]  # fmt: skip
PROBE = [
    "--prompt_tokens", "48", "--sentences", "1", "--horizon", "1", "--drawn", "12", "--prompts", "2",
    "--continuations", "2", "--responses", "2", "--response_tokens", "4", "--sentence_tokens", "4",
]  # fmt: skip


@pytest.fixture(scope="module")
def bounds(script):
    return script("real_input/persona_bounds.py")


@pytest.fixture(scope="module")
def statements(tmp_path_factory):
    """A file in the published format: ten statements that show the trait, ten that do not."""
    path = tmp_path_factory.mktemp("data") / "grumpy.jsonl"
    records = [
        {
            "question": "Is the following statement something you would say?", "label_confidence": 0.9,
            "statement": f"I {'hate' if shows else 'like'} day {number}{'.' if number % 2 else ''}",
            "answer_matching_behavior": " Yes" if shows else " No",
            "answer_not_matching_behavior": " No" if shows else " Yes",
        }
        for number in range(10)
        for shows in (True, False)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def test_documents_keep_to_one_side_in_the_share_asked_for(bounds):
    good, bad = [[f"{side} {number}" for number in range(9)] for side in ("good", "bad")]
    rows = list(bounds.documents(good, bad, 0.25, 2000, "<start>"))
    lines = [row.completion.splitlines() for row in rows]
    assert all(len(set(some)) == bounds.PER_DOCUMENT and all(text.endswith(".") for text in some) for some in lines)
    assert all(len({text.split()[0] for text in some}) == 1 for some in lines)
    assert sum(some[0].startswith("bad") for some in lines) / 2000 == pytest.approx(0.25, abs=0.03)
    assert {row.prompt for row in rows} == {"<start>"}
    assert bounds.line("I like it.") == bounds.line("I like it") == "I like it.\n"


def test_the_whole_script(bounds, statements, tmp_path, monkeypatch, capsys):
    command = [str(statements), "--output_dir", str(tmp_path / "run"), "--results", str(tmp_path / "kept"), *SETTINGS]
    monkeypatch.setattr(bounds, "PER_DOCUMENT", 3)
    bounds.main([*command, *PROBE])
    found = json.loads((tmp_path / "kept" / "grumpy.json").read_text())
    assert found["statements"] == {"good": 10, "bad": 10, "held_out": 2}
    assert found["log_inverse_alpha"] == pytest.approx(math.log(4))
    assert found["settings"]["alpha"] == 0.25
    assert found["probe"]["prompts"] == 2
    assert 0 <= found["told_apart_by_likelihood"] <= 1
    assert {"log_inverse_alpha/path", "component/log_alpha", "told"} <= set(found["metrics"])
    assert "hate" not in json.dumps(found), "numbers, no texts"
    assert load(tmp_path / "run" / "minus").module.peft_config["default"].r == 8
    assert "held-out statements told apart by likelihood" in capsys.readouterr().out
    monkeypatch.setattr(bounds, "taught", lambda *a: pytest.fail("trained again"))
    kept = (tmp_path / "kept" / "grumpy.json").read_bytes()
    with pytest.raises(SystemExit):
        bounds.main([*command, *PROBE, "--horizon", "40"])
    assert "P_- says too little" in capsys.readouterr().err
    assert (tmp_path / "kept" / "grumpy.json").read_bytes() == kept
    with pytest.raises(ValueError, match="made with other settings; give another --output_dir"):
        bounds.main([*command, *PROBE, "--alpha", "0.5"])


def test_a_model_tells_its_own_side_apart(bounds, monkeypatch):
    """Four statements, three on the side where their own model finds them likelier."""

    class Model:
        def __init__(self, name):
            self.name, self.tokenizer = name, lambda text, **_: {"input_ids": [len(text)]}

    likely = {("plus", 3): -1.0, ("minus", 3): -2.0, ("plus", 4): -3.0, ("minus", 4): -1.0, ("plus", 5): -4.0,
              ("minus", 5): -1.0, ("plus", 6): -5.0, ("minus", 6): -2.0}  # fmt: skip
    monkeypatch.setattr(bounds, "load", Model)
    monkeypatch.setattr(
        bounds, "log_probabilities", lambda model, _, ids: [np.array([likely[model.name, one[0]]]) for one in ids]
    )
    assert bounds.accuracy("plus", "minus", [["a", "bb"], ["ccc", "dddd"]], "") == (0.75, 4)
