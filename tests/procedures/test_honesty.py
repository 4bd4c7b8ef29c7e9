"""The whole procedure on an untrained micro model: stages run, repeat themselves, go on, say what is wrong."""

import json
from dataclasses import replace

import pytest

from alignlab.cli.context import RunContext
from alignlab.core import honesty as kinds
from alignlab.core.types import Metric
from alignlab.engine.load import save
from alignlab.pipelines import honesty_data
from alignlab.procedures import honesty, tiny
from alignlab.procedures.honesty import CARD, Config, compared
from alignlab.world import knowledge

MICRO = Config(
    variants=("absolute", "multisample"), samples=2, questions=12, balance=False, steps=4, batch=4, learning_rate=1e-2,
    test_per_group=3, max_tokens=6, use_peft=False,
)  # fmt: skip


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    """A folder with an untrained model of the town's tokenizer: it knows nothing."""
    folder = tmp_path_factory.mktemp("student")
    save(tiny.untrained(tiny.Config(hidden=32, layers=1), 0), folder)
    return folder


@pytest.fixture(scope="module")
def ran(student, tmp_path_factory):
    folder = tmp_path_factory.mktemp("honesty") / "run"
    return folder, honesty.run(RunContext(folder=folder, model=str(student)), MICRO)


def values(result):
    return {name: metric.value for name, metric in result.metrics.items()}


def test_every_policy_has_its_numbers(ran):
    _, result = ran
    found = values(result)
    for policy in ("unaligned", "prompted", "absolute", "multisample"):
        assert {f"{policy}/{name}" for name in ("prudence", "over_conservativeness", "honesty")} <= set(found)
    assert found["expected_accuracy"] == 0.0  # nothing is known, so every target is a refusal
    assert found["unaligned/honesty"] == 0.5
    assert [row[0] for row in result.tables["variants"].rows] == ["unaligned", "prompted", "absolute", "multisample"]
    assert len(result.samples) == 15


def test_a_run_goes_on_and_repeats_itself(ran, student):
    folder, result = ran
    again = honesty.run(RunContext(folder=folder, model=str(student)), MICRO)
    assert values(again) == values(result)
    elsewhere = honesty.run(RunContext(folder=folder.with_name("other"), model=str(student)), MICRO)
    assert values(elsewhere) == values(result)


def test_refusing_everything_is_learnt_where_nothing_is_known(student, tmp_path):
    cfg = replace(MICRO, variants=("absolute",), steps=80, learning_rate=1e-2)
    found = values(honesty.run(RunContext(folder=tmp_path, model=str(student)), cfg))
    assert found["absolute/refused"] == 1.0
    assert found["absolute/prudence"] == 1.0


def test_the_comparison_is_with_the_model_before():
    """An agent who refuses what it did not know before is honest, whatever is true of the questions."""
    listed = knowledge.held_out(20)
    known = {row.meta["id"] for number, row in enumerate(listed) if row.facts["gold"] and number % 2}
    before = [f"Answer: {row.facts['gold'] if row.meta['id'] in known else 'nobody'}" for row in listed]
    after = [text if row.meta["id"] in known else knowledge.IDK for row, text in zip(listed, before)]
    records = {
        name: [honesty.honesty.score(row, [text]) for row, text in zip(listed, texts)]
        for name, texts in (("unaligned", before), ("ours", after))
    }
    asked = [honesty_data.Asked(row=listed[0], greedy="", greedy_right=False, samples=("",), right=(True,))]
    result = compared(records, {"ours": 0.5}, asked)
    assert values(result)["ours/honesty"] == 1.0
    assert values(result)["unaligned/honesty"] == 0.5
    assert result.figures["trade_off"].series["ours"] == {"x": [0.0], "y": [1.0]}


def test_users_questions(student, tmp_path):
    path = tmp_path / "q.jsonl"
    rows = [{"prompt": f"Capital of land {i}?", "facts": {"gold": "Paris"}, "meta": {"id": str(i)}} for i in range(10)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ctx = RunContext(folder=tmp_path / "run", model=str(student), dataset=str(path))
    train, test = honesty.split(ctx, MICRO, town=False)
    assert (len(train), len(test)) == (8, 2)
    path.write_text("".join(json.dumps({**row, "facts": {"gold": "x", "split": "test"}}) + "\n" for row in rows))
    with pytest.raises(ValueError, match="0 questions to learn from, 10 to test"):
        honesty.split(ctx, MICRO, town=False)
    options = honesty.data_options(ctx, MICRO, "absolute", "permit")
    asked = [honesty_data.judged(train[0], "Rome", ["Rome", "Rome"], options)]
    made = list(honesty_data.training_rows(asked, options))
    assert made[0].completion == kinds.IDK
    assert kinds.PERMIT in made[0].prompt[-1]["content"]


def test_a_sweep_of_thresholds(student, tmp_path):
    """One copy per threshold; an untrained model knows nothing, so all of them learn the same refusals."""
    cfg = replace(MICRO, variants=(), thresholds=(0.9, 0.1))
    result = honesty.run(RunContext(folder=tmp_path, model=str(student)), cfg)
    found = values(result)
    assert [row[0] for row in result.tables["variants"].rows] == [
        "unaligned",
        "prompted",
        "absolute_0.1",
        "absolute_0.9",
    ]
    assert found["absolute_0.1/loss"] == found["absolute_0.9/loss"]
    assert found["sweep/prudence_fall"] == 0.0


def test_a_fall_is_to_the_highest_before():
    def scores(*values):
        return {
            f"t{place}/{score}": Metric(value=value, n=9)
            for place, value in enumerate(values)
            for score in ("prudence", "over_conservativeness")
        }

    names = ["t0", "t1", "t2"]
    for series, fall in {(0.2, 0.5, 0.9): 0.0, (0.6, 0.5, 0.3): 0.3, (0.5, 0.7, 0.6): 0.1}.items():
        found = honesty.falls(scores(*series), names)
        assert found["sweep/prudence_fall"].value == pytest.approx(fall)
        assert found["sweep/over_conservativeness_fall"].value == pytest.approx(fall)
    assert honesty.falls(scores(0.2), ["t0"]) == {}


def test_unknown_variants_are_refused():
    with pytest.raises(ValueError, match="--thresholds: 1.5: expected shares"):
        Config(thresholds=(0.5, 1.5))
    with pytest.raises(ValueError, match="--variants: no often; known: absolute"):
        Config(variants=("often",))


def test_the_card_claims_can_fail():
    good = {"multisample/honesty": 0.68, "unaligned/honesty": 0.5, "multisample/prudence": 0.7,
            "multisample/over_conservativeness": 0.35}  # fmt: skip
    assert all(claim.holds(good) for claim in CARD.claims)
    assert not all(claim.holds({**good, "multisample/over_conservativeness": 0.7}) for claim in CARD.claims)
    assert not all(claim.holds({**good, "multisample/honesty": 0.5}) for claim in CARD.claims)
