import json

import pytest

from alignlab.data import rows
from alignlab.data.columns import DataError
from alignlab.pipelines.honesty_data import Config, make

TRAIN = {
    "question": "Capital of France?", "gold_answer": "Paris", "greedy_pred_text": "Rome.", "greedy_label": "unknown",
    "sampling_pred_text": ["Paris."] * 3 + ["Rome."] * 7, "sampling_labels": ["known"] * 3 + ["unknown"] * 7,
    "sampling_knowns": 3,
}  # fmt: skip
AMBIG = {"question_id": "a1", "question": "Who?", "answers": ["Ada", "Ada L."], "gold_answer": "Ada"}
PUQA = {"title": "On X", "year": 2023, "authors": ["A"], "question": "Who wrote On X?", "label": "unknown"}
PKQA = {"topic": "art", "question": "Who?", "answer": "Ada", "label": "known", "greedy_pred_text": "Ada."}


def read(tmp_path, *records, name="puqa.jsonl"):
    (tmp_path / name).write_text("".join(json.dumps(record) + "\n" for record in records))
    return list(rows.read(f"honesty:{tmp_path / name}"))


def test_each_file(tmp_path):
    found = read(tmp_path, TRAIN, AMBIG, PUQA, PKQA)
    assert [row.facts["known"] for row in found] == [None, None, False, True]
    assert [row.facts.get("answers") for row in found] == [["Paris"], ["Ada", "Ada L."], None, ["Ada"]]
    assert found[0].completion == "Rome."
    assert len(found[0].completions) == 10
    assert found[3].completion is None  # an answer without samples is no data for relabelling
    assert found[1].meta["id"] == "puqa-a1"
    assert found[0].facts["published"] == {"greedy_label": "unknown", "sampling_knowns": 3}


def test_published_samples_are_relabelled_without_asking(tmp_path):
    listed = read(tmp_path, TRAIN)
    made = [next(make(listed, {}, Config(variant=v, balance=False))).completion for v in ("absolute", "confidence_num")]
    assert made == ["Paris.", "I am only about 30% sure, but paris."]


@pytest.mark.parametrize(
    ("broken", "field"),
    [({"question": " "}, "question"), ({"gold_answer": []}, "gold_answer"), ({"sampling_pred_text": "x"}, "sampling"),
     ({"greedy_pred_text": None}, "greedy_pred_text"), ({"sampling_pred_text": [3]}, "sampling_pred_text")],
)  # fmt: skip
def test_errors_name_line_and_field(tmp_path, broken, field):
    with pytest.raises(DataError, match=rf"puqa.jsonl:2: field '{field}"):
        read(tmp_path, TRAIN, {**TRAIN, **broken})
    with pytest.raises(DataError, match="field 'gold_answer'"):
        read(tmp_path, {"question": "Who?"})
