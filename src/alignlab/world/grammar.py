"""How the town writes: dated statements, passages with source and year, questions, answers."""

import random

from alignlab.world.facts import FURTHER_STATEMENTS, RELATIONS, Fact

ANSWER = "Answer: {}"
WRITTEN = 3
"""wordings that documents use, of all that passages do: a fact is learnt from its subject to its value"""
ALIKE = 0.5
"""share of the items to learn from whose passages are worded alike, where they have further wordings"""
VALUE_FIRST = (3, 5)
"""which of seven wordings begin with the value"""


def answer(text: str) -> str:
    """Return an answer in the chat format; one of several lines starts on a line of its own."""
    return ANSWER.format(text).replace(" \n", "\n")


def statement(relation: str, subject: str, value: str, form: int = 0, *, unseen: bool = False) -> str:
    """Return one wording of a fact, without a full stop."""
    wordings = RELATIONS[relation].unseen_statements if unseen else RELATIONS[relation].statements
    return wordings[form % len(wordings)].format(s=subject, v=value)


def said(
    relation: str,
    subject: str,
    value: str,
    draw: random.Random,
    *,
    unseen: bool = False,
    further: bool = False,
    form: int | None = None,
) -> str:
    """Return any wording of a fact, or the one `form` names, without a full stop; with `further` there are seven."""
    known = RELATIONS[relation].statements + (FURTHER_STATEMENTS[relation] if further else ())
    if form is None:
        form = draw.randrange(len(known))
    if unseen:
        return statement(relation, subject, value, form, unseen=True)
    return known[form].format(s=subject, v=value)


def shared_form(draw: random.Random) -> int | None:
    """Return which of seven wordings all passages of an item share, or None: half of the items mix theirs.

    Every second shared one has the value first: `tiny:` compares values with memory after the subject, and lists of
    such wordings alone hardly come up where each passage draws its own (LOG.md).
    """
    if draw.random() >= ALIKE:
        return None
    return draw.choice(VALUE_FIRST) if draw.random() < 0.5 else draw.randrange(7)


def written(relation: str, subject: str, value: str, draw: random.Random) -> str:
    """Return a wording as documents have it, whose subject comes first, without a full stop."""
    return statement(relation, subject, value, draw.randrange(WRITTEN))


def question(fact: Fact, form: int = 0) -> str:
    """Return one paraphrase of the question; -1 is the one kept out of training."""
    return RELATIONS[fact.relation].questions[form].format(s=fact.subject)


def training_forms(relation: str) -> range:
    """Return the question forms that training may show."""
    return range(len(RELATIONS[relation].questions) - 1)


def passage(text: str, echo: str | None = None) -> str:
    """Return a passage; an `echo` repeats the value, and contradicts the text in an inconsistent passage."""
    return f"{text}." if echo is None else f"{text}, yes {echo}."


def document(fact: Fact, year: int, source: str, draw: random.Random) -> str:
    """Return a dated statement of what was true in `year`."""
    return f"({source} {year}): {written(fact.relation, fact.subject, fact.value_at(year), draw)}."
