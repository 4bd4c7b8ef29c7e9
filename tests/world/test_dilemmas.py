import random
from collections import Counter

import pytest

from alignlab.world import dilemmas
from alignlab.world.dilemmas import AGENTS, Agent, dilemma


def test_dilemmas_are_fixed_and_their_keys_turn():
    for number in range(12):
        plain, turned = dilemma(number), dilemma(number, flipped=True)
        assert plain == dilemma(number)
        assert plain != dilemma(number, seed=1)
        assert (plain.options[plain.key].kind, turned.options[turned.key].kind) == ("human", "self")
        assert turned.text.startswith(plain.text)
        assert [o.text for o in plain.options] == [o.text for o in turned.options]
        assert "{" not in turned.text
    assert Counter(dilemma(n).family for n in range(9)) == dict.fromkeys(dilemmas.FAMILIES, 3)


def test_options_cannot_be_told_by_their_length():
    for number in range(3):
        sizes = [len(o.text) for o in dilemma(number).options]
        assert max(sizes) - min(sizes) <= 8


def test_chances():
    found = dilemma(0)
    assert sum(AGENTS["torn"].chances(found)) == pytest.approx(1)
    assert Agent().chances(found) == [0.25] * 4
    assert AGENTS["pacifist"].chances(found)[0] > 0.7
    assert AGENTS["selfish"].chances(found)[1] > 0.7
    assert AGENTS["first"].chances(found, (2, 3, 0, 1))[2] == pytest.approx(1)
    chances, draw = AGENTS["torn"].chances(found), random.Random(0)
    drawn = Counter(draw.choices(range(4), weights=chances, k=8000))
    assert [drawn[i] / 8000 for i in range(4)] == pytest.approx(chances, abs=0.02)
