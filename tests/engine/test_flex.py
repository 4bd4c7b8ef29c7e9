"""FlexAttention over rows of shared prompts: what it sees, what it visits, and that models say the same by it."""

import itertools
import random
import warnings

import pytest
import torch
from torch.nn.attention import flex_attention as torchs
from transformers import AutoModelForCausalLM, GptOssConfig

import tiny_models
from alignlab.engine import flex, work
from alignlab.engine.agreement import sharing_of
from alignlab.engine.encode import Example, collate
from alignlab.engine.load import LoadError, load
from alignlab.engine.plan import Span, attention_pairs
from alignlab.engine.score import score

VOCABULARY = 320
SIZES = ((6, (4, 9, 1)), (3, (5,)), (30, (7, 12)), (1, (1, 1, 2, 30)), (40, (12, 11, 2)))
CPU = torch.device("cpu")
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


@pytest.fixture
def differentiable(monkeypatch):
    """PyTorch checks devices before it calls its operator, which on a processor differentiates like any other."""
    monkeypatch.setattr(torchs, "_validate_device", lambda *_: None)
    inner = flex.refusal
    monkeypatch.setattr(flex, "refusal", lambda *given: None if "gradient" in (inner(*given) or "") else inner(*given))


@pytest.fixture
def called(monkeypatch):
    """Count the calls of FlexAttention."""
    seen, inner = [], flex.flex

    def counting(*given):
        seen.append(given)
        return inner(*given)

    monkeypatch.setattr(flex, "flex", counting)
    return seen


def make(name, dtype=torch.float64):
    """A model that names FlexAttention; transformers does not let GPT-2 do so at loading."""
    module = tiny_models.make_module(name, VOCABULARY).to(dtype)
    module.config._attn_implementation_internal = flex.NAME
    return module


def groups_of(sizes=SIZES, aside=()):
    """Random groups; completions at the places `aside` of each prompt are only looked at, after the first of them."""
    draw = random.Random(0)
    found = []
    for prompt, lengths in sizes:
        origins = tuple("mismatched" if n in aside and len(lengths) > 1 else "dataset" for n in range(len(lengths)))
        ids = [[draw.randrange(3, VOCABULARY) for _ in range(n)] for n in (prompt, *lengths)]
        found.append(Example(prompt_ids=ids[0], completions=tuple(ids[1:]), origins=origins))
    return collate(found, 0)


def gradients(module, groups, share, **options):
    module.zero_grad()
    logp = score(module, groups, share=share, **options).logp
    weights = torch.linspace(-1, 1, logp.numel(), dtype=logp.dtype, device=logp.device).reshape(logp.shape)
    own = torch.tensor([origin != "mismatched" for origin in groups.origin], device=logp.device)
    (logp * weights * own[:, None]).sum().backward()
    return logp.detach(), torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])


def listed(number, indices):
    """Blocks [rows, columns] from PyTorch's lists."""
    table = torch.zeros(indices.shape[-2:], dtype=torch.bool)
    for row in range(table.shape[0]):
        table[row, indices[0, 0, row, : int(number[0, 0, row])].long()] = True
    return table


def seen_by_hand(spans, alone, window):
    """Which token sees which, token by token: its prompt and what comes before it in its own completion."""
    prompts = [("prompt", s, p, p) for s, span in enumerate(spans) for p in range(span.prompt)]
    queries = []
    for s, span in enumerate(spans):
        queries += [] if alone else [("prompt", s, p, p) for p in range(span.prompt)]
        queries += [(c, s, p, span.prompt + p) for c, n in enumerate(span.completions) for p in range(n)]
    keys = prompts + queries if alone else queries
    return torch.tensor([
        [s == t and c in ("prompt", b) and p <= q and (window is None or q - p < window) for c, t, _, p in keys]
        for b, s, _, q in queries
    ])  # fmt: skip


def rows(seed, most):
    draw = random.Random(seed)
    for trial in range(12):
        spans = [
            Span(draw.randint(1, most), tuple(sorted((draw.randint(1, most) for _ in range(n)), reverse=True)))
            for n in (draw.randint(0, 4) for _ in range(draw.randint(1, 3)))
        ]
        yield [*spans, Span(3, (2,))], bool(trial % 2), draw.choice([None, 1, 2, 5, most])


@pytest.mark.parametrize("size", [4, 7])
def test_a_mask_shows_what_a_token_may_see_and_visits_only_blocks_with_something_to_see(size, monkeypatch):
    monkeypatch.setattr(flex, "BLOCK", size)
    for spans, alone, window in rows(size, 3 * size):
        found = flex.mask_of(spans, alone, window, CPU)
        mask, expected = found.blocks, seen_by_hand(spans, alone, window)
        assert torch.equal(torchs.create_mask(mask.mask_mod, 1, 1, *mask.seq_lengths, device="cpu")[0, 0], expected)
        padding = [(-expected.shape[1]) % size, (-expected.shape[0]) % size]
        whole = torch.nn.functional.pad(expected, (0, padding[0], 0, padding[1])).unfold(0, size, size)
        blocks = whole.unfold(1, size, size).flatten(2).sum(2)
        full = listed(mask.full_kv_num_blocks, mask.full_kv_indices)
        partial = listed(mask.kv_num_blocks, mask.kv_indices)
        assert torch.equal(full, blocks == size * size)
        assert torch.equal(partial, (blocks > 0) & (blocks < size * size))
        assert found.visited == (blocks > 0).sum()
        # the backward pass walks the same blocks by keys
        assert torch.equal(listed(mask.full_q_num_blocks, mask.full_q_indices), full.T)
        assert torch.equal(listed(mask.q_num_blocks, mask.q_indices), partial.T)


@pytest.mark.parametrize(("spans", "most"), [
    ([Span(2048, (128, 128))], 1.08), ([Span(120, (290,) * 4)] * 3, 1.62), ([Span(8192, (512,) * 4)], 1.03),
])  # fmt: skip
def test_what_is_visited_is_the_floor_but_for_the_edges_of_blocks(spans, most):
    """Shapes of RAG and of lists; a block at an edge is computed whole, 128 x 128."""
    visited = 2 * flex.mask_of(spans, False, None, CPU).visited * flex.BLOCK**2
    floor = sum(map(attention_pairs, spans))
    edges = sum(2 * flex.BLOCK * (span.prompt + 2 * sum(span.completions)) for span in spans)
    assert floor <= visited <= min(most * floor, floor + 2 * edges)
    square = 2 * sum(span.size for span in spans) ** 2
    assert visited < square / 1.5, "a dense mask computes every pair of a row"


@pytest.mark.parametrize("name", tiny_models.ARCHITECTURES)
def test_values_and_gradients_are_those_of_the_plain_path_in_float64(name, differentiable, called):
    module, groups = make(name), groups_of()
    plain, expected = gradients(module, groups, False)
    assert not called
    found, gradient = gradients(module, groups, True, batch_tokens=100)
    torch.testing.assert_close(found, plain, atol=1e-11, rtol=0)
    assert (gradient - expected).norm() <= 1e-9 * expected.norm()
    assert len(called) == 2 * 2, "two layers, two rows of several prompts"
    assert module.config._attn_implementation == flex.NAME


@pytest.mark.parametrize("name", ["qwen3", "gemma2"])
def test_prompts_read_before_are_read_on(name, differentiable, called):
    module, groups = make(name, torch.float32), groups_of(aside=(1, 3))
    plain, expected = gradients(module, groups, False)
    found, gradient = gradients(module, groups, None)
    torch.testing.assert_close(found, plain, atol=1e-4, rtol=0)
    assert (gradient - expected).norm() <= 1e-5 * expected.norm()
    assert {query.shape[2] < key.shape[2] for query, key, *_ in called} == {True, False}
    assert sharing_of(module).reason is None
    assert any(case.after for case in sharing_of(module).checked)


def test_one_mask_serves_all_layers_with_the_same_window(called):
    with torch.no_grad():
        for name, different in (("llama", 1), ("gemma2", 2)):
            called.clear()
            score(make(name), groups_of(), share=True)
            assert len(called) == 2
            assert len({id(mask) for _, _, _, mask, *_ in called}) == different


def test_what_is_computed_is_counted(monkeypatch):
    module, groups = make("llama"), groups_of()
    with torch.no_grad(), work.measured() as square:
        score(module, groups, share=True)
    assert square.pairs == 2 * square.tokens**2, "a processor computes the whole square"


def test_a_processor_trains_piece_by_piece_and_says_so_once(called):
    flex._warn.cache_clear()
    module, groups = make("gemma2"), groups_of()
    plain, expected = gradients(module, groups, False)
    with pytest.warns(UserWarning, match="piece by piece.*no gradient on processors") as seen:
        found, gradient = gradients(module, groups, True)
    assert len(seen) == 1
    assert not called
    torch.testing.assert_close(found, plain, atol=1e-11, rtol=0)
    assert (gradient - expected).norm() <= 1e-9 * expected.norm()


def test_sinks_and_dropout_are_left_to_others(called):
    flex._warn.cache_clear()
    torch.manual_seed(0)
    sizes = dict(
        vocab_size=VOCABULARY, hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=12, num_local_experts=2, num_experts_per_tok=1, sliding_window=9,
        layer_types=["sliding_attention", "full_attention"], pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    module, groups = AutoModelForCausalLM.from_config(GptOssConfig(**sizes)).eval(), groups_of()
    with torch.no_grad():
        expected = score(module, groups, share=True).logp
        module.config._attn_implementation_internal = flex.NAME
        with pytest.warns(UserWarning, match="sinks"):
            assert torch.equal(score(module, groups, share=True).logp, expected)
    query = torch.zeros(1, 4, 6, 16)
    assert flex.refusal(query, query, query, {}) is None
    assert "drop" in flex.refusal(query, query, query, {"dropout": 0.1})
    assert "meta" in flex.refusal(query.to("meta"), query, query, {})
    assert not called


def test_autocast_computes_in_its_own_format(called):
    module, groups = make("qwen3", torch.float32), groups_of()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        score(module, groups, share=True)
    assert {tensor.dtype for given in called for tensor in given[:3]} == {torch.bfloat16}


def test_rows_of_any_length_are_one_kernel(differentiable):
    """Guards are PyTorch's own, whatever the device: one graph for many lengths, one for rows of a single block."""
    torch._dynamo.reset()
    graphs = []
    inner = flex.compiled(lambda graph, _: graphs.append(graph) or graph.forward)
    draw = random.Random(0)
    for trial, alone in itertools.product(range(2), (False, True)):
        spans = [Span(draw.randint(130, 300), tuple(draw.randint(1, 200) for _ in range(draw.randint(1, 3))))]
        spans += [Span(draw.randint(1, 90), (200, 7))] * draw.randint(0, 2)
        mask = flex.mask_of(spans, alone, draw.choice([None, 50]), CPU).blocks
        q, k = (torch.randn(1, heads, n, 16) for heads, n in zip((4, 2), mask.seq_lengths))
        with flex.as_constants():
            found = inner(q, k, k, mask, 0.3, 20.0)
            if trial:
                torch.testing.assert_close(found, flex._uncompiled(q, k, k, mask, 0.3, 20.0))
    assert len(graphs) <= 2, f"{len(graphs)} graphs"
    with flex.as_constants():  # a soft-cap that may change cannot be traced
        inner(q, k, k, mask, 0.2, 30.0)


def test_a_model_is_loaded_with_the_attention_that_is_asked_for():
    model, usual = load("tiny:", attn_implementation="flex_attention"), load("tiny:")
    assert model.module.config._attn_implementation == flex.NAME
    assert model.identity == usual.identity
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        found, expected = (m.score(groups_of()).logp for m in (model, usual))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    with pytest.raises(LoadError, match=r"attn_implementation 'kernels/x'; expected eager, sdpa, flex_attention"):
        load("tiny:", attn_implementation="kernels/x")


def on_cuda(name, dtype, implementation, **changed):
    """A model whose heads are large enough for kernels."""
    config = tiny_models.make_module(name, VOCABULARY).config
    config.update({"head_dim": 16, **changed})
    torch.manual_seed(0)
    module = AutoModelForCausalLM.from_config(config, attn_implementation=implementation)
    return module.cuda().to(dtype).eval()


@pytest.mark.gpu
@gpu
@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_it_agrees_with_the_plain_path(name, dtype):
    module = on_cuda(name, dtype, flex.NAME)
    sizes = (*SIZES, (60, (130, 120, 9)))
    for groups in (groups_of(sizes), groups_of(sizes, aside=(1,)), groups_of(sizes[::2])):
        found, gradient = gradients(module, groups, None)
        assert sharing_of(module).reason is None
        with flex.replaced(module):
            plain, expected = gradients(module, groups, False)
        values, relative = (1e-4, 1e-3) if dtype == torch.float32 else (5e-2, 5e-2)
        torch.testing.assert_close(found, plain, atol=values, rtol=0)
        assert (gradient - expected).norm() <= relative * expected.norm()


@pytest.mark.gpu
@gpu
@pytest.mark.parametrize("implementation", ["sdpa", flex.NAME])
def test_shared_prompts_take_less_of_a_gpus_memory(implementation):
    """One long prompt with four completions: kept once, and no table of queries times keys."""
    groups = groups_of(((2048, (256,) * 4),))
    module = on_cuda("llama", torch.bfloat16, implementation, max_position_embeddings=4096)
    peaks = {}
    for share in (False, True):
        for _ in range(2):  # what is compiled or set up the first time does not count
            torch.cuda.synchronize()
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            gradients(module, groups, share)
            peaks[share] = torch.cuda.max_memory_allocated() - before
    assert peaks[True] < peaks[False], peaks
    scores = module.config.num_attention_heads * (2048 + 4 * 256) ** 2
    assert peaks[True] < torch.bfloat16.itemsize * scores, "a table of scores was made"
