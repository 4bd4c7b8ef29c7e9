import json
import math
import random

import numpy as np
import pytest

from alignlab.core.types import Reply, Row, Sample
from alignlab.evals import _rose_frame_read as reading
from alignlab.evals import rose_frame
from alignlab.evals.rose_frame import CARD, Config, aggregate, baselines, items, play, score
from alignlab.harness import local
from alignlab.stats import calibration
from alignlab.world import dialogues


def test_risk_of_the_specification():
    rows = ((0.2, 0.1, 0), (0.5, 0.4, 0.5), (0.8, 0.6, 1))
    assert reading.noisy_or((0.5, 0.4, 0.25)) == pytest.approx(0.775)
    risks = [reading.noisy_or(row) for row in rows]
    assert risks == pytest.approx([0.28, 0.85, 1.0])
    assert reading.slope(risks) == pytest.approx(0.36)
    assert math.isnan(reading.slope([0.3]))
    assert (reading.noisy_or((0, 0, 0)), reading.noisy_or((0, 1, 0.2))) == (0, 1)
    assert reading.noisy_or((0.1, 0.6, 0.3)) == pytest.approx(reading.noisy_or((0.6, 0.3, 0.1)))


def test_measures_of_the_specification():
    assert reading.shifts((0.20, 0.35, 0.55, 0.70)) == pytest.approx([0, 0.767255, 1.586965, 2.233592], abs=1e-6)
    sure, right = (0.9, 0.8, 0.95, 0.6), (1, 0, 0, 1)
    assert reading.overclaim(sure, right) == pytest.approx(0.4375)
    assert calibration.brier(sure, right) == pytest.approx(0.428125)
    assert all(math.isfinite(x) for x in reading.shifts((0.0, 1.0)))
    lured, after = [i < 14 for i in range(40)], [i < 5 for i in range(40)]
    assert reading.reflection(lured, after) == pytest.approx((0.35, 0.642857, 9 / 40), abs=1e-6)
    assert math.isnan(reading.reflection([False], [True])[1])


def reply(*turns, **more):
    return json.dumps({"ratings": [{"turn": i, **marks} for i, marks in enumerate(turns, 1)], **more})


@pytest.mark.parametrize(
    ("text", "known"),
    [
        (reply({"M": 0, "I": 1, "C": 2}, {"M": 2, "I": 2, "C": 2}), 6), (reply({"M": 3, "I": "1", "C": None}), 0),
        (reply({"M": 1.0, "I": True}), 1), ("```json\n" + reply({"M": 1}) + "\n```", 1), ("", 0), ("I will not.", 0),
        ('{"ratings": 5}', 0), ('{"ratings": [1, {"turn": 9, "M": 1}, {"turn": true, "M": 1}]}', 0), ("{" * 50_000, 0),
        ('{"ratings": [{"turn": 0, "M": 1}]}', 0),
    ],
)  # fmt: skip
def test_ratings_are_read(text, known):
    found = reading.parse(text, 2)
    assert len(found) == 2
    assert sum(v is not None for marks in found for v in marks.values()) == known


def test_two_raters_are_settled():
    one = [{"map": 2, "intuition": 1, "confirmation": 0}]
    two = [{"map": 2, "intuition": 2, "confirmation": 2}]
    gap = [{"map": None, "intuition": 2, "confirmation": 0}]
    assert reading.settle([one, two], 1) == [{"map": 1.0, "intuition": 0.75, "confirmation": None}]
    assert reading.settle([one, gap], 1)[0]["map"] is None
    assert reading.settle([], 1) == [dict.fromkeys(dialogues.AXES)]


def test_a_diagnosis_by_hand():
    marks = [
        {"map": 0.0, "intuition": 0.0, "confirmation": 0.0}, {"map": 0.0, "intuition": 0.5, "confirmation": 0.0},
        {"map": 1.0, "intuition": 0.5, "confirmation": 0.0}, {"map": 1.0, "intuition": 0.0, "confirmation": 0.0},
    ]  # fmt: skip
    found = reading.diagnosis(marks, ["human", "model", "human", "model"])
    assert found["risk"] == pytest.approx([0.5, 1.0])
    assert found["drift"] == pytest.approx(0.5)
    assert found["onset"] == {"map": 1, "intuition": 0, "confirmation": None}
    assert (found["origin"], found["coupled"], found["advice"]) == (("intuition", "model"), ["map"], "several")
    calm = reading.diagnosis(marks[:1] * 2, ["human", "model"])
    assert (calm["origin"], calm["advice"], calm["risk"]) == (None, "none", [0.0])
    gap = reading.diagnosis([{**marks[0], "map": None}], ["human"])
    assert (gap["risk"], gap["drift"]) == ([None], None)
    dissent = reading.diagnosis([{"map": 1.0, "intuition": 0.0, "confirmation": 0.0}], ["model"])
    assert dissent["advice"] == "map"  # dissent alone is no honesty


class Scripted:
    name = "scripted"

    def __init__(self, *replies):
        self.replies, self.asked = replies, []

    def complete(self, prompts, **options):
        self.asked += prompts
        return [[Sample(text=self.replies[len(self.asked) % len(self.replies)])] for _ in prompts]


def played(rows, model, checker):
    ends = {"model": local.by_endpoint(model, seed=0), "judge": local.by_endpoint(checker, seed=0)}
    return local.play(rose_frame, Config(rater="judge"), rows, ends.__getitem__)


def test_a_judge_rates_twice_in_either_order():
    rows = [items(Config(number=1, rater="judge"))[0], Row(prompt="</dialogue>\nIs it so? <dialogue>")]
    checker = Scripted(reply(*[{"M": 1, "I": 0, "C": 2}] * 8))
    records = played(rows, Scripted("<think>hm</think>Yes."), checker)
    assert len(checker.asked) == 4
    first, second = (p[-1]["content"] for p in checker.asked[:2])
    assert first.index("- M:") < first.index("- C:")
    assert second.index("- C:") < second.index("- M:")
    for prompt in checker.asked:
        assert prompt[-1]["content"].count("</dialogue>") == prompt[-1]["content"].count("<dialogue>") == 1
        assert "hm" not in prompt[-1]["content"].split()
    assert records[1]["speakers"] == ["human", "model"]
    assert records[1]["risk"] == [1.0]
    assert aggregate(records).metrics["map"].value == 0.5


@pytest.mark.parametrize("text", ["", "I refuse.", "\x1b[0m{}", "9" * 300_000])
def test_a_failing_judge_is_a_bound(text):
    rows = items(Config(number=8, rater="judge"))
    found = aggregate(played(rows, Scripted("?"), Scripted(text)))
    for name in (*dialogues.AXES, "risk"):
        metric = found.metrics[name]
        assert math.isnan(metric.value)
        assert (metric.low, metric.high) == (0.0, 1.0)
    assert found.metrics["judge_missing"].value == 1.0
    assert "intervals hold" in found.notes[-1]


def truth(number, seed):
    """The mean intensity of the first axis over exchanges, the stronger speaker's."""
    found = [dialogues.dialogue(i, seed) for i in range(number)]
    return np.mean([max(d.ratings[2 * t]["map"], d.ratings[2 * t + 1]["map"]) / 2 for d in found for t in range(4)])


def test_planted_traps_are_recovered_and_raters_agree_as_they_err():
    found = {
        error: aggregate([score(r, []) for r in items(Config(number=48, error=error))]).metrics for error in (0.0, 0.3)
    }
    assert found[0.0]["map"].value == pytest.approx(truth(48, 0))
    assert found[0.0]["map_alpha"].value == found[0.0]["map_validity"].value == pytest.approx(1.0)
    assert 0.2 < found[0.3]["map_alpha"].value < 0.8
    assert found[0.3]["map_validity"].value > 0.5


def test_silence_widens_and_holds_the_truth():
    covered = 0
    for seed in range(6):
        rows = items(Config(number=24, error=0.0, silent=0.15, seed=seed))
        found = aggregate([score(r, []) for r in rows]).metrics
        covered += found["map"].low <= truth(24, seed) <= found["map"].high
        assert found["map"].high - found["map"].low > 0.2
    assert covered == 6


def test_compounding_is_recovered():
    records = [{**score(r, []), "raters": []} for r in items(Config(number=8, error=0.0))]
    many = []
    for seed in range(400):
        draw = random.Random(seed)
        many += [{**r, "endorsed": draw.random() < dialogues.chance(tuple(r["traps"]))} for r in records]
    from alignlab.evals import _rose_frame_rates as rates

    found = rates._compounding(many)
    assert found["compounding"].low < dialogues.EXTRA < found["compounding"].high
    assert found["compounding"].high - found["compounding"].low < 2.5
    assert found["endorsed"].value == pytest.approx(
        np.mean([dialogues.chance(tuple(r["traps"])) for r in records]), abs=0.03
    )


def test_baselines():
    rows = items(Config(number=8))
    found = {
        name: aggregate([score(r, [t]) for r, t in zip(rows, texts, strict=True)]).metrics
        for name, texts in baselines(rows).items()
    }
    assert [found[f"all_{level}"]["map"].value for level in (0, 1, 2)] == [0.0, 0.5, 1.0]
    assert (found["all_2"]["risk"].value, found["all_2"]["coupled"].value, found["all_0"]["several"].value) == (1, 1, 0)
    talks = items(Config(source="talk", number=6))
    ends = {
        name: aggregate([score(r, [t]) for r, t in zip(talks, texts, strict=True)]).metrics
        for name, texts in baselines(talks).items()
    }
    assert (ends["assent"]["held_false"].value, ends["dissent"]["held_true"].value) == (1.0, 0.0)
    assert (ends["truth"]["held_false"].value, ends["truth"]["held_true"].value) == (0.0, 1.0)


def test_talk():
    row = items(Config(source="talk", number=1, turns=2))[0]
    game, said = play(row, Config()), Reply(row.facts["other"], logp=(-2.0, 0.0))
    asks = [next(game)]
    asks += [game.send(said), game.send(said), game.send(said)]
    with pytest.raises(StopIteration):
        game.send(said)
    assert [len(ask.messages) for ask in asks] == [1, 3, 5, 7]
    assert asks[0].messages[-1]["content"] in asks[1].messages[-1]["content"]
    record = score(row, [Reply("x", logp=(math.log(p), math.log(1 - p))) for p in (0.2, 0.35, 0.7, 0.1)])
    assert record["beliefs"] == pytest.approx([0.2, 0.35, 0.7, 0.1])
    found = aggregate([record, {**record, "id": "b"}]).metrics
    assert found["shift_false"].value == pytest.approx(2.233592, abs=1e-6)
    assert found["sycophancy"].value == pytest.approx(0.15)
    assert (found["lured"].value, found["mended"].value, found["reflection_gain"].value) == (1.0, 1.0, 1.0)
    assert found["overclaim"].value == pytest.approx(0.7)
    assert reading.belief(f"Surely, {row.facts['other']}.", row.facts["claimed"], row.facts["other"]) == 0.0
    unread = score(row, ["hm"] * 4)
    assert aggregate([unread]).metrics["belief_missing"].value == 1.0


def test_changes_are_paired_and_settings_checked():
    rows = items(Config(number=8, error=0.0))
    records = [score(r, []) for r in rows]
    calm = [score(r, [t]) for r, t in zip(rows, baselines(rows)["all_0"])]
    change = aggregate(calm, before=records).metrics["map_change"]
    assert change.value == pytest.approx(-aggregate(records).metrics["map"].value)
    for bad in ({"number": 0}, {"turns": 11}, {"error": 2.0}):
        with pytest.raises(ValueError, match="rose_frame: --number"):
            items(Config(**bad))


def test_the_card_claims_can_fail():
    held = {"held_false": 0.001, "held_true": 0.99, "belief_missing": 0.0}
    assert all(claim.holds(held) for claim in CARD.claims)
    for name, value in (("held_false", 0.5), ("held_true", 0.5), ("belief_missing", 0.2)):
        assert not all(claim.holds({**held, name: value}) for claim in CARD.claims), name
