import itertools

import pytest

from alignlab import world
from alignlab.core import evidence
from alignlab.core.answers import final_answer
from alignlab.world import facts, grammar, sets


@pytest.mark.parametrize("name", sets.SETS)
def test_same_seed_same_bits_and_the_limit(name):
    rows = list(world.rows(name, seed=1, limit=30))
    assert len(rows) == 30
    assert rows == list(world.rows(name, seed=1, limit=30))
    assert rows != list(world.rows(name, seed=2, limit=30))


def test_two_thousand_rows_by_default():
    assert sum(1 for _ in world.rows("pairs")) == sets.DEFAULT_ROWS == 2000


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(LookupError, match=f"'nothing'.*{', '.join(sorted(sets.SETS))}"):
        world.rows("nothing")


def test_conflict_rows_are_for_training(town):
    rows = list(world.rows("conflicts", limit=240))
    cells = [cell.name for cell in sets.ALL_CELLS]
    assert [row.facts["cell"] for row in rows] == cells * 20
    assert len({row.meta["id"] for row in rows}) == len(rows)
    for row in rows:
        fact = town.facts[row.facts["fact"]]
        assert fact.subject in town.train_subjects
        assert fact.relation not in facts.HELD_OUT_RELATIONS
        assert len(row.facts["contexts"]) not in (3, 8)
        assert row.prompt != grammar.question(fact, -1)


def test_cells_for_training_never_have_three_or_eight_passages():
    cells = sets.tuning_cells(sets.POISONED)
    assert {cell.n for cell in cells} == {1, 2, 4, 5, 6, 7, 9}
    assert {cell.n for cell in cells if cell.scenario == "unknown"} == {4, 5, 6}
    assert len(set(cells)) == len(cells)
    assert sets.tuning_cells(()) == sets.ALL_CELLS
    attacks = [cell.ratio for cell in sets.ALL_CELLS if cell.scenario == "pca"]
    assert attacks == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert {cell.scenario for cell in sets.ALL_CELLS} == {"clean", "pca", "ike", "mixed", "unknown"}


def test_few_attacks_are_some_of_the_sizes_own_and_leave_the_rest():
    assert sets.FEW.keys() == sets.POISONED.keys()
    many, few = (set(sets.tuning_cells(sets.POISONED, few=few)) for few in (False, True))
    assert {c for c in few if c.scenario != "pca"} == {c for c in many if c.scenario != "pca"}
    shares = [sum(c.scenario == "pca" for c in cells) / len(cells) for cells in (many, few)]
    assert shares == [22 / 41, 11 / 30]


@pytest.mark.parametrize("few", [False, True])
@pytest.mark.parametrize("n", sets.POISONED)
def test_every_size_brings_attacks_edits_and_clean_items(n, few):
    more = set(sets.tuning_cells((n,), few=few)) - set(sets.ALL_CELLS)
    assert {cell.n for cell in more} == {n}
    assert {cell.scenario for cell in more} >= {"clean", "pca", "ike"}
    assert all(1 <= cell.k <= n for cell in more if cell.scenario == "pca")


def test_sizes_in_any_order_make_the_same_items():
    assert sets.tuning_cells((9, 2)) == sets.tuning_cells((2, 9))
    with pytest.raises(LookupError, match="expected some of 2, 4, 6, 7, 9 passages, got 3$"):
        sets.tuning_cells((3, 4))


def test_what_a_reader_remembers(town):
    believed = sets.believed(town)
    for fact in town.facts.values():
        probe = believed[fact.id]
        assert probe.answer == (fact.value if fact.frequency else None)
        assert (probe.confidence > 0.5) == bool(fact.frequency)
    ordered = sorted(town.facts.values(), key=lambda f: f.frequency)
    confidences = [believed[f.id].confidence for f in ordered]
    assert confidences == sorted(confidences)
    assert confidences[-1] == 1.0


def test_pairs_prefer_the_truth(town):
    values = {grammar.question(f, i): f for f in town.facts.values() for i in range(3)}
    for row in itertools.islice(sets.pairs(0), 200):
        fact = values[evidence.text_of(row.prompt)]
        assert final_answer(row.chosen, "Answer:") == fact.value
        assert final_answer(row.rejected, "Answer:") != fact.value
        assert final_answer(row.rejected, "Answer:") in facts.RELATIONS[fact.relation].values
        assert fact.frequency > 0


def test_questions_are_one_turn_each(town):
    values = {grammar.question(f, i): f.value for f in town.facts.values() for i in range(3)}
    for row in world.rows("questions", limit=50):
        (turn,) = row.prompt
        assert row.completion == f"Answer: {values[turn['content']]}"
