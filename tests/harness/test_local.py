from types import SimpleNamespace

import pytest

from alignlab.core.types import Ask, Metric, Result, Row, Sample
from alignlab.engine.endpoints import of_model
from alignlab.engine.endpoints.asking import Failed
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


def test_equal_items_are_drawn_anew_and_the_same_whatever_the_batch(tiny_model, monkeypatch):
    """Three equal items and one other; a dialogue that asks the same thing twice draws twice."""

    def twice(item, cfg):
        first = yield ask(item)
        second = yield ask(item)
        return first, second

    module = SimpleNamespace(play=twice, score=lambda item, answers: tuple(answers))

    def texts(items):
        by = local.by_model(tiny_model, seed=5, temperature=1.0, max_tokens=8)
        return local.play(module, None, items, lambda _: by)

    together = texts(["Where?", "When?", "Where?", "Where?"])
    assert len({text for pair in (*together[:1], *together[2:]) for text in pair}) == 6
    monkeypatch.setattr(local, "FIRST", 1)
    monkeypatch.setattr(local, "MOST", 1)
    assert texts(["Where?", "When?", "Where?", "Where?"]) == together
    assert texts(["Where?"]) == together[:1]


def test_batches_are_sorted_by_length_and_grow(monkeypatch):
    echo = Echo()
    monkeypatch.setattr(local, "FIRST", 2)
    seen = []

    def complete(self, prompts, **options):
        seen.append([len(p[-1]["content"]) for p in prompts])
        return [[Sample(text="x")] for _ in prompts]

    monkeypatch.setattr(Echo, "complete", complete)
    module = SimpleNamespace(play=lambda item, cfg: (x for x in [ask(item)]), score=lambda item, answers: item)
    items = ["a" * (1 + i * 7 % 10) for i in range(10)]
    assert local.play(module, None, items, lambda _: local.by_endpoint(echo, seed=0)) == items
    flat = [n for batch in seen for n in batch]
    assert flat == sorted(flat, reverse=True)
    assert [len(batch) for batch in seen] == [2, 4, 4]


def counted(records, before=None):
    return Result(metrics={"share": Metric(value=sum(r["right"] for r in records) / len(records), n=len(records))})


JUDGED = SimpleNamespace(
    play=dialogue, aggregate=counted, score=lambda item, answers: {"right": len(answers) > 1 and answers[1] != ""}
)


def test_what_is_missing_is_counted_and_never_a_lower_score_of_the_model():
    class Shaky(Echo):
        def attempt(self, prompts, **options):
            return [
                [Failed(problem="HTTP 500")] if "bad" in prompt[-1]["content"].lower() else [Sample(text="fine")]
                for prompt in prompts
            ]

    by_role = {"model": local.by_endpoint(Shaky(), seed=0), "judge": local.by_endpoint(Shaky(), seed=0)}
    dialogues = local.played(JUDGED, None, ["bad", "b", "c", "d"], by_role.__getitem__)
    records = local.records_of(JUDGED, dialogues)
    assert len(records) == 3
    found = local.result_of(JUDGED, dialogues, records, {})
    assert found.metrics["share"].value == 1
    assert found.metrics["unanswered"].value == 0.25
    assert "missing_judge" not in found.metrics
    assert any("1 of 4 items" in note and "HTTP 500" in note for note in found.notes)
    right_on_bad = {**vars(JUDGED), "score": lambda item, answers: {"right": answers[0] == "bad"}}
    module = SimpleNamespace(**right_on_bad, baselines=lambda items: {"parrot": list(items)})
    table = local.result_of(module, dialogues, records, {}).tables["baselines"]
    assert dict(row[:2] for row in table.rows) == {"measured": 1, "parrot": 0}, "on the answered items alone"
    by_role["model"] = local.by_endpoint(Echo(), seed=0)
    dialogues = local.played(JUDGED, None, ["bad", "b", "c", "short"], by_role.__getitem__)
    found = local.result_of(JUDGED, dialogues, local.records_of(JUDGED, dialogues), {})
    assert found.metrics["missing_judge"].value == pytest.approx(1 / 3)
    assert found.metrics["share"].n == 4
    with pytest.raises(ValueError, match="no item was answered; the commonest reason: HTTP 500"):
        local.result_of(JUDGED, [SimpleNamespace(problem="HTTP 500", item=0, asks=[], replies=[])], [], {})


def test_a_model_that_judges_itself_is_told_on(tiny_model):
    subject = local.by_model(tiny_model, seed=0, max_tokens=2)
    judge = local.by_endpoint(of_model(tiny_model, cache_dir=False), seed=0, max_tokens=2)
    dialogues = local.played(JUDGED, None, ["a"], {"model": subject, "judge": judge}.__getitem__)
    records = local.records_of(JUDGED, dialogues)
    found = local.result_of(JUDGED, dialogues, records, {"model": subject.identity(), "judge": judge.identity()})
    assert found.notes == ("the judge is the model under evaluation itself",)
    other = {"model": subject.identity(), "judge": {"model": "somebody"}}
    assert local.result_of(JUDGED, dialogues, records, other).notes == ()


def test_a_judge_in_this_process_gives_its_odds_of_the_options(tiny_model, tmp_path):
    """As the provider does through Inspect AI; free text still comes from the endpoint, and its cache."""
    endpoint = of_model(tiny_model, cache_dir=tmp_path)
    judge = local.by_endpoint(endpoint, seed=0, max_tokens=2)
    subject = local.by_model(tiny_model, seed=0, max_tokens=2)
    asks = [ask("Which?", "judge", ("a", "b")), ask("Why?", "judge"), ask("Which now?", "judge", ("b", "a", "c"))]
    given = judge(asks)
    assert given == subject(asks)
    assert [reply.logp for reply in given] == [reply.logp for reply in subject(asks)]
    assert [len(reply.logp) for reply in given] == [2, 0, 3]
    assert endpoint.usage.answers == 1
    other = local.by_endpoint(endpoint, seed=0, max_tokens=2, form="byte")
    assert other.identity() != judge.identity()
    assert [reply.logp for reply in other(asks)] != [reply.logp for reply in given]


def test_a_question_without_room_is_left_out_and_the_rest_is_answered(tiny_model):
    module = SimpleNamespace(
        play=lambda item, cfg: (x for x in [ask(*item)]), score=lambda item, answers: item[0], aggregate=None
    )
    long = "word " * 400
    items = [("a?", "model", ("x", "y")), (long, "model", ("x", "y")), (long,), ("b?",)]
    by = local.by_model(tiny_model, seed=0, max_tokens=2)
    dialogues = local.played(module, None, items, lambda _: by)
    assert ["tokens" in d.problem for d in dialogues] == [False, True, True, False]
    assert local.records_of(module, dialogues) == ["a?", "b?"]
    judge = local.by_endpoint(of_model(tiny_model, cache_dir=False), seed=0, max_tokens=2)
    given = judge([ask(*item[:1], "judge", *item[2:]) for item in items])
    assert ["tokens" in reply.problem for reply in given] == [False, True, True, False]
    assert all(dialogues[i].replies[0].problem == "" for i in (0, 3))


def test_memory_that_runs_out_halves_the_batch(tiny_model):
    import torch

    sizes = []

    class Small:
        identity, tokenizer = "small@1", tiny_model.tokenizer

        def sample(self, prompts, **options):
            sizes.append(len(prompts))
            if len(prompts) > 3:
                raise torch.OutOfMemoryError
            return [[Sample(text=prompt[-1]["content"])] for prompt in prompts]

    by = local.by_model(Small(), seed=0)
    asks = [ask(str(i)) for i in range(10)]
    assert by(asks) == [str(i) for i in range(10)]
    assert max(s for s in sizes if s <= 3) <= 3
    Small.sample = lambda self, prompts, **options: (_ for _ in ()).throw(torch.OutOfMemoryError())
    with pytest.raises(torch.OutOfMemoryError):
        by(asks)
