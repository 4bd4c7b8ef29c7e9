import pytest

from alignlab.core.judgement import LEAD, under


def test_a_chat_gets_it_in_the_last_user_turn():
    chat = (
        {"role": "system", "content": "s"}, {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"}, {"role": "assistant", "content": "Ans"},
    )  # fmt: skip
    found = under(chat, "too short")
    assert found[3] == {"role": "user", "content": f"c\n{LEAD} too short"}
    assert found[:3] + found[4:] == chat[:3] + chat[4:]
    assert chat[3]["content"] == "c"


def test_plain_text_still_ends_where_the_answer_begins():
    assert under("Where?\nAnswer:", "wrong") == f"{LEAD} wrong\nWhere?\nAnswer:"


def test_a_chat_without_a_user_turn_is_an_error():
    with pytest.raises(ValueError, match="user turn"):
        under(({"role": "system", "content": "s"},), "x")
