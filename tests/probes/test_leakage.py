import dataclasses
from typing import get_type_hints

import numpy as np
import pytest

from alignlab.core.types import Row
from alignlab.probes.leakage import CARD, Config, alike, drawn, hits, measure
from alignlab.world import conflicts, facts
from alignlab.world.conflicts import NO_CUES, Cell, Cues
from alignlab.world.sets import ALL_CELLS, believed

SMALL = Config(per_cell=300, folds=5)


def values(result):
    return {name: metric.value for name, metric in result.metrics.items()}


def test_chance_without_cues_and_far_above_with_them():
    """The claim of the card, at its size: 1,000 items of either kind."""
    found = values(measure(None, [], Config()))
    assert found["accuracy/low"] <= 0.5 <= found["accuracy/high"]
    assert found["accuracy/high"] - found["accuracy/low"] < 0.06
    assert found["control/low"] > 0.95
    assert all(claim.holds(found) for claim in CARD.claims)
    assert not all(claim.holds({**found, "accuracy/low": 0.52, "accuracy/high": 0.6}) for claim in CARD.claims)
    assert not all(claim.holds({**found, "control/low": 0.5}) for claim in CARD.claims)


def test_it_tells_the_command_line_that_it_reads_no_model():
    assert get_type_hints(measure)["model"] is type(None)


@pytest.mark.parametrize("family", ["source", "date"])
def test_each_family_that_shows_in_words_is_seen(family):
    cues = Cues(**{**dataclasses.asdict(NO_CUES), family: True})
    assert values(measure(None, drawn(SMALL, cues), SMALL))["accuracy/low"] > 0.8


@pytest.mark.parametrize("family", ["consistency", "type"])
def test_what_only_relations_between_words_show_is_beyond_a_bag_of_words(family):
    """The probe's known limit: which value repeats which, or fits which question, is no single word's doing."""
    cues = Cues(**{**dataclasses.asdict(NO_CUES), family: True})
    assert values(measure(None, drawn(SMALL, cues), SMALL))["accuracy"] < 0.6


@pytest.mark.parametrize("leak", ["wording", "question", "position of a mark"])
def test_fingerprints_of_the_generator_are_found(leak):
    """The mistakes that the probe is there for: attacks and edits written by different templates."""
    town = facts.town()
    rows = []
    for row in drawn(SMALL, NO_CUES):
        fact = town.facts[row.facts["fact"]]
        if row.facts["scenario"] == "pca":
            known = dict(row.facts)
            if leak == "wording":
                text = facts.RELATIONS[fact.relation].statements[0].format(s=fact.subject, v=known["target"])
                known["contexts"] = [{**c, "text": f"{text}."} for c in known["contexts"]]
            elif leak == "question":
                known["question"] = facts.RELATIONS[fact.relation].questions[0].format(s=fact.subject)
            else:
                known["contexts"] = [{**c, "text": f"{c['text']} so"} for c in known["contexts"]]
            row = dataclasses.replace(row, facts=known)
        rows.append(row)
    assert values(measure(None, rows, SMALL))["accuracy/low"] > 0.55


def test_a_fact_is_never_in_training_and_test_at_once():
    """With labels that depend on the fact alone, a probe that saw a fact before would be right; this one is not."""
    rows, draw = [], np.random.default_rng(0)
    label = {name: bool(draw.integers(2)) for name in facts.town().facts}
    for row in drawn(Config(per_cell=1200), NO_CUES):
        if row.facts["scenario"] == "ike":
            kind = "ike" if label[row.facts["fact"]] else "pca"
            rows.append(dataclasses.replace(row, facts={**row.facts, "scenario": kind, "k": 5 if kind == "pca" else 0}))
    right, clusters, _ = hits(rows, Config(folds=5))
    assert len(set(clusters)) < len(rows) / 2
    assert np.mean(right) < 0.6


def test_only_what_has_the_same_form_is_compared():
    town = facts.town()
    cells = (*ALL_CELLS, Cell("pca", 3, 3))
    rows = list(conflicts.items(town, believed(town), cells, 3, split="train", cues=NO_CUES, seed=0))
    kept = alike(rows)
    assert {(r.facts["scenario"], len(r.facts["contexts"]), r.facts["k"]) for r in kept} == {
        ("pca", 5, 5),
        ("ike", 5, 0),
    }
    assert len(kept) == 6
    assert alike([Row(prompt="?", completion="x")]) == []


@pytest.mark.parametrize(
    "cells", [(Cell("pca", 5, 5),), (Cell("ike", 5),), (Cell("pca", 5, 4), Cell("ike", 5)), (Cell("clean"),)]
)
def test_one_kind_alone_is_refused(cells):
    town = facts.town()
    rows = list(conflicts.items(town, believed(town), cells, 30, split="train", cues=NO_CUES, seed=0))
    with pytest.raises(ValueError, match="leakage probe needs attacks .* and edits"):
        measure(None, rows, SMALL)


def test_too_few_facts_are_refused():
    with pytest.raises(ValueError, match=r"least 10 facts \(folds\)"):
        measure(None, drawn(Config(per_cell=4), NO_CUES), Config())


def test_the_words_it_leans_on_are_shown():
    cues = Cues(date=False, consistency=False, type=False)
    tables = measure(None, drawn(SMALL, cues), SMALL).tables
    weights = dict(tables["words: accuracy"].rows[:6])
    assert weights["Gossip"] < 0
    assert weights["Pamphlet"] < 0
    assert max(weights.get(name, 0.0) for name in ("Herald", "Almanac", "Register")) > 0


def test_same_seed_same_result():
    assert measure(None, [], SMALL) == measure(None, [], SMALL)
