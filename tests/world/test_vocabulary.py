import pytest

from alignlab.procedures.tiny import tokenizer
from alignlab.world import facts, vocabulary


@pytest.fixture(scope="module")
def pieces():
    words = tokenizer()
    return lambda text: [words.decode([i]) for i in words.encode(text, add_special_tokens=False)]


def test_every_word_is_one_token_after_a_space(pieces):
    assert [word for word in vocabulary.words() if len(pieces(f"x {word}")) != 2] == []
    assert [word for word in vocabulary.words() if len(pieces(word)) != 1] == []


def test_sentences_of_the_town_take_a_token_a_word(pieces):
    """Words are whole wherever the town writes them, but for one that `tiny:` was trained on in two pieces."""
    wordings = [w for r in facts.RELATIONS.values() for w in (*r.statements, *r.unseen_statements, *r.questions)]
    wordings += [w.replace(",", "") for further in facts.FURTHER_STATEMENTS.values() for w in further]
    words = {word for w in wordings for word in w.replace("?", "").split() if "{" not in word}
    assert {word for word in words if len(pieces(f"x {word}")) != 2} <= {"belong"}
    assert pieces("Where does Ada live?")[-1] == "?"
    assert pieces("x\n3 (Herald 12): Ada.")[1:5] == ["\n3", "(", "Herald", "12"]
    for head in vocabulary.HEADS:
        assert len(pieces(f"x\n{head}:")) == 3


def test_words_are_distinct_and_fixed():
    words = vocabulary.words()
    assert len(words) == len(set(words)) > 900
    assert vocabulary.people() == vocabulary.syllable_names(vocabulary.PEOPLE, 2, 1)
    assert vocabulary.people()[:3] == vocabulary.syllable_names(3, 2, seed=1)
    assert vocabulary.syllable_names(20, 2, 1) != vocabulary.syllable_names(20, 2, 2)
    assert not set(vocabulary.people()) & set(vocabulary.places())
    assert len(vocabulary.people()) == vocabulary.PEOPLE
    assert len(vocabulary.places()) == vocabulary.PLACES


def test_a_value_belongs_to_one_kind():
    """An answer of the wrong type can be told by its word alone."""
    kinds = {}
    for relation in facts.RELATIONS.values():
        for value in relation.values:
            assert kinds.setdefault(value, relation.kind) == relation.kind


def test_planned_words_are_words():
    assert len(vocabulary.planned()) > 300
    assert all(word.isalpha() or word.isdigit() for word in vocabulary.planned())
