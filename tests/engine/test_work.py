"""What is counted is what PyTorch counts, attention included, and the floor is the least that a step can do."""

import dataclasses
import random

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import tiny_models
from alignlab.engine import score, work
from alignlab.engine.encode import Example, collate
from alignlab.engine.load import Lora, _put_fresh
from alignlab.engine.plan import Span, attention_pairs


def batch(*sizes, seed=0):
    """Prompts with completions of the given lengths."""
    draw = random.Random(seed)

    def ids(n):
        return [draw.randrange(6, 300) for _ in range(n)]

    return collate([Example(prompt_ids=ids(p), completions=tuple(ids(c) for c in cs)) for p, *cs in sizes], 0)


def eager(architecture, seed=0):
    model = tiny_models.make_model(architecture, seed=seed)
    model.module.set_attn_implementation("eager")
    return model.module


def measured(module, groups, *, share, gradient=True):
    """FLOPs by PyTorch's counter, and what was noted."""
    with FlopCounterMode(display=False) as counter, work.measured() as found:
        if gradient:
            score.score(module, groups, share=share).logp.sum().backward()
        else:
            with torch.no_grad():
                score.score(module, groups, share=share)
    return counter.get_total_flops(), found


GROUPS = batch((9, 5, 7), (4, 3), (12, 8, 2, 6))


@pytest.mark.parametrize("architecture", tiny_models.ARCHITECTURES)
@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("gradient", [False, True])
def test_counted_flops_are_pytorchs(architecture, share, gradient):
    """Eager attention, so that the counter sees it; there a causal square is computed whole."""
    module = eager(architecture)
    counted, found = measured(module, GROUPS, share=share, gradient=gradient)
    price = work.price(module)
    hidden = found.pairs  # the half of every causal square that eager attention computes and masks
    if share:
        spans = [(9, 6), (4, 2), (12, 7)]  # prompt and longest completion, whose last token is not read
        hidden = sum((p + c) ** 2 for p, c in spans)
    passes = 3 if gradient else 1
    assert price.trained == 1
    assert counted == passes * (price.forward(found) + price.pair * hidden)
    assert price.step(found) == 3 * price.forward(found)


@pytest.mark.parametrize("architecture", tiny_models.ARCHITECTURES)
def test_what_is_only_looked_at_beside_the_rest_is_counted_apart(architecture):
    """Prompt and own completion three times, the lent one once, its prompt not again."""
    module = eager(architecture)
    groups = batch((9, 7, 5), (12, 8, 6))
    groups = dataclasses.replace(groups, origin=("dataset", "mismatched") * 2)
    own = dataclasses.replace(groups, mask=groups.mask & torch.tensor([[True], [False]] * 2))
    looking = work.Work()
    with FlopCounterMode(display=False) as counter, work.measured(looking) as learning:
        score.score(module, groups, share=True).logp[::2].sum().backward()
    price, least, both = work.price(module), work.least(module, [own]), work.least(module, [groups])
    assert (learning.tokens, learning.heads) == (least.tokens, least.heads)
    assert (looking.tokens, looking.heads) == (both.tokens - least.tokens, both.heads - least.heads) == (4 + 5, 4 + 5)
    hidden = (9 + 6) ** 2 + (12 + 7) ** 2  # half of each causal square is computed and masked
    assert counter.get_total_flops() == 3 * (price.forward(learning) + price.pair * hidden) + price.forward(looking)
    done = price.step(learning) + price.forward(looking)
    assert 1 <= done / price.floor(least, both) < 1.02


def test_nothing_is_noted_where_nobody_measures_and_nothing_of_the_comparison():
    module = eager("llama")
    with work.measured() as found:
        score.score(module, GROUPS, share=None)
    with work.measured() as again:
        score.score(module, GROUPS, share=None)
    assert found == again, "the first batch's comparison with the plain path is not counted"
    with torch.no_grad(), work.measured() as outer:
        fresh = eager("llama", seed=1)
        score.score(fresh, GROUPS, share=None)
        with work.measured() as inner:
            score.score(fresh, GROUPS, share=None)
    assert outer.tokens == inner.tokens == found.tokens > 0
    work.note(1.0, 1.0, 1.0)


def test_the_least_is_each_distinct_node_once():
    module = eager("llama")
    least = work.least(module, [GROUPS])
    spans = [Span(9, (6, 4)), Span(4, (2,)), Span(12, (7, 5, 1))]
    assert least.tokens == sum(s.size for s in spans)
    assert least.pairs == sum(map(attention_pairs, spans))
    # of each prompt the last token predicts all first tokens at once
    assert least.heads == sum(sum(s.completions) + 1 for s in spans)
    assert work.least(module, [GROUPS, GROUPS]) == least, "what is given twice is computed once"
    halves = [
        dataclasses.replace(GROUPS, mask=GROUPS.mask & keep[:, None]) for keep in (GROUPS.group == 0, GROUPS.group > 0)
    ]
    assert work.least(module, halves) == least, "however it is cut"


@pytest.mark.parametrize(("share", "low", "high"), [(True, 0.99, 1.05), (False, 1.6, 9.0)])
def test_shared_prompts_are_at_the_floor_and_repeated_ones_far_above(share, low, high):
    groups, module = batch((120, 29, 29, 29, 29), (60, 20, 20), (200, 12, 12)), eager("llama")
    _, found = measured(module, groups, share=share, gradient=False)
    price, least = work.price(module), work.least(module, [groups])
    assert low <= price.step(found) / price.floor(least, least) <= high


def test_rectangles_in_blocks_compute_a_little_more_than_they_must():
    span = Span(100, (50, 50, 30))
    assert attention_pairs(span) < work.done_for([span], 1024) == 150**2 + 2 * 50 * 150 + 2 * 30 * 130
    assert work.done_for([span], 16) < work.done_for([span], 1024)
    assert work.done_for([span], 1) == pytest.approx(attention_pairs(span), rel=0.01)


def test_frozen_weights_save_their_gradients():
    model = tiny_models.make_model("llama")
    whole = work.price(model.module)
    _put_fresh(model, Lora(r=2))
    thin = work.price(model.module)
    assert (thin.head, thin.pair) == (whole.head, whole.pair)
    assert 0 < thin.trained < 0.1
    done = work.Work(10, 5, 100)
    assert 2 < thin.step(done) / thin.forward(done) < 2.1
    model.module.requires_grad_(False)
    assert work.price(model.module).trained == 0


def test_recomputation_is_paid_for():
    module = eager("llama")
    module.gradient_checkpointing_enable()
    price, done = work.price(module), work.Work(10, 5, 100)
    assert price.step(done) - 3 * price.forward(done) == 0.75 * (price.token * 10 + price.pair * 100)
    assert price.floor(done, done) == 3 * price.forward(done), "the floor recomputes nothing"


def test_what_is_only_looked_at_costs_one_pass():
    module = eager("llama")
    price, trained = work.price(module), work.least(module, [batch((9, 5))])
    both = work.least(module, [batch((9, 5)), batch((9, 5, 7))])
    assert price.floor(trained, both) == pytest.approx(3 * price.forward(trained) + price.forward(
        work.Work(both.tokens - trained.tokens, both.heads - trained.heads, both.pairs - trained.pairs)))  # fmt: skip
