import json

import pytest

from alignlab.data.adapters import alpaca_eval as adapter
from alignlab.data.columns import DataError

JUDGED = {
    "instruction": "Who?", "dataset": "vicuna", "output_1": "Him.", "generator_1": "b", "output_2": "Me.",
    "generator_2": "m", "preference": 1.75,
}  # fmt: skip
OUTPUT = {"instruction": "Who?", "dataset": "vicuna", "output": "Him.", "generator": "b"}


def items(tmp_path, *entries):
    (tmp_path / "a.json").write_text(json.dumps(list(entries)))
    return list(adapter.items(tmp_path / "a.json"))


def test_annotations_and_outputs(tmp_path):
    judged, output = items(tmp_path, JUDGED, OUTPUT)
    assert (judged.prompt, judged.completion, judged.facts["baseline"]) == ("Who?", "Me.", "Him.")
    assert judged.facts["games"] == [{"model_first": False, "grade": None, "p": 0.75}]
    assert (output.completion, output.facts) == (None, {"baseline": "Him.", "category": "vicuna"})


def test_an_item_is_known_by_its_instruction_in_every_file(tmp_path):
    """Runs are compared by id, and files of two models need not be in one order."""
    other = {**OUTPUT, "instruction": "Where?"}
    first, second = items(tmp_path, JUDGED, other), items(tmp_path, other, OUTPUT)
    assert [row.meta["id"] for row in first] == [row.meta["id"] for row in second[::-1]]
    assert len({row.meta["id"] for row in first}) == 2


def test_draws_and_a_judge_who_could_not_be_read(tmp_path):
    given = (1.5, 0, 0.0, 1, 2, None)
    rows = items(tmp_path, *({**JUDGED, "preference": value} for value in given))
    assert [row.facts["games"][0]["p"] for row in rows] == [0.5, 0.5, 0.5, 0.0, 1.0, None]


@pytest.mark.parametrize(
    ("entry", "message"),
    [({**JUDGED, "preference": 2.5}, "preference"), ({**JUDGED, "preference": True}, "preference"),
     ({**JUDGED, "preference": "2"}, "preference"), ({**JUDGED, "output_2": None}, "output_2"),
     ({**OUTPUT, "output": 3}, "output"), ({**OUTPUT, "instruction": ""}, "instruction"), ("text", "one JSON object")],
)  # fmt: skip
def test_broken_files_are_named(tmp_path, entry, message):
    with pytest.raises(DataError, match=message):
        items(tmp_path, entry)


def test_the_published_annotations(published):
    rows = list(adapter.items(published("alpaca_eval/vicuna-7b-v1.5-annotations.json")))
    assert len({row.meta["id"] for row in rows}) == 805
    assert sum(row.facts["games"][0]["p"] == 0.5 for row in rows) == 3
    assert len({row.facts["category"] for row in rows}) == 5
