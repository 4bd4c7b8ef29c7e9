import json

import pytest

from alignlab.data.adapters import just_eval as adapter
from alignlab.data.columns import DataError

ANSWER = {"id": 3, "instruction": "Who?", "output": "Me.", "dataset": "lima", "category": "regular", "generator": "m"}
RESULT = {
    "id": "3", "input": "Who?", "output_cand": "Me.", "generator_cand": "m", "eval_config": "{'mode': 'score_safety'}",
    "result": '{"safety": {"reason": "x", "score": "5"}}',
}  # fmt: skip


def items(tmp_path, *entries):
    (tmp_path / "a.json").write_text(json.dumps(list(entries)))
    return list(adapter.items(tmp_path / "a.json"))


def test_answers_and_results(tmp_path):
    rows = items(tmp_path, ANSWER, {**ANSWER, "dataset": "MaliciousInstruct", "output": ""}, RESULT)
    assert [r.facts["kind"] for r in rows] == ["general", "safety", "safety"]
    assert (rows[0].prompt, rows[0].completion, rows[1].completion) == ("Who?", "Me.", "")
    assert rows[2].facts["replies"] == [RESULT["result"]]


@pytest.mark.parametrize(
    ("entry", "message"),
    [({**ANSWER, "output": None}, "output"), ({**ANSWER, "instruction": " "}, "instruction"),
     ("text", "one JSON object"), ({**RESULT, "result": None}, "result")],
)  # fmt: skip
def test_broken_files_are_named(tmp_path, entry, message):
    with pytest.raises(DataError, match=message):
        items(tmp_path, entry)


def test_no_array(tmp_path):
    with pytest.raises(DataError, match="JSON array"):
        items(tmp_path)


def test_the_published_answers(published):
    rows = list(adapter.items(published("justeval/zephyr-7b-beta.to_eval.json")))
    assert len(rows) == 1000
    assert sum(r.facts["kind"] == "safety" for r in rows) == 200
    assert all(r.completion for r in rows)
