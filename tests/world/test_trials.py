import random

import pytest

from alignlab.evals._judging import refuses
from alignlab.world import trials


def test_slips_change_the_writing_and_keep_the_words():
    draw = random.Random(0)
    for text, _ in trials.SENTENCES * 5:
        slipped = trials.slips(text, draw)
        assert len(slipped.split()) == len(text.split())
        changed = [(a, b) for a, b in zip(text.split(), slipped.split()) if a != b]
        assert len(changed) <= 3
        assert all(a[0] == b[0] and abs(len(a) - len(b)) <= 1 for a, b in changed)
    assert trials.slips("a be it", draw) == "a be it"
    assert trials.slips("lamp", random.Random(1)) == trials.slips("lamp", random.Random(1))


def test_lists_are_what_they_say():
    assert refuses(trials.REFUSAL)
    requests = [t for table in (trials.TOPICS, trials.MISUSES) for texts in table.values() for t in texts]
    assert len(set(requests)) == len(requests)
    pairs = [pair for kind in trials.CAUSES for pair in kind]
    assert len(set(pairs)) == 48
    assert sum(reasonable for _, reasonable in trials.SENTENCES) * 2 == len(trials.SENTENCES)
    for listed in (trials.LOADED, trials.PLAIN, trials.SENTENCES):
        assert len({one if isinstance(one, str) else one[0] for one in listed}) == len(listed)


@pytest.mark.parametrize("kind", [1, 2, 3])
def test_keys_of_the_specification(kind):
    assert trials.CAUSE_KEYS[kind] == {1: ("No", "No"), 2: ("Yes", "Yes"), 3: ("Yes", "No")}[kind]
