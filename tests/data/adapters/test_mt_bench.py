import json
import os
from pathlib import Path

import pytest

from alignlab.data.adapters import mt_bench
from alignlab.data.columns import DataError
from alignlab.evals import pairwise
from alignlab.harness import local

QUESTION = {"question_id": 81, "category": "writing", "turns": ["Write.", "Again."]}
VERDICT = {"model_1": "new", "model_2": "old", "g1_winner": "model_1", "g2_winner": "tie", "question_id": 81, "turn": 1}


def answers(name, *numbers):
    return [{"question_id": n, "choices": [{"index": 0, "turns": [f"{name} {n}.1", f"{name} {n}.2"]}]} for n in numbers]


def write(folder, path, records):
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder / path


def bench(folder, *verdicts, questions=(QUESTION,)):
    numbers = [question["question_id"] for question in questions]
    write(folder, "question.jsonl", questions)
    for name in ("new", "old"):
        write(folder, f"model_answer/{name}.jsonl", answers(name, *numbers))
    return write(folder, "model_judgment/gpt-4_pair.jsonl", verdicts)


def test_verdicts_of_both_orders(tmp_path):
    path = bench(tmp_path, VERDICT, {**VERDICT, "turn": 2, "g1_winner": "error", "g2_winner": "model_2"})
    write(tmp_path, "reference_answer/gpt-4.jsonl", answers("right", 81))
    first, second = mt_bench.items(path)
    assert [turn["content"] for turn in first.prompt] == ["Write."]
    assert [(turn["role"], turn["content"]) for turn in second.prompt] == [
        ("user", "Write."), ("assistant", "new 81.1"), ("user", "Again."),
    ]  # fmt: skip
    assert (first.completion, first.facts["baseline"], first.facts["reference"]) == (
        "new 81.1",
        "old 81.1",
        "right 81.1",
    )
    assert (second.completion, second.facts["baseline"]) == ("new 81.2", "old 81.2")
    assert first.facts["games"] == [{"model_first": True, "grade": 1}, {"model_first": False, "grade": 0}]
    assert second.facts["games"] == [{"model_first": True, "grade": None}, {"model_first": False, "grade": -1}]
    assert first.meta["id"] != second.meta["id"]


def test_answers_to_be_beaten(tmp_path):
    bench(tmp_path, VERDICT)
    first, second = mt_bench.items(tmp_path / "model_answer" / "old.jsonl")
    assert (first.completion, first.facts["baseline"], second.facts["baseline"]) == (None, "old 81.1", "old 81.2")
    assert second.prompt[1]["content"] == "old 81.1"
    assert "games" not in first.facts
    assert "reference" not in first.facts


def test_rates_of_the_specification(tmp_path):
    """Brief self-benchmarks-just-eval, test vector 6: 1 win, 1 loss, 3 ties; an error drops its question."""
    winners = [("model_1", "model_1"), ("model_1", "model_2"), ("tie", "tie"), ("model_2", "model_2"),
               ("model_1", "tie"), ("error", "model_1")]  # fmt: skip
    questions = [{**QUESTION, "question_id": number} for number in range(len(winners))]
    path = bench(
        tmp_path,
        *({**VERDICT, "question_id": n, "g1_winner": g1, "g2_winner": g2} for n, (g1, g2) in enumerate(winners)),
        questions=questions,
    )
    rows = [pairwise.settled(row, pairwise.Config()) for row in mt_bench.items(path)]
    metrics = pairwise.aggregate(local.play(pairwise, pairwise.Config(), rows, {}.__getitem__)).metrics
    assert metrics["mt_win"].value == pytest.approx(0.2)
    assert metrics["mt_adjusted"].value == pytest.approx(0.5)


def test_the_published_questions(tmp_path):
    """All eighty, with answers made up: two turns each, ten of each of eight categories."""
    data = Path(os.environ.get("ALIGNLAB_DATA") or "../shared/data") / "mt_bench" / "question.jsonl"
    if not data.exists():
        pytest.skip(f"no {data}")
    questions = [json.loads(line) for line in data.read_text().splitlines()]
    write(tmp_path, "question.jsonl", questions)
    numbers = [question["question_id"] for question in questions]
    rows = list(mt_bench.items(write(tmp_path, "model_answer/old.jsonl", answers("old", *numbers))))
    assert len(rows) == 160
    assert len({row.meta["id"] for row in rows}) == 160
    assert [len(row.prompt) for row in rows[:2]] == [1, 3]
    categories = [row.facts["category"] for row in rows]
    assert len(set(categories)) == 8
    assert {categories.count(name) for name in categories} == {20}


@pytest.mark.parametrize(
    ("change", "message"),
    [({"g1_winner": "A"}, "g1_winner"), ({"turn": 3}, "turn"), ({"turn": True}, "turn"), ({"turn": 1.0}, "turn"),
     ({"question_id": [81]}, "question_id"),
     ({"question_id": 9}, "question_id"), ({"model_1": "nobody"}, "nobody.jsonl"),
     ({"model_1": "../x"}, "cannot be a file"), ({"model_2": 3}, "model_2")],
)  # fmt: skip
def test_broken_verdicts_are_named(tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        list(mt_bench.items(bench(tmp_path, {**VERDICT, **change})))


def test_broken_folders_are_named(tmp_path):
    path = bench(tmp_path, VERDICT, {**VERDICT, "model_1": "other"})
    with pytest.raises(DataError, match="2 pairs of models .*new and old.*lines of one pair"):
        list(mt_bench.items(path))
    bench(tmp_path, VERDICT)
    write(tmp_path, "model_answer/old.jsonl", [{"question_id": 81, "choices": []}])
    with pytest.raises(DataError, match="old.jsonl:1.*choices"):
        list(mt_bench.items(path))
    write(tmp_path, "model_answer/old.jsonl", answers("old", 82))
    with pytest.raises(DataError, match="baseline has no answer to turn 1 of question 81"):
        list(mt_bench.items(path))
    for name in ("a", "b"):
        write(tmp_path, f"reference_answer/{name}.jsonl", answers(name, 81))
    with pytest.raises(DataError, match="2 files of reference answers"):
        list(mt_bench.items(path))
    (tmp_path / "question.jsonl").unlink()
    with pytest.raises(DataError, match=r"question\.jsonl: no such file"):
        list(mt_bench.items(path))
