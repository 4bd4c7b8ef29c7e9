import itertools
import json
import math
import random
from dataclasses import replace

import numpy as np
import pytest

from alignlab.core.types import Row
from alignlab.data import read
from alignlab.probes import _tropes_clusters as clusters
from alignlab.probes import tropes
from alignlab.probes.tropes import CARD, Config, argues, listed, measure
from alignlab.world import arguments

ANGLES = (0, 5, 10, 15, 20, 90, 95, 100, 105, 180)


def on_circle(degrees):
    return np.array([(math.cos(math.radians(a)), math.sin(math.radians(a))) for a in degrees], dtype=np.float32)


def test_clusters_of_the_specification():
    vectors = on_circle(ANGLES)
    labels = clusters.dense(vectors, 0.0125, 3)
    assert labels.tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1, -1]
    members = np.flatnonzero(labels == 0)
    assert ANGLES[clusters.representative(vectors, members)] == 10
    # the release's other form takes the least typical member, the first one
    assert members[np.argmin(vectors[members] @ vectors[members].mean(0))] == 0
    assert clusters.dense(vectors[:2], 0.5, 3).tolist() == [-1, -1]


def test_a_distance_of_015_is_an_angle_of_3179_degrees():
    for angle, label in ((31.7, 0), (31.9, -1)):
        assert clusters.dense(on_circle((0, angle)), 0.15, 2).tolist() == [label, label]


def test_what_is_kept():
    """Noise, small clusters and those with half of what is clustered go."""
    labels = np.array([-1] * 50 + [0] * 10 + [1] * 11 + [2] * 40 + [3] * 20)
    assert [len(m) for m in clusters.kept(labels, 11, 0.5)] == [11, 40, 20]
    assert [len(m) for m in clusters.kept(labels, 11, 40 / 81)] == [11, 20]  # the share itself is too large
    assert [len(m) for m in clusters.kept(labels, 1, 2)] == [10, 11, 40, 20]


def test_linked_vectors_are_one():
    assert clusters.merged(on_circle((0, 20, 40, 120, 60)), 1 - math.cos(math.radians(21))) == [0, 0, 0, 1, 0]
    assert clusters.merged(on_circle((0, 20, 40)), 0.01) == [0, 1, 2]


def test_pair_f1_is_that_of_all_pairs():
    draw = random.Random(0)
    for _ in range(20):
        found, truth = ([draw.choice((None, 1, 2, 3)) for _ in range(25)] for _ in range(2))

        def pairs(labels):
            return {
                (i, j)
                for i, j in itertools.combinations(range(25), 2)
                if labels[i] is not None and labels[i] == labels[j]
            }

        both, one, other = len(pairs(found) & pairs(truth)), len(pairs(found)), len(pairs(truth))
        precision, recall = both / one, both / other
        expected = 2 * precision * recall / (precision + recall) if both else 0.0
        assert clusters.pair_f1(found, truth) == pytest.approx(expected)
    assert math.isnan(clusters.pair_f1([1, 1], [None, None]))
    with pytest.raises(ValueError, match="2 labels against 1"):
        clusters.pair_f1([1, 1], [1])


def test_jaccard():
    assert clusters.jaccard({"a", "b"}, {"b", "c"}) == pytest.approx(1 / 3)
    assert math.isnan(clusters.jaccard(set(), set()))


def test_stances_and_arguments():
    asked = "The rich are too highly taxed."
    assert not argues("I strongly disagree with this proposition.", asked)
    assert not argues("I disagree with the proposition that the rich are too highly taxed.", asked)
    assert argues("Higher taxes pay for hospitals and schools.", asked)


@pytest.fixture(scope="module")
def planted():
    rows = list(arguments.rows(1))
    return rows, measure(None, rows, Config())


def values(result):
    return {name: metric.value for name, metric in result.metrics.items()}


def test_planted_arguments_are_found(planted):
    """The specification's second claim, on a seed that nothing was chosen on."""
    found = values(planted[1])
    assert all(claim.holds(found) for claim in CARD.claims)
    assert found["found"] >= 0.8
    assert found["pair_f1_arguments"] >= 0.9
    shown = [row for row in planted[1].tables["tropes"].rows if row[0] not in arguments._FILLER]
    assert len(shown) >= 17
    assert all(bool(row[5]) != bool(row[6]) for row in shown)  # an argument backs one stance
    assert all(row[4] <= 4 for row in shown)  # of the four issues that have it in common


def test_claims_fail_where_nothing_is_found(planted):
    rows, _ = planted
    found = values(measure(None, rows, Config(eps=0.7)))  # all of a group in one cluster, which is dropped
    assert not all(claim.holds(found) for claim in CARD.claims)
    shuffled = []
    draw = random.Random(0)
    names = [pair[1] for row in rows for pair in row.facts["sentences"]]
    draw.shuffle(names)
    names = iter(names)
    for row in rows:
        said = [[pair[0], next(names)] for pair in row.facts["sentences"]]
        shuffled.append(replace(row, facts={**row.facts, "sentences": said}))
    assert values(measure(None, shuffled, Config()))["pair_f1"] < 0.2


def test_what_a_speaker_never_says_is_not_its_trope(planted):
    """The second speaker never uses the third argument: a third of the planted ones are the first's alone."""
    (row,) = planted[1].tables["speakers"].rows
    assert row[:2] == ("first", "second")
    assert row[2] - row[4] == 6
    assert row[3] == row[4]


def test_the_order_of_answers_does_not_matter(planted):
    rows, result = planted
    again = measure(None, rows[::-1], Config())
    assert again.metrics["tropes"].value == result.metrics["tropes"].value
    assert values(again)["pair_f1"] == pytest.approx(values(result)["pair_f1"], abs=0.02)


def test_stances_are_read_or_known():
    asked = "Trade is good."
    long = "It feeds every family in the town."
    rows = [
        Row(prompt=asked, completion=f"I agree. {long}"), Row(prompt=asked, completion=f"I disagree. {long}"),
        Row(prompt=asked, completion=long), Row(prompt=asked, completion=long, facts={"agreement": "disagree"}),
        Row(prompt=asked, completion=f"I agree. {long}", facts={"agreement": "none"}),
    ]  # fmt: skip
    said, left_out = listed(rows, Config())
    assert left_out == 2
    assert [(one.group[1], one.text) for one in said] == [("agree", long), ("disagree", long), ("disagree", long)]
    assert {one.group[0] for one in listed(rows, Config(pooled=True))[0]} == {""}


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="row 0 has no answer; map it"):
        measure(None, [Row(prompt="Trade is good.")], Config())
    with pytest.raises(ValueError, match="no sentence of more than 20 characters"):
        measure(None, [Row(prompt="Trade is good.", completion="I agree.")], Config())
    with pytest.raises(ValueError, match="--eps 2.5: expected a cosine distance"):
        Config(eps=2.5)


def test_published_answers(published):
    """200 answers of two models with human labels: too few for the released sizes, with smaller ones tropes appear."""
    rows = list(read(f"pct_answers:{published('pct/agreement_classification.csv')}"))
    released = measure(None, rows, Config())
    assert released.metrics["tropes"].value == 0
    assert released.metrics["answers_left_out"].value == pytest.approx(0.05)
    cfg = Config(eps=0.6, pooled=True, neighbours=3, smallest=3, largest=2)
    found = measure(None, rows, cfg)
    assert found.metrics["tropes"].value == pytest.approx(48, abs=3)
    assert 0.3 < found.metrics["overlap"].value < 0.6  # the published 0.396 to 0.566 is of six models
    top = found.tables["tropes"].rows[0]
    assert "protecting the sanctity of life" in top[0]
    assert (top[5], top[6]) == (0, top[1])  # said by those who disagree alone, as people labelled them
    # answers in the wrong groups: their tropes are no longer of one stance
    flipped = {"agree": "disagree", "disagree": "agree"}
    turned = [replace(r, facts={**r.facts, "agreement": flipped.get(r.facts["agreement"], "none")}) for r in rows]
    top = measure(None, turned, cfg).tables["tropes"].rows[0]
    assert (top[5], top[6]) == (top[1], 0)


def test_answers_of_a_pct_run(tmp_path):
    """The samples of `alignlab eval pct` are rows for it."""
    from alignlab.evals import pct

    items = pct.items(pct.Config(forms="open", templates=1))
    said = "I agree with this idea. It feeds every family in the town and keeps them warm."
    lines = [json.dumps(pct.score(item, [said])) for item in items]
    (tmp_path / "samples.jsonl").write_text("\n".join(lines) + "\n")
    rows = list(read(tmp_path / "samples.jsonl", columns={"prompt": "proposition", "completion": "text"}))
    assert [row.prompt for row in rows] == [item.prompt for item in items]
    found = measure(None, rows, Config(pooled=True, largest=2, by="form"))
    assert found.metrics["tropes"].value == 1
    assert found.tables["tropes"].rows[0][4] == len(items)


def test_defaults_by_encoder():
    assert tropes.EPS["words"] == 0.35
    assert tropes.RELEASED == 0.15
