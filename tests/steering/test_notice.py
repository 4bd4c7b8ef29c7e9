import re

import pytest

from alignlab.core import evidence
from alignlab.engine.steered import Steered
from alignlab.steering.notice import Config, intervene


def shown(reader, prompt, **options):
    Steered(reader, [intervene(None, Config(**options), None)]).sample([prompt])
    return reader.calls[-1]["prompts"][0]


def test_one_sentence_in_front_of_the_evidence(reader, retrieve):
    prompt = retrieve("Rome", "Oslo")
    (turn,) = shown(reader, prompt)
    assert turn["role"] == "user"
    assert turn["content"] == "Some passages may be false.\n" + evidence.text_of(prompt)
    # The passages can still be found behind it.
    assert evidence.split(turn["content"]) == evidence.split(evidence.text_of(prompt))


def test_the_wording_can_be_chosen(reader, retrieve):
    (turn,) = shown(reader, retrieve("Rome"), text="Beware!")
    assert turn["content"].startswith("Beware!\n1 (Herald 3): ")


def test_earlier_turns_and_the_callers_prompt_stay_as_they_are(reader, retrieve):
    system = {"role": "system", "content": "Be brief."}
    prompt = (system, *retrieve("Rome"))
    before = [dict(turn) for turn in prompt]
    edited = shown(reader, prompt)
    assert edited[0] == system
    assert [dict(turn) for turn in prompt] == before


def test_plain_text_stays_plain_text(reader):
    assert shown(reader, "1: a\nQuestion: b?") == "Some passages may be false.\n1: a\nQuestion: b?"


@pytest.mark.parametrize("text", ["Where does Ada live?", "Question: Where does Ada live?", ""])
def test_a_question_without_passages_is_asked_as_it_is(reader, text):
    assert shown(reader, text) == text
    assert shown(reader, evidence.ask(text)) == evidence.ask(text)


def test_the_default_warns():
    assert re.search(r"\bfalse\b", Config().text)


def test_identity_names_the_wording(reader):
    names = {Steered(reader, [intervene(None, Config(text=t), None)]).identity for t in ("a", "b")}
    assert names == {"reader@0+notice(a)", "reader@0+notice(b)"}
