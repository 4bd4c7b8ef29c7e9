"""Reward models in the loop: a step's gradient does not depend on its cut, and what cannot be scored is said."""

import sys
from pathlib import Path

import pytest
import torch

import tiny_models
from alignlab.core.types import Row
from alignlab.engine.load import load, save
from alignlab.rewards import bradley_terry, order_classifier
from alignlab.rewards._shared import answers, score_answers, score_rows

sys.path.insert(0, str(Path(__file__).parent.parent / "train"))

import train_runs


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "base"
    save(train_runs.small(), folder)
    return folder


@pytest.mark.parametrize("method", [bradley_terry, order_classifier])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-5)])
def test_a_step_is_the_same_however_it_is_cut(base, tmp_path, method, dtype, tolerance):
    examples = train_runs.some(12, pairs=True)
    found = [
        train_runs.gradients(
            load(base, head="fresh", dtype=dtype), examples, method.loss, method.Config(), tmp_path / str(per_device),
            per_device=per_device,
        )
        for per_device in (12, 4, 1)
    ]  # fmt: skip
    assert any("score" in name for name in found[0])
    for other in found[1:]:
        train_runs.assert_close(other, found[0], tolerance)
        assert other["record"]["loss"] == pytest.approx(found[0]["record"]["loss"], rel=1e-5)
    reversed_pairs = [  # the check can fail
        e.__class__(**{**vars(e), "pairs": tuple((w, b, p, m, c) for b, w, p, m, c in e.pairs)}) for e in examples
    ]
    flipped = train_runs.gradients(
        load(base, head="fresh", dtype=dtype), reversed_pairs, method.loss, method.Config(), tmp_path / "flipped"
    )
    with pytest.raises(AssertionError, match="relative difference"):
        train_runs.assert_close(flipped, found[0], tolerance)


def test_a_language_model_cannot_be_trained_as_a_reward(base, tmp_path):
    with pytest.raises(ValueError, match="bradley_terry needs a reward model"):
        train_runs.gradients(
            load(base), train_runs.some(12, pairs=True), bradley_terry.loss, bradley_terry.Config(), tmp_path
        )


def test_a_nan_in_the_head_is_named_when_scoring_and_stops_training(base, tmp_path):
    model = load(base, head="fresh")
    with torch.no_grad():
        model.module.score.weight[0, 0] = float("nan")
    rows = [Row(prompt="Where?", completion="There.", meta={"id": "first"})]
    with pytest.raises(ValueError, match="row first: the reward model gave .nan."):
        score_answers(model, rows)
    with pytest.raises(FloatingPointError, match="training diverged: loss nan"):
        train_runs.gradients(
            model, train_runs.some(12, pairs=True), bradley_terry.loss, bradley_terry.Config(), tmp_path
        )


def test_answers_of_a_row():
    chat = ({"role": "user", "content": "Q"},)
    pair = Row(prompt="Q", chosen="A", rejected="B", second_prompt=chat, facts={"margin": 1.0}, meta={"id": 3})
    assert answers(pair) == [
        Row(prompt="Q", completion="A", meta={"id": 3}), Row(prompt=chat, completion="B", meta={"id": 3})
    ]  # fmt: skip
    assert [one.completion for one in answers(Row(prompt="Q", completions=("A", "B"), scores=(1.0, 2.0)))] == ["A", "B"]
    assert answers(Row(prompt="Q", completion="A", label=True)) == [Row(prompt="Q", completion="A")]
    assert answers(Row(prompt="Q")) == []


def test_scores_do_not_depend_on_the_company(base):
    model = load(base, head="fresh")
    rows = [Row(prompt="Q" * n, completion="A" * (1 + n % 5)) for n in range(1, 40)]
    whole = score_answers(model, rows)
    assert len(set(whole)) > 30
    assert [score_answers(model, [row])[0] for row in rows[::7]] == pytest.approx(whole[::7], abs=1e-5)
    lists = [Row(prompt="Where?", completions=("A", "BB", "C")), Row(prompt="Q", completions=("A",))]
    assert list(map(len, score_rows(model, lists))) == [3, 1]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (Row(prompt="Q", chosen="A", rejected="B"), "row 0: expected `completion`"),
        (Row(prompt="Q", completion=""), "row 0: empty completion"),
        (Row(prompt="Q" * 200, completion="A"), "row 0: prompt 0 has 200 tokens"),
    ],
)
def test_rows_that_cannot_be_scored(base, row, said):
    with pytest.raises(ValueError, match=said):
        score_answers(load(base, head="fresh"), [row])


def test_pad_is_the_tokenizers(base):
    model = load(base, head="fresh")
    assert model.module.config.pad_token_id == tiny_models.make_tokenizer().pad_token_id
