"""Attention by folded products: values and gradients against PyTorch's kernel, where it is taken, what it costs."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention as sdpa

import tiny_models
from alignlab.core.types import Groups
from alignlab.engine import folded, piecewise, work
from alignlab.engine.attention import Layout
from alignlab.engine.plan import Span
from alignlab.engine.score import score


@pytest.fixture
def everything(monkeypatch):
    """Fold whatever may be folded, in short blocks, on any processor that has oneDNN."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("PyTorch without oneDNN")
    monkeypatch.setattr(folded, "LEAST", 1)
    monkeypatch.setattr(folded, "BLOCK", 4)
    monkeypatch.setattr(folded, "GRAIN", 2)
    monkeypatch.setattr(folded, "preferred", lambda: True)


def inputs(n, m, heads=6, key_heads=2, d=8):
    torch.manual_seed(0)
    # as projections leave them: heads side by side
    shapes = ((n, heads, d), (m, key_heads, d), (m, key_heads, d))
    return [torch.randn(shape).transpose(0, 1).requires_grad_() for shape in shapes]


@pytest.mark.parametrize(("n", "m"), [(9, 9), (1, 1), (5, 14), (1, 7), (23, 23), (4, 20)])
@pytest.mark.parametrize("key_heads", [1, 2, 6])
def test_values_and_gradients_are_those_of_the_kernel(everything, n, m, key_heads):
    query, key, value = given = inputs(n, m, key_heads=key_heads)
    hidden = torch.ones(n, m, dtype=torch.bool).triu(m - n + 1)
    repeated = [t.repeat_interleave(6 // key_heads, 0) for t in (key, value)]
    expected = sdpa(query, *repeated, attn_mask=~hidden, scale=0.3).transpose(0, 1)
    out, for_query = torch.full_like(expected, torch.nan), torch.full_like(query, torch.nan)
    weights = torch.randn_like(expected)
    with torch.no_grad():
        folded.forward(query, key, value, out, 0.3)
        found = (for_query, *folded.backward(weights, query, key, value, for_query, 0.3))
    torch.testing.assert_close(out, expected, atol=2e-6, rtol=0)
    for mine, other in zip(found, torch.autograd.grad(expected, given, weights), strict=True):
        torch.testing.assert_close(mine, other, atol=5e-6, rtol=0)


SPANS = (Span(30, (9, 7)), Span(5, ()), Span(2, (11,)))


def given(rows=1, dtype=torch.float32):
    torch.manual_seed(0)
    tokens = sum(span.size for span in SPANS)
    return [torch.randn(rows, heads, tokens, 8, dtype=dtype, requires_grad=True) for heads in (6, 2, 2)]


@pytest.mark.parametrize("window", [None, 12])
def test_a_row_of_folded_pieces(everything, window, monkeypatch):
    whole = given()

    def both():
        layout = Layout(SPANS, (), shared=piecewise.shared_heads(*whole[:2]))
        pieces = layout.placed(torch.nn.Identity(), window, whole[0])
        found = piecewise.attend(*whole, pieces, None)
        return [piece.folded for piece in pieces], found, torch.autograd.grad((found * found).sum(), whole)

    which, found, gradient = both()
    # a window that hides something is the kernel's business
    assert which == ([True] * 4 if window is None else [False, False, True, False])
    monkeypatch.setattr(folded, "LEAST", 1 << 60)
    which, expected, other = both()
    assert not any(which)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)
    for a, b in zip(gradient, other, strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=0)


def test_what_is_not_folded(monkeypatch):
    monkeypatch.setattr(folded, "preferred", lambda: True)
    assert folded.folds(3, 0, 300)
    assert not folded.folds(3, 0, 150)
    assert not folded.folds(1, 0, 300)
    assert not folded.folds(0, 0, 10**6)
    assert folded.folds(3, 1000, 30)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    assert not folded.folds(3, 0, 300)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(folded, "preferred", lambda: False)
    assert not folded.folds(3, 0, 300)
    one, two, exact = given(), given(rows=2), given(dtype=torch.float64)
    assert [piecewise.shared_heads(*some[:2]) for some in (one, two, exact)] == [3, 0, 0]
    with torch.autocast("cpu", torch.bfloat16):
        assert piecewise.shared_heads(*one[:2]) == 0


def test_its_work_is_counted(everything, monkeypatch):
    """Blocks of four queries compute up to three keys too many, and that is in the count of a model's pass."""
    module = tiny_models.make_module("llama", 320)
    prompts, whole = torch.arange(40)[None], torch.ones(1, 40, dtype=torch.bool)
    batch = Groups(
        prompt_ids=prompts, prompt_mask=whole, ids=prompts[:, :9].repeat(2, 1) + torch.tensor([[0], [50]]),
        mask=whole[:, :9].repeat(2, 1), group=torch.zeros(2, dtype=torch.long),
    )  # fmt: skip
    seen, real = [], folded.forward

    def forward(query, key, *rest):
        seen.append((query.shape[1], key.shape[1]))
        real(query, key, *rest)

    monkeypatch.setattr(folded, "forward", forward)
    with torch.no_grad(), work.measured() as found:
        score(module, batch, share=True)
    layers = module.config.num_hidden_layers
    assert seen == [(48, 48), (8, 48)] * layers
    assert found.pairs == sum(2 * 4 * stop for stop in range(4, 49, 4)) + 2 * 4 * 44 + 2 * 4 * 48
    assert found.pairs > sum(n * (2 * m - n) for n, m in seen[:2])
