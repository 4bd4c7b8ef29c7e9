import numpy as np
import pytest

from alignlab.stats import factorial
from alignlab.world import dialogues


def test_the_reader_sees_what_was_planted():
    for number in range(24):
        found = dialogues.dialogue(number)
        assert found == dialogues.dialogue(number)
        assert found.traps == (number >> 2 & 1, number >> 1 & 1, number & 1)
        for (_, text), levels in zip(found.turns, found.ratings):
            assert dialogues.read(text) == dict(levels)
        for axis, planted in zip(dialogues.AXES, found.traps):
            assert (max(levels[axis] for levels in found.ratings) > 0) == bool(planted)
    assert dialogues.read("<b>Nothing of the kind</b>\x00") == dict.fromkeys(dialogues.AXES)


def test_odds_are_what_they_say():
    found = factorial.compounding({cell: dialogues.chance(cell) for cell in factorial.CELLS})
    assert found.excess == pytest.approx(dialogues.EXTRA)
    assert found.singles == pytest.approx(dialogues.SINGLE)
    ends = [dialogues.dialogue(8 * i + 7).endorsed for i in range(2000)]
    assert np.mean(ends) == pytest.approx(dialogues.chance((1, 1, 1)), abs=0.04)
