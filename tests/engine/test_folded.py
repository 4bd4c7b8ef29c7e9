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


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize(("n", "m"), [(9, 9), (1, 1), (5, 14), (1, 7), (23, 23), (4, 20)])
@pytest.mark.parametrize("key_heads", [1, 2, 6])
def test_values_and_gradients_are_those_of_the_kernel(everything, n, m, key_heads, keep):
    """Of a piece in the middle of a row, whose keys stand before it elsewhere; nothing else is written."""
    query, key, value = given = inputs(n, m, key_heads=key_heads)
    hidden = torch.ones(n, m, dtype=torch.bool).triu(m - n + 1)
    repeated = [t.repeat_interleave(6 // key_heads, 0) for t in (key, value)]
    expected = sdpa(query, *repeated, attn_mask=~hidden, scale=0.3).transpose(0, 1)
    weights, offset, begin = torch.randn_like(expected), m - n, 3
    around = [torch.full((heads, size, 8), 1e4) for heads in (6, key_heads) for size in (begin, 4)]

    def between(tensor):
        return torch.cat((around[0 if len(tensor) == 6 else 2], tensor, around[1 if len(tensor) == 6 else 3]), 1)

    with torch.no_grad():
        row = folded.Row.of(*map(between, (query, key[:, offset:], value[:, offset:])), 0.3)
        before = [list(t[:, :offset]) if offset else [] for t in (key, value)]
        seen = [row.seen(which, begin, n, before[which - 1]) for which in (1, 2)]
        out, for_query = torch.full((begin + n + 4, 6, 8), torch.nan), torch.full((6, begin + n + 4, 8), torch.nan)
        kept = folded.forward(row, begin, n, *seen, offset, out, keep=keep)
        assert bool(kept) is keep
        gradient = folded.by_head(between(weights.transpose(0, 1)), key_heads)
        parts = folded.backward(row, begin, n, *seen, offset, gradient, kept, for_query, 0.3)
    own = slice(begin, begin + n)
    torch.testing.assert_close(out[own], expected, atol=2e-6, rtol=0)
    assert int(out.isnan().all((1, 2)).sum()) == int(for_query.isnan().all((0, 2)).sum()) == begin + 4
    found = (for_query[:, own], *(torch.stack(part)[:, :m] for part in parts))
    for mine, other in zip(found, torch.autograd.grad(expected, given, weights), strict=True):
        torch.testing.assert_close(mine, other, atol=5e-6, rtol=0)
    assert not any(part[:, m:].any() for both in parts for part in [torch.stack(both)])


def test_rows_of_products_end_in_zeros(everything):
    """What a product reads behind the row must be finite: it is hidden by adding minus infinity, not left out."""
    rows = torch.arange(48.0).view(6, 4, 2)
    (first, second) = folded.by_head(rows, 2, 0.5)
    assert first.shape == ((4 + folded.GRAIN) * 3, 2)
    assert torch.equal(first[:12].view(4, 3, 2), rows[:3].transpose(0, 1) / 2)
    assert torch.equal(second[:12].view(4, 3, 2), rows[3:].transpose(0, 1) / 2)
    assert not torch.cat((first[12:], second[12:])).any()


def test_nobody_looks_at_the_products_of_a_piece(everything):
    """A thousand small operations, each handed to a function in Python first, were 2 % of a step."""
    whole, seen = given(), []

    class Looking(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            seen.append(func)
            return func(*args, **(kwargs or {}))

    layout = Layout(SPANS, (), shared=3)
    pieces = layout.placed(torch.nn.Identity(), None, whole[0])
    with Looking():
        out = piecewise.attend(*whole, pieces, 0.3)
    assert torch.Tensor.narrow not in seen
    assert len(seen) < 10
    torch.testing.assert_close(out, piecewise.attend(*whole, pieces, 0.3))


SPANS = (Span(30, (9, 7)), Span(5, ()), Span(2, (11,)))


def given(rows=1, dtype=torch.float32):
    torch.manual_seed(0)
    tokens = sum(span.size for span in SPANS)
    return [torch.randn(rows, heads, tokens, 8, dtype=dtype, requires_grad=True) for heads in (6, 2, 2)]


@pytest.mark.parametrize("kept", [0, 6 * 37 * 38, 1 << 20])
@pytest.mark.parametrize("window", [None, 12])
def test_a_row_of_folded_pieces(everything, window, kept, monkeypatch):
    monkeypatch.setattr(folded, "KEPT", kept)
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


def test_probabilities_of_short_pieces_are_kept(everything, monkeypatch):
    """Of the four pieces (39, 7 on 30, 5 and 13 queries) those that are few enough, until the backward pass has run."""
    whole, sizes = given(), {}

    def saved():
        sizes.clear()
        layout = Layout(SPANS, (), shared=3)
        pieces = layout.placed(torch.nn.Identity(), None, whole[0])
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.setdefault(id(t), t), lambda t: t):
            piecewise.attend(*whole, pieces, None)
        return sum(t.numel() for t in sizes.values())

    monkeypatch.setattr(folded, "KEPT", 0)
    without = saved()
    blocks = {(0, 39): 0, (30, 7): 0, (0, 5): 0, (0, 13): 0}
    for offset, n in blocks:
        blocks[offset, n] = 6 * sum(rows * keys for _, _, rows, keys in folded._blocks(offset, n))
    monkeypatch.setattr(folded, "KEPT", blocks[30, 7])
    assert saved() - without == sum(blocks.values()) - blocks[0, 39]
    monkeypatch.setattr(folded, "KEPT", blocks[30, 7] - 1)
    assert saved() - without == blocks[0, 5] + blocks[0, 13]
    with torch.no_grad():
        sizes.clear()
        assert saved() == 0


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

    def forward(row, begin, n, keys, values, offset, *rest, **options):
        seen.append((n, offset + n))
        return real(row, begin, n, keys, values, offset, *rest, **options)

    monkeypatch.setattr(folded, "forward", forward)
    with torch.no_grad(), work.measured() as found:
        score(module, batch, share=True)
    layers = module.config.num_hidden_layers
    assert seen == [(48, 48), (8, 48)] * layers
    assert found.pairs == sum(2 * 4 * stop for stop in range(4, 49, 4)) + 2 * 4 * 44 + 2 * 4 * 48
    assert found.pairs > sum(n * (2 * m - n) for n, m in seen[:2])
