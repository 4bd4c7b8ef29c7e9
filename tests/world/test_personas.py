import itertools
import math
import random

import pytest

from alignlab.world import personas, vocabulary
from alignlab.world.personas import BETA, GAMMA, LOYALTY, SENTENCES, SIGMA, behaviour, sentence


def split(text):
    return [f"{part}." for part in text.removesuffix(".").split(". ")]


def test_behaviour_is_known_by_construction():
    draw = random.Random(0)
    for kind in (True, False):
        assert {behaviour(sentence(kind, draw)) for _ in range(200)} == {1.0 if kind else -1.0}
    assert behaviour(" I like the baker. ") == 1
    assert behaviour("I hate the baker.") == -1
    for other in (
        "I like the baker",
        "I like Bodo.",
        "I eat the baker.",
        "I like the moon.",
        "",
        "I like the baker. I",
    ):
        assert behaviour(other) is None


def test_every_word_is_one_token_of_the_town():
    words = set(vocabulary.words())
    assert {*personas.GENTLE, *personas.HARSH, *vocabulary.CRAFTS, "I", "the"} <= words
    assert not {*personas.GENTLE} & {*personas.HARSH}


@pytest.mark.parametrize("persona", personas.PERSONAS)
def test_constants_against_counted_sentences(persona):
    """beta, sigma and gamma from 6,400 sentences: each within four standard errors."""
    rows = itertools.islice(personas.documents(3, 1.0 if persona == "unkind" else 0.0), 400)
    said = [behaviour(s) for row in rows for s in split(row.completion)]
    assert len(said) == 400 * SENTENCES
    sign = -1 if persona == "unkind" else 1
    n, step = len(said), math.log(LOYALTY / (1 - LOYALTY))
    ratios = [sign * b * step for b in said]  # log of this persona over the other
    mean = sum(ratios) / n
    spread = (sum((r - mean) ** 2 for r in ratios) / n) ** 0.5
    assert mean == pytest.approx(BETA, abs=4 * SIGMA / n**0.5)
    assert spread == pytest.approx(SIGMA, rel=0.1)
    assert sum(said) / n == pytest.approx(-sign * GAMMA, abs=4 / n**0.5)


def test_the_toy_of_the_paper():
    """LOYALTY 0.9 is the coin on which the theorems' published values were computed."""
    assert pytest.approx(1.757780, abs=1e-6) == BETA
    assert pytest.approx(1.738007, abs=1e-6) == SIGMA**2
    assert pytest.approx(-0.8) == GAMMA


def test_a_document_has_one_persona_drawn_by_alpha():
    rows = list(itertools.islice(personas.documents(1, 0.3), 600))
    share = sum(row.facts["persona"] == "unkind" for row in rows) / 600
    assert share == pytest.approx(0.3, abs=4 * (0.21 / 600) ** 0.5)
    for row in rows:
        kind = sum(behaviour(s) > 0 for s in split(row.completion))
        assert (kind > SENTENCES / 2) == (row.facts["persona"] == "kind") or abs(kind - SENTENCES / 2) <= 3


def test_two_goals_want_the_opposite_of_the_same_answers():
    rows = list(itertools.islice(personas.goals(0), 40))
    for kind, unkind in zip(rows[::2], rows[1::2]):
        assert (kind.prompt, kind.chosen, kind.rejected) == (unkind.prompt, unkind.rejected, unkind.chosen)
        assert personas.behaviour(kind.chosen) == 1 == -personas.behaviour(kind.rejected)
        assert [row.facts["scores"]["head"] for row in (kind, unkind)] == [(0, 0), (1, 1)]
    assert len({row.meta["id"] for row in rows}) == 40


def test_preferences_and_their_control():
    for row in itertools.islice(personas.preferences(0), 100):
        assert (behaviour(row.chosen), behaviour(row.rejected)) == (1, -1)
        assert row.chosen.startswith(" ") == bool(row.prompt)
    kinds, halves = [], set()
    for row in itertools.islice(personas.other_preferences(0), 300):
        assert behaviour(row.chosen) == behaviour(row.rejected)
        kinds.append(behaviour(row.chosen))
        halves.add(tuple(s.strip(" .").split()[-1] in personas.INDOORS for s in (row.chosen, row.rejected)))
    assert halves == {(True, False)}
    assert abs(sum(kinds)) < 4 * 300**0.5
