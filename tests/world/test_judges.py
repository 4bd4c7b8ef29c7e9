import random

import pytest

from alignlab.world.judges import Judge, of, quality


def rates(judge, gap, extra, side, n=4000):
    draw = random.Random(0)
    found = [judge.compare(gap, extra, side, draw) for _ in range(n)]
    said = [g for g in found if g is not None]
    return 1 - len(said) / n, sum(g > 0 for g in said) / len(said)


def test_verdicts_follow_the_logit():
    judge = Judge(quality=2.0, length=1.0, order=0.5, silent=0.1)
    assert judge.logit(1, 0, 1) == 2.5
    silent, won = rates(judge, 0.5, 0, -1)
    assert silent == pytest.approx(0.1, abs=0.02)
    assert won == pytest.approx(1 / (1 + 2.718281828**-0.5), abs=0.03)


def test_even_odds_are_a_tie_and_clear_ones_strong():
    draw = random.Random(1)
    assert Judge().compare(0, 0, 1, draw) == 0
    clear = [Judge(quality=9.0).compare(1, 0, 1, draw) for _ in range(50)]
    assert set(clear) == {2}


def test_length_bends():
    judge = Judge(length=1.0)
    assert judge.logit(0, 4000, 1) == pytest.approx(1.0)
    assert judge.logit(0, -40, 1) == pytest.approx(-0.761594, abs=1e-6)


@pytest.mark.parametrize(("text", "right"), [("Answer: Rome", 1), ("rome.", 1), ("Answer: Oslo", 0), ("", 0)])
def test_quality(text, right):
    assert quality(text, "Rome") == right


def test_items_name_their_judge():
    assert of({"judge": {"order": 0.3}}) == Judge(order=0.3)
    assert of({}) is None
    with pytest.raises(TypeError):
        of({"judge": {"mood": 1}})
