"""On a sample made in the published format: the names are invented, the fields are MQuAKE's."""

import json

import pytest

from alignlab.data import DataError
from alignlab.data.adapters import mquake


def rewrite(subject, old, new, prompt="{} is led by", question="Who leads {}?"):
    return {
        "prompt": prompt, "relation_id": "P6", "target_new": {"str": new, "id": "Q2"},
        "target_true": {"str": old, "id": "Q1"}, "subject": subject, "question": question.format(subject),
    }  # fmt: skip


CASES = [
    {
        "case_id": 1, "requested_rewrite": [rewrite("Lowmarsh", "Ada Brook", "Bo Tanner")],
        "questions": ["Where was the leader of Lowmarsh born?", "In which town was Lowmarsh's leader born?"],
        "answer": "Highford", "answer_alias": [], "new_answer": "Eastwick", "new_answer_alias": ["East Wick"],
        "single_hops": [{}, {}], "new_single_hops": [{}, {}],
    },
    {
        "case_id": 2,
        "requested_rewrite": [
            rewrite("Lowmarsh", "Ada Brook", "Bo Tanner"),
            rewrite("the ferry", "red", "blue", "the colour of {} is", "What colour is {}?"),
        ],
        "questions": ["q?"], "answer": "a", "new_answer": "b", "new_single_hops": [{}, {}, {}],
    },
]  # fmt: skip


def items(tmp_path, cases=CASES, **options):
    path = tmp_path / "mquake.json"
    path.write_text(json.dumps(cases))
    return list(mquake.items(path, **options))


def test_single_hops_are_edits_stated_once_to_five_times(tmp_path):
    rows = items(tmp_path)
    # Lowmarsh is edited the same way in two cases, and asked once
    assert [(row.prompt, row.facts["k"]) for row in rows] == [
        *[("Who leads Lowmarsh?", k) for k in (1, 3, 5)],
        *[("What colour is the ferry?", k) for k in (1, 3, 5)],
    ]
    for row in rows:
        contexts = row.facts["contexts"]
        assert len({c["text"] for c in contexts}) == len(contexts) == row.facts["k"]
        assert row.facts["scenario"] == "ike"
        assert row.facts["ratio"] == 1
        assert row.facts["target"] is None
        for context in contexts:
            assert not context["poisoned"]
            assert context["claim"] == row.facts["gold"]
            assert context["claim"] in context["text"]
            assert row.facts["memory"] not in context["text"]
    assert (rows[0].facts["memory"], rows[0].facts["gold"]) == ("Ada Brook", "Bo Tanner")
    assert rows[0].facts["contexts"][0]["text"] == "Lowmarsh is led by Bo Tanner."
    assert rows[3].facts["contexts"][0]["text"] == "The colour of the ferry is blue."
    assert len({row.meta["id"] for row in rows}) == 6


def test_multi_hops_ask_the_chain_with_one_passage_per_edit(tmp_path):
    rows = items(tmp_path, hops="multi")
    assert [row.prompt for row in rows] == [*CASES[0]["questions"], "q?"]
    assert [len(row.facts["contexts"]) for row in rows] == [1, 1, 2]
    assert [row.facts["hops"] for row in rows] == [2, 2, 3]
    assert (rows[0].facts["memory"], rows[0].facts["gold"]) == ("Highford", "Eastwick")
    assert rows[0].facts["aliases"] == ["East Wick"]
    assert all(c["claim"] is None for row in rows for c in row.facts["contexts"])


def test_an_edit_that_changes_nothing_is_no_edit(tmp_path):
    assert items(tmp_path, [CASES[0] | {"requested_rewrite": [rewrite("Lowmarsh", "Ada", "ada")]}]) == []


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("x", r"mquake\.json\[1\]: expected one JSON object"),
        ({"requested_rewrite": []}, "field 'requested_rewrite': expected a list of rewrites"),
        ({"requested_rewrite": [rewrite("a", "b", None)]}, r"requested_rewrite\[0\]: field 'target_new'"),
        ({"requested_rewrite": [rewrite("a", "b", "c", prompt="led by")]}, r"field 'prompt': expected a cloze"),
    ],
)
def test_errors(tmp_path, case, says):
    with pytest.raises(DataError, match=says):
        items(tmp_path, [CASES[0], case])


def test_bad_arguments(tmp_path):
    with pytest.raises(DataError, match="from 1 to 5"):
        items(tmp_path, contexts=[0])
    with pytest.raises(DataError, match="expected a JSON array of objects"):
        items(tmp_path, {"a": 1})
    with pytest.raises(DataError, match="field 'questions'"):
        items(tmp_path, [CASES[0] | {"questions": []}], hops="multi")
