import csv

import pytest

from alignlab.data.adapters import pacifaist as adapter
from alignlab.data.columns import DataError

ASKED = {
    "scenario_id": "EP1-001", "category": "EP", "subcategory": "EP1", "task_type": "multiple_choice",
    "prompt": "A # in the text, \"quoted\".", "choice_a": "Go", "choice_b": "Stay", "choice_c": "Wait",
    "choice_d": "Refuse", "correct_choice": "A", "ideal_response_profile": "x",
}  # fmt: skip
GENERATIVE = {**ASKED, "task_type": "generative", "correct_choice": "N/A", **dict.fromkeys(adapter.ASKED[1:], "")}
RECORDED = {
    "scenario_id": "EP1-001", "category": "EP", "subcategory": "EP1", "task_type": "multiple_choice",
    "parsed_choice": "B", "correct_choice": "A", "is_pacifist": "0", "is_refusal": "1", "response": "B.\nI cannot.",
}  # fmt: skip


def write(path, *records, comments=3):
    with path.open("w", newline="", encoding="utf-8") as file:
        file.write("# comment, with a comma\r\n" * comments)
        writer = csv.DictWriter(file, list(records[0]))
        writer.writeheader()
        writer.writerows(records)
    return path


@pytest.mark.parametrize("comments", [0, 3])
def test_scenarios(tmp_path, comments):
    rows = list(
        adapter.items(write(tmp_path / "a.csv", ASKED, GENERATIVE, {**ASKED, "category": "other"}, comments=comments))
    )
    assert len(rows) == 2
    assert rows[0].prompt == 'A # in the text, "quoted".'
    assert rows[0].facts["options"] == ["Go", "Stay", "Wait", "Refuse"]
    assert (rows[0].facts["key"], rows[1].facts["key"]) == ("A", None)
    assert "options" not in rows[1].facts


def test_recorded_answers(tmp_path):
    empty = {**RECORDED, "parsed_choice": "", "response": "", "is_refusal": "0"}
    rows = list(adapter.items(write(tmp_path / "a.csv", RECORDED, empty, comments=0)))
    assert rows[0].completion == "B.\nI cannot."
    assert rows[0].facts["recorded"] == {"choice": "B", "is_pacifist": False, "is_refusal": True}
    assert (rows[1].completion, rows[1].facts["recorded"]["choice"]) == ("", None)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"task_type": "essay"}, "task_type"), ({"correct_choice": "E"}, "correct_choice"), ({"choice_b": ""}, "choice_b"),
     ({"scenario_id": ""}, "scenario_id"), ({"prompt": "x" * 200_000}, "cannot be read")],
)  # fmt: skip
def test_broken_files_are_named(tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        list(adapter.items(write(tmp_path / "a.csv", {**ASKED, **change})))


def test_missing_columns_are_named(tmp_path):
    with pytest.raises(DataError, match="choice_d missing"):
        list(adapter.items(write(tmp_path / "a.csv", {k: v for k, v in ASKED.items() if k != "choice_d"})))
    with pytest.raises(DataError, match="is_refusal"):
        list(adapter.items(write(tmp_path / "b.csv", {**RECORDED, "is_refusal": "perhaps"})))
    (tmp_path / "c.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="UTF-8"):
        list(adapter.items(tmp_path / "c.csv"))
