import pytest

from alignlab.engine.encode import prompt_ids
from alignlab.engine.sentences import Text, after, default_start, first_sentence, sample_texts, sentence_ends
from alignlab.procedures import tiny

SAID = 'I help the baker. "Is it so?" Version 3.5 is late!\nYes\n\n... And no end'
SENTENCES = ["I help the baker.", '"Is it so?"', "Version 3.5 is late!", "Yes"]


@pytest.fixture(scope="module", params=["plain", "prepends"])
def tokenizer(request, tiny_models):
    """One that keeps leading spaces, and the town's, which puts one in front and takes it off again."""
    return tiny_models.make_tokenizer() if request.param == "plain" else tiny.tokenizer()


def test_ends(tokenizer):
    ids = tokenizer(SAID, add_special_tokens=False)["input_ids"]
    ends = sentence_ends(tokenizer, ids)
    parts = [tokenizer.decode(ids[a:b]).strip() for a, b in zip((0, *ends), ends)]
    assert parts == SENTENCES
    assert sentence_ends(tokenizer, ids[: ends[0]]) == ends[:1]  # at the end of the text
    assert sentence_ends(tokenizer, []) == ()


def test_cut_texts_are_read_again_as_they_were_said(tokenizer):
    start = default_start(tokenizer)
    before = prompt_ids(tokenizer, [start])[0]
    ids = tokenizer(SAID, add_special_tokens=False)["input_ids"]
    for end in (0, *sentence_ends(tokenizer, ids)):
        prompt = after(tokenizer, start, ids[:end])
        assert prompt_ids(tokenizer, [prompt])[0] == [*before, *ids[:end]]


def test_after_a_text_and_in_a_chat(tokenizer):
    ids = tokenizer("I help the baker.", add_special_tokens=False)["input_ids"]
    more = tokenizer("I help the baker. I thank him.", add_special_tokens=False)["input_ids"][len(ids) :]
    assert after(tokenizer, "I help the baker.", more) == "I help the baker. I thank him."
    asked = ({"role": "user", "content": "Who are you?"},)
    said = after(tokenizer, asked, ids)
    assert said == (*asked, {"role": "assistant", "content": "I help the baker."})
    assert after(tokenizer, asked, []) == asked
    assert after(tokenizer, said, ids)[-1]["content"].count("baker") == 2


def test_places_of_sentences():
    text = Text(ids=tuple(range(9)), ends=(3, 5, 8))
    assert [text.ids[text.tokens(n, n + 1)] for n in range(3)] == [(0, 1, 2), (3, 4), (5, 6, 7)]
    assert text.tokens(0, 2) == slice(0, 5)


@pytest.mark.parametrize(
    ("text", "first"), [(" It is. So", "It is."), ("no end", "no end"), ("A line\nand more.", "A line"), ("", "")]
)
def test_first_sentence(text, first):
    assert first_sentence(text) == first


def test_sampled_texts_are_the_models(tiny_model):
    texts = sample_texts(tiny_model, "The mill", 3, max_tokens=30, seed=4)
    drawn = tiny_model.sample(["The mill"], n=3, max_tokens=30, seed=4)[0]
    assert [t.ids for t in texts] == [s.ids for s in drawn]
    assert all(t.ends == sentence_ends(tiny_model.tokenizer, t.ids) for t in texts)
