import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignlab.core.answers import contains, final_answer, first_choice, named, normalise, readable, same


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("  The Eiffel  Tower. ", "eiffel tower"),
        ("an apple, a day", "apple day"),
        ("**Paris**", "paris"),
        ("U.S.A.", "usa"),
        ("Jean\u2013Paul", "jean paul"),
        ("Jean-Paul", "jean paul"),
        ("A", "a"),
        ("the", "the"),
        ("Anna", "anna"),
        ("\x1b[31mred\x1b[0m", "31mred0m"),
        ("pa\u200bris\x00", "paris"),
        ("C++ & $5", "c++ $5"),
        ("\uff30aris", "paris"),
        ("!?", ""),
    ],
)
def test_normalise(text, want):
    assert normalise(text) == want


@given(st.text())
def test_normalise_is_idempotent_enough_to_compare(text):
    once = normalise(text)
    assert once == " ".join(once.split())
    assert same(text, text) == bool(once)


def test_same_and_contains():
    assert same("The Nile", "nile.")
    assert not same("Nile", "Niger")
    assert not same(None, None)
    assert not same("...", "!!!")
    assert contains("I believe it is the Nile, surely", "Nile!")
    assert not contains("anything", " . ")


MARK = "Final answer:"


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("thinking\nFinal answer: Paris", "Paris"),
        ("final ANSWER:\n\n  Paris \nand more", "Paris"),
        ("Final answer: Rome ... Final answer: Paris", "Paris"),
        ("no marker: Paris", None),
        ("Final answer:", None),
        ("Final answer: ...", None),
        ("Final answer: \x1b[2JPa\x00ris\u202e", "[2JParis"),
        ("Final answer: " + "x" * 501, None),
        ("Final answer: __import__('os').system('true')", "__import__('os').system('true')"),
        ("İİİ Final answer: Paris", "Paris"),
    ],
)
def test_final_answer(text, want):
    assert final_answer(text, MARK) == want


def test_only_marker_and_end_mark():
    twice = "Final answer: Rome. Final answer: Paris"
    assert final_answer(twice, MARK, which="only") is None
    assert final_answer("Final answer: Paris", MARK, which="only") == "Paris"
    assert final_answer("<a> new\nyork </a> x </a>", "<a>", end="</A>") == "new york"
    with pytest.raises(ValueError, match="marker is empty"):
        final_answer("x", " ")


def test_the_poison_a_trace_quotes_is_not_its_answer():
    trace = "Passage 1 claims Rome. Memory says Paris. Final answer: Paris"
    assert not same(final_answer(trace, MARK), "Rome")
    assert contains(trace, "Rome")


OPTIONS = ["Paris is the capital", "Rome", "Uncertain"]


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("B", "B"),
        (" b ", "B"),
        ("(c)", "C"),
        ("**B.** because", "B"),
        ("B) Rome, not A", "B"),
        ("A: as passage B says", "A"),
        ("The answer is B.", "B"),
        ("A careful reader would choose C", "C"),
        ("Answer: (B)", "B"),
        ("Uncertain", "C"),
        ("uncertain.", "C"),
        ("I would say Rome", "B"),
        ("A careful reader cannot say", None),
        ("Rome or Uncertain", None),
        ("D", None),
        ("", None),
        ("Don't know", None),
    ],
)
def test_first_choice(text, want):
    assert first_choice(text, OPTIONS) == want


def test_first_choice_needs_letters():
    with pytest.raises(ValueError, match="27 options"):
        first_choice("A", ["x"] * 27)


@pytest.mark.parametrize(
    ("low", "gap", "want", "beside"),
    [
        ("i strongly agree", 0, [0], "i"),  # the longer one is taken out first
        ("disagree", 0, [], "disagree"),  # whole words alone
        ("agree or not agree", 0, [2, 1], "or"),
        ("i do not quite agree", 0, [1], "i do not quite"),
        ("i do not quite agree", 1, [2], "i do quite"),  # a word within the phrase is beside it
        ("not so very much agree", 2, [1], "not so very much"),
        ("agree agree agree", 0, [1], ""),
        ("", 0, [], ""),
    ],
)
def test_phrases_named_and_what_is_beside_them(low, gap, want, beside):
    found, rest = named(low, ["strongly agree", "agree", "not agree", ""], gap)
    assert (found, " ".join(rest.split())) == (want, beside)


def test_readable_disarms_terminals_and_keeps_text():
    shown = readable("\x1b]0;owned\x07\x1b[2J\r\u202eevil\x9b31m\x7f\ud800\u2028")
    assert shown == "␛]0;owned␇␛[2J␍<U+202E>evil<U+009B>31m␡\ufffd<U+2028>"
    assert readable("tab\tline\r\nnext é 漢字 👩\u200d🚀") == "tab\tline\nnext é 漢字 👩\u200d🚀"
    assert readable("abcdef", 4) == "abcd [... 2 more characters]"
    assert readable("abcd", 4) == "abcd"


@given(st.text())
def test_readable_leaves_no_control_character(text):
    shown = readable(text)
    assert not any((ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160 for c in shown)
    assert shown.encode("utf-8").decode() == shown


@pytest.mark.parametrize(
    "line", ["x" * 1_000_000, "A " * 500_000, "Final answer:" * 80_000, " " * 1_000_000, "\x1b[" * 500_000, "(" * 10**6]
)
def test_a_megabyte_is_no_trouble(line):
    start = time.process_time()
    final_answer(line, MARK)
    final_answer(MARK + line, MARK)
    first_choice(line, OPTIONS)
    normalise(line)
    readable(line)
    named(normalise(line), OPTIONS, gap=3)
    assert time.process_time() - start < 10
