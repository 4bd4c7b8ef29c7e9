"""How a step is cut into micro-batches."""

import random

import pytest

from alignlab.engine.encode import Example
from alignlab.train.batches import micro_batches


def example(prompt, *completions):
    return Example(prompt_ids=[1] * prompt, completions=tuple([2] * length for length in completions))


SOME = random.Random(0)
EXAMPLES = [example(SOME.randrange(1, 300), SOME.randrange(1, 90), SOME.randrange(1, 90)) for _ in range(37)]


def nodes(chunk):
    return sum(len(EXAMPLES[i].prompt_ids) + sum(map(len, EXAMPLES[i].completions)) for i in chunk)


@pytest.mark.parametrize("even", [False, True])
@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("per_device", [1, 4, 5, 64])
def test_each_item_counts_once(even, ranks, per_device):
    mine = [micro_batches(range(37), EXAMPLES, per_device, rank, ranks, even=even) for rank in range(ranks)]
    assert len({len(parts) for parts in mine}) == 1
    counted = [i for parts in mine for chunk, counts in parts if counts for i in chunk]
    assert sorted(counted) == list(range(37))
    assert all(1 <= len(chunk) <= per_device for parts in mine for chunk, _ in parts)
    assert sum(len(parts) for parts in mine) < -(-37 // per_device) + ranks


@pytest.mark.parametrize("even", [False, True])
def test_the_order_of_items_does_not_matter(even):
    turned = SOME.sample(range(37), 37)
    one, other = (micro_batches(items, EXAMPLES, 4, 0, 1, even=even) for items in (range(37), turned))
    assert one == other


def test_even_batches_hold_as_many_tokens_each():
    sizes = [nodes(chunk) for chunk, _ in micro_batches(range(36), EXAMPLES, 4, 0, 1, even=True)]
    assert max(sizes) <= 1.1 * sum(sizes) / len(sizes)
    unlike = [nodes(chunk) for chunk, _ in micro_batches(range(36), EXAMPLES, 4, 0, 1)]
    assert max(unlike) > 1.5 * sum(sizes) / len(sizes)


def test_a_prompt_counts_once_where_it_is_shared():
    examples = [example(100, 1, 1, 1, 1, 1), example(60, 60), example(60, 60), example(10, 1)]
    found = [chunk for chunk, _ in micro_batches(range(4), examples, 2, 0, 1, even=True)]
    assert found == [(1, 0), (2, 3)]  # with its prompt read five times the first would stand with the last


def test_others_are_cut_by_length():
    (first, _), (second, _) = micro_batches(range(4), [example(n, 1) for n in (3, 9, 8, 2)], 2, 0, 1)
    assert (first, second) == ((1, 2), (0, 3))
