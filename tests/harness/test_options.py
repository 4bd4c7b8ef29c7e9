"""Scores of options against one forward pass per option with the model's own logits."""

import math

import pytest
import torch

from alignlab.core.types import Ask, Intervention, Row
from alignlab.engine.encode import TooLong, encode
from alignlab.engine.steered import Steered
from alignlab.harness import local, options

LISTED = ("the mill", "a ferry at noon", "tea", "Käse")


def asked(text, listed=LISTED):
    return Ask(role="model", messages=({"role": "user", "content": text},), options=listed)


def by_hand(model, messages, option):
    """(log-probability with the end, without it, tokens without it), float64, one sequence by itself."""
    example = encode(Row(prompt=messages, completion=option), model.tokenizer)
    ids, start = [*example.prompt_ids, *example.completions[0]], len(example.prompt_ids)
    with torch.no_grad():
        logp = model.module(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    each = [logp[i - 1, ids[i]].item() for i in range(start, len(ids))]
    return sum(each), sum(each[:-1]), len(each) - 1


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_every_form(tiny_models, architecture):
    model = tiny_models.make_model(architecture)
    asks = [asked("Where does Ada work?"), asked("Who likes tea?", LISTED[1:3])]
    hand = [[by_hand(model, a.messages, o) for o in a.options] for a in asks]
    neutral = {o: by_hand(model, options.NEUTRAL, o)[1] for o in LISTED}
    expected = {
        "sum": lambda o, w, f, n: w,
        "open": lambda o, w, f, n: f,
        "token": lambda o, w, f, n: f / n,
        "character": lambda o, w, f, n: f / len(o),
        "byte": lambda o, w, f, n: f / len(o.encode("utf-8")),
        "pmi": lambda o, w, f, n: f - neutral[o],
    }
    rows = set()
    for form, formula in expected.items():
        wanted = [[formula(o, *found) for o, found in zip(a.options, row)] for a, row in zip(asks, hand)]
        found = options.scores(model, asks, form)
        assert [len(row) for row in found] == [4, 2]
        for row, values in zip(found, wanted):
            assert row == pytest.approx(values, abs=2e-4)
        replies = options.choose(model, asks, form)
        assert [r.logp for r in replies] == found
        assert list(replies) == [a.options[row.index(max(row))] for a, row in zip(asks, wanted)]
        rows.add(tuple(round(value, 3) for value in found[0]))
    assert len(rows) == len(expected)


def test_scores_do_not_depend_on_the_batch(tiny_model):
    asks = [asked(f"Question {i}?" * (1 + i % 4)) for i in range(9)]
    together = options.scores(tiny_model, asks)
    for ask, row in zip(asks, together):
        assert options.scores(tiny_model, [ask])[0] == pytest.approx(row, abs=1e-4)


def test_errors(tiny_model):
    with pytest.raises(ValueError, match="option form 'mean'; expected one of sum, open"):
        options.scores(tiny_model, [asked("a")], "mean")
    with pytest.raises(ValueError, match="without options"):
        options.scores(tiny_model, [asked("a", ())])
    with pytest.raises(ValueError, match="empty completion"):
        options.scores(tiny_model, [asked("a", ("", "b"))])
    with pytest.raises(TooLong):
        options.scores(tiny_model, [asked("word " * 400)])


def test_a_prompt_that_steering_edits_is_the_one_that_is_scored(tiny_model):
    def edit(prompt):
        return ({"role": "system", "content": "Say tea."}, *prompt)

    steered = Steered(tiny_model, [Intervention(spec="said", edit_messages=edit)])
    ask = asked("Who likes what?")
    expected = [by_hand(tiny_model, edit(ask.messages), option)[0] for option in ask.options]
    assert options.scores(steered, [ask])[0] == pytest.approx(expected, abs=2e-4)
    assert not math.isclose(options.scores(tiny_model, [ask])[0][0], expected[0], abs_tol=1e-2)


def test_what_steers_the_writing_writes_for_options_too(tiny_model):
    def decode(model, prompts, **_):
        return [[type(model.sample(prompts[:1], max_tokens=1)[0][0])(text="tea")] for _ in prompts]

    steered = Steered(tiny_model, [Intervention(spec="always-tea", decode=decode)])
    (reply,) = local.by_model(steered, seed=0)([asked("Where?", ("mill", "ferry"))])
    assert (reply, reply.logp) == ("tea", ())
    (reply,) = local.by_model(tiny_model, seed=0, form="byte")([asked("Where?", ("mill", "ferry"))])
    assert reply in ("mill", "ferry")
    assert len(reply.logp) == 2
