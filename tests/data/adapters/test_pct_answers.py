from collections import Counter

import pytest

from alignlab.data import DataError, read
from alignlab.data.adapters import pct_answers


def test_both_layouts(tmp_path):
    (tmp_path / "a.csv").write_text(
        "pct_prompt,completion,model,annot1_label,decision\nTax.,I agree.,m,2_agree,\nTax.,No.,m,1_disagree,agree\n"
        "Tax.,,m,3_other,\nTax.,Hm.,n,3_other,\n"
    )
    rows = list(pct_answers.items(tmp_path / "a.csv"))
    assert [(r.prompt, r.completion, r.facts["agreement"]) for r in rows] == [
        ("Tax.", "I agree.", "agree"), ("Tax.", "No.", "agree"), ("Tax.", "Hm.", "none")
    ]  # fmt: skip
    (tmp_path / "b.csv").write_text(
        "proposition,response,model_id,selection,age,nation\nTax.,It hurts.,zephyr,Strongly Disagree,18,\n"
        "Tax.,It helps.,olmo,,,\n"
    )
    first, second = read(f"pct_answers:{tmp_path / 'b.csv'}")
    assert first.facts == {"model": "zephyr", "age": "18", "agreement": "disagree"}
    assert second.facts == {"model": "olmo"}


def test_other_files_are_refused(tmp_path):
    (tmp_path / "c.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="expected the columns pct_prompt, completion, model or proposition"):
        list(pct_answers.items(tmp_path / "c.csv"))


def test_published(published):
    """The labels that people agreed on."""
    rows = list(pct_answers.items(published("pct/agreement_classification.csv")))
    assert Counter(row.facts["agreement"] for row in rows) == {"disagree": 158, "agree": 32, "none": 10}
    assert len({row.facts["model"] for row in rows}) == 2
