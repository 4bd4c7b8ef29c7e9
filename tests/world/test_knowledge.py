import itertools
import random

import numpy as np
import pytest

from alignlab.core.answers import final_answer
from alignlab.core.evidence import text_of
from alignlab.world import facts, knowledge
from alignlab.world.endpoints import endpoint
from alignlab.world.sets import rows


def test_what_is_known_is_said_of_each_question():
    listed = knowledge.held_out(30)
    groups = {row.facts["group"] for row in listed}
    assert groups == {"written_0_0", "written_1_3", "written_4_15", "written_16_64", "strangers"}
    assert len({row.meta["id"] for row in listed}) == len(listed) == 150
    for row in listed:
        expected = {"strangers": False, "written_0_0": False, "written_16_64": True}.get(row.facts["group"])
        assert row.facts["known"] is expected
        assert (row.facts["gold"] is None) == (row.facts["group"] == "strangers")
    assert listed == knowledge.held_out(30) != knowledge.held_out(30, seed=1)


def test_splits_and_strangers_do_not_meet():
    town = facts.town()
    trained = {row.facts["cluster"] for row in itertools.islice(knowledge.questions(0), 3000)}
    tested = {row.facts["cluster"] for row in knowledge.held_out(500)}
    assert not trained & tested
    assert {town.facts[name].subject for name in trained} <= town.train_subjects
    people = {fact.subject for fact in town.facts.values()}
    assert len(knowledge.strangers()) == knowledge.STRANGERS
    assert not people & set(knowledge.strangers())


def test_questions_come_in_every_wording_with_ids_of_their_own():
    listed = list(rows("knowledge", limit=2000))
    assert len({row.meta["id"] for row in listed}) == 2000
    first = [row for row in listed if row.facts["cluster"] == listed[0].facts["cluster"]]
    assert len({text_of(row.prompt) for row in first}) == 3


def test_the_student_is_right_as_often_as_it_should():
    asked = [row for row in knowledge.held_out(400) if row.facts["group"] != "strangers"]
    drawn = endpoint("student").complete([row.prompt for row in asked], n=10, seed=3)
    right = [np.mean([final_answer(s.text, "Answer:") == row.facts["gold"] for s in some])
             for row, some in zip(asked, drawn)]  # fmt: skip
    town = facts.town()
    truth = [knowledge.expected(town.facts[row.facts["cluster"]]) for row in asked]
    error = np.sqrt(np.sum(np.array(truth) * (1 - np.array(truth)) / 10)) / len(truth)
    assert np.mean(right) == pytest.approx(np.mean(truth), abs=4 * error)
    assert np.corrcoef(right, truth)[0, 1] > 0.9


def test_strangers_and_nonsense_get_a_guess():
    every = {value for relation in facts.RELATIONS.values() for value in relation.values}
    for text in ("Where does Nobody live?", "", "x\n" * 1000):
        assert final_answer(knowledge.student(text, random.Random(0)), "Answer:") in every
