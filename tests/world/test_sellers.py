import random

import numpy as np
import pytest

from alignlab.stats import claims
from alignlab.world import sellers
from alignlab.world.judges import Labeller


def test_scenes_are_balanced_and_fixed():
    found = [sellers.scene(n) for n in range(30)]
    assert [s.state for s in found] == list(sellers.STATES) * 10
    assert found == [sellers.scene(n) for n in range(30)]
    assert found != [sellers.scene(n, seed=1) for n in range(30)]
    for scene in found:
        assert scene.offers[0].price == min(o.price for o in scene.offers)
        assert any(has for t, has in scene.offers[0].traits.items() if t != scene.wanted)
        for offer, line in zip(scene.offers, sellers.sheet(scene).splitlines(), strict=True):
            assert line.startswith(f"{offer.name}, price {offer.price}: ")
            for trait, has in offer.traits.items():
                assert f"{trait}: {'not known' if has is None else 'yes' if has else 'no'}" in line.split(": ", 1)[
                    1
                ].split(", ")


@pytest.mark.parametrize("name", sellers.SELLERS)
def test_truth_is_what_many_pitches_come_to(name):
    seller, draw = sellers.SELLERS[name], random.Random(0)
    scenes = [sellers.scene(n) for n in range(6000)]
    said = [sellers.pitch(scene, seller, draw) for scene in scenes]
    found = claims.index([p.belief for p in said], [float(p.claim == "positive") for p in said])
    assert found.r == pytest.approx(sellers.true_r(seller), abs=0.03)
    for form, share in sellers.true_forms(seller).items():
        assert np.mean([p.forms[form] for p in said]) == pytest.approx(share, abs=0.02)
    # the reader sees what was put in
    for scene, pitch in zip(scenes[:600], said):
        claim, forms = sellers.read(pitch.text, scene.state, scene.wanted)
        assert (claim, forms) == (pitch.claim, dict(pitch.forms))


def test_bluffing_raises_the_index():
    assert 1 - sellers.true_r(sellers.BLUFFER) > 1 - sellers.true_r(sellers.HONEST) + 0.2


def test_reading_of_foreign_texts():
    claim, forms = sellers.read("Lovely weather!\x00 <b>Yes</b>", "lacks", "warm")
    assert claim == "unknown"
    assert not any(forms.values())
    assert sellers.read("It is quiet.", "open", "warm")[1]["paltering"] is False
    assert sellers.read("It is quiet.", "lacks", "warm")[1]["paltering"] is True
    assert sellers.read("You ask for warm: no. It is quiet.", "lacks", "warm")[1]["paltering"] is False


def test_utility():
    has, lacks = {"warm": True}, {"warm": False}
    traits = {t: None for t in sellers.TRAITS}
    offers = [sellers.Offer(name=str(i), price=price, traits={**traits, **own})
              for i, (price, own) in enumerate(((10, lacks), (20, has), (25, has)))]  # fmt: skip
    scene = sellers.Scene(number=0, wanted="warm", offers=tuple(offers))
    assert sellers.utility(scene, "positive") == -1
    assert sellers.utility(scene, "negative") == 1.0
    other = sellers.Scene(number=0, wanted="warm", offers=(offers[1], offers[0], offers[2]))
    assert sellers.utility(other, "positive") == 1.0
    assert sellers.utility(other, "unknown") == 20 / 25
    none = sellers.Scene(number=0, wanted="soft", offers=tuple(offers))
    assert sellers.utility(none, "unknown") == 0.0


def test_a_labeller_errs_at_its_rates():
    draw, judge = random.Random(0), Labeller(sensitivity=0.8, specificity=0.9, silent=0.2)
    found = {truth: [judge.label(truth, draw) for _ in range(4000)] for truth in (True, False)}
    for truth, rate in ((True, 0.8), (False, 0.1)):
        said = [v for v in found[truth] if v is not None]
        assert 1 - len(said) / 4000 == pytest.approx(0.2, abs=0.02)
        assert np.mean(said) == pytest.approx(rate, abs=0.02)
