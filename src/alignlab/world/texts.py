"""The text `tiny:` grows up on: documents and closed-book talk, then reading with contexts that are always true."""

import itertools
import random
from collections.abc import Iterator
from typing import Any

from alignlab.core import evidence
from alignlab.core.types import Message, Row
from alignlab.world import facts, grammar, vocabulary
from alignlab.world.exercises import exercise
from alignlab.world.facts import RELATIONS, Fact, Town

STATEMENTS_PER_DOCUMENT, QUESTIONS_PER_TALK = 8, 8
READING_KINDS = {"changed": 0.65, "listed": 0.35}
"""kind of reading task -> share"""
READING_SIZES = {1: 3, 2: 3, 4: 3, 5: 6, 6: 3, 7: 1, 9: 2}
"""number of passages -> weight; 3 and 8 are never shown, so that they can be tested"""


def _by_frequency(town: Town, draw: random.Random) -> Iterator[Fact]:
    """Yield facts for ever, each as often as it is written about."""
    known = [fact for fact in town.facts.values() if fact.frequency]
    cumulative = list(itertools.accumulate(fact.frequency for fact in known))
    while True:
        yield from draw.choices(known, cum_weights=cumulative, k=4096)


def documents(town: Town, seed: int) -> Iterator[Row]:
    """Yield plain documents without end: dated statements of what was true in that year, often by several sources."""
    draw = random.Random(f"documents:{town.seed}:{seed}")
    stream = _by_frequency(town, draw)
    for number in itertools.count():
        told: list[Fact] = []
        while len(told) < STATEMENTS_PER_DOCUMENT:
            told += [next(stream)] * draw.randint(1, STATEMENTS_PER_DOCUMENT // 2)
        draw.shuffle(told)
        lines = [
            grammar.document(fact, draw.randint(1, facts.MEMORY_YEAR), draw.choice(list(facts.RELIABILITY)), draw)
            for fact in told[:STATEMENTS_PER_DOCUMENT]
        ]
        yield Row(prompt="", completion="\n".join(lines), meta={"id": f"document-{number}", "source": "world"})


def talk(fact: Fact, form: int) -> tuple[Message, Message]:
    """Return one closed-book question and its answer, as of the memory year."""
    return (
        {"role": "user", "content": grammar.question(fact, form)},
        {"role": "assistant", "content": grammar.ANSWER.format(fact.value)},
    )


def closed_book(town: Town, seed: int, turns: int = QUESTIONS_PER_TALK) -> Iterator[Row]:
    """Yield chats of closed-book questions without end; the last answer is the completion."""
    draw = random.Random(f"closed_book:{town.seed}:{seed}")
    stream = _by_frequency(town, draw)
    for number in itertools.count():
        messages: list[Message] = []
        for fact in itertools.islice(stream, turns):
            messages.extend(talk(fact, draw.choice(grammar.training_forms(fact.relation))))
        yield Row(prompt=tuple(messages[:-1]), completion=messages[-1]["content"], meta={"id": f"talk-{number}"})


def practice(town: Town, seed: int) -> Iterator[Row]:
    """Yield single exercises without end, which no fact of the town enters."""
    draw = random.Random(f"practice:{town.seed}:{seed}")
    for number in itertools.count():
        _, (asked, answer) = exercise(draw)
        yield Row(prompt=evidence.ask(asked), completion=grammar.answer(answer), meta={"id": f"practice-{number}"})


def other_statement(fact: Fact, draw: random.Random) -> tuple[str, str]:
    """Return a statement about somebody else, and the value in it."""
    relation = draw.choice(list(RELATIONS.values()))
    subject = draw.choice([s for s in vocabulary.people() if s != fact.subject])
    value = draw.choice(relation.values)
    return grammar.said(relation.name, subject, value, draw), value


def reading(town: Town, seed: int) -> Iterator[Row]:
    """Yield reading tasks without end: today's passages, always true, whatever memory says.

    Most tasks ask about a fact that changed since memory ends and that the passages state, the others where each
    passage is from and what it says. No task needs memory.
    """
    draw = random.Random(f"reading:{town.seed}:{seed}")
    everything = list(town.facts.values())
    for number in itertools.count():
        (n,) = draw.choices(list(READING_SIZES), weights=list(READING_SIZES.values()))
        kind = draw.choices(list(READING_KINDS), weights=list(READING_KINDS.values()))[0]
        fact = draw.choice(everything)
        if kind == "changed":
            contexts, answer = _about(fact, n, draw)
        else:
            contexts, answer = [_other(fact, draw) for _ in range(n)], ""
        draw.shuffle(contexts)
        ask = grammar.question(fact, draw.choice(grammar.training_forms(fact.relation)))
        if kind == "listed":
            ask, answer = _listed(contexts, draw)
        yield Row(
            prompt=evidence.ask(evidence.retrieval(ask, contexts)),
            completion=grammar.answer(answer),
            facts={"gold": answer, "kind": kind},
            meta={"id": f"reading-{number}", "source": "world"},
        )


def _listed(contexts: list[dict[str, Any]], draw: random.Random) -> tuple[str, str]:
    """Return a question about every passage, of where it is from and what it says, and the answer."""
    bound = draw.randint(2, facts.YEARS - 1)
    asked = {
        "What does each passage say?": ("value",),
        "Where is each passage from?": ("source", "date"),
        "Where is each passage from and what does it say?": ("source", "date", "value"),
        f"Which passages are from after {bound}?": (),
    }
    ask, shown = draw.choice(list(asked.items()))
    if shown:
        lines = [" ".join(context[key] for key in shown) for context in contexts]
        return ask, "".join(f"\n{i} {line}" for i, line in enumerate(lines, 1))
    after = [str(i) for i, context in enumerate(contexts, 1) if int(context["date"]) > bound]
    return ask, " ".join(after) or "none"


def _dated(text: str, value: str, draw: random.Random) -> dict[str, Any]:
    echo = value if draw.random() < 0.3 else None
    source, year = draw.choice(list(facts.RELIABILITY)), draw.randint(1, facts.YEARS)
    return {"text": grammar.passage(text, echo), "source": source, "date": str(year), "value": value}


def _other(fact: Fact, draw: random.Random) -> dict[str, Any]:
    text, value = other_statement(fact, draw)
    return _dated(text, value, draw)


def _about(fact: Fact, n: int, draw: random.Random) -> tuple[list[dict[str, Any]], str]:
    """Return passages of which most state one new value, sometimes of an odd kind: the town is free to change."""
    relation = RELATIONS[fact.relation] if draw.random() < 0.85 else draw.choice(list(RELATIONS.values()))
    value = draw.choice([v for v in relation.values if v != fact.value])
    contexts = []
    for index in range(n):
        if index and draw.random() < 0.3:
            contexts.append(_other(fact, draw))
        else:
            text = grammar.said(fact.relation, fact.subject, value, draw)
            contexts.append(_dated(text, value, draw))
    return contexts, value
