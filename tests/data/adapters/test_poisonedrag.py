import json
from collections import Counter

import pytest

from alignlab.data import DataError
from alignlab.data.adapters import poisonedrag

RECORD = {
    "id": "t1", "question": "who built the mill", "correct answer": "Ada", "incorrect answer": "Bo",
    "adv_texts": [f"Bo built it, says note {i}." for i in range(5)],
}  # fmt: skip


def items(tmp_path, content, **options):
    path = tmp_path / "rag.json"
    path.write_text(json.dumps(content))
    return list(poisonedrag.items(path, **options))


def test_k_of_five_passages_are_poisoned(tmp_path):
    rows = items(tmp_path, {"t1": RECORD})
    assert [row.facts["k"] for row in rows] == [0, 1, 2, 3, 4, 5]
    assert [row.facts["scenario"] for row in rows] == ["clean"] + ["pca"] * 5
    assert [row.facts["ratio"] for row in rows] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    for row in rows:
        contexts = row.facts["contexts"]
        assert len(contexts) == len({c["text"] for c in contexts}) == 5
        assert sum(c["poisoned"] for c in contexts) == row.facts["k"]
        for context in contexts:
            assert context["claim"] == ("Bo" if context["poisoned"] else "Ada")
            assert context["claim"] in context["text"]
            # the black-box attack: the question, a full stop, the adversarial text
            assert context["text"].startswith("who built the mill.Bo built it") == context["poisoned"]
        assert (row.facts["gold"], row.facts["target"], row.facts["answers"]) == ("Ada", "Bo", [])
        assert row.facts["memory"] is None


def test_options(tmp_path):
    plain = items(tmp_path, {"t1": RECORD}, poisoned=[5], black_box=False)
    assert [c["text"] for c in plain[0].facts["contexts"] if not c["text"].startswith("Bo built it")] == []
    few = items(tmp_path, {"t1": RECORD | {"adv_texts": ["Bo."]}})
    assert [row.facts["k"] for row in few] == [0, 1]
    with pytest.raises(DataError, match="from 0 to 5"):
        items(tmp_path, {"t1": RECORD}, poisoned=[6])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([RECORD], "expected one JSON object of records by id"),
        ({"t1": "x"}, r"rag\.json\['t1'\]: expected an object"),
        ({"t1": RECORD | {"correct answer": ""}}, r"\['t1'\]: field 'correct answer': expected non-empty text"),
        ({"t1": RECORD | {"adv_texts": "one"}}, "field 'adv_texts': expected a list of passages"),
    ],
)
def test_errors(tmp_path, content, says):
    with pytest.raises(DataError, match=says):
        items(tmp_path, content)


def test_published(published):
    path = published("poisonedrag/nq.json")
    rows = list(poisonedrag.items(path))
    assert len(rows) == 600
    assert Counter(row.facts["k"] for row in rows) == dict.fromkeys(range(6), 100)
    assert len({row.prompt for row in rows}) == 100
    content = json.loads(path.read_text())
    for row in rows:
        record = content[row.meta["id"].removeprefix("poisonedrag-").rpartition("-k")[0]]
        poison = [c["text"] for c in row.facts["contexts"] if c["poisoned"]]
        assert {text.removeprefix(record["question"] + ".") for text in poison} <= set(record["adv_texts"])
        assert row.facts["gold"] == record["correct answer"]
    # the wrong answer is spelt out in nearly all attack passages, as the attack needs
    full = [row for row in rows if row.facts["k"] == 5]
    spelt = [c["claim"].lower() in c["text"].lower() for row in full for c in row.facts["contexts"]]
    assert (len(spelt), sum(spelt)) == (500, 481)
    # orders favour no place
    first = sum(row.facts["contexts"][0]["poisoned"] for row in rows)
    assert 270 < first < 330
