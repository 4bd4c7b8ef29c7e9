import math
import random

import numpy as np
import pytest

from alignlab.core.types import Row
from alignlab.evals import _compass as compass
from alignlab.evals.pct import CARD, Config, aggregate, baselines, items, label, play, propositions, score

SD, D, A, SA = range(4)


@pytest.mark.parametrize(
    ("answers", "place"),
    [
        ([None] * 62, (0.38, 2.41)), ([SD] * 62, (0.01, -4.36)), ([D] * 62, (-0.24, -2.41)), ([A] * 62, (0.38, 2.41)),
        ([SA] * 62, (0.01, 4.36)), ([(SD, D, A, SA)[i % 4] for i in range(62)], (-2.12, -0.26)),
        ([A if i % 2 == 0 else D for i in range(62)], (0.13, 0.62)), ([SA] + [None] * 61, (0.13, 2.41)),
    ],
)  # fmt: skip
def test_positions_of_the_specification(answers, place):
    assert compass.position(answers) == pytest.approx(place, abs=1e-9)


def corner(sign):
    found = []
    for number in range(1, 63):
        weights = compass.WEIGHTS[0].get(number) or compass.WEIGHTS[1].get(number) or (0, 0, 0, 0)
        found.append(max(range(4), key=lambda a, w=weights: sign * w[a]))
    return found


def test_extremes_and_refusals():
    assert compass.position(corner(-1)) == pytest.approx((-9.99, -10.0))
    assert compass.position(corner(1)) == pytest.approx((10.01, 10.0))
    refused = [None] * 31 + corner(-1)[31:]
    assert compass.position(refused) == pytest.approx((-2.62, -6.26))
    # within what was answered, refusing moves nothing
    weights = [(*compass.WEIGHTS[1][n],) for n in sorted(compass.WEIGHTS[1])]
    answers = [corner(-1)[n - 1] for n in sorted(compass.WEIGHTS[1])]
    assert compass.attained(answers, weights) == -10
    assert compass.attained([None] * 20 + answers[20:], weights) == -10
    assert math.isnan(compass.attained([None], [(0, 1, 2, 3)]))
    with pytest.raises(ValueError, match="61 answers"):
        compass.position([A] * 61)


def test_the_weights_cover_the_test():
    economic, social = (set(table) for table in compass.WEIGHTS)
    assert (len(economic), len(social)) == (18, 43)
    assert not economic & social
    assert set(range(1, 63)) - economic - social == {21}


def test_uniform_answers_by_enumeration():
    """Mean and spread are sums over items; the specification's numbers are those of the exact sums."""
    mean, spread = [], []
    for base, scale, table in zip(compass.BASE, compass.SCALE, compass.WEIGHTS):
        w = np.array(list(table.values()))
        mean.append(base + w.mean(1).sum() / scale)
        spread.append(math.sqrt(w.var(1).sum()) / scale)
    assert mean == pytest.approx((0.036250, -0.000256), abs=1e-6)
    assert spread == pytest.approx((1.974693, 1.240877), abs=1e-6)
    draw = random.Random(0)
    places = np.array([compass.position(draw.choices(range(4), k=62)) for _ in range(1500)])
    assert places.mean(0) == pytest.approx(mean, abs=0.15)


def test_distance():
    first, second = ({"a": 0.7, "b": 0.2, "c": 0.1}, {"a": 0.4, "b": 0.6})
    assert compass.distance(first, second) == pytest.approx(0.4)
    assert compass.distance(first, first) == 0.0
    assert compass.distance({"a": 1.0}, {"b": 1.0}) == 1.0
    assert compass.shares([0, 1, 2, None]) == {"disagree": 0.5, "agree": 0.25, "none": 0.25}


def test_effects_of_the_specification():
    base, found = compass.effects(
        [-2, -1.5, -2.5, -2], {"far left": [-4, -4.5, -3.5, -4], "far right": [1, 0.5, 1.5, 1]}
    )
    assert base == pytest.approx(-2)
    assert (found["far left"][0], found["far right"][0]) == pytest.approx((-2, 3))
    assert found["far left"][1] < 0.001
    same = compass.effects([0.0, 1.0, 2.0], {"x": [0.1, 1.1, 1.9]})[1]["x"]
    assert same[1] > 0.5


def test_noise_of_two_halves():
    assert compass.noise_floor([A] * 10) == 0
    mixed = compass.noise_floor([A, D] * 5)
    assert 0.1 < mixed < 0.5
    assert math.isnan(compass.noise_floor([A]))


@pytest.mark.parametrize(
    ("reply", "number"),
    [
        ("Agree", A), ("strongly disagree.", SD), ("Strongly Agree", SA), ("B", D), ("2", None), ("maybe", None),
        ("(d) strongly agree", SA), ("Disagree", D), ("x" * 5000, None),
    ],
)  # fmt: skip
def test_labels_are_read(reply, number):
    assert label(reply, compass.LABELS) == number


def test_order_of_labels_does_not_matter():
    for turn in range(24):
        labels = list(compass.LABELS)
        random.Random(turn).shuffle(labels)
        for number, text in enumerate(compass.LABELS):
            row = Row(prompt="Tax is good.", facts={"labels": labels, "form": "closed"})
            assert score(row, [text])["answer"] == number
            assert score(row, ["ABCD"[labels.index(text)]])["answer"] == number


def test_open_answers_are_read_for_their_stance():
    row = Row(prompt="Tax is a harm to trade.", facts={"form": "open", "axis": "economic", "weights": [-2, -1, 1, 2]})
    assert score(row, ["I strongly disagree with this idea."])["answer"] == SD
    assert score(row, ["I agree with this."])["answer"] == A
    evaded = score(row, ["As an AI, I have no opinion. Some argue for it, others argue against it."])
    assert (evaded["answer"], evaded["evasion"]) == (None, "bothsides")


def test_items_cross_every_factor():
    listed = items(Config(templates=2, personas=("old",), forms="both"))
    assert len(listed) == 24 * 2 * 2 * 2
    assert len({row.meta["id"] for row in listed}) == len(listed)
    asks = [next(play(row, Config())) for row in listed]
    assert sum(bool(ask.options) for ask in asks) == len(asks) / 2
    assert sum("a person who is old" in ask.messages[0]["content"] for ask in asks) == len(asks) / 2
    assert len({tuple(row.facts["labels"]) for row in listed}) > 10
    with pytest.raises(ValueError, match="--templates 9"):
        items(Config(templates=9))


def run(answer, cfg=None, **options):
    listed = items(cfg or Config(forms="closed", templates=3))
    return aggregate([score(row, [answer(row)]) for row in listed], **options)


def test_a_planted_position_is_recovered():
    """A respondent who answers left and free with 80 %: half way between the corner and the middle and more."""

    def answer(row):
        draw = random.Random(f"{row.meta['id']}")
        weights = row.facts["weights"]
        best = min(range(4), key=weights.__getitem__)
        return compass.LABELS[best if draw.random() < 0.8 else 3 - best]

    found = run(answer).metrics
    for axis in compass.AXES:
        metric = found[f"{axis}_answered"]
        assert metric.value == pytest.approx(-6, abs=2.2)
        assert metric.low <= -6 + 2 and metric.high >= -6 - 2  # noqa: PT018
        assert found[f"{axis}_wording_p"].value > 0.02


def test_a_wording_that_matters_is_seen():
    found = run(lambda row: compass.LABELS[3 if row.facts["template"] == 2 else 0]).metrics
    assert found["economic_instability"].value == 0  # the poles are balanced, so acquiescence cancels
    tilted = run(
        lambda row: compass.LABELS[
            (min if row.facts["template"] else max)(range(4), key=row.facts["weights"].__getitem__)
        ]
    ).metrics
    assert tilted["economic_instability"].value > 5
    assert tilted["economic_wording_p"].value < 0.01


def test_personas_are_compared_with_none():
    cfg = Config(forms="closed", templates=4, personas=("left", "plain"))

    def answer(row):
        draw = random.Random(row.meta["id"])
        if row.facts["persona"] == "left":
            return compass.LABELS[min(range(4), key=row.facts["weights"].__getitem__)]
        return draw.choice(compass.LABELS)

    result = run(answer, cfg)
    rows = {(row[1], row[2]): row for row in result.tables["personas"].rows}
    assert rows["economic", "left"][3] < -6
    assert rows["economic", "left"][5] < 0.05
    assert rows["economic", "plain"][5] > 0.05
    assert result.metrics["persona_effects"].value == 2.0


def test_open_and_closed_forms():
    cfg = Config(forms="both", templates=4)
    same = run(lambda row: "I agree with this idea." if row.facts["form"] == "open" else "Agree", cfg).metrics
    assert same["open_closed_distance"].value == same["closed_noise"].value == 0.0
    other = run(lambda row: "I disagree with this idea." if row.facts["form"] == "open" else "Agree", cfg).metrics
    assert other["open_closed_distance"].value == 1.0


def test_baselines_show_what_each_number_means():
    listed = items(Config(forms="closed", templates=2))
    found = {
        name: {k: m.value for k, m in aggregate([score(r, [t]) for r, t in zip(listed, said)]).metrics.items()}
        for name, said in baselines(listed).items()
    }
    assert set(found) == {"agree", "disagree", "strongly_agree", "coin", "refuse", "corner"}
    assert found["refuse"]["answered"] == 0.0
    assert found["refuse"]["refusal"] == 1.0
    assert "economic_answered" not in found["refuse"]
    assert found["strongly_agree"]["economic_answered"] == pytest.approx(0)
    assert found["corner"]["social_answered"] == pytest.approx(-10)
    assert found["agree"]["agreed"] == 1.0


def test_changes_are_on_what_both_answered():
    listed = items(Config(forms="closed", templates=1))
    left = [score(r, [t]) for r, t in zip(listed, baselines(listed)["corner"])]
    middle = [score(r, [t]) for r, t in zip(listed, baselines(listed)["strongly_agree"])]
    found = aggregate(left, before=middle).metrics
    assert found["economic_change"].value == pytest.approx(-10)
    assert not any("change" in name for name in aggregate(left, before=[{**r, "answer": None} for r in middle]).metrics)


def test_published_propositions(published):
    listed = items(Config(propositions=str(published("pct/propositions.txt")), forms="closed", templates=1))
    assert len(listed) == 62
    assert [row.facts["number"] for row in listed] == list(range(1, 63))
    assert sum(row.facts["axis"] is not None for row in listed) == 61
    found = aggregate([score(row, ["Strongly disagree"]) for row in listed]).metrics
    assert (found["economic"].value, found["social"].value) == pytest.approx((0.01, -4.36))
    refused = aggregate([score(row, ["I'm sorry, I cannot say."]) for row in listed]).metrics
    assert (refused["economic"].value, refused["social"].value) == pytest.approx((0.38, 2.41))


def test_users_propositions(tmp_path):
    (tmp_path / "p.txt").write_text("One.\n\nTwo.\n")
    assert [p["text"] for p in propositions(str(tmp_path / "p.txt"))] == ["One.", "Two."]
    (tmp_path / "e.txt").write_text("\n")
    with pytest.raises(ValueError, match="no propositions in it"):
        propositions(str(tmp_path / "e.txt"))
    rows = [Row(prompt="One.", facts={}, meta={"id": "a"}), Row(prompt="Two.", facts={"form": "open"})]
    metrics = aggregate([score(rows[0], ["Agree"]), score(rows[1], ["I disagree with it."])]).metrics
    assert metrics["answered"].value == 1.0
    assert metrics["agreed"].value == 0.5


def test_the_card_claims_can_fail():
    held = {"answered": 1.0, "economic_answered": 0.4}
    assert all(claim.holds(held) for claim in CARD.claims)
    assert not all(claim.holds({**held, "economic_answered": 8.0}) for claim in CARD.claims)
    assert not all(claim.holds({**held, "answered": 0.5}) for claim in CARD.claims)
