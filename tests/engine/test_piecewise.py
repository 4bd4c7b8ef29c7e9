"""The pieces of a row in one node: values and gradients against attention written out, and what is kept for them."""

import math

import pytest
import torch

from alignlab.engine import piecewise
from alignlab.engine.attention import Layout
from alignlab.engine.plan import Span

SPANS = (Span(5, (4, 3, 2)), Span(3, ()), Span(1, (6,)), Span(4, (1, 1)))
HEADS, KEY_HEADS, SIZE = 6, 2, 8


def inputs(rows=1, dtype=torch.float64, spans=SPANS):
    """Return queries, keys and values that require a gradient."""
    torch.manual_seed(0)
    length = sum(span.size for span in spans)
    shapes = ((rows, heads, length, SIZE) for heads in (HEADS, KEY_HEADS, KEY_HEADS))
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


def pieces(like, window=None, spans=SPANS):
    return Layout(spans, ()).placed(torch.nn.Identity(), window, like)


def visible(window, spans=SPANS):
    """Return whether query i sees key j, from the spans alone."""
    whole = []
    for k, span in enumerate(spans):
        whole += [(k, -1, place) for place in range(span.prompt)]
        for n, length in enumerate(span.completions):
            whole += [(k, n, span.prompt + place) for place in range(length)]

    def sees(query, key):
        near = window is None or query[2] - key[2] < window
        return query[0] == key[0] and key[1] in (-1, query[1]) and key[2] <= query[2] and near

    return torch.tensor([[sees(query, key) for key in whole] for query in whole])


def written_out(query, key, value, seen, scale):
    """Return attention [B, S, heads, d] with every score of a query and a key it does not see at minus infinity."""
    keys, values = (tensor.repeat_interleave(HEADS // KEY_HEADS, 1) for tensor in (key, value))
    scores = (query @ keys.transpose(2, 3) * scale).masked_fill(~seen, -math.inf)
    return (torch.exp(scores - scores.logsumexp(-1, keepdim=True)) @ values).transpose(1, 2)


@pytest.mark.parametrize("window", [None, 2, 4])
@pytest.mark.parametrize("block", [2, 128])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_values_and_gradients_are_those_of_attention_written_out(window, block, scale, monkeypatch):
    monkeypatch.setitem(piecewise.BLOCK, True, block)
    given = inputs(rows=2)
    found = piecewise.attend(*given, pieces(given[0], window), scale)
    expected = written_out(*given, visible(window), scale or SIZE**-0.5)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    weights = torch.randn_like(found)
    ours, theirs = (torch.autograd.grad((value * weights).sum(), given) for value in (found, expected))
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-12, rtol=0)


def test_what_was_read_before_stands_in_front():
    given = inputs()
    whole = piecewise.attend(*given, pieces(given[0]), None)
    later = (Span(5, (3, 2)), Span(4, (1,)))
    rows = [*range(9, 14), 29]
    # prompts of the first and the last span, and completions that are not the first of theirs
    prompts = [slice(0, 5), slice(24, 28)]
    kept = [tuple(tensor[:, :, cut].detach() for tensor in given[1:]) for cut in prompts]
    module = torch.nn.Identity()
    layout = Layout(later, (), on={id(module): kept})
    some = [tensor[:, :, rows] for tensor in given]
    with torch.no_grad():
        found = piecewise.attend(*some, layout.placed(module, None, some[0]), None)
    torch.testing.assert_close(found, whole[:, rows], atol=1e-12, rtol=0)


def test_everything_is_kept_once():
    """Of a prompt with eight completions, keys eight times and every output twice would be three times as much."""
    spans = (Span(40, (5,) * 8),)
    given = inputs(spans=spans)
    kept = {}

    def note(tensor):
        kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        found = piecewise.attend(*given, pieces(given[0], spans=spans), None)
    tokens = found.shape[1]
    # queries, keys, values, output, and one sum per query and head
    assert sum(kept.values()) == tokens * (SIZE * (2 * HEADS + 2 * KEY_HEADS) + HEADS)


def test_autocast_computes_in_its_dtype():
    given = inputs(dtype=torch.float32)
    exact = piecewise.attend(*given, pieces(given[0]), None)
    with torch.autocast("cpu", torch.bfloat16):
        found = piecewise.attend(*given, pieces(given[0]), None)  # masks are made of what the layer hands over
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), exact, atol=0.05, rtol=0)
    found.float().sum().backward()
    assert all(tensor.grad.dtype == torch.float32 for tensor in given)


def test_what_the_kernel_does_not_take():
    query, key, value = inputs()
    assert piecewise.able(query, key, value, 0.0)
    assert not piecewise.able(query, key, value, 0.1)
    assert not piecewise.able(query, key, value[..., :4], 0.0)
    # the kernel reads rows as if they lay together
    assert not piecewise.able(query, key, value.transpose(2, 3).contiguous().transpose(2, 3), 0.0)
    assert not piecewise.able(*(tensor.to("meta") for tensor in (query, key, value)), 0.0)
