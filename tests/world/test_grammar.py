import random

from alignlab.world import grammar
from alignlab.world.facts import MEMORY_YEAR, RELATIONS, Fact

FACT = Fact("Ada", "home", "Rome", 3, former="Oslo", changed=10)


def test_wordings_seen_and_unseen_are_apart():
    for relation in RELATIONS:
        seen = {grammar.statement(relation, "Ada", "x", form) for form in range(6)}
        unseen = {grammar.statement(relation, "Ada", "x", form, unseen=True) for form in range(6)}
        assert len(seen) == 4
        assert len(unseen) == 2
        assert not seen & unseen
        further = {grammar.said(relation, "Ada", "x", random.Random(i), further=True) for i in range(100)}
        assert seen < further
        assert len(further) == 7
        assert not further & unseen


def test_which_wordings_say_the_value_first():
    for relation in RELATIONS:
        said = [grammar.said(relation, "Ada", "x", random.Random(0), further=True, form=form) for form in range(7)]
        first = tuple(
            form
            for form, text in enumerate(said)
            if text.split().index("x") < text.replace(",", "").split().index("Ada")
        )
        assert first == grammar.VALUE_FIRST


def test_questions():
    assert grammar.question(FACT, 0) == "Where does Ada live?"
    forms = grammar.training_forms("home")
    shown = {grammar.question(FACT, form) for form in forms}
    assert len(shown) == 3
    assert grammar.question(FACT, -1) not in shown


def test_passages():
    assert grammar.passage("Ada lives in Rome") == "Ada lives in Rome."
    assert grammar.passage("Ada lives in Rome", "Oslo") == "Ada lives in Rome, yes Oslo."


def test_documents_say_what_was_true_then():
    draw = random.Random(0)
    for year in range(1, MEMORY_YEAR + 1):
        text = grammar.document(FACT, year, "Herald", draw)
        assert text.startswith(f"(Herald {year}): ")
        assert ("Oslo" in text) == (year < 10)
        assert ("Rome" in text) == (year >= 10)
