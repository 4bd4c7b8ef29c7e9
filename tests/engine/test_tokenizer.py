import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignlab.engine.tokenizer import BEGIN, END, ROLES, byte_level_bpe

WORDS = ("Ada", "lives", "in", "Rome", "Question", "Answer", "Herald", "where", "12", "3")


@pytest.fixture(scope="module")
def words():
    return byte_level_bpe(WORDS, heads=("Question", "Answer"), named=("Herald",), context=64)


def pieces(words, text):
    return [words.decode([i]) for i in words.encode(text, add_special_tokens=False)]


def test_each_word_is_one_token_wherever_a_word_can_stand(words):
    assert pieces(words, "Ada lives in Rome") == ["Ada", "lives", "in", "Rome"]
    first, later = words.encode("Rome", add_special_tokens=False), words.encode("in Rome", add_special_tokens=False)
    assert first == later[1:]  # the same token at the start of a text and behind a space
    assert pieces(words, "x\nAnswer: Rome")[1:] == ["\nAnswer", ":", "Rome"]
    assert len(pieces(words, "3 (Herald 12): Ada")) == 6


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(blacklist_categories=("Cs",)), max_size=60))
def test_any_text_comes_back(words, text):
    if any(special in text for special in words.all_special_tokens):
        return
    assert words.decode(words.encode(text, add_special_tokens=False)) == text


@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=20))
@settings(deadline=None)
def test_texts_of_known_words_cost_a_token_a_word(words, chosen):
    assert len(words.encode(" ".join(chosen), add_special_tokens=False)) == len(chosen)


def test_unknown_words_fall_apart_into_known_bytes(words):
    ids = words.encode("Zürich", add_special_tokens=False)
    assert words.unk_token_id not in ids
    assert len(ids) > 2


def test_the_chat_template(words):
    turns = [{"role": r, "content": c} for r, c in (("system", "in"), ("user", "where"), ("assistant", "Rome"))]
    text = words.apply_chat_template(turns, tokenize=False)
    assert text == f"{BEGIN}<|system|>in{END}<|user|>where{END}<|assistant|>Rome{END}"
    asked = words.apply_chat_template(turns[:2], tokenize=False, add_generation_prompt=True)
    assert text.startswith(asked)
    assert asked.endswith("<|assistant|>")
    ids = words.apply_chat_template(turns[:2], add_generation_prompt=True, return_dict=False)
    assert ids.count(words.bos_token_id) == 1
    assert ids[-1] == words.convert_tokens_to_ids(ROLES["assistant"])
    # The tokens of a question begin those of question and answer: what was trained on is what is sampled from.
    assert words.apply_chat_template(turns, return_dict=False)[: len(ids)] == ids


def test_special_tokens(words):
    assert (words.bos_token, words.eos_token) == (BEGIN, END)
    assert len({words.bos_token_id, words.eos_token_id, words.pad_token_id}) == 3
    assert words.encode("Ada")[0] == words.bos_token_id
    assert words.model_max_length == 64
    for role in ROLES.values():
        assert len(words.encode(role, add_special_tokens=False)) == 1


def test_a_word_that_cannot_be_one_token_is_refused():
    with pytest.raises(ValueError, match="1 words are more than one token, 'two words'"):
        byte_level_bpe(("Ada", "two words"))


def test_the_same_words_give_the_same_tokenizer(words):
    again = byte_level_bpe(WORDS, heads=("Question", "Answer"), named=("Herald",), context=64)
    assert again.get_vocab() == words.get_vocab()


def test_it_survives_saving(words, tmp_path):
    from transformers import AutoTokenizer

    words.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    text = "x\nAnswer: Ada lives in Rome, né?"
    assert again.encode(text) == words.encode(text)
    assert again.decode(again.encode(text, add_special_tokens=False)) == text
    turns = [{"role": "user", "content": "where"}]
    chat = {"tokenize": False, "add_generation_prompt": True}
    assert again.apply_chat_template(turns, **chat) == words.apply_chat_template(turns, **chat)
