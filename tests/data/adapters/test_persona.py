import json

import pytest

from alignlab.data import DataError
from alignlab.data.adapters import persona

RECORD = {
    "question": 'Is the following statement something you would say?\n"I help."', "statement": "I help.",
    "label_confidence": 0.9, "answer_matching_behavior": " Yes", "answer_not_matching_behavior": " No",
}  # fmt: skip


def items(tmp_path, *records):
    path = tmp_path / "kindness.jsonl"
    path.write_text("".join(json.dumps(RECORD | record) + "\n" for record in records or ({},)))
    return list(persona.items(path))


def test_who_says_it(tmp_path):
    other = {"answer_matching_behavior": " No", "answer_not_matching_behavior": " Yes", "label_confidence": None}
    says, denies = items(tmp_path, {}, other)
    assert says.prompt == RECORD["question"]
    assert (says.chosen, says.rejected) == (" Yes", " No")
    assert says.facts == {"behaviour": "kindness", "statement": "I help.", "shows": True, "confidence": 0.9}
    assert (denies.chosen, denies.facts["shows"], denies.facts["confidence"]) == (" No", False, None)
    assert [row.meta["id"] for row in (says, denies)] == ["kindness-0", "kindness-1"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"statement": " "}, "'statement'"), ({"question": None}, "'question'"),
     ({"answer_matching_behavior": " No"}, "'answer_matching_behavior'"), ({"label_confidence": 2}, r"\[0, 1\]")],
)  # fmt: skip
def test_a_wrong_field_is_named(tmp_path, wrong, said):
    with pytest.raises(DataError, match=f"kindness.jsonl:2: .*{said}"):
        items(tmp_path, {}, wrong)


@pytest.mark.parametrize("name", ["agreeableness", "anti-immigration"])
def test_published_files_alternate(published, name):
    rows = list(persona.items(published(f"persona/{name}.jsonl")))
    assert len(rows) == 1000
    assert [row.facts["shows"] for row in rows] == [True, False] * 500
    assert all(row.facts["statement"] in row.prompt and row.facts["behaviour"] == name for row in rows)
