"""Shared against plain on real architectures from tiny configs: values, gradients, and what must fall back."""

import dataclasses
import functools
import random
import warnings
from dataclasses import replace

import pytest
import torch
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    CheckpointImpl,
    apply_activation_checkpointing,
    checkpoint_wrapper,
)
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma3TextConfig,
    GptOssConfig,
    MambaConfig,
    MistralConfig,
    Phi3Config,
    Qwen2Config,
)

import tiny_models
from alignlab.core.types import Groups
from alignlab.engine import agreement, attention, folded, piecewise, products, work
from alignlab.engine import score as score_module
from alignlab.engine.agreement import Case, check_again, sharing_of
from alignlab.engine.encode import Example, collate
from alignlab.engine.load import LanguageModel, Lora, _put_fresh
from alignlab.engine.plan import Span
from alignlab.engine.score import score

VOCABULARY = 320
SIZES = dict(
    vocab_size=VOCABULARY, hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, head_dim=12, max_position_embeddings=256, bos_token_id=None, eos_token_id=1, pad_token_id=0,
)  # fmt: skip
OTHERS = {
    "gemma3": lambda: Gemma3TextConfig(**SIZES, sliding_window=9, layer_types=["sliding_attention", "full_attention"]),
    "mistral": lambda: MistralConfig(**SIZES, sliding_window=9),
    "phi3": lambda: Phi3Config(**{k: v for k, v in SIZES.items() if k != "head_dim"}, sliding_window=9),
    "qwen2": lambda: Qwen2Config(
        **SIZES, use_sliding_window=True, sliding_window=9, layer_types=["full_attention", "sliding_attention"]
    ),
    "gpt_oss": lambda: GptOssConfig(
        **SIZES, num_local_experts=2, num_experts_per_tok=1, sliding_window=9,
        layer_types=["sliding_attention", "full_attention"],
    ),
}  # fmt: skip
NAMED = (*tiny_models.ARCHITECTURES, "gemma3")
"""where falling back is a failure"""


def make(name, dtype=torch.float32):
    if name in tiny_models.ARCHITECTURES:
        return tiny_models.make_module(name, VOCABULARY).to(dtype)
    torch.manual_seed(0)
    module = AutoModelForCausalLM.from_config(OTHERS[name]())
    with torch.no_grad():
        for key, parameter in module.named_parameters():
            if parameter.ndim > 1 and "experts" not in key:
                parameter.mul_(10)
            if "sinks" in key:
                parameter.normal_()
    return tiny_models.exact_in_float64(module).to(dtype).eval()


def some(seed=0, sizes=((6, (4, 9, 1)), (3, (5,)), (30, (7, 12)), (1, (1, 1, 2, 30)))):
    """Ragged groups; the last prompt comes twice, and two completions are the same."""
    draw = random.Random(seed)

    def ids(n):
        return [draw.randrange(3, VOCABULARY) for _ in range(n)]

    examples = [Example(prompt_ids=ids(p), completions=tuple(ids(c) for c in lengths)) for p, lengths in sizes]
    last = examples[-1]
    extra = Example(prompt_ids=last.prompt_ids, completions=(last.completions[-1], ids(3)))
    return [*examples, extra]


def gradients(module, groups, share, **options):
    module.zero_grad()
    logp = score(module, groups, share=share, **options).logp
    weights = torch.linspace(-1, 1, logp.numel(), dtype=logp.dtype).reshape(logp.shape)
    (logp * weights).sum().backward()
    return logp.detach(), torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])


@pytest.mark.parametrize("name", [*NAMED, "mistral", "phi3", "qwen2"])  # the experts of gpt_oss know no float64
def test_shared_equals_plain_in_float64(name):
    module, groups = make(name, torch.float64), collate(some(), 0)
    plain, expected = gradients(module, groups, False)
    for size in (1, 40, 10**6):
        shared, found = gradients(module, groups, True, batch_tokens=size)
        torch.testing.assert_close(shared, plain, atol=1e-11, rtol=0)
        assert (found - expected).norm() <= 1e-9 * expected.norm()
    assert (plain[groups.mask] < 0).all()
    assert (shared[~groups.mask] == 0).all()
    assert expected.norm() > 0


@pytest.mark.parametrize("name", [*NAMED, *sorted(set(OTHERS) - {"gemma3"})])
def test_shared_equals_plain_in_float32_and_nothing_falls_back(name):
    module, groups = make(name), collate(some(), 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, gradient = gradients(module, groups, None)
    known = sharing_of(module)
    assert known.reason is None
    assert known.checked
    plain, expected = gradients(module, groups, False)
    torch.testing.assert_close(found, plain, atol=1e-4, rtol=0)
    assert (gradient - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("name", NAMED)
def test_16_bits_stay_on_the_shared_path(name):
    module = make(name, torch.bfloat16)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                parameter.mul_(0.1)  # logits as small as bfloat16 can tell apart
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        score(module, collate(some(), 0))
        with torch.autocast("cpu", torch.bfloat16):
            score(module.float(), collate(some(), 0))
    assert sharing_of(module).reason is None
    assert {case.dtype for case in sharing_of(module).checked} == {"bfloat16"}


@pytest.mark.parametrize("seed", range(5))
def test_random_groups_cut_in_any_way(seed):
    draw = random.Random(seed)
    sizes = [(draw.randint(1, 25), [draw.randint(1, 12) for _ in range(draw.randint(1, 4))]) for _ in range(5)]
    examples, module = some(seed, sizes), make("gemma3", torch.float64)
    whole, expected = gradients(module, collate(examples, 0), True)
    total = 0.0
    for example in examples:
        module.zero_grad()
        part = score(module, collate([example], 0), share=True, batch_tokens=draw.choice([1, 30, 1000])).logp
        total += part.sum().item()
    assert total == pytest.approx(whole.sum().item(), rel=1e-9)
    plain, wanted = gradients(module, collate(examples, 7), False)
    torch.testing.assert_close(whole, plain, atol=1e-11, rtol=0)
    assert (expected - wanted).norm() <= 1e-9 * wanted.norm()


def test_masks_with_holes_and_other_outputs():
    module, groups = make("llama", torch.float64), collate(some(), 0)
    holes = torch.rand(groups.mask.shape, generator=torch.Generator().manual_seed(1)) < 0.6
    holes[2] = False  # nothing of this completion is scored
    groups = replace(groups, mask=groups.mask & holes)
    at = torch.randint(0, VOCABULARY, (*groups.mask.shape, 3), generator=torch.Generator().manual_seed(2))
    at[..., 1], at[..., 2] = 300, 301
    at = at.clamp(max=301)
    at[..., 0] %= 300
    with torch.no_grad():
        plain, shared = (score(module, groups, at, share=share) for share in (False, True))
    for name in ("logp", "top_logp", "rest"):
        found, expected = getattr(shared, name), getattr(plain, name)
        torch.testing.assert_close(found, expected, atol=1e-11, rtol=0)
    empty = replace(groups, mask=torch.zeros_like(groups.mask))
    assert (score(module, empty, share=True).logp == 0).all()


def test_an_adapter_scores_the_same():
    model = LanguageModel(module=make("llama"), tokenizer=tiny_models.make_tokenizer())
    _put_fresh(model, Lora(r=4))
    with torch.no_grad():
        for name, parameter in model.module.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    found, gradient = gradients(model.module, collate(some(), 0), True)
    plain, expected = gradients(model.module, collate(some(), 0), False)
    torch.testing.assert_close(found, plain, atol=1e-4, rtol=0)
    assert (gradient - expected).norm() <= 1e-4 * expected.norm()


def test_recomputed_activations_see_the_same_layout():
    module, groups = make("gpt2", torch.float64).train(), collate(some(), 0)
    plain, expected = gradients(module, groups, False)
    enable = getattr(module, "activation_checkpointing_enable", module.gradient_checkpointing_enable)
    enable({"use_reentrant": False, "context_fn": attention.again})
    for share in (True, None):
        found, gradient = gradients(module, groups, share, batch_tokens=40)
        torch.testing.assert_close(found, plain, atol=1e-11, rtol=0)
        assert (gradient - expected).norm() <= 1e-9 * expected.norm()
    assert sharing_of(module).checked
    check_again(module)
    # a checkpoint that does not know the layout would recompute other activations
    enable({"use_reentrant": False})
    with pytest.raises(attention.NotShared, match="recomputed"):
        score(module, groups, share=True)
    found, gradient = gradients(module, groups, None)
    assert not sharing_of(module).checked
    assert (gradient - expected).norm() <= 1e-9 * expected.norm()
    assert module.config._attn_implementation == "sdpa"


def test_hooks_that_look_at_activations_see_rows_of_one_sequence():
    module, groups, seen = make("llama"), collate(some(), 0), []
    with module.model.layers[0].register_forward_hook(lambda m, args, out: seen.append(args[0].shape[0])):
        score(module, groups)
    assert seen == [len(groups.ids)]


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_the_config_is_as_before_also_after_an_error(name):
    module = make(name)
    before = module.config._attn_implementation
    score(module, collate(some(), 0), share=True)
    assert module.config._attn_implementation == before

    def fail(*_):
        raise RuntimeError("on purpose")

    with module.model.layers[1].register_forward_hook(fail), pytest.raises(RuntimeError, match="on purpose"):
        score(module, collate(some(), 0), share=True)
    assert module.config._attn_implementation == before
    assert attention._active.get() is None
    assert not module.get_output_embeddings()._forward_pre_hooks


def test_a_difference_on_the_first_batch_is_noticed_once(monkeypatch):
    module, groups = make("llama"), collate(some(), 0)
    with monkeypatch.context() as patch:
        # as if the completions of a prompt were one sequence
        patch.setattr(score_module.attention, "sharing", joined)
        with pytest.warns(
            UserWarning, match=r"llama: prompts are read once per completion.*differs by .* nats"
        ) as seen:
            found = score(module, groups).logp
    assert len(seen) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = score(module, groups).logp
    plain = score(module, groups, share=False).logp
    assert torch.equal(found, plain)
    assert torch.equal(again, plain)
    check_again(module)
    score(module, groups)
    assert sharing_of(module).reason is None


@pytest.mark.parametrize("broken", [False, True])
def test_of_a_large_first_batch_a_part_is_computed_twice(monkeypatch, broken):
    module, groups = make("llama"), collate(some(sizes=((9, (8, 7)),) * 12), 0)
    monkeypatch.setattr(agreement, "TRIAL", 5)
    seen, inner = [], score_module.plain_path
    monkeypatch.setattr(
        score_module, "plain_path", lambda *given: seen.append(given[1].mask.sum().item()) or inner(*given)
    )
    if broken:
        monkeypatch.setattr(score_module.attention, "sharing", joined)
        with pytest.warns(UserWarning, match="differs by"):
            found = score(module, groups).logp
        assert seen == [18, 190], "five tokens of two prompts are compared, then all take the plain path"
        assert torch.equal(found, score(module, groups, share=False).logp)
        return
    with work.measured() as spent:
        found = score(module, groups).logp
    assert seen == [18]
    with work.measured() as usual:
        score(module, groups)
    assert spent == usual, "the comparison is not counted"
    assert seen == [18], "once"
    torch.testing.assert_close(found, score(module, groups, share=False).logp, atol=1e-5, rtol=0)
    assert [(case.branching, case.packed) for case in sharing_of(module).checked] == [(True, True)]


def test_a_trial_holds_what_its_batch_holds(monkeypatch):
    monkeypatch.setattr(agreement, "TRIAL", 4)
    for family, groups, cases in (
        ("llama", lending(), [Case("float32", False, True, True, True, False, False)]),
        # longer than the window of eight: nothing is cut
        ("mistral", collate(some(sizes=((30, (3, 2)), (12, (2,)), *((20, (9, 9)),) * 6)), 0), [
            Case("float32", True, True, True, False, False, False)
        ]),
        ("llama", collate(some(sizes=((30, (9,)),))[:1], 0), [Case("float32", *[False] * 6)]),
    ):  # fmt: skip
        module = make(family)
        with torch.no_grad():
            score(module, groups)
        assert list(sharing_of(module).checked) == cases
        trial, (_, mask) = agreement.few(module, groups, (groups.prompt_ids, groups.prompt_mask))
        cut = family == "llama"
        assert (int(mask.sum(1).max()) == 4) is cut
        assert (trial.mask.shape[1] == 4) is cut


def long_and_short():
    """Groups of which one prompt is long enough for its attention to be folded, and the trial cuts all others."""
    return collate(some(sizes=((9, (8, 7)),) * 40 + ((260, (150, 140)), (400, (150, 140)))), 0)


@pytest.mark.parametrize("wrong", ["forward", "mask"])
def test_a_trial_holds_a_piece_as_long_as_its_batch_holds(monkeypatch, wrong):
    """What only long pieces go through is compared too: a fault there is noticed on the first batch."""
    module, groups = tiny_models.make_module("llama", VOCABULARY, positions=1024), long_and_short()
    monkeypatch.setattr(folded, "preferred", lambda: wrong == "forward")
    if not torch.backends.mkldnn.is_available() and wrong == "forward":
        pytest.skip("PyTorch without oneDNN")
    monkeypatch.setattr(folded, "THREADS", 1 << 20)
    trial, (_, mask) = agreement.few(module, groups, (groups.prompt_ids, groups.prompt_mask))
    assert mask.sum(1).max() == agreement.TRIAL + 96, "of the shorter long one as much as is still computed so"
    assert trial.mask.sum(1).max() == 150
    assert (mask.sum(1) > agreement.TRIAL).sum() == 1
    with torch.no_grad():
        score(module, groups)
    (case,) = sharing_of(module).checked
    assert (case.blocks, case.folded) == (True, wrong == "forward")
    check_again(module)
    if wrong == "forward":
        inner = folded.forward
        monkeypatch.setattr(folded, "forward", lambda *a, **k: (inner(*a, **k), a[6].neg_())[0])
    else:
        block = attention.Block
        monkeypatch.setattr(
            piecewise, "Block", lambda queries, keys, mask: block(queries, keys, None if mask is None else mask * 0)
        )
    with torch.no_grad(), pytest.warns(UserWarning, match=r"differs by .* nats"):
        found = score(module, groups).logp
    monkeypatch.undo()
    torch.testing.assert_close(found, score(module, groups, share=False).logp, atol=2e-5, rtol=0)


sharing = attention.sharing


def joined(module, spans, **_kept):
    return sharing(module, [Span(span.size, ()) for span in spans])


def test_what_was_not_in_the_first_batch_is_checked_when_it_comes():
    module, never = make("mistral"), [False] * 5
    batches = [((2, (3,)),), ((2, (3, 2)),), ((2, (2,)), (3, (3,))), ((20, (3, 2)), (4, (2,))), ((9, (2, 2)),)]
    with torch.no_grad():
        for sizes in batches:
            score(module, collate(some(sizes=sizes)[: len(sizes)], 0))
    assert list(sharing_of(module).checked) == [
        Case("float32", False, *never), Case("float32", False, True, *never[1:]),
        Case("float32", False, False, True, *never[2:]), Case("float32", True, True, True, *never[2:]),
    ]  # fmt: skip


def lending(seed=0):
    """Groups in which prompts hold completions that are only looked at: some alone, one that begins like another."""
    sizes = ((6, (4, 9, 3)), (3, (5, 2)), (30, (7, 12)), (1, (1, 1, 2, 30)))
    own, aside = ("dataset",), ("mismatched",)
    origins = (own * 2 + aside, own + aside, aside + own, own + aside * 3)
    examples = [dataclasses.replace(e, origins=o) for e, o in zip(some(seed, sizes), origins)]
    last = examples[-1]
    begins = Example(
        prompt_ids=last.prompt_ids, completions=(last.completions[3][:5], last.completions[3]), origins=aside + own
    )
    return collate([*examples, begins, dataclasses.replace(examples[0], origins=aside * 3, prompt_ids=[5, 4])], 0)


@pytest.mark.parametrize("name", [*NAMED, "mistral"])
def test_what_is_only_looked_at_is_read_on_its_prompt_and_gets_no_gradient(name):
    module, groups = make(name, torch.float64), lending()
    aside = torch.tensor([origin == "mismatched" for origin in groups.origin])
    everything, _ = gradients(module, dataclasses.replace(groups, origin=()), False)
    _, expected = gradients(module, dataclasses.replace(groups, origin=(), mask=groups.mask & ~aside[:, None]), False)
    for share, size in ((False, None), (True, 1), (True, 40), (True, 10**6), (None, None)):
        module.zero_grad()
        logp = score(module, groups, share=share, batch_tokens=size).logp
        torch.testing.assert_close(logp.detach(), everything, atol=1e-11, rtol=0)
        weights = torch.linspace(-1, 1, logp.numel(), dtype=logp.dtype).reshape(logp.shape)
        (logp * weights).sum().backward()
        found = torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])
        assert (found - expected).norm() <= 1e-9 * expected.norm(), (share, size)
    assert any(case.after for case in sharing_of(module).checked)
    with torch.no_grad():
        torch.testing.assert_close(score(module, groups, share=True).logp, everything, atol=1e-11, rtol=0)


def test_a_difference_in_what_is_only_looked_at_is_noticed(monkeypatch):
    module, groups = make("llama"), lending()

    def shifted(module, spans, keep=None, on=None):
        on = None if on is None else {layer: [(k.roll(1, 2), v) for k, v in known] for layer, known in on.items()}
        return sharing(module, spans, keep=keep, on=on)

    monkeypatch.setattr(score_module.attention, "sharing", shifted)
    with pytest.warns(UserWarning, match=r"differs by .* nats"):
        score(module, groups)


def test_16_bits_may_differ_as_much_as_the_plain_path_from_itself(monkeypatch):
    module = tiny_models.make_module("llama", VOCABULARY, scale=30.0).bfloat16()  # logits of some tens
    groups = collate(some(), 0)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        score(module, groups)
    assert max(sharing_of(module).checked.values())[0] > 5e-2
    check_again(module)
    monkeypatch.setattr(score_module.attention, "sharing", joined)
    with torch.no_grad(), pytest.warns(UserWarning, match="bfloat16 the shared path differs"):
        score(module, groups)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (lambda: MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, state_size=4), "a state"),
        (lambda: BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=2), "AttentionInterface"),
    ],
)
def test_other_models_take_the_plain_path_with_one_warning(config, reason):
    torch.manual_seed(0)
    module, groups = AutoModelForCausalLM.from_config(config()).eval(), collate(some(), 0)
    with torch.no_grad():
        with pytest.warns(UserWarning, match="read once per completion") as seen:
            first = score(module, groups).logp
        assert len([w for w in seen if "read once" in str(w.message)]) == 1
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            again = score(module, groups).logp
        assert torch.equal(first, score(module, groups, share=False).logp)
        assert torch.equal(first, again)
        with pytest.raises(attention.NotShared, match=reason):
            score(module, groups, share=True)


def test_the_work_is_what_the_formula_says(monkeypatch):
    """Counted with eager attention: linear layers and head to the digit, attention one product per block."""
    monkeypatch.setitem(piecewise.BLOCK, True, 16)
    module = make("llama")
    module.config._attn_implementation = "eager"
    prompt, lengths = 40, (9, 17, 30)
    (example,) = some(sizes=((prompt, lengths),))[:1]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        score(module, collate([example], 0), share=True)
    read = [c - 1 for c in lengths]
    weights = sum(p.numel() for name, p in module.named_parameters() if "layers" in name and p.ndim == 2)
    linear = 2 * weights * (prompt + sum(read))
    head = 2 * VOCABULARY * 48 * (1 + sum(read))
    pieces = _pieces(prompt, sorted(read, reverse=True))
    rotary = counter.get_total_flops() - linear - head - 2 * 2 * 2 * 48 * pieces
    # besides, one product of positions and frequencies for the rotation
    assert 0 <= rotary <= 2 * 6 * (prompt + sum(read))


def _pieces(prompt, read):
    """Queries times keys, with blocks of at most 16 queries."""

    def blocks(offset, length):
        number = -(-length // 16)
        cuts = [length * k // number for k in range(number + 1)]
        return sum((b - a) * (offset + b) for a, b in zip(cuts, cuts[1:]))

    return blocks(0, prompt + read[0]) + sum(blocks(prompt, c) for c in read[1:])


@pytest.mark.parametrize("size", [1, 3, 8])
@pytest.mark.parametrize("name", ["gemma2", "gemma3", "llama"])
def test_blocks_of_any_size_agree(name, size, monkeypatch):
    module, groups = make(name, torch.float64), collate(some(), 0)
    plain, expected = gradients(module, groups, False)
    monkeypatch.setitem(piecewise.BLOCK, True, size)
    found, gradient = gradients(module, groups, True)
    torch.testing.assert_close(found, plain, atol=1e-11, rtol=0)
    assert (gradient - expected).norm() <= 1e-9 * expected.norm()


def test_groups_may_lie_anywhere():
    groups = collate(some(), 0)
    assert isinstance(groups, Groups)
    module = make("gpt2")
    order = torch.randperm(len(groups.ids), generator=torch.Generator().manual_seed(0))
    turned = replace(groups, ids=groups.ids[order], mask=groups.mask[order], group=groups.group[order], origin=())
    with torch.no_grad():
        torch.testing.assert_close(
            score(module, turned, share=True).logp, score(module, groups, share=True).logp[order], atol=1e-5, rtol=0
        )


def test_what_sdpa_refuses_is_not_left_out_in_silence():
    """A soft-cap that SDPA cannot compute is an error, as it is under transformers alone."""
    module, groups = make("llama"), collate(some(), 0)
    layer = module.model.layers[0].self_attn
    torch.manual_seed(0)
    q, k = torch.randn(1, 4, 6, 12), torch.randn(1, 2, 6, 12)
    with pytest.raises(ValueError, match="softcap"), attention.sharing(module, (Span(4, (2,)),)):
        attention.rectangles(layer, q, k, k, None, softcap=20.0)
    assert (score(module, groups).logp[groups.mask] < 0).all()


@pytest.mark.parametrize("preferred", [False, True])
@pytest.mark.parametrize("kind", list(CheckpointImpl))
def test_layers_that_pytorchs_wrapper_computes_again(monkeypatch, preferred, kind):
    """It computes them outside of the row's layout, in the backward pass."""
    if preferred and not torch.backends.mkldnn.is_available():
        pytest.skip("PyTorch without oneDNN")
    monkeypatch.setattr(products, "preferred", lambda: preferred)
    module, groups = make("llama"), collate(some(), 0)
    _, expected = gradients(module, groups, False)
    apply_activation_checkpointing(
        module, checkpoint_wrapper_fn=functools.partial(checkpoint_wrapper, checkpoint_impl=kind),
        check_fn=lambda part: type(part).__name__ == "LlamaDecoderLayer",
    )  # fmt: skip
    module.enable_input_require_grads()  # or the re-entrant kind has no gradient at all
    module.zero_grad()
    _, found = gradients(module, groups, None)
    assert (found - expected).norm() <= 1e-5 * expected.norm()
    with pytest.raises(attention.NotShared, match="recomputed by a checkpoint"):
        score(module, groups, share=True)
    with torch.no_grad():
        score(module, groups, share=True)


@pytest.mark.parametrize("way", ["module", "function"])
def test_compiled_models_take_the_plain_path(monkeypatch, way):
    if torch.backends.mkldnn.is_available():
        monkeypatch.setattr(products, "preferred", lambda: True)
    module = make("llama")
    batches = [collate(some(seed), 0) for seed in range(2)]
    with torch.no_grad():
        expected = [score(module, groups, share=False).logp for groups in batches]
        if way == "module":
            module.compile(backend="eager")
        compiled = module if way == "module" else torch.compile(module, backend="eager")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = [score(compiled, groups).logp for groups in batches]
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=0)
    with pytest.raises(attention.NotShared, match="compiled|not a transformers model"):
        score(compiled, batches[0], share=True)


@pytest.mark.parametrize("broken", [float("inf"), float("nan")])
def test_a_broken_sequence_leaves_its_neighbours_alone(monkeypatch, broken):
    if not torch.backends.mkldnn.is_available():
        pytest.skip("PyTorch without oneDNN")
    monkeypatch.setattr(folded, "preferred", lambda: True)
    monkeypatch.setattr(folded, "LEAST", 1)
    monkeypatch.setattr(folded, "THREADS", 1 << 20)
    module = tiny_models.make_module("llama", VOCABULARY)
    with torch.no_grad():
        module.get_input_embeddings().weight[VOCABULARY - 1] = broken
        examples = some(sizes=((40, (9, 3)), (30, (12,)), (50, (7, 7))))[:3]
        examples[1] = replace(examples[1], prompt_ids=[VOCABULARY - 1, *examples[1].prompt_ids[1:]])
        groups = collate(examples, 0)
        found, expected = (score(module, groups, share=share).logp for share in (True, False))
    lost = found.isnan().any(1)
    assert torch.equal(lost, expected.isnan().any(1))
    assert lost[groups.group == 1].all()
    assert not lost.all()
    torch.testing.assert_close(found[~lost], expected[~lost], atol=2e-5, rtol=0)
    with torch.no_grad():
        seen = score(module, groups, share=None).logp
    assert sharing_of(module).reason is None
    assert torch.equal(seen.isnan().any(1), lost)


def test_who_looks_on_sees_activations_of_the_graph():
    """A hook's logits stay what they were, and gradients come by where it waits for them."""
    module, groups = make("llama"), collate(some(), 0)
    seen = []
    handles = [
        module.register_forward_hook(lambda _m, _a, output: seen.append(output.logits)),
        *(layer.mlp.act_fn.register_forward_hook(lambda _m, _a, output: output.retain_grad() or seen.append(output))
          for layer in module.model.layers),
    ]  # fmt: skip
    score(module, groups).logp.sum().backward()
    for handle in handles:
        handle.remove()
    *activations, logits = [tensor for tensor in seen if tensor.requires_grad]
    assert all(activation.grad is not None and activation.grad.any() for activation in activations)
    assert len(activations) == 2
    before = logits.detach().clone()
    again = []
    handle = module.register_forward_hook(lambda _m, _a, output: again.append(output.logits.detach().clone()))
    score(module, groups)
    handle.remove()
    torch.testing.assert_close(before, again[-1], atol=1e-5, rtol=0)


def test_a_second_backward_pass_is_an_error_even_where_saved_tensors_go_through_hooks():
    module, groups = make("llama"), collate(some(), 0)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor):
        logp = score(module, groups).logp
    logp.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="second backward pass"):
        logp.sum().backward()
