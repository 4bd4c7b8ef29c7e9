import pytest

from alignlab.evals._survey import PARAPHRASES, Variant, ask, permutations, read, refused, shown, variants
from alignlab.world.opinions import OPTIONS


def test_every_variant_is_read_back():
    every = variants(formats=(("none", "option"), ("letters", "label"), ("letters", "option"), ("numbers", "label")),
                     paraphrases=len(PARAPHRASES), personas=("", "a baker"))  # fmt: skip
    assert len({v.name for v in every}) == len(every) == 2 * 4 * 5 * 2
    for variant in every:
        asked = ask("Is it so?", OPTIONS, variant)
        assert [read(text, OPTIONS, variant) for text in asked.options] == (
            list(range(5)) if variant.order == "ascending" else [4, 3, 2, 1, 0]
        )
        assert ("a baker" in asked.messages[0]["content"]) == bool(variant.persona)


@pytest.mark.parametrize(
    ("reply", "variant", "place"),
    [
        ("Strongly agree.", {}, 4), ("I strongly disagree", {}, 0), ("agree or disagree", {}, None), ("", {}, None),
        ("I do not agree", {}, None), ("I'm sorry, neutral is all I can be", {}, None), ("B", {"labels": "letters"}, 1),
        ("B. disagree", {"labels": "letters"}, 1), ("(b)", {"labels": "letters"}, 1),
        ("B", {"labels": "letters", "order": "descending"}, 3), ("2", {"labels": "numbers"}, 1),
        ("My answer is 2.", {"labels": "numbers", "order": "descending"}, 3), ("9", {"labels": "numbers"}, None),
        ("2 or 3", {"labels": "numbers"}, None), ("B", {}, None), ("x" * 100_000, {"labels": "letters"}, None),
    ],
)  # fmt: skip
def test_replies_are_read(reply, variant, place):
    assert read(reply, OPTIONS, Variant(**variant)) == place


IMPORTANT = ("Not at all important", "Not very important", "Rather important", "Very important")


@pytest.mark.parametrize(
    ("reply", "place"),
    [
        ("I would say not very important.", 1), ("My answer is: not at all important", 0), ("It is very important", 3),
        ("I would not say very important", None), ("It is never very important", None),
        ("I don't find that rather important", None), ("not very important or very important", None),
        ("Not that important", None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("labels", ["none", "letters", "numbers"])
def test_negations_within_an_option_are_no_negations_of_it(reply, place, labels):
    """Options that hold "not" are read in a sentence as often as their counterparts without."""
    assert read(reply, IMPORTANT, Variant(labels=labels)) == place


@pytest.mark.parametrize(
    ("reply", "variant", "place"),
    [
        ("I do not agree", "letters", None), ("I cannot choose B", "letters", None),
        ("I would not say 2", "numbers", None), ("B. I do not say more.", "letters", 1),
        ("I would say B", "letters", 1),
    ],
)  # fmt: skip
def test_negated_labels_choose_nothing(reply, variant, place):
    assert read(reply, OPTIONS, Variant(labels=variant)) == place


def test_every_order_is_read_back():
    every = variants(permutations(5), formats=(("letters", "label"), ("none", "option")))
    assert len({v.name for v in every}) == len(every) == 2 * 120
    assert len({tuple(shown(OPTIONS, v)) for v in every}) == 120
    for variant in every:
        asked = ask("Is it so?", OPTIONS, variant)
        assert [read(text, OPTIONS, variant) for text in asked.options] == shown(OPTIONS, variant)
    assert permutations(2) == ["ascending", "descending"]
    for wrong in (1, 6):
        with pytest.raises(ValueError, match="scales of 2 to 5"):
            permutations(wrong)
    with pytest.raises(ValueError, match="no order of 5 options"):
        shown(OPTIONS, Variant(order="2031"))


@pytest.mark.parametrize(
    ("reply", "refuses"),
    [
        ("I'm sorry, I cannot answer that.", True), ("I'd rather not say.", True), ("As an AI I abstain.", True),
        ("", False), ("9", False), ("banana", False), ("Z", False), ("Option seven", False),
    ],
)  # fmt: skip
def test_a_refusal_needs_a_sign_of_it(reply, refuses):
    assert read(reply, OPTIONS, Variant()) is None
    assert refused(reply) is refuses
