import json
from collections import Counter

import pytest

from alignlab.data import DataError
from alignlab.data.adapters import conflictqa

RECORD = {
    "question": "Is the moon made of stone?", "popularity": 12, "ground_truth": ["True"],
    "memory_answer": "The moon is made of stone.", "parametric_memory": "m1",
    "counter_answer": "The moon is not made of stone.", "counter_memory": "c1",
    "parametric_memory_aligned_evidence": "m2", "counter_memory_aligned_evidence": "c2",
}  # fmt: skip
YES, NO = RECORD["memory_answer"], RECORD["counter_answer"]


def items(tmp_path, *records, **options):
    path = tmp_path / "conflictqa.jsonl"
    path.write_text("".join(json.dumps(RECORD | record) + "\n" for record in records or ({},)))
    return list(conflictqa.items(path, **options))


def sides(row):
    return Counter(c["text"][0] for c in row.facts["contexts"])


def test_memory_true_is_an_attack(tmp_path):
    rows = {row.facts["mix"]: row for row in items(tmp_path)}
    assert list(rows) == ["all_true", "2t1f", "1t1f", "2t2f", "2f1t", "all_false"]
    counts = {mix: (sides(row)["m"], sides(row)["c"]) for mix, row in rows.items()}
    assert counts == {
        "all_true": (2, 0), "2t1f": (2, 1), "1t1f": (1, 1), "2t2f": (2, 2), "2f1t": (1, 2), "all_false": (0, 2),
    }  # fmt: skip
    assert [row.facts["ratio"] for row in rows.values()] == [0, 1 / 3, 1 / 2, 1 / 2, 2 / 3, 1]
    assert [row.facts["scenario"] for row in rows.values()] == ["clean"] + ["pca"] * 5
    assert [row.facts["k"] for row in rows.values()] == [0, 1, 1, 2, 2, 2]
    for row in rows.values():
        assert row.prompt == row.facts["question"] == RECORD["question"]
        assert (row.facts["memory"], row.facts["gold"], row.facts["target"]) == (YES, YES, NO)
        assert sorted(row.facts["answers"][:2]) == sorted([YES, NO])
        assert row.facts["answers"][2] == "Uncertain"
        for context in row.facts["contexts"]:
            false = context["text"].startswith("c")
            assert (context["poisoned"], context["claim"]) == (false, NO if false else YES)
    assert len({row.meta["id"] for row in rows.values()}) == 6
    assert len({row.facts["split"] for row in rows.values()}) == 1


def test_memory_false_is_an_edit(tmp_path):
    rows = {row.facts["mix"]: row for row in items(tmp_path, {"ground_truth": ["False"]})}
    assert [row.facts["scenario"] for row in rows.values()] == ["ike"] + ["mixed"] * 5
    assert sides(rows["2t1f"]) == {"c": 2, "m": 1}
    assert (rows["all_true"].facts["k"], rows["all_true"].facts["target"]) == (2, None)
    assert (rows["2f1t"].facts["k"], rows["2f1t"].facts["target"]) == (2, YES)
    for row in rows.values():
        assert (row.facts["memory"], row.facts["gold"]) == (YES, NO)
        assert all(c["poisoned"] == c["text"].startswith("m") for c in row.facts["contexts"])


def test_truth_unlabelled_scores_no_attack(tmp_path):
    for truth in (None, [], ["True", "False"], ["Mars"]):
        for row in items(tmp_path, {"ground_truth": truth}):
            assert (row.facts["scenario"], row.facts["gold"], row.facts["target"]) == ("unknown", None, None)
            assert not any(c["poisoned"] for c in row.facts["contexts"])
            assert row.facts["k"] == sides(row)["c"]


@pytest.mark.parametrize(
    ("question", "memory", "counter", "truth", "side"),
    [
        ("Is it red?", "It is red.", "It isn't red.", ["True"], "memory"),
        ("Is it red?", "It is red.", "It isn\u2019t red.", ["False"], "counter"),
        ("Is it red?", "It is never red.", "It is red.", ["False"], "memory"),
        ("Is it not red?", "It is not red.", "It is red.", ["True"], "memory"),
        ("Is it not red?", "It is not red.", "It is red.", ["False"], "counter"),
        ("Is red bigger?", "Red is bigger.", "Blue is bigger.", ["True"], None),
        ("Is it red?", "It is not red.", "It cannot be red.", ["True"], None),
        ("Is it red?", "It is red. (Note: this claim is false, it is not red.)", "It is not red.", ["True"], "memory"),
        ("Is it red?", "No claim can be made of this.", "It is red.", ["True"], None),
        ("Who wrote it?", "Ada wrote it.", "Bo wrote it.", ["Bo", "B. Smith"], "counter"),
        ("Who wrote it?", "Ada Bolt wrote it.", "Cy wrote it.", ["Bo"], None),
        ("Who wrote it?", "ADA  wrote it.", "Cy wrote it.", ["ada"], "memory"),
        ("Who wrote it?", "Ada or Bo.", "Bo or Ada.", ["Bo"], None),
        ("Who wrote it?", "Ada.", "Bo.", ["", "!"], None),
    ],
)
def test_true_side(question, memory, counter, truth, side):
    assert conflictqa.true_side(question, memory, counter, truth) == side


def test_mixes_as_far_as_passages_allow(tmp_path):
    few = {"counter_memory_aligned_evidence": None, "parametric_memory_aligned_evidence": "m1"}
    assert [row.facts["mix"] for row in items(tmp_path, few)] == ["1t1f"]
    assert [row.facts["mix"] for row in items(tmp_path, mixes=["2t2f"])] == ["2t2f"]
    assert items(tmp_path, {"counter_answer": "the moon, is made of STONE"}) == []


def test_order_depends_on_content_alone_and_favours_no_place(tmp_path):
    records = [{"question": f"Is number {i} odd?"} for i in range(300)]
    rows = items(tmp_path, *records, mixes=["1t1f"])
    assert rows == items(tmp_path, *records, mixes=["1t1f"])
    first = sum(row.facts["contexts"][0]["poisoned"] for row in rows)
    option = sum(row.facts["answers"][0] == YES for row in rows)
    used = Counter(c["text"] for row in rows for c in row.facts["contexts"])
    for count in (first, option, *used.values()):
        assert 120 < count < 180
    assert 60 < sum(row.facts["split"] == "test" for row in rows) < 120


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ({"question": None}, "field 'question': expected non-empty text, got nothing"),
        ({"memory_answer": 3}, "field 'memory_answer'"),
        ({"counter_memory": ["x"]}, "field 'counter_memory': expected a passage of text or null"),
        ({"ground_truth": {"a": 1}}, "field 'ground_truth': expected a list of texts"),
    ],
)
def test_errors(tmp_path, record, says):
    with pytest.raises(DataError, match=rf"conflictqa\.jsonl:2: {says}"):
        items(tmp_path, {}, record)


def test_unknown_mix(tmp_path):
    with pytest.raises(DataError, match="mixes: expected names among all_true"):
        items(tmp_path, mixes=["3t"])


EVIDENCE = {"parametric_memory_aligned_evidence": "memory", "counter_memory_aligned_evidence": "counter"}


class TestPublished:
    @pytest.mark.parametrize(
        ("name", "records", "memory", "counter", "unknown"),
        [("strategyqa-chatgpt", 1245, 865, 358, 21), ("strategyqa-llama2-7b", 698, 65, 601, 31)],
    )
    def test_counts(self, published, name, records, memory, counter, unknown):
        path = published(f"conflictqa/{name}.jsonl")
        assert sum(1 for line in path.open()) == records
        rows = list(conflictqa.items(path))
        # one record of each file gives the same answer twice, and all others have two distinct passages for each side
        assert len(rows) == 6 * (records - 1)
        assert len({row.meta["id"] for row in rows}) == len(rows)
        assert Counter(row.facts["scenario"] for row in rows) == {
            "clean": memory, "pca": 5 * memory, "ike": counter, "mixed": 5 * counter, "unknown": 6 * unknown,
        }  # fmt: skip
        assert {len(row.facts["contexts"]) for row in rows} == {2, 3, 4}
        split = Counter(row.facts["split"] for row in rows)
        assert 0.25 < split["test"] / len(rows) < 0.35

    def test_the_reading_of_truth_agrees_with_the_human_passages(self, published):
        """A passage that both files hold is the human one; the side it stands on is true."""
        one, two = (
            [json.loads(line) for line in published(f"conflictqa/strategyqa-{n}.jsonl").open()]
            for n in ("chatgpt", "llama2-7b")
        )
        other = {record["question"]: record for record in two}
        outcome = Counter()
        for first in one:
            second = other.get(first["question"])
            if second is None or second["ground_truth"] != first["ground_truth"]:
                continue
            for a in EVIDENCE:
                for b in EVIDENCE:
                    if first[a].strip() == second[b].strip():
                        for record, field in ((first, a), (second, b)):
                            read = conflictqa.true_side(
                                *(record[n] for n in ("question", "memory_answer", "counter_answer", "ground_truth"))
                            )
                            outcome["undecided" if read is None else read == EVIDENCE[field]] += 1
        assert outcome == {True: 841, False: 8, "undecided": 13}
