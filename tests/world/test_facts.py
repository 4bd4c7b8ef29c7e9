import math
from collections import Counter

import pytest
from scipy import stats

from alignlab.world import facts
from alignlab.world.facts import BANDS, HELD_OUT_RELATIONS, MAX_FREQUENCY, MEMORY_YEAR, RELATIONS, Fact, band


def test_one_seed_one_town(town):
    facts.town.cache_clear()
    again, other = facts.town(0), facts.town(1)
    assert again is not town
    assert again == town
    assert other.facts != town.facts
    assert other.train_subjects != town.train_subjects


def test_size(town):
    assert len(town.facts) == 160 * 8
    assert Counter(f.relation for f in town.facts.values()) == dict.fromkeys(RELATIONS, 160)
    for fact in town.facts.values():
        assert fact.value in RELATIONS[fact.relation].values


def test_split_is_by_subject_and_by_relation(town):
    subjects = {}
    for fact in town.facts.values():
        subjects.setdefault(town.split(fact), set()).add(fact.subject)
    assert subjects["train"].isdisjoint(subjects["test"] | subjects["relation"])
    assert len(subjects["train"]) == len(subjects["test"]) == 80
    held = {town.split(f) for f in town.facts.values() if f.relation in HELD_OUT_RELATIONS}
    assert held == {"none", "relation"}
    assert {town.split(f) for f in town.facts.values() if f.relation not in HELD_OUT_RELATIONS} == {"train", "test"}


def test_frequencies_are_log_uniform(town):
    """Among facts written about, round(exp(U)) with U uniform on [0, log 64]; some 8 % are never written about."""
    found = [f.frequency for f in town.facts.values()]
    unwritten = sum(f == 0 for f in found)
    assert stats.binomtest(unwritten, len(found), 0.08).pvalue > 0.001
    edges = (0.5, 1.5, 3.5, 7.5, 15.5, 31.5, 64.5)
    counts = [sum(low < f < high for f in found) for low, high in zip(edges, edges[1:])]

    def below(edge):
        return min(1.0, max(0.0, math.log(edge) / math.log(MAX_FREQUENCY)))

    expected = [(below(high) - below(low)) * sum(counts) for low, high in zip(edges, edges[1:])]
    assert stats.chisquare(counts, expected).pvalue > 0.001


def test_changes_lie_within_memory(town):
    changed = [f for f in town.facts.values() if f.changed is not None]
    assert stats.binomtest(len(changed), len(town.facts), 0.15).pvalue > 0.001
    for fact in changed:
        assert 1 < fact.changed < MEMORY_YEAR
        assert fact.former != fact.value
        assert fact.value_at(fact.changed - 1) == fact.former
        assert fact.value_at(fact.changed) == fact.value_at(MEMORY_YEAR) == fact.value


def test_an_unchanged_fact_never_had_another_value():
    fact = Fact("Ada", "home", "Rome", 3)
    assert {fact.value_at(year) for year in range(1, MEMORY_YEAR + 1)} == {"Rome"}


def test_values_say_nothing_of_the_split(town):
    """Relation by relation, values are spread alike over training and test subjects (no leak of the split)."""
    table = [Counter(), Counter()]
    for fact in town.facts.values():
        table[town.split(fact) in ("test", "relation")][fact.value] += 1
    values = sorted(set(table[0]) | set(table[1]))
    assert stats.chi2_contingency([[side[v] for v in values] for side in table]).pvalue > 0.001


def test_every_frequency_has_one_band():
    assert [band(f) for f in (0, 1, 3, 4, 15, 16, 64)] == [BANDS[i] for i in (0, 1, 1, 2, 2, 3, 3)]
    for frequency in range(MAX_FREQUENCY + 1):
        assert sum(low <= frequency <= high for low, high in BANDS) == 1
    with pytest.raises(StopIteration):
        band(MAX_FREQUENCY + 1)


def test_wordings():
    for relation in RELATIONS.values():
        assert (len(relation.statements), len(relation.unseen_statements), len(relation.questions)) == (4, 2, 4)
        assert len(set(relation.statements + relation.unseen_statements)) == 6
        assert len(relation.values) == 24 == len(set(relation.values))
        for wording in relation.statements + relation.unseen_statements:
            assert wording.count("{s}") == wording.count("{v}") == 1
        for question in relation.questions:
            assert question.count("{s}") == 1
            assert "{v}" not in question
            assert question.endswith("?")
    every = [q for r in RELATIONS.values() for q in r.questions]
    assert len(set(every)) == len(every)
