"""Annotations of teachers against whole distributions; batches that carry them."""

import dataclasses
import random

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import tiny_models
from alignlab.engine import work
from alignlab.engine.encode import Example, collate
from alignlab.engine.teachers import annotated


@pytest.fixture(scope="module")
def models():
    return [tiny_models.make_model(seed=seed) for seed in (0, 1)]


def some():
    return [
        Example(prompt_ids=[7, 8, 9], completions=([10, 11, 2], [12, 2])),
        Example(prompt_ids=[20], completions=([21, 22, 23, 24, 25, 2], [26, 27, 2])),
        Example(prompt_ids=[30, 31], completions=([32, 2], [33, 34, 35, 2])),
    ]


def whole(model, prompt, completion):
    """Log-probabilities [tokens, V] by a plain forward pass."""
    with torch.no_grad():
        logits = model.module(input_ids=torch.tensor([prompt + completion])).logits[0]
    return logits[len(prompt) - 1 : -1].log_softmax(-1)


@pytest.mark.parametrize("k", [1, 5])
def test_annotations_are_the_teachers_distributions(models, k):
    first, second = models
    done = []
    found = annotated(some(), {"teacher": first, "teacher_ref": second}, first, k, done.append)
    assert sum(done) == 3
    for example, plain in zip(found, some()):
        assert dataclasses.replace(example, views={}) == plain
        parts = [torch.cat([whole(m, plain.prompt_ids, c) for c in plain.completions]) for m in models]
        tokens = torch.tensor([t for c in plain.completions for t in c])
        ids = parts[0].topk(k).indices
        for name, expected in zip(("teacher", "teacher_ref"), parts):
            told = example.views[name]
            assert torch.equal(told.top_ids.long(), ids), "both speak of the first teacher's tokens"
            torch.testing.assert_close(told.logp, expected.gather(1, tokens[:, None])[:, 0], rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(told.top_logp, expected.gather(1, ids), rtol=1e-4, atol=1e-4)
            others = expected.exp().sum(1) - expected.gather(1, ids).exp().sum(1)
            torch.testing.assert_close(told.rest.exp(), others, rtol=1e-3, atol=1e-5)


def test_a_batch_holds_them_where_the_tokens_are(models):
    found = annotated(some(), {"teacher": models[0]}, models[0], 4)
    groups = collate(found[::-1], 0)
    view = groups.views["teacher"]
    assert view.top_ids.dtype == torch.long
    assert view.top_ids.shape == (*groups.mask.shape, 4)
    told = torch.cat([e.views["teacher"].top_logp for e in found[::-1]])
    assert torch.equal(view.top_logp[groups.mask], told)
    assert (view.top_logp[~groups.mask] == 0).all()
    with pytest.raises(ValueError, match="'teacher' is given for some examples"):
        collate([found[0], some()[1]], 0)
    wrong = dataclasses.replace(found[0], views=found[1].views)
    with pytest.raises(ValueError, match="as many tokens"):
        collate([wrong], 0)


def test_the_whole_vocabulary_leaves_no_rest(models):
    size = len(models[0].tokenizer)
    (example,) = annotated(some()[:1], {"teacher": models[0]}, models[0], 10**6)
    assert example.views["teacher"].top_ids.shape == (5, size)
    assert (example.views["teacher"].rest == -torch.inf).all()


def test_each_node_is_read_once_by_each_teacher():
    """Counted by PyTorch with eager attention, which computes the hidden half of every causal square too."""
    models = [tiny_models.make_model(seed=seed) for seed in (0, 1)]
    for model in models:
        model.module.set_attn_implementation("eager")
    draw = random.Random(0)
    sizes = [(40, (30, 20, 9, 5)), (25, (12, 12)), (60, (8, 7, 6))]
    examples = [
        Example(
            prompt_ids=[draw.randrange(6, 300) for _ in range(p)],
            completions=tuple([draw.randrange(6, 300) for _ in range(c)] for c in cs),
        )
        for p, cs in sizes
    ]
    teachers = dict(zip(("teacher", "teacher_ref"), models))
    annotated(examples, teachers, models[0], 5)  # both paths are compared
    with FlopCounterMode(display=False) as counter, work.measured() as found:
        annotated(examples, teachers, models[0], 5)
    price, least = work.price(models[0].module), work.least(models[0].module, [collate(examples, 0)])
    hidden = sum((p + cs[0] - 1) ** 2 for p, cs in sizes)  # the last token of a completion is not read
    assert counter.get_total_flops() == price.forward(found) + 2 * price.pair * hidden
    assert 1 <= price.forward(found) / (2 * price.forward(least)) <= 1.05


def test_completions_longer_than_the_teacher_are_an_error(models):
    example = Example(prompt_ids=[7] * 200, completions=([8] * 60,))
    with pytest.raises(ValueError, match="260 tokens, but the model takes 256"):
        annotated([example], {"teacher": models[0]}, models[0], 3)


def test_a_teacher_with_another_tokenizer_is_an_error(models):
    other = tiny_models.make_model(seed=2)
    other.tokenizer.add_tokens(["<|new|>"])
    with pytest.raises(ValueError, match="teacher tests/llama@.* has another tokenizer"):
        annotated(some(), {"teacher": other}, models[0], 3)
