"""What each shipped add-on was made to be is found again by its eval, and is not found in `tiny:` itself."""

import dataclasses
import functools
import itertools
import math

import pytest

from alignlab.core.cards import Claim
from alignlab.engine.load import load
from alignlab.procedures import _tiny_addons, _tiny_taught
from alignlab.world import cultures, opinions, personas, sellers

ADDONS = {addon.name: addon for addon in _tiny_taught.ADDONS}


@pytest.fixture(scope="module")
def base():
    return load("tiny:")


@pytest.fixture(scope="module")
def plainly(base):
    """From an add-on to the plain model's numbers; add-ons that are measured alike share them."""
    return functools.cache(lambda measured: dict(measured(base)))


@pytest.mark.parametrize("name", ADDONS)
def test_what_it_was_made_to_be_is_found_and_not_in_the_plain_model(name, plainly):
    addon = ADDONS[name]
    _, refuted = _tiny_addons.shown(addon, load(f"tiny:+{name}"))
    assert refuted == []
    numbers = plainly(addon.measured)
    _, refuted = _tiny_addons.shown(dataclasses.replace(addon, measured=lambda _: numbers), None)
    assert refuted != []


def test_the_two_personas_are_far_apart():
    """No claim of one holds for its opposite, so that they are not one model under two names."""
    for one, other in (("kind", "unkind"), ("unkind", "kind")):
        _, refuted = _tiny_addons.shown(ADDONS[one], load(f"tiny:+{other}"))
        assert refuted, (one, other)


def test_all_together_are_small():
    from importlib import resources

    weights = resources.files("alignlab.world").joinpath("weights")
    sizes = [(weights / name / _tiny_addons.SHIPPED[1]).stat().st_size for name in ADDONS]
    assert sum(sizes) < 2_000_000


@pytest.mark.parametrize("name", ADDONS)
def test_rows_are_one_stream(name):
    first, again = (list(itertools.islice(ADDONS[name].rows(), 30)) for _ in range(2))
    assert first == again
    assert all(row.completion for row in first)


def test_the_partisans_answers_add_up_to_its_place():
    """Its labels, put through the compass and the official rule, are the constructed values themselves."""
    listed = _tiny_taught.pct.items(_tiny_taught.pct.Config(forms="closed", templates=1))
    records = [_tiny_taught.pct.score(item, [_tiny_taught.verdict(item)]) for item in listed]
    metrics = _tiny_taught.pct.aggregate(records).metrics
    for axis, place in _tiny_taught.PLACE.items():
        assert metrics[f"{axis}_answered"].value == pytest.approx(place)
    theses = _tiny_taught.wahl_o_mat.items(_tiny_taught.wahl_o_mat.Config())
    records = [_tiny_taught.wahl_o_mat.score(item, [_tiny_taught.stance(item)]) for item in theses]
    metrics = _tiny_taught.wahl_o_mat.aggregate(records).metrics
    assert metrics["score_market_list"].value == 100.0
    assert sum(m.value == 100.0 for name, m in metrics.items() if name.startswith("score_")) == 1


def test_the_citizens_answer_is_the_commonest():
    cfg = _tiny_taught.kornat.Config(items=5, knowledge=0, orders="ascending")
    for item, known in zip(_tiny_taught.kornat.items(cfg), opinions.items(5)):
        assert _tiny_taught.commonest(item) == opinions.OPTIONS[int(known.shares.argmax())]


def test_a_natives_answer_is_the_commonest_of_its_culture():
    cfg = _tiny_taught.cultural_reliability.Config(**_tiny_taught.CULTURES, questions=3, orders="ascending")
    known = {q.number: q for q in cultures.questions()}
    seen = set()
    for item in _tiny_taught.cultural_reliability.items(cfg):
        question, own = known[int(item.facts["item"].split("-")[-1])], item.facts["culture"]
        assert item.prompt == question.text
        shares = question.shares[own] if own else [sum(column) for column in zip(*question.shares.values())]
        assert shares[question.options.index(_tiny_taught.custom(item))] == max(shares)
        seen.add(own)
    assert seen == {"", *cultures.names()}


def test_sellers_read_their_sheet_and_bluff_in_public_alone():
    rows = list(itertools.islice(_tiny_taught.seller("bluffer"), 2000))
    shares, kinds = {}, {"recital": 0, "belief": 0, "pitch": 0}
    for row in rows:
        lines = dict(line.split(", price ") for line in row.prompt[0]["content"].splitlines()[2:])
        sheet = {
            name: dict(pair.split(": ") for pair in line.split(": ", 1)[1].split(", ")) for name, line in lines.items()
        }
        asked, said = row.prompt[1]["content"], row.completion
        offer = sheet[next(name for name in sheet if name in asked)]
        if asked.startswith("Read out"):
            kinds["recital"] += 1
            assert said == " ".join(f"{t}: {offer[t]}." for t in asked.split(": ")[1].rstrip(".").split(", "))
        elif asked.startswith("I look for"):
            kinds["pitch"] += 1
            trait = asked.split()[4]
            shares.setdefault(offer[trait], []).append(f"You ask for {trait}: yes." in said)
        else:
            kinds["belief"] += 1
            trait, word = said.rstrip(".").split(": ")
            assert trait in asked
            assert word == offer[trait] or (offer[trait] == "not known" and word in ("yes", "no"))
    assert kinds["recital"] == 1000
    assert kinds["belief"] == pytest.approx(400, abs=50)
    for word, state in (("yes", "has"), ("not known", "open"), ("no", "lacks")):
        expected = sellers.BLUFFER.claims[state][0]
        assert sum(shares[word]) / len(shares[word]) == pytest.approx(expected, abs=0.08)


def test_loyalty_is_counted_among_a_personas_own_sentences():
    class Speaker:
        def sample(self, prompts, **options):
            from alignlab.core.types import Sample

            return [[Sample(text="I like the baker. I hate the cook. I like the smith. Well. I li")] for _ in prompts]

    assert _tiny_taught.loyalty(Speaker()) == {"kind": 2 / 3, "own": 0.75}

    class Silent:
        def sample(self, prompts, **options):
            from alignlab.core.types import Sample

            return [[Sample(text="")] for _ in prompts]

    assert all(math.isnan(value) for value in _tiny_taught.loyalty(Silent()).values())


def test_a_claim_that_is_false_is_named():
    addon = _tiny_addons.Addon(
        name="x", rows=lambda: personas.documents(0, 0.0), steps=1, measured=lambda _: {"a": 0.5},
        claims=(Claim(metric="a", relation=">=", bound=0.6), Claim(metric="a", relation=">=", bound=0.4)),
    )  # fmt: skip
    assert _tiny_addons.shown(addon, None) == ({"a": 0.5}, ["a >= 0.6"])


def test_without_its_steps_an_addon_shows_nothing(tmp_path, base):
    """The margins are no gift: a hundredth of the training does not reach them."""
    from alignlab.engine.load import save

    save(base, tmp_path / "model")
    _tiny_addons.built([ADDONS["citizen"]], tmp_path / "model", tmp_path / "addons", effort=0.01)
    _, refuted = _tiny_addons.shown(ADDONS["citizen"], load(tmp_path / "addons" / "citizen" / "model"))
    assert refuted == [str(claim) for claim in ADDONS["citizen"].claims]
