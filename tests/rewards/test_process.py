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


@pytest.mark.parametrize(
    ("row", "form", "said"),
    [
        (SOLUTION, "hindsight", "expected facts.correct"),
        (dataclasses.replace(SOLUTION, facts={"labels": [True]}), "binary", "expected 3 labels"),
        (dataclasses.replace(SOLUTION, facts={}), "binary", "expected 3 labels"),
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
