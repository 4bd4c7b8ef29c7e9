"""What people say of answers agrees with the truth of the town, as often as each set says."""

import math

import pytest

from alignlab import world
from alignlab.core import evidence
from alignlab.core.answers import final_answer
from alignlab.world import facts, feedback, grammar

N = 400


@pytest.fixture(scope="module")
def asked_about():
    return {grammar.question(f, i): f for f in facts.town().facts.values() for i in grammar.training_forms(f.relation)}


def said(text):
    return final_answer(text, "Answer:")


def fact_of(prompt, asked_about):
    return asked_about[evidence.text_of(prompt)]


def near(count, share):
    return abs(count - share * N) < 4 * math.sqrt(N * share * (1 - share))


def test_thumbs_are_up_for_the_truth_alone(asked_about):
    rows = list(world.rows("thumbs", limit=N))
    for row in rows:
        assert row.label == (said(row.completion) == fact_of(row.prompt, asked_about).value)
        assert row.facts["gold"] == fact_of(row.prompt, asked_about).value
    assert near(sum(row.label for row in rows), 0.5)


def test_lists_rank_truth_kind_and_nonsense(asked_about):
    rows = list(world.rows("lists", limit=N))
    for row in rows:
        fact = fact_of(row.prompt, asked_about)
        right, kind, other, nothing = (
            said(text) for _, text in sorted(zip(row.scores, row.completions), key=lambda pair: -pair[0])
        )
        assert right == fact.value != kind
        assert kind in facts.RELATIONS[fact.relation].values
        assert other not in facts.RELATIONS[fact.relation].values
        assert nothing == "nothing"
    assert {row.scores.index(3.0) for row in rows} == {0, 1, 2, 3}


def test_joint_rows_compare_unlike_questions_half_the_time(asked_about):
    rows = list(world.rows("joint", limit=N))
    assert [row.second_prompt is not None for row in rows] == [False, True] * (N // 2)
    for row in rows:
        rejected_prompt = row.second_prompt or row.prompt
        assert said(row.chosen) == fact_of(row.prompt, asked_about).value
        assert said(row.rejected) != fact_of(rejected_prompt, asked_about).value


def test_judgements_name_the_wrong_word(asked_about):
    rows = list(world.rows("judged", limit=N))
    for row in rows:
        right = said(row.completion) == fact_of(row.prompt, asked_about).value
        assert row.label == right == (row.judgement is None)
        if not right:
            assert row.judgement.startswith(f"{said(row.completion)} is wrong")
            assert row.facts["gold"] in row.judgement
    assert near(sum(row.label for row in rows), 0.25)


def test_noisy_demonstrations_carry_the_belief_of_a_reader(asked_about):
    rows = list(world.rows("noisy", limit=N))
    for row in rows:
        fact = fact_of(row.prompt, asked_about)
        right = said(row.completion) == fact.value
        others = len(facts.RELATIONS[fact.relation].values) - 1
        assert row.facts["right"] == right
        expected = feedback.TRUST if right else (1 - feedback.TRUST) / others
        assert math.exp(row.facts["scores"]["aligned"]) == pytest.approx(expected)
    assert near(sum(row.facts["right"] for row in rows), 1 - feedback.NOISE)


def test_a_weak_teacher_is_right_as_often_as_its_noise_says(asked_about):
    rows = list(world.rows("weak", limit=N))
    good = 0
    for row in rows:
        q = row.facts["scores"]["weak"]
        assert sum(q) == pytest.approx(1)
        assert row.facts["scores"]["gold"].index(1.0) == row.facts["right"]
        assert said(row.completions[row.facts["right"]]) == fact_of(row.prompt, asked_about).value
        good += q[row.facts["right"]] > 0.5
    assert near(good, 1 - feedback.NOISE)
    assert near(sum(row.facts["right"] for row in rows), 0.5)
