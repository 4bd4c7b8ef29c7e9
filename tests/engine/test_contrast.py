"""Decoding from two prompts, against plain sampling at the ends and an uncached, unpadded loop between them."""

import pytest
import torch

from alignlab.engine.contrast import contrast
from alignlab.engine.encode import prompt_ids
from alignlab.engine.sample import end_ids

PROMPTS = [
    ({"role": "user", "content": "Where does Ada Brook work?"},),
    ({"role": "user", "content": "In 1931 the school moved. Where is it?"},),
    (
        {
            "role": "user",
            "content": "The ferry leaves Lowmarsh at noon, and the baker likes tea. Who likes tea?",
        },
    ),
]
OTHERS = [
    ({"role": "user", "content": "Where?"},),
    ({"role": "user", "content": "Sources disagree: one says the clock is blue, another says that it is red."},),
    ({"role": "user", "content": "Who likes tea?"},),
]
LONG = 10


@pytest.fixture(params=["llama", "qwen3", "gpt2", "gemma2"])
def model(request, tiny_models):
    return tiny_models.make_model(request.param)


def by_hand(model, prompt, other, weight):
    """One row at a time: a whole forward pass of both texts for each token."""
    tokens = []
    prefixes = [prompt_ids(model.tokenizer, [p])[0] for p in (prompt, other)]
    with torch.no_grad():
        for _ in range(LONG):
            first, second = (model.module(torch.tensor([p + tokens])).logits[0, -1].double() for p in prefixes)
            tokens.append(int(((1 + weight) * first - weight * second).argmax()))
            if tokens[-1] in end_ids(model.module, model.tokenizer):
                break
    return tuple(tokens)


def ids(samples):
    return [tuple(sample.ids) for sample in samples]


@pytest.mark.parametrize("weight", [-0.5, 0.7])
def test_between_the_ends_it_is_the_weighted_sum(model, weight):
    wanted = [by_hand(model, p, o, weight) for p, o in zip(PROMPTS, OTHERS)]
    assert ids(contrast(model, PROMPTS, OTHERS, weight, LONG)) == wanted


def test_at_the_ends_it_is_plain_sampling(model):
    for weight, plain in ((0.0, PROMPTS), (-1.0, OTHERS)):
        wanted = [samples[0].text for samples in model.sample(plain, temperature=0.0, max_tokens=LONG)]
        assert [s.text for s in contrast(model, PROMPTS, OTHERS, weight, LONG)] == wanted


def test_the_weight_matters(tiny_model):
    answers = {weight: ids(contrast(tiny_model, PROMPTS, OTHERS, weight, LONG)) for weight in (-1.0, -0.5, 0.0, 1.0)}
    assert len({tuple(found) for found in answers.values()}) > 2


def test_batches_do_not_matter(tiny_model):
    together = contrast(tiny_model, PROMPTS, OTHERS, 0.5, LONG)
    assert ids(contrast(tiny_model, PROMPTS, OTHERS, 0.5, LONG, rows=1)) == ids(together)
    assert ids(contrast(tiny_model, PROMPTS[::-1], OTHERS[::-1], 0.5, LONG)) == ids(together)[::-1]


def test_answers_end_at_the_end_of_turn(tiny_model):
    """With the end made likeliest everywhere, an answer is that one token, and no text."""
    end = min(end_ids(tiny_model.module, tiny_model.tokenizer))
    head = tiny_model.module.lm_head

    def certain(module, inputs, output):
        return torch.nn.functional.one_hot(torch.full(output.shape[:-1], end), output.shape[-1]).float() * 50

    hook = head.register_forward_hook(certain)
    try:
        found = contrast(tiny_model, PROMPTS, OTHERS, 0.5, LONG)
    finally:
        hook.remove()
    assert ids(found) == [(end,)] * 3
    assert {sample.text for sample in found} == {""}


def test_both_prompts_are_paid_for(tiny_model):
    found = contrast(tiny_model, PROMPTS, OTHERS, 0.0, 2)
    both = zip(*(prompt_ids(tiny_model.tokenizer, texts) for texts in (PROMPTS, OTHERS)))
    assert [sample.prompt_tokens for sample in found] == [len(a) + len(b) for a, b in both]


def test_training_mode_comes_back(tiny_model):
    tiny_model.module.train()
    contrast(tiny_model, PROMPTS[:1], OTHERS[:1], 0.0, 1)
    assert tiny_model.module.training
