import pytest

from alignlab.core.types import Sample
from alignlab.engine.probes import Probe, closed_book


class Scripted:
    """A model that answers each question with these texts in turn."""

    identity, tokenizer = "scripted", None

    def __init__(self, **answers):
        self.answers, self.calls = answers, []

    def score(self, groups, at=None):
        raise AssertionError("a memory is sampled, not scored")

    def sample(self, prompts, **options):
        self.calls.append((list(prompts), options))
        return [[Sample(text=t) for t in self.answers[p[0]["content"]][: options["n"]]] for p in prompts]


def probe(texts, **options):
    model = Scripted(q=texts)
    return closed_book(model, {"id": "q"}, samples=len(texts), **options)["id"]


@pytest.mark.parametrize(
    ("texts", "want"),
    [
        (["Answer: Rome"] * 4, Probe("Rome", 1.0)),
        (["Answer: Rome", "Answer: Oslo", "Answer: Rome", "Answer: Rome"], Probe("Rome", 0.75)),
        (["Answer: Rome", "answer: the ROME.", "Answer: Oslo"], Probe("Rome", 2 / 3)),
        (["Rome", "Rome", "Answer: Oslo"], Probe("Oslo", 1 / 3)),
        (["Rome", ""], Probe(None, 0.0)),
        (["Answer: Oslo", "Answer: Rome"], Probe("Oslo", 0.5)),
    ],
)
def test_the_commonest_answer_and_its_share_of_all_samples(texts, want):
    """Answers are counted after normalisation; one that cannot be parsed counts against every other."""
    found = probe(texts)
    assert (found.answer, found.confidence) == (want.answer, want.confidence)


def test_every_answer_that_could_be_parsed_is_kept_as_drawn():
    assert probe(["Answer: Rome", "no answer", "answer: the ROME.", "Answer: Oslo"]).drawn == (
        "Rome",
        "the ROME.",
        "Oslo",
    )


def test_every_question_is_asked_once_at_temperature_one():
    model = Scripted(**{"Where?": ["Answer: a", "Answer: b"], "Who?": ["Answer: c", "Answer: c"]})
    advance = [].append
    found = closed_book(model, {"x": "Where?", "y": "Who?"}, 2, 7, advance)
    assert found == {"x": Probe("a", 0.5, ("a", "b")), "y": Probe("c", 1.0, ("c", "c"))}
    ((prompts, options),) = model.calls
    assert prompts == [({"role": "user", "content": text},) for text in ("Where?", "Who?")]
    assert (options["n"], options["seed"], options["temperature"]) == (2, 7, 1.0)
    assert options["progress"] is advance


def test_a_model_without_progress_is_not_handed_one():
    model = Scripted(q=["Answer: a"])
    closed_book(model, {"id": "q"}, samples=1)
    assert "progress" not in model.calls[0][1]


def test_a_real_model_repeats_itself(tiny_model):
    questions = {str(i): f"Where is {name}?" for i, name in enumerate(("Ada", "Bob"))}
    first = closed_book(tiny_model, questions, samples=3, seed=1, max_tokens=4)
    assert first == closed_book(tiny_model, questions, samples=3, seed=1, max_tokens=4)
    assert set(first) == {"0", "1"}
