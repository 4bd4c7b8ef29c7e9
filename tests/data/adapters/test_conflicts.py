import json

import pytest

from alignlab.data import DataError
from alignlab.data.adapters import conflicts, find, names

CONTEXT = {"text": "Ada works at the mill.", "claim": "mill", "source": "Gazette", "date": "year 3", "poisoned": False}
POISON = CONTEXT | {"text": "Ada works at the inn.", "claim": "inn", "poisoned": True}
ITEM = {
    "id": "7", "scenario": "pca", "ratio": 0.5, "question": "Where does Ada work?", "contexts": [CONTEXT, POISON],
    "memory_answer": "mill", "memory_conf": 0.9, "gold": "mill", "target": "inn", "split": "test",
}  # fmt: skip


def items(tmp_path, *records):
    path = tmp_path / "items.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return list(conflicts.items(path))


def test_fields(tmp_path):
    (row,) = items(tmp_path, ITEM)
    assert row.prompt == "Where does Ada work?"
    assert row.facts == {
        "scenario": "pca", "k": 1, "ratio": 0.5, "question": "Where does Ada work?", "contexts": [CONTEXT, POISON],
        "memory": "mill", "confidence": 0.9, "gold": "mill", "target": "inn", "answers": [], "split": "test",
    }  # fmt: skip
    assert row.meta == {"id": "7", "source": "conflicts", "licence": None}


def test_written_items_are_read_back(tmp_path):
    rows = items(
        tmp_path,
        ITEM,
        {"id": "8", "scenario": "clean", "question": "q?", "contexts": []},
        ITEM | {"id": "9", "answers": ["mill", "inn"], "licence": "MIT", "source": "town"},
        ITEM | {"id": "10", "scenario": "ike", "ratio": 1.0, "contexts": [CONTEXT], "target": None},
    )
    assert rows[3].facts["k"] == 1
    assert conflicts.write(tmp_path / "again.jsonl", rows) == 4
    assert list(conflicts.items(tmp_path / "again.jsonl")) == rows


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"id": None}, "field 'id': expected non-empty text"),
        ({"scenario": "poison"}, "field 'scenario': expected one of clean, pca, ike, mixed, unknown"),
        ({"question": " "}, "field 'question'"),
        ({"contexts": "x"}, "field 'contexts': expected a list of contexts"),
        ({"contexts": ["x"]}, r"field 'contexts\[0\]': expected an object"),
        ({"contexts": [CONTEXT, {"text": ""}]}, r"field 'contexts\[1\]\.text': expected non-empty text"),
        ({"contexts": [CONTEXT | {"poisoned": "no"}]}, r"field 'contexts\[0\]\.poisoned': expected true or false"),
        ({"contexts": [CONTEXT | {"date": 3}]}, r"field 'contexts\[0\]\.date': expected text or null"),
        ({"contexts": [CONTEXT | {"sourse": "x"}]}, r"unknown field 'contexts\[0\]\.sourse'; did you mean 'source'"),
        ({"memmory_answer": "x"}, "unknown field 'memmory_answer'; did you mean 'memory_answer'"),
        ({"memory_conf": 1.2}, "field 'memory_conf': expected a number from 0 to 1, got float 1.2"),
        ({"ratio": True}, "field 'ratio'"),
        ({"gold": 4}, "field 'gold': expected text or null"),
        ({"answers": ["inn"]}, "field 'gold': expected one of the closed answers"),
        ({"answers": "inn"}, "field 'answers': expected a list of texts"),
        ({"k": 3}, "field 'k': expected a whole number from 0 to 2"),
        ({"k": 2}, "field 'k': expected 1, the number of contexts with `poisoned` true"),
        ({"id": "7"}, r"field 'id': expected an id not used before \(see .*items.jsonl:1\)"),
    ],
)
def test_errors_name_line_and_field(tmp_path, change, says):
    with pytest.raises(DataError, match=rf"items\.jsonl:2: {says}"):
        items(tmp_path, ITEM, ITEM | {"id": "8"} | change)


def test_registry():
    assert {"conflictqa", "conflicts", "mquake", "poisonedrag"} <= set(names())
    assert find("mquake").items
    with pytest.raises(LookupError, match="did you mean 'conflictqa'"):
        find("conflictaq")
