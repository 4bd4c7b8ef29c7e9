"""Process rewards: the brief's targets, a formula in plain Python, and solutions that are read once, step by step."""

import dataclasses
import math

import exactness
import numpy as np
import pytest

import tiny_models
from alignlab.core.types import Row
from alignlab.engine.encode import TooLong
from alignlab.engine.load import load, save
from alignlab.rewards import process
from alignlab.rewards.process import TARGET, Config, annotate, encode, good, hindsight, loss, majority


def nls(x):
    return math.log1p(math.exp(-x)) if x > 0 else -x + math.log1p(math.exp(x))


def formula(step, cfg):
    if cfg.form == "hindsight":
        return sum(
            sum((c.views["policy"].value[-1] - c.scores[TARGET]) ** 2 for c in x.completions) / len(x.completions)
            for x in step
        ) / len(step)
    rows = [(c.views["policy"].value[-1], c.scores[TARGET]) for x in step for c in x.completions]
    return sum(z * nls(r) + (1 - z) * nls(-r) for r, z in rows) / len(rows)


@pytest.mark.parametrize("form", ["hindsight", "binary", "unified"])
def test_exactness(form, valued, turned):
    def make(seed):
        step = valued(seed, pairs=False, scores=(TARGET,))
        for one in (c for prompt in step for c in prompt.completions):
            target = one.scores[TARGET]
            one.scores[TARGET] = target if form == "hindsight" else float(target > 0)
        return step

    exactness.check(loss, Config(form=form), formula, make=make, flip=turned)


def test_vectors_of_targets():
    assert hindsight([True, True, False], True, 0.9) == pytest.approx([1.81, 1.9, 1.0])
    assert hindsight([True, True, False], False, 0.9) == [1, 1, 0]
    assert majority([True] * 3 + [False] * 2)
    assert not majority([True] * 2 + [False] * 2)
    assert good([1.81, 1.9, 1.0, 1.55], 0.85) == [True, True, False, False]
    assert good([-2.0, -1.0], 0.85) == [False, False]


def test_vector_of_the_squared_error(batch_of, loss_of):
    wanted = np.array([1.81, 1.9, 1.0])
    said = np.array([1.5, 1.8, 0.9])
    value, slopes = loss_of(loss, batch_of(said.tolist(), scores={TARGET: wanted.tolist()}), Config())
    assert value == pytest.approx(0.0387)
    assert slopes == pytest.approx(2 * (said - wanted) / 3)


def test_a_solution_weighs_the_same_however_many_steps_it_has(batch_of, loss_of):
    values, wanted = [1.0, 0.0, 0.0, 0.0], [0.0] * 4
    value, _ = loss_of(loss, batch_of(values, scores={TARGET: wanted}, prompts=[1, 3]), Config())
    assert value == pytest.approx((1.0 + 0.0) / 2)
    prefixes, _ = loss_of(loss, batch_of(values, scores={TARGET: wanted}, prompts=[1, 3]), Config(form="binary"))
    assert prefixes == pytest.approx((nls(-1.0) + 3 * math.log(2)) / 4)


SOLUTION = Row(prompt="Question?", completions=("One.", "Two.", "Three."), facts={"labels": [True, True, False]})


def test_annotated_rows():
    def of(row, **settings):
        return [one.facts[TARGET] for one in annotate([row], Config(**settings))]

    right = dataclasses.replace(SOLUTION, facts={**SOLUTION.facts, "correct": True})
    assert of(right) == [pytest.approx([1.81, 1.9, 1.0])]
    assert of(right, gamma=0.0) == [[1.0, 1.0, 1.0]]
    assert of(SOLUTION, form="binary") == [[1.0, 1.0, 0.0]]
    judged = dataclasses.replace(SOLUTION, facts={"labels": [[True, True, False], [True, False], [True]]})
    assert of(judged, form="binary") == [[1.0, 0.0, 1.0]]
    scored = Row(prompt="Question?", completions=("One.", "Two."), scores=(1.9, 1.0))
    assert of(scored) == [[1.9, 1.0]]
    assert of(scored, form="unified") == [[1.0, 0.0]]
    pair = Row(prompt="Question?", chosen="Good.", rejected="Bad.")
    better, worse = annotate([pair], Config(form="unified"))
    assert (better.completions, better.facts[TARGET]) == (("Good.",), [1.0])
    assert (worse.completions, worse.facts[TARGET], worse.chosen) == (("Bad.",), [0.0], None)


def labelled(labels, form, **facts):
    [row] = annotate([dataclasses.replace(SOLUTION, facts={"labels": labels, **facts})], Config(form=form))
    return row.facts[TARGET]


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        (["-", "+", "-"], [0.0, 1.0, 0.0]),  # as the paper's data have them
        ([0, 1, 1.0], [0.0, 1.0, 1.0]),
        ([0.2, 0.0, 0.75], [0.2, 0.0, 0.75]),  # how often rollouts succeed
        ([["-", "+", "+"], [0, 1], [False]], [1.0, 0.0, 0.0]),
    ],
)
@pytest.mark.parametrize("form", ["binary", "unified"])
def test_labels_as_data_have_them(labels, wanted, form):
    assert labelled(labels, form) == wanted


def test_a_share_is_a_soft_target(batch_of, loss_of):
    value, slopes = loss_of(loss, batch_of([0.7], scores={TARGET: [0.2]}), Config(form="binary"))
    assert value == pytest.approx(0.2 * nls(0.7) + 0.8 * nls(-0.7))
    assert slopes == pytest.approx([1 / (1 + math.exp(-0.7)) - 0.2])


def test_hindsight_is_the_mean_over_rollouts():
    judged = [[True, False, False], [True, True, False], ["+"]]
    assert labelled(judged, "hindsight", correct="-") == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert labelled(judged, "hindsight", correct="+") == pytest.approx([1 / 3 + 0.81, 2 / 3 + 0.9, 2.0])
    # the mean over rollouts of r + gamma^(n - t) z, each rollout with its own r and z
    ends = [[1, 1, 0], [0, 1, 0], [0]]
    each = [
        np.mean([r + 0.9 ** (3 - t) * z for r, z in zip(right, final)])
        for t, (right, final) in enumerate(zip(([1, 0, 0], [1, 1, 0], [1]), ends), 1)
    ]
    assert labelled(judged, "hindsight", correct=ends) == pytest.approx(each)
    assert labelled([0.25, 0.5, 1], "hindsight", correct=0.5) == pytest.approx([0.655, 0.95, 1.5])


@pytest.mark.parametrize("bad", ["False", "yes", "", None, float("nan"), 2, -1, 1.5, {}, [], [0.5], [None], [[1]]])
@pytest.mark.parametrize("form", ["hindsight", "binary", "unified"])
def test_what_is_no_verdict_and_no_share_is_an_error(bad, form):
    with pytest.raises(ValueError, match=r"row 0: facts.labels, step 2 of 3: expected"):
        labelled([True, bad, True], form, correct=True)


@pytest.mark.parametrize(
    ("correct", "said"),
    [("False", "facts.correct: expected true"), (None, "facts.correct: expected true"), ([1, 1], "or 3, one per step"),
     ([1, "no", 1], "facts.correct, step 2 of 3: expected")],
)  # fmt: skip
def test_outcomes_that_are_none(correct, said):
    with pytest.raises(ValueError, match=said):
        labelled([True] * 3, "hindsight", correct=correct)


@pytest.mark.parametrize("scores", [(1.0,), (1.0, float("nan"), 0.0)])
def test_values_of_steps_are_finite_and_one_each(scores):
    with pytest.raises(ValueError, match="row 0: scores: expected 3 finite values"):
        annotate([dataclasses.replace(SOLUTION, facts={}, scores=scores)], Config())


@pytest.mark.parametrize(
    ("row", "form", "said"),
    [
        (SOLUTION, "hindsight", "expected facts.correct"),
        (dataclasses.replace(SOLUTION, facts={"labels": [True]}), "binary", "expected 3 labels"),
        (dataclasses.replace(SOLUTION, facts={}), "binary", "expected 3 labels"),
        (
            dataclasses.replace(SOLUTION, facts={"labels": [1, -1, "no"]}),
            "binary",
            "facts.labels, step 2 of 3: .* got -1",
        ),
        (
            dataclasses.replace(SOLUTION, facts={**SOLUTION.facts, "correct": float("nan")}),
            "hindsight",
            "facts.correct: .* got nan",
        ),
        (Row(prompt="Q?", chosen="a", rejected="b"), "binary", "--form unified takes pairs"),
        (Row(prompt="Q?", completion="a"), "unified", "expected `completions`"),
    ],
)
def test_rows_that_cannot_be_used(row, form, said):
    with pytest.raises(ValueError, match=f"row 0: .*{said}"):
        annotate([row], Config(form=form))


@pytest.mark.parametrize("chat", [True, False])
def test_each_prefix_begins_with_the_one_before_it(chat):
    tokenizer = tiny_models.make_tokenizer()
    prompt = ({"role": "user", "content": "Where is the mill?"},) if chat else "Where is the mill?"
    row = annotate([dataclasses.replace(SOLUTION, prompt=prompt)], Config(form="binary"))[0]
    example = encode(row, tokenizer)
    assert example.scores == {TARGET: (1.0, 1.0, 0.0)}
    for shorter, longer in zip(example.completions, example.completions[1:]):
        assert longer[: len(shorter)] == shorter
        assert len(longer) > len(shorter)
    assert tokenizer.decode(example.completions[-1]) == "One.\n\nTwo.\n\nThree.\n\n"
    with pytest.raises(TooLong, match="3 steps make"):
        encode(row, tokenizer, max_length=len(example.prompt_ids) + len(example.completions[-1]) - 1)
    with pytest.raises(ValueError, match="step 1 is empty"):
        encode(dataclasses.replace(row, completions=("One.", " ")), tokenizer)
    with pytest.raises(ValueError, match="expected `completions`"):
        encode(Row(prompt="Q?", completion="a"), tokenizer)


def test_scores_of_steps_are_those_of_their_prefixes(tmp_path):
    save(tiny_models.make_model(), tmp_path / "base")
    model = load(tmp_path / "base", head="fresh")
    rows = [
        dataclasses.replace(SOLUTION, prompt="Where is the mill?", completions=SOLUTION.completions[:n])
        for n in (3, 1, 2)
    ]
    found = process.step_scores(model, rows)
    assert list(map(len, found)) == [3, 1, 2]
    assert found[1][0] == pytest.approx(found[0][0], abs=1e-5)
    assert found[2] == pytest.approx(found[0][:2], abs=1e-5)
    assert process.score(model, rows) == [values[-1] for values in found]
    shares = process.score(model, rows, Config(form="binary"))
    assert shares == pytest.approx([1 / (1 + math.exp(-values[-1])) for values in found])


def test_errors(batch_of):
    with pytest.raises(ValueError, match="process needs steps"):
        loss(batch_of((1.0, 2.0)), Config())
    for wrong in ({"gamma": 1.5}, {"good_above": 1.0}):
        with pytest.raises(ValueError, match=f"--{next(iter(wrong))}: expected"):
            Config(**wrong)
