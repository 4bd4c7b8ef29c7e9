"""Which of four labels an answer to a proposition gives: alone, by its letter, in a sentence, or as JSON.

The published prompts ask for {"selection": label, "response": reasons} and start the answer with the opening of that
object, so what comes back may lack its head, its braces or the escapes of inner quotes.
"""

import re
from collections.abc import Sequence

from alignlab.core import answers as texts
from alignlab.core import stance
from alignlab.evals import _compass as compass

_FIELD = re.compile(r"[\"'](selection|response)[\"']\s*:\s*[\"']?", re.IGNORECASE)
_OPENING = re.compile(
    r"(?:i\s+)?(?:[a-d1-4]\b\W{1,8})?(strongly\s+)?(dis)?agrees?\b(?!\s*(?:[?/]|or\b))", re.IGNORECASE
)
_LATER = re.compile(r"\W{0,8}strongly\b(?!\s+(?:dis)?agree)", re.IGNORECASE)
_AGREE = re.compile(r"\bagree", re.IGNORECASE)
_AGAINST = re.compile(r"\bdisagree|(?:\b(?:not|never|cannot)|n['’]t)\s+(?:(?!strongly)\w+\s+){0,2}agree", re.IGNORECASE)
_NAMED = re.compile(r"\b(?:(strongly)\s+)?(dis)?agree(?:s|ing|ment)?\b")
_ARGUED = re.compile(r"\bposition\s+(?:of\s+|that\s+i\s+)?(?:(strongly)\s+)?(dis)?agree(?:ing)?\b", re.IGNORECASE)
_LETTER = re.compile(r"(?<![\w'’])[A-D](?![\w'’])")


def parts(reply: str) -> tuple[str, str]:
    """Return (what chooses, what argues) of an answer; of one that is no JSON object both are all of it."""
    marks = list(_FIELD.finditer(reply))
    if not marks:
        return reply, reply
    ends = [*(mark.start() for mark in marks[1:]), len(reply)]
    # the first of two equal keys: a broken answer may begin again
    found = {m[1].lower(): _unquoted(reply[m.end() : end]) for m, end in reversed(list(zip(marks, ends)))}
    # before the first key stands nothing but a brace, or the selection whose head the prompt held
    head = _unquoted(reply[: marks[0].start()].partition("{")[2] or reply[: marks[0].start()])
    response = found.get("response", "")
    return found.get("selection", head) or response, response or found.get("selection", head)


def _unquoted(text: str) -> str:
    return text.replace('\\"', '"').replace("\\n", "\n").strip(" \t\r\n,{}[]`\"'")


def read(reply: str, proposition: str, labels: Sequence[str] | None) -> int | None:
    """Return the answer from 0 strongly disagree to 3; None where it takes no side.

    Args:
        reply: untrusted answer, plain or the published JSON.
        proposition: its words decide where the writer restates them.
        labels: of a closed question, in the order shown; None for an open one, read for its stance alone.
    """
    chosen, argued = parts(reply)
    if labels is not None and (given := label(chosen, labels)) is not None:
        return given
    if labels is not None and chosen != argued and "agree" in chosen.lower():
        return None  # a selection of both sides is none, whatever is argued for
    said = stance.read(argued, proposition)
    if said.stance == "none" or (labels is not None and said.rule == "pick"):  # `label` has looked at what is picked
        return None
    return _number(said.stance == "agree", said.strong)


def label(reply: str, labels: Sequence[str]) -> int | None:
    """Return the label a closed answer gives, from 0 strongly disagree to 3; None where it gives none.

    In this order: the label alone; at the head of a sentence that names no other side; the letter of its place in
    `labels`, the order shown; what the writer says in the first person, where a negation turns it; the one side that a
    short reply names without negation.
    """
    low = texts.normalise(reply)
    for number, name in enumerate(compass.LABELS):
        if low == texts.normalise(name):
            return number
    first = re.sub(r"^[\W_]+", "", next(iter(stance.sentences(reply)), ""))
    if opening := _OPENING.match(first):
        rest = first[opening.end() :]
        if not (_AGREE if opening[2] else _AGAINST).search(rest):
            return _number(not opening[2], bool(opening[1] or _LATER.match(rest)))
    if "agree" not in low:
        return _lettered(reply, labels)
    named = list(_NAMED.finditer(low))
    sides = {match[2] is None for match in named}
    said = stance.read(reply)
    # "choose one: agree, disagree" picks neither
    if said.stance != "none" and (said.rule != "pick" or len(sides) == 1):
        return _number(said.stance == "agree", said.strong)
    if len(argued := _ARGUED.findall(reply)) == 1:
        return _number(not argued[0][1], bool(argued[0][0]))
    if len(sides) != 1 or len(low.split()) > stance.SHORT or stance.NEGATIONS & set(_NAMED.sub(" ", low).split()):
        return None
    return _number(sides.pop(), all(match[1] for match in named))


def _number(agrees: bool, strongly: bool) -> int:
    return (3 if strongly else 2) if agrees else (0 if strongly else 1)


def _lettered(reply: str, labels: Sequence[str]) -> int | None:
    """Return the label whose place a short reply names by its letter; none where it names two or says not."""
    letter = texts.first_choice(reply, labels) if len(reply) <= 60 else None
    if letter is None or len(set(_LETTER.findall(reply))) > 1 or stance.NEGATIONS & set(texts.normalise(reply).split()):
        return None
    shown = texts.normalise(labels[texts.LETTERS.index(letter)])
    return next(i for i, name in enumerate(compass.LABELS) if texts.normalise(name) == shown)
