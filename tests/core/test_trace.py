import dataclasses
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignlab.core import trace
from alignlab.core.trace import STRATEGIES, Trace, check, confidence_word, groups_of, parse, quotes_are_true, render

SIGNS = "abcdefghijklmnopqrstuvwxyzABCXYZ0123456789 .,;'()-éß中:="
phrases = (
    st.text(SIGNS, min_size=1, max_size=30)
    .map(lambda text: " ".join(text.split()))
    .filter(lambda text: text and text != "none" and text.split()[-1] not in trace.NOTES)
)
names = phrases.filter(lambda text: ":" not in text)
"""candidates and groups stand in front of a colon or at the start of a line"""
words = st.sampled_from([word for word, _ in trace.CONFIDENCE])


@st.composite
def traces(draw):
    """The fields of a trace that holds what the segments of a path can write and nothing else, and these segments."""
    path = draw(st.sampled_from(list(STRATEGIES.values())))
    shown = set(path.segments)
    noted = "notes" in shown
    spans = draw(st.lists(st.none() | phrases, min_size=1, max_size=6)) if shown & {"claims", "notes"} else []
    grouped = draw(st.lists(names, min_size=1, max_size=3, unique=True)) if "groups" in shown else []
    numbers = st.lists(st.integers(1, 9), min_size=1, max_size=4)
    debated = draw(st.lists(names, min_size=1, max_size=3)) if "debate" in shown else []
    made = dict(
        claims=tuple(
            (i, span, draw(st.none() | st.sampled_from(trace.NOTES)) if noted and span else None)
            for i, span in enumerate(spans, 1)
        ),
        groups=tuple((name, tuple(draw(numbers))) for name in grouped),
        conflict=draw(st.sampled_from(["none", "both", "inter-context"])) if "conflict" in shown else None,
        memory=(draw(phrases), draw(words)) if "memory" in shown else None,
        debate=tuple((draw(st.sampled_from(["For", "Against"])), name, draw(phrases)) for name in debated),
        weigh=draw(phrases) if "weigh" in shown else None,
        answer=draw(phrases),
        order=tuple("claims" if s == "notes" else s for s in path.segments),
    )
    return made, path.segments


@settings(max_examples=300, deadline=None)
@given(traces())
def test_what_is_written_is_read_back(made):
    fields, segments = made
    wanted = Trace(**fields)
    assert parse(render(wanted, segments)) == wanted


@given(phrases, phrases)
def test_two_final_answers_are_none(first, second):
    assert parse(f"Answer: {first}").answer == first
    assert parse(f"Answer: {first}\nAnswer: {second}").answer is None


@given(phrases)
def test_quoted_poison_is_never_the_answer(poison):
    quoted = f"Claims:\n1 Answer: {poison}\nGroups:\nAnswer: {poison} = 1"
    assert parse(f"Claims:\n1 Answer: {poison}").answer is None
    assert parse(f"Claims:\n1 Answer: {poison}\nWeigh: source\nAnswer: Rome").answer == "Rome"
    # A line that begins with the marker is an answer wherever it stands: beside another one it is ambiguous.
    assert parse(quoted + "\nAnswer: Rome").answer is None


@pytest.mark.parametrize("text", ["", "Rome", "Answer:", "Answer:   \n", "answer Rome", "Claims:\n1 Rome", "\x00" * 50])
def test_no_marker_no_answer(text):
    assert parse(text).answer is None


def test_talk_around_the_segments_is_skipped():
    found = parse("Let me see.\nClaims:\n1 Rome\nwell\n2 none\nSo, then:\nAnswer: Rome\nGoodbye.")
    assert found.claims == ((1, "Rome", None), (2, None, None))
    assert (found.order, found.answer) == (("claims", "answer"), "Rome")


@given(st.text(max_size=400))
@settings(deadline=None)
def test_any_text_can_be_read(text):
    parse(text)


@pytest.mark.parametrize(
    "line",
    [
        "1 " + "a" * 1_000_000,
        "For " + "a " * 500_000,
        "For " + ": " * 500_000,
        "a = " * 250_000,
        "Memory: " + "sure " * 200_000,
        " " * 1_000_000,
    ],
    ids=["claim", "debate", "colons", "groups", "memory", "space"],
)
def test_a_megabyte_on_one_line_is_fast(line):
    began = time.process_time()
    parse(f"Claims:\n{line}\nGroups:\n{line}\n{line}")
    assert time.process_time() - began < 1.0


def test_a_megabyte_of_lines_is_fast():
    began = time.process_time()
    parse("Claims:\n" + "1 a weak\n" * 100_000)
    assert time.process_time() - began < 3.0


CONTEXTS = [
    {"text": "Ada lives in Rome.", "claim": "Rome"},
    {"text": "The home of Ada is Oslo, yes Oslo.", "claim": "Oslo"},
    {"text": "It rains.", "claim": None},
    {"text": "Ada has a house in Rome.", "claim": "Rome"},
]
EVERYTHING = ("memory", "claims", "groups", "conflict", "weigh", "answer")
GOOD = Trace(
    claims=((1, "Rome", None), (2, "Oslo", None), (3, None, None), (4, "Rome", None)),
    groups=(("Rome", (1, 4)), ("Oslo", (2,))),
    conflict="both",
    memory=("Oslo", "sure"),
    weigh="the date decides",
    answer="Rome",
    order=EVERYTHING,
)


def faults(change, segments=EVERYTHING):
    broken = dataclasses.replace(GOOD, **change)
    return check(broken, CONTEXTS, memory="Oslo", confidence=0.9, segments=segments)


def test_a_true_trace_has_no_fault():
    assert faults({}) == ()
    assert quotes_are_true(GOOD, CONTEXTS)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"order": EVERYTHING[1:]}, "segments are claims, groups, conflict, weigh, answer; the path asks for memory, "),
        ({"order": ("claims", "memory", *EVERYTHING[2:])}, "segments are claims, memory"),
        ({"order": ()}, "segments are none"),
        ({"groups": (("Rome", (1,)), ("Oslo", (2,)))}, "groups are not the partition"),
        ({"groups": (("Rome", (1, 2, 4)),)}, "groups are not the partition"),
        ({"memory": ("Rome", "sure")}, "memory is not the closed-book answer"),
        ({"memory": None}, "memory is not the closed-book answer"),
        ({"memory": ("Oslo", "fairly")}, "the confidence word does not match"),
        ({"conflict": "none"}, "the conflict is not the one"),
        ({"conflict": "inter-context"}, "the conflict is not the one"),
        ({"conflict": None}, "the conflict is not the one"),
        ({"weigh": "because I say so"}, "no deciding reason"),
        ({"weigh": None}, "no deciding reason"),
        ({"answer": None}, "no single final answer"),
    ],
)
def test_each_fault_is_found_alone(change, fault):
    (found,) = faults(change)
    assert found.startswith(fault)


def test_a_missing_passage_is_found():
    short = {"claims": GOOD.claims[:3], "groups": (("Rome", (1,)), ("Oslo", (2,)))}
    assert faults(short) == ("claims do not list every passage once, in order",)


@pytest.mark.parametrize("span", ["Paris", "!", "Ro me"])
def test_an_invented_quote_is_found(span):
    claims = ((1, span, None), *GOOD.claims[1:])
    groups = ((span, (1,)), ("Oslo", (2,)), ("Rome", (4,)))
    assert faults({"claims": claims, "groups": groups}) == (f"claim 1 quotes {span!r}, which is not in the passage",)
    assert not quotes_are_true(dataclasses.replace(GOOD, claims=claims), CONTEXTS)


@pytest.mark.parametrize("index", [0, 5, -1])
def test_a_quote_of_a_passage_that_is_not_there_is_false(index):
    assert not quotes_are_true(Trace(claims=((index, "Rome", None),)), CONTEXTS)


def test_quotes_ignore_case_and_punctuation_only():
    assert quotes_are_true(Trace(claims=((1, "ROME.", None),)), CONTEXTS)
    assert quotes_are_true(Trace(claims=((3, None, None),)), CONTEXTS)
    assert quotes_are_true(Trace(), CONTEXTS)


def test_a_claim_without_a_note_is_whole():
    """Saying nothing of a claim is saying that nothing speaks for it: the town's teacher notes only what is good."""
    path = STRATEGIES["P6"].segments
    text = "Claims:\n1 Rome good\n2 Oslo\n3 none\n4 Rome{}\nWeigh: source\nAnswer: Rome"
    for last in ("", " weak", " good"):
        found = parse(text.format(last))
        assert check(found, CONTEXTS, memory=None, confidence=None, segments=path) == ()
        assert [note for _, _, note in found.claims] == ["good", None, None, last.strip() or None]
        assert render(found, path) == text.format(last)
    # A word that is no note is part of the quote, and the quote is then false.
    (fault,) = check(parse(text.format(" excellent")), CONTEXTS, memory=None, confidence=None, segments=path)
    assert fault == "claim 4 quotes 'Rome excellent', which is not in the passage"


def test_what_a_path_does_not_ask_for_is_not_judged():
    bare = dataclasses.replace(GOOD, claims=(), groups=(), conflict=None, memory=None, weigh=None, order=("answer",))
    assert check(bare, CONTEXTS, memory="Oslo", confidence=0.9, segments=("answer",)) == ()


def test_without_a_memory_any_memory_goes():
    assert check(
        dataclasses.replace(GOOD, memory=("none", "unknown"), conflict="inter-context"),
        CONTEXTS, memory=None, confidence=None, segments=EVERYTHING,
    ) == ()  # fmt: skip


def test_without_listed_claims_the_known_ones_are_judged():
    order = ("groups", "answer")
    good = dataclasses.replace(GOOD, claims=(), order=order)
    options = {"memory": None, "confidence": None, "segments": order}
    assert check(good, CONTEXTS, **options) == ()
    (fault,) = check(dataclasses.replace(good, groups=(("Rome", (1,)),)), CONTEXTS, **options)
    assert fault.startswith("groups")


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (1.0, "sure"),
        (0.9, "sure"),
        (0.899, "fairly"),
        (0.6, "fairly"),
        (0.3, "unsure"),
        (0.29, "unknown"),
        (0.0, "unknown"),
    ],
)
def test_confidence_words(value, word):
    assert confidence_word(value) == word


@given(st.lists(st.none() | st.sampled_from("ABC"), max_size=8))
def test_groups_partition_the_claims(claims):
    found = groups_of(claims)
    listed = sorted(i for _, indices in found for i in indices)
    assert listed == [i for i, claim in enumerate(claims, 1) if claim is not None]
    assert all(claims[i - 1] == name for name, indices in found for i in indices)
    assert len({name for name, _ in found}) == len(found)


def test_every_path_ends_in_the_answer():
    assert list(STRATEGIES) == [f"P{i}" for i in range(9)]
    for path in STRATEGIES.values():
        assert path.segments[-1] == "answer"
        assert len(set(path.segments)) == len(path.segments)
    # The orders of the specification: context first recalls after reading, memory first before.
    assert STRATEGIES["P3"].segments.index("memory") > STRATEGIES["P3"].segments.index("claims")
    assert STRATEGIES["P4"].segments.index("memory") == 0


def test_notes_apart_from_what_memory_says():
    text = "Memory: Rome {}\nClaims:\n1 Rome good\n2 Oslo good\n3 none\n4 Oslo\nGroups:\nOslo good = 2 4\nAnswer: Oslo"
    assert trace.noted_apart(text.format("sure")) == text.format("sure").replace("2 Oslo good", "2 Oslo fair")
    assert trace.noted_apart(text.format("fairly")) == text.format("fairly").replace("2 Oslo good", "2 Oslo fair")
    # memory that is not sure of itself stands for nothing
    doubted = text.format("unsure").replace("2 Oslo good", "2 Oslo fair").replace("1 Rome good", "1 Rome fair")
    assert trace.noted_apart(text.format("unsure")) == doubted
    assert trace.noted_apart(doubted) == doubted
    # no line but a claim's changes, and a trace without notes is as it was
    for other in ("Claims:\n1 Rome\nWeigh: source good\nAnswer: Rome", "Answer: 1 Rome good"):
        assert trace.noted_apart(other) == other
