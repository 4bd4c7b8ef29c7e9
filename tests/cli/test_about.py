import json

import pytest

from alignlab.cli import about, verbs
from alignlab.cli.main import main
from alignlab.core.find import FAMILIES


def test_ls_lists_every_method(capsys):
    assert main(["ls", "--json"]) == 0
    records = json.loads(capsys.readouterr().out)
    assert [r["id"] for r in records] == [f"{family}/{name}" for family, name, _ in about.cards()]
    dpo = next(r for r in records if r["id"] == "objectives/dpo")
    assert dpo["command"] == "alignlab train dpo"
    status = {r["id"]: r["status"] for r in records}
    assert (status["objectives/dpo"], status["objectives/rpo"]) == ("reconstructed", "faithful")
    assert dpo["claims"]


def test_ls_for_people_and_by_family(capsys):
    assert main(["ls", "--family", "objectives"]) == 0
    shown = capsys.readouterr().out
    assert "  dpo " in shown
    assert "pipelines" not in shown


def test_show(capsys):
    assert main(["show", "dpo"]) == 0
    shown = capsys.readouterr().out
    assert "https://arxiv.org/abs/2305.18290" in shown
    assert "--beta" in shown


def test_cite_prints_each_entry_once(capsys):
    assert main(["cite", "dpo", "sft", "objectives/dpo"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("@") == 2
    assert shown.count("rafailov2023direct") == 1


@pytest.mark.parametrize(
    ("paper", "link"),
    [
        ("2305.18290", "https://arxiv.org/abs/2305.18290"),
        ("arXiv:2305.18290", "https://arxiv.org/abs/2305.18290"),
        ("10.1000/xyz", "https://doi.org/10.1000/xyz"),
        ("https://example.org/a", "https://example.org/a"),
    ],
)
def test_paper_links(paper, link):
    assert about.paper_link(paper) == link


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_a_verb(family):
    assert family in verbs.VERBS[about.verb_of(family)].families


def test_a_name_in_two_families_must_say_which(monkeypatch):
    monkeypatch.setattr(about, "names", lambda family: {"dpo": ""} if family in ("objectives", "rewards") else {})
    with pytest.raises(LookupError, match="objectives/dpo, rewards/dpo"):
        about.locate("dpo")
