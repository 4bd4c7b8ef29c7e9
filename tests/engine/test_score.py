import copy
from dataclasses import replace

import pytest
import torch

import tiny_models
from alignlab.core.types import Groups
from alignlab.engine import logits as logits_module
from alignlab.engine.load import LanguageModel, Lora, _put_fresh
from alignlab.engine.plain import evaluating
from alignlab.engine.score import score

PROMPTS = [[7, 9, 30, 41, 12], [8], [100, 101, 102, 103, 104, 105, 106, 107, 33, 34, 35]]
COMPLETIONS = [[50, 51, 2], [60, 61, 62, 63, 64, 2], [2], [70, 2], [71, 72, 73, 74, 75, 76, 77, 78, 2]]
GROUP = [0, 0, 1, 2, 2]


def groups(prompt_pad=0, pad=0, extra=0, rows=None):
    """Ragged completions; padding of any content and width."""
    rows = range(len(COMPLETIONS)) if rows is None else rows

    def padded(lists, fill):
        width = max(map(len, lists)) + extra
        ids = torch.tensor([[*x, *[fill] * (width - len(x))] for x in lists])
        return ids, torch.arange(width) < torch.tensor([[len(x)] for x in lists])

    prompt_ids, prompt_mask = padded(PROMPTS, prompt_pad)
    ids, mask = padded([COMPLETIONS[i] for i in rows], pad)
    group = torch.tensor([GROUP[i] for i in rows])
    return Groups(prompt_ids=prompt_ids, prompt_mask=prompt_mask, ids=ids, mask=mask, group=group)


def plain(module, prompt, completion):
    """Each row alone, no mask, no cache, float64: log softmax written out."""
    twin = copy.deepcopy(module).double()
    with torch.no_grad():
        logits = twin(input_ids=torch.tensor([prompt + completion])).logits[0].double()
    logits = logits - logits.max(-1, keepdim=True).values
    table = logits - logits.exp().sum(-1, keepdim=True).log()
    return torch.stack([table[len(prompt) + t - 1, token] for t, token in enumerate(completion)])


@pytest.fixture(params=tiny_models.ARCHITECTURES)
def module(request):
    return tiny_models.make_module(request.param, 320)


def test_equals_an_independent_float64_forward_and_scores_the_end_token(module):
    logp = score(module, groups()).logp.detach()
    assert logp.dtype == torch.float32
    for row, completion in enumerate(COMPLETIONS):
        wanted = plain(module, PROMPTS[GROUP[row]], completion)
        torch.testing.assert_close(logp[row, : len(completion)].double(), wanted, atol=1e-5, rtol=0)
        assert logp[row, len(completion) - 1] < -0.01  # the end token is scored, not left at zero
        assert (logp[row, len(completion) :] == 0).all()


def test_soft_capping_matters():
    module = tiny_models.make_module("gemma2", 320)
    before = score(module, groups()).logp
    module.config.final_logit_softcapping = 1.0
    assert (score(module, groups()).logp - before).abs().max() > 0.1


@pytest.mark.parametrize(
    "other", [{"pad": 5}, {"pad": -100}, {"prompt_pad": 319}, {"extra": 7, "pad": 1, "prompt_pad": -1}]
)
def test_padding_reaches_no_value_and_no_gradient(module, other):
    module = module.double()
    results = []
    for batch in (groups(), groups(**other)):
        module.zero_grad()
        logp = score(module, batch).logp
        logp.sum().backward()
        results.append((logp.detach()[:, :9], [p.grad.clone() for p in module.parameters() if p.grad is not None]))
    (first, grads), (second, others) = results
    torch.testing.assert_close(first, second, atol=1e-12, rtol=0)
    for a, b in zip(grads, others, strict=True):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-9)


@pytest.mark.parametrize("share", [True, False])
def test_a_batch_of_one_equals_the_batch_in_value_and_gradient(module, share):
    module = module.double()
    whole = score(module, groups(), share=share).logp
    whole.sum().backward()
    grads = [p.grad.clone() for p in module.parameters() if p.grad is not None]
    module.zero_grad()
    for row in range(len(COMPLETIONS)):
        alone = score(module, groups(rows=[row]), share=share).logp
        torch.testing.assert_close(alone[0], whole[row, : alone.shape[1]], atol=1e-12, rtol=0)
        alone.sum().backward()
    for a, b in zip(grads, (p.grad for p in module.parameters() if p.grad is not None), strict=True):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-9)


def test_without_gradient_batches_of_any_size_agree(module):
    with torch.no_grad():
        whole = score(module, groups(), batch_tokens=10**6).logp
        for size in (1, 20, 40):
            torch.testing.assert_close(score(module, groups(), batch_tokens=size).logp, whole, atol=1e-5, rtol=0)
    assert not whole.requires_grad


def test_with_gradient_a_batch_is_one_row():
    """Every row writes the gradients of all weights, and what it keeps is kept until all have been walked back."""
    module, seen = tiny_models.make_module("llama", 320), []
    prompts = torch.randint(320, (30, 100), generator=torch.Generator().manual_seed(0))
    whole = torch.ones(30, 100, dtype=torch.bool)
    batch = Groups(
        prompt_ids=prompts, prompt_mask=whole, ids=prompts[:, :9], mask=whole[:, :9], group=torch.arange(30),
    )  # fmt: skip
    score(module, batch, share=True)
    module.register_forward_pre_hook(lambda _, args, given: seen.append(given["input_ids"].numel()), with_kwargs=True)
    score(module, batch, share=True)
    assert seen == [30 * 108]
    with torch.no_grad():
        score(module, batch, share=True)
    assert seen[1:] == [18 * 108, 12 * 108]  # 2,048 tokens at most


def test_unscored_tokens_between_scored_ones_are_read():
    module = tiny_models.make_module("llama", 320)
    batch = groups()
    mask = batch.mask.clone()
    mask[1, 2] = False
    logp = score(module, replace(batch, mask=mask)).logp
    whole = score(module, batch).logp
    assert logp[1, 2] == 0
    torch.testing.assert_close(logp[mask], whole[mask], atol=1e-6, rtol=0)


def test_at_reports_given_tokens_and_the_rest(module):
    at = torch.randint(0, 320, (5, 9, 4), generator=torch.Generator().manual_seed(0))
    at[..., 0] = torch.arange(9)  # distinct ids per position, so that the masses add up
    at[..., 1:] = torch.arange(100, 103)
    for size in (30, 10**6):
        with torch.no_grad():
            view = score(module, groups(), at, batch_tokens=size)
        assert view.top_logp.shape == (5, 9, 4)
        mask = groups().mask
        total = view.top_logp[mask].double().exp().sum(-1) + view.rest[mask].double().exp()
        torch.testing.assert_close(total, torch.ones_like(total), atol=1e-5, rtol=0)
        first = plain(module, PROMPTS[0], [0])  # token 0 as the first token after prompt 0
        torch.testing.assert_close(view.top_logp[0, 0, 0].double(), first[0], atol=1e-5, rtol=0)
        assert torch.equal(view.top_ids, at)


@pytest.mark.parametrize("share", [True, False])
def test_chunks_change_neither_values_nor_gradients(module, monkeypatch, share):
    module = module.double()
    results = []
    for chunk in (1 << 24, 320 * 3):
        monkeypatch.setattr(logits_module, "CHUNK", chunk)
        monkeypatch.setattr(logits_module, "PIECE", chunk)
        module.zero_grad()
        logp = score(module, groups(), share=share).logp
        logp.square().sum().backward()
        results.append((logp.detach(), [p.grad.clone() for p in module.parameters() if p.grad is not None]))
    torch.testing.assert_close(results[0][0], results[1][0], atol=1e-12, rtol=0)
    for a, b in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-9)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6), (torch.bfloat16, 1e-2)]
)
@pytest.mark.parametrize("piece", [1, 50, 1 << 19])
def test_log_probabilities_and_their_gradient_are_log_softmaxs(monkeypatch, dtype, tolerance, piece):
    monkeypatch.setattr(logits_module, "PIECE", piece)
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 40, generator=draw, dtype=torch.float64).mul(3).to(dtype).requires_grad_()
    place = torch.tensor([0, 0, 1, 3, 3, 3, 5])  # one place may predict several tokens, or none, or the same twice
    ids = torch.tensor([3, 4, 0, 39, 39, 7, 1])
    upstream = torch.randn(7, generator=draw, dtype=torch.float64)
    exact = logits.detach().clone().double().requires_grad_()
    expected = exact.log_softmax(-1)[place, ids]
    expected.backward(upstream)
    given = logits * 1  # a model's output, whose place its gradient takes
    values, rest = logits_module.log_probs(given, ids[:, None], False, place)
    values[:, 0].backward(upstream.to(values.dtype), retain_graph=True)
    assert torch.equal(given, logits.grad)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        values[:, 0].backward(upstream.to(values.dtype))
    assert values.dtype == torch.promote_types(dtype, torch.float32)
    assert not rest.any()
    torch.testing.assert_close(values[:, 0].double(), expected.detach(), rtol=0, atol=max(tolerance, 1e-15) * 10)
    torch.testing.assert_close(logits.grad.double(), exact.grad, rtol=0, atol=tolerance)
    own, _ = logits_module.log_probs(logits, ids[:6, None], False)
    torch.testing.assert_close(
        own[:, 0].double(), exact.log_softmax(-1)[range(6), ids[:6]], rtol=0, atol=tolerance * 10
    )


@pytest.mark.parametrize("masked", [-torch.inf, torch.finfo(torch.float32).min, -1e5, -1e3])
def test_an_impossible_token_leaves_others_of_its_place_alone(masked):
    """A vocabulary may have entries that are masked; one of them asked for first says nothing of the sum."""
    logits = torch.randn(2, 9, generator=torch.Generator().manual_seed(0))
    logits[0, 4] = masked
    expected = logits.log_softmax(-1)
    wanted, place = torch.tensor([[4], [2], [4]]), torch.tensor([0, 0, 1])
    leaf = logits.clone().requires_grad_()
    for given in (logits.clone(), leaf * 1):
        values, _ = logits_module.log_probs(given, wanted, False, place)
        assert values[0, 0] == expected[0, 4]
        torch.testing.assert_close(values[1:, 0], torch.stack([expected[0, 2], expected[1, 4]]), atol=1e-6, rtol=0)
    values[1:].sum().backward()
    exact = logits.clone().requires_grad_()
    (exact.log_softmax(-1)[[0, 1], [2, 4]]).sum().backward()
    torch.testing.assert_close(leaf.grad, exact.grad, atol=1e-6, rtol=0)


def test_logits_without_gradient_stay_as_they_are():
    logits = torch.randn(5, 9)
    before = logits.clone()
    logits_module.log_probs(logits, torch.arange(5)[:, None], False)
    assert torch.equal(logits, before)


def test_gradient_checkpointing_and_lora_score_the_same(module):
    before = score(module, groups()).logp.detach()
    model = LanguageModel(module=module, tokenizer=tiny_models.make_tokenizer())
    _put_fresh(model, Lora(r=2))
    torch.testing.assert_close(score(model.module, groups()).logp.detach(), before, atol=1e-5, rtol=0)
    model.module.gradient_checkpointing_enable()
    model.module.enable_input_require_grads()
    model.module.train()
    logp = score(model.module, groups()).logp
    torch.testing.assert_close(logp.detach(), before, atol=1e-5, rtol=0)
    logp.sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.module.parameters())


def test_the_head_runs_on_scored_positions_only(module):
    seen = []
    head = module.get_output_embeddings()
    handle = head.register_forward_hook(lambda m, args, out: seen.append(out.shape[:-1].numel()))
    with handle:
        score(module, groups(), share=False)
        score(module, groups(), share=True)
    # completions of one prompt share the place where their first token is predicted
    assert seen == [sum(map(len, COMPLETIONS)), sum(map(len, COMPLETIONS)) - 2]
    assert not head._forward_pre_hooks


def test_contexts_replace_the_prompt():
    module = tiny_models.make_module("llama", 320)
    other = (
        torch.tensor([[9, 9, 0], [1, 2, 3], [4, 5, 6]]),
        torch.tensor([[True, True, False], [True] * 3, [True] * 3]),
    )
    batch = replace(groups(), contexts={"second": other})
    logp = score(module, batch, context="second").logp.detach()
    torch.testing.assert_close(logp[0, :3].double(), plain(module, [9, 9], COMPLETIONS[0]), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="no context 'third'.*second"):
        score(module, batch, context="third")


def dropping(probability=0.5):
    module = tiny_models.make_module("gpt2", 320)
    for part in module.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = probability
    return module.train()


def test_dropout_is_off_without_gradient_and_on_with_it():
    module = dropping()
    with torch.no_grad():
        assert torch.equal(score(module, groups()).logp, score(module, groups()).logp)
    assert not torch.equal(score(module, groups()).logp, score(module, groups()).logp)


def test_modes_come_back_after_exceptions():
    module = dropping()
    module.transformer.h[0].eval()  # a mode that differs from its parent's
    before = [part.training for part in module.modules()]
    with evaluating(module):
        assert not any(part.training for part in module.modules())
    assert [part.training for part in module.modules()] == before

    def fail(*_):
        raise RuntimeError("on purpose")

    with module.transformer.h[1].register_forward_hook(fail), pytest.raises(RuntimeError), torch.no_grad():
        score(module, groups())
    assert [part.training for part in module.modules()] == before
    assert not module.get_output_embeddings()._forward_pre_hooks


def test_too_long_names_both_lengths():
    module = tiny_models.make_module("llama", 320, positions=12)
    with pytest.raises(ValueError, match="has 20 tokens, but the model takes 12"):
        score(module, groups())


def test_a_prompt_without_tokens_is_an_error():
    module = tiny_models.make_module("llama", 320)
    batch = groups()
    with pytest.raises(ValueError, match="prompt without tokens"):
        score(module, replace(batch, prompt_mask=torch.zeros_like(batch.prompt_mask)))
