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
    assert {(sample.stop, sample.logp) for sample in found} == {("stop", (0.0,))}


@pytest.mark.parametrize("length", [1, LONG])
def test_a_cut_answer_says_so(model, length):
    """As plain sampling says it: by length where no end came."""
    found = contrast(model, PROMPTS, OTHERS, 0.0, length)
    plain = [samples[0] for samples in model.sample(PROMPTS, temperature=0.0, max_tokens=length)]
    assert [(s.text, s.ids, s.stop, s.logp) for s in found] == [(s.text, s.ids, s.stop, s.logp) for s in plain]
    assert "length" in {s.stop for s in found}


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
def test_the_context_ends_each_answer_by_itself(tiny_models, arch):
    """A row has the room behind the longer of its own prompts; longer rows beside it do not take any of it."""
    model = tiny_models.make_model(arch, positions=96)
    both = list(zip(*(prompt_ids(model.tokenizer, texts) for texts in (PROMPTS, OTHERS))))
    rooms = [96 - max(map(len, pair)) for pair in both]
    found = contrast(model, PROMPTS, OTHERS, 0.3, 1000)
    assert len(set(rooms)) > 1
    assert [len(s.ids) if s.stop == "length" else "stop" for s in found] == [
        room if s.stop == "length" else "stop" for s, room in zip(found, rooms)
    ]
    assert "length" in {s.stop for s in found}
    alone = [contrast(model, [p], [o], 0.3, 1000)[0] for p, o in zip(PROMPTS, OTHERS)]
    assert ids(alone) == ids(found)


@pytest.mark.parametrize("count", [0, -1])
def test_no_room_for_an_answer_is_an_error(tiny_model, count):
    with pytest.raises(ValueError, match=f"max_tokens={count}.*expected max_tokens >= 1"):
        contrast(tiny_model, PROMPTS, OTHERS, 0.5, count)
    with pytest.raises(ValueError, match="3 prompts, 2 others"):
        contrast(tiny_model, PROMPTS, OTHERS[:2], 0.5, 4)


def test_both_prompts_are_paid_for(tiny_model):
    found = contrast(tiny_model, PROMPTS, OTHERS, 0.0, 2)
    both = zip(*(prompt_ids(tiny_model.tokenizer, texts) for texts in (PROMPTS, OTHERS)))
    assert [sample.prompt_tokens for sample in found] == [len(a) + len(b) for a, b in both]


def test_training_mode_comes_back(tiny_model):
    tiny_model.module.train()
    contrast(tiny_model, PROMPTS[:1], OTHERS[:1], 0.0, 1)
    assert tiny_model.module.training
