import pytest

from alignlab.core import evidence
from alignlab.core.types import Sample
from alignlab.engine.steered import Steered
from alignlab.steering import contrastive_context
from alignlab.steering.contrastive_context import Config, intervene

BARE = evidence.ask("Where is Ada?")


def answers(model, prompts, weight, **options):
    steered = Steered(model, [intervene(None, Config(weight=weight), None)])
    return [[s.text for s in samples] for samples in steered.sample(prompts, **options)]


def plain(model, prompts):
    return [[s.text for s in samples] for samples in model.sample(prompts, temperature=0.0, max_tokens=8)]


def test_no_weight_is_the_model_and_minus_one_its_memory(tiny_model, retrieve):
    prompts = [retrieve("Rome", "Oslo"), retrieve("Paris")]
    assert answers(tiny_model, prompts, 0.0, max_tokens=8) == plain(tiny_model, prompts)
    assert answers(tiny_model, prompts, -1.0, max_tokens=8) == plain(tiny_model, [BARE, BARE])
    assert plain(tiny_model, prompts) != plain(tiny_model, [BARE, BARE])


def test_a_question_without_passages_is_answered_whatever_the_weight(tiny_model):
    for weight in (-1.0, -0.5, 0.0, 1.0):
        assert answers(tiny_model, [BARE], weight, max_tokens=8) == plain(tiny_model, [BARE])


@pytest.mark.parametrize("instruction", ["", "End with 'Answer:'."])
def test_the_other_prompt_is_the_closed_book_question(tiny_model, monkeypatch, instruction):
    """What is contrasted with is what the memory probe asks: question and instruction, no passage, no head."""
    seen = []

    def spy(model, prompts, others, weight, max_tokens):
        seen.append((list(others), weight, max_tokens))
        return [Sample(text="x") for _ in prompts]

    monkeypatch.setattr(contrastive_context, "contrast", spy)
    listed = [{"text": "Ada is in Rome.", "source": "Herald", "date": "3"}]
    prompt = evidence.ask(evidence.retrieval("Where is Ada?", listed, instruction))
    answers(tiny_model, [prompt], 0.5, max_tokens=8)
    assert seen == [([evidence.ask(f"Where is Ada?\n{instruction}".strip())], 0.5, 8)]


def test_one_answer_serves_all_samples(tiny_model, retrieve):
    (group,) = answers(tiny_model, [retrieve("Rome")], 0.5, n=3, max_tokens=4)
    assert len(group) == 3
    assert len(set(group)) == 1


def test_identity_names_the_weight(tiny_model):
    names = {Steered(tiny_model, [intervene(None, Config(weight=w), None)]).identity for w in (-1.0, 0.5)}
    assert {name.rpartition("+")[2] for name in names} == {"contrastive_context(-1)", "contrastive_context(0.5)"}
