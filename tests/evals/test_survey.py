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


def test_refusals():
    assert refused("I'm sorry, I cannot answer that.")
    assert not refused("")
