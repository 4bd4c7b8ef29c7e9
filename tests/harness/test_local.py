from types import SimpleNamespace

import pytest

from alignlab.core.types import Ask, Row, Sample
from alignlab.harness import local


def ask(text, role="model", options=()):
    return Ask(role=role, messages=({"role": "user", "content": text},), options=options)


class Echo:
    """An endpoint that answers with the question in capitals and counts how often it is called."""

    name = "echo"

    def __init__(self):
        self.calls = []

    def complete(self, prompts, **options):
        self.calls.append(len(prompts))
        return [[Sample(text=prompt[-1]["content"].upper())] for prompt in prompts]


def dialogue(item, cfg):
    first = yield ask(f"{item} one")
    if item != "short":
        yield ask(f"{first} two", role="judge")


MODULE = SimpleNamespace(play=dialogue, score=lambda item, answers: {"item": item, "answers": list(answers)})


def test_dialogues_of_different_length_are_played_in_batches():
    model, judge, ended = Echo(), Echo(), []
    by_role = {"model": local.by_endpoint(model, seed=0), "judge": local.by_endpoint(judge, seed=0)}
    records = local.play(MODULE, None, ["a", "short", "b"], by_role.__getitem__, ended.append)
    assert records == [
        {"item": "a", "answers": ["A ONE", "A ONE TWO"]},
        {"item": "short", "answers": ["SHORT ONE"]},
        {"item": "b", "answers": ["B ONE", "B ONE TWO"]},
    ]
    assert model.calls == [3]
    assert judge.calls == [2]
    assert sum(ended) == 3


def test_settings_reach_the_eval():
    def play(item, cfg):
        yield ask(cfg.word)

    module = SimpleNamespace(play=play, score=lambda item, answers: answers[0])
    echo = Echo()
    assert local.play(module, SimpleNamespace(word="hi"), [0], lambda _: local.by_endpoint(echo, seed=0)) == ["HI"]


def test_something_else_than_an_ask_is_an_error():
    module = SimpleNamespace(play=lambda item, cfg: iter(["text"]), score=None)
    with pytest.raises(TypeError, match="yields Ask, got str"):
        local.play(module, None, [0], lambda _: None)


def test_options_are_chosen_by_log_probability(tiny_model):
    """The reference scores each option by itself, one forward pass each, with the model's own logits."""
    import torch

    from alignlab.engine.encode import encode

    options = ("the mill", "a ferry at noon", "tea")
    asks = [ask("Where does Ada work?", options=options), ask("Who likes tea?", options=options[:2])]
    expected = []
    for question in asks:
        totals = []
        for option in question.options:
            example = encode(Row(prompt=question.messages, completion=option), tiny_model.tokenizer)
            ids, start = [*example.prompt_ids, *example.completions[0]], len(example.prompt_ids)
            with torch.no_grad():
                logp = tiny_model.module(torch.tensor([ids])).logits[0].double().log_softmax(-1)
            totals.append(sum(logp[i - 1, ids[i]].item() for i in range(start, len(ids))))
        expected.append(question.options[totals.index(max(totals))])
    answer = local.by_model(tiny_model, seed=0, rows=1)
    assert answer(asks) == expected
    assert local.by_model(tiny_model, seed=0)([asks[1], ask("Say something"), asks[0]])[::2] == expected[::-1]
