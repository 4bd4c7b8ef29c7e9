import itertools

from alignlab.world import facts, rows
from alignlab.world.solutions import SLIP, STEPS


def test_labels_say_which_steps_are_right():
    town = {fact.value for fact in facts.town().facts.values()}
    found = list(rows("steps", 3, 300))
    assert found == list(rows("steps", 3, 300))
    assert found != list(rows("steps", 4, 300))
    for row in found:
        gold, labels = row.facts["gold"], row.facts["labels"]
        assert STEPS[0] <= len(row.completions) == len(gold) == len(labels) <= STEPS[1]
        assert [step == f"Answer: {value}" for step, value in zip(row.completions, gold)] == labels
        assert row.facts["correct"] == all(labels)
        assert set(gold) <= town
    every = list(itertools.chain.from_iterable(row.facts["labels"] for row in found))
    assert abs(1 - SLIP - sum(every) / len(every)) < 0.06
    assert {row.facts["correct"] for row in found} == {True, False}
