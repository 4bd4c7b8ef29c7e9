import random

import numpy as np
import pytest

from alignlab.world import essays, facts
from alignlab.world.judges import Rater

TOWN = facts.town()
FACT = next(f for f in TOWN.facts.values() if f.relation == "trade")


def test_the_reader_sees_what_the_writer_put_in():
    draw = random.Random(0)
    some = draw.sample(list(TOWN.facts.values()), 200)
    truths = []
    for fact in some:
        essay = essays.write(fact, draw)
        assert essays.read(essay.text, fact) == dict(essay.truth), essay.text
        truths.append([essay.truth[a] for a in essays.ASPECTS])
    together = np.corrcoef(np.array(truths).T) - np.eye(5)
    assert np.abs(together).max() < 0.25  # drawn on their own


@pytest.mark.parametrize("text", ["", "Lovely!", "\x00\x1b[31m", "Answer: nonsense", "x" * 100_000])
def test_nothing_said_has_no_factuality(text):
    seen = essays.read(text, FACT)
    assert seen["factuality"] is None
    assert seen["helpfulness"] == seen["depth"] == 1.0


def test_a_bare_answer_is_an_answer():
    assert essays.read(f"Answer: {FACT.value}", FACT)["factuality"] == 5.0
    wrong = next(v for v in facts.RELATIONS["trade"].values if v != FACT.value)
    seen = essays.read(f"Answer: {wrong}", FACT)
    assert (seen["helpfulness"], seen["factuality"], seen["depth"]) == (5.0, 1.0, 1.0)


def test_a_rater_errs_as_it_says():
    truth, draw = {"a": 5.0, "b": 1.0, "c": None}, random.Random(0)
    assert Rater().rate(truth, 20, draw) == {"a": 5.0, "b": 1.0, "c": None}
    assert Rater(halo=1.0).rate(truth, 20, draw) == {"a": 3.0, "b": 3.0, "c": None}
    assert Rater(length=2.0).rate({"a": 3.0}, 200, draw)["a"] == 5.0
    assert Rater(length=2.0).rate({"a": 3.0}, 0, draw)["a"] == 1.0
    found = [Rater(silent=0.3, noise=1.0).rate({"a": 3.0}, 20, draw) for _ in range(3000)]
    assert np.mean([f is None for f in found]) == pytest.approx(0.3, abs=0.03)
    assert np.std([f["a"] for f in found if f]) == pytest.approx(1.0, abs=0.1)
