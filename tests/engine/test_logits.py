"""The head without gradient: a chunk of places at a time, layers once, and the k likeliest tokens of each place."""

import contextlib
import random

import pytest
import torch
from transformers import AutoModelForCausalLM, OPTConfig

import tiny_models
from alignlab.engine import logits, routed
from alignlab.engine.adapters import load_all
from alignlab.engine.encode import Example, collate
from alignlab.engine.load import Lora, load, save
from alignlab.engine.score import score, score_adapters

WORDS = 320
CHUNK = 7 * WORDS


def batch(heads=()):
    draw = random.Random(0)

    def ids(n):
        return [draw.randrange(6, 300) for _ in range(n)]

    sizes = [(9, (12, 7)), (4, (15,)), (12, (8, 3, 6))]
    scores = iter(heads)
    return collate(
        [
            Example(
                prompt_ids=ids(p), completions=tuple(map(ids, cs)),
                scores={"head": tuple(next(scores) for _ in cs)} if heads else {},
            )
            for p, cs in sizes
        ],
        0,
    )  # fmt: skip


def opt():
    torch.manual_seed(0)
    config = OPTConfig(
        vocab_size=WORDS, hidden_size=48, ffn_dim=96, num_hidden_layers=2, num_attention_heads=4,
        word_embed_proj_dim=48, max_position_embeddings=256, pad_token_id=0, bos_token_id=None, eos_token_id=1,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config).eval()


def made(architecture):
    return opt() if architecture == "opt" else tiny_models.make_model(architecture).module


@contextlib.contextmanager
def seen(*modules):
    """Yield, for each module, how many numbers it has returned in each call."""
    found = [[] for _ in modules]
    with contextlib.ExitStack() as stack:
        for module, calls in zip(modules, found):

            def note(_module, _args, output, calls=calls):
                calls.append((output[0] if isinstance(output, tuple) else output).numel())

            stack.callback(module.register_forward_hook(note).remove)
        yield found


def same(one, other, tolerance=1e-5):
    for name in ("logp", "top_logp", "rest"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), atol=tolerance, rtol=0)
    assert torch.equal(one.top_ids, other.top_ids)


CASES = [(name, share) for name in tiny_models.ARCHITECTURES for share in (True, False)] + [("opt", False)]


@pytest.mark.parametrize(("architecture", "share"), CASES)
def test_without_gradient_the_head_makes_a_chunk_at_a_time(monkeypatch, architecture, share):
    """The layers run once all the same, and what the model does after its head (Gemma's cap) is done to each chunk."""
    module, groups = made(architecture), batch()
    at = torch.randint(0, WORDS, (*groups.mask.shape, 3))
    with torch.no_grad():
        whole, likeliest = score(module, groups, at, share=share), score(module, groups, 4, share=share)
        monkeypatch.setattr(logits, "AT_ONCE", CHUNK)
        layer = next(part for name, part in module.named_modules() if name.endswith("0.mlp") or name.endswith("0.fc1"))
        with seen(module.get_output_embeddings(), layer) as (heads, layers):
            same(score(module, groups, at, share=share), whole)
        assert max(heads) <= CHUNK
        assert sum(heads) == WORDS * (groups.mask.sum() if not share else groups.mask.sum() - 3)
        assert len(layers) == 1
        same(score(module, groups, 4, share=share), likeliest)
        torch.testing.assert_close(score(module, groups, share=share).logp, whole.logp, atol=1e-5, rtol=0)
    assert not any("forward" in vars(part) for part in module.modules())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


@pytest.mark.parametrize(("architecture", "share"), CASES)
def test_the_likeliest_are_those_of_a_plain_softmax(architecture, share):
    module, groups = made(architecture), batch()
    with torch.no_grad():
        view = score(module, groups, 5, share=share)
        for n in range(len(groups.ids)):
            prompt = groups.prompt_ids[groups.group[n]][groups.prompt_mask[groups.group[n]]]
            own = groups.ids[n][groups.mask[n]]
            said = module(input_ids=torch.cat([prompt, own])[None]).logits[0, len(prompt) - 1 : -1].double()
            expected = said.exp() / said.exp().sum(-1, keepdim=True)
            top = expected.topk(5)
            assert torch.equal(view.top_ids[n, : len(own)], top.indices)
            near = {"atol": 1e-5, "rtol": 1e-3}
            torch.testing.assert_close(view.top_logp[n, : len(own)].double().exp(), top.values, **near)
            torch.testing.assert_close(view.rest[n, : len(own)].double().exp(), 1 - top.values.sum(-1), **near)
            torch.testing.assert_close(view.logp[n, : len(own)].double().exp(), expected.gather(1, own[:, None])[:, 0],
                                       **near)  # fmt: skip
    for padding in (view.top_ids, view.top_logp, view.rest):
        assert (padding[~groups.mask] == 0).all()


def test_with_gradient_the_head_runs_once(monkeypatch):
    monkeypatch.setattr(logits, "AT_ONCE", CHUNK)
    module = made("llama")
    with seen(module.get_output_embeddings()) as (heads,):
        view = score(module, batch(), 3, share=True)
    assert len(heads) == 1
    view.top_logp.sum().backward()
    assert module.get_input_embeddings().weight.grad.abs().sum() > 0


def test_each_output_head_has_its_places_in_every_chunk(monkeypatch):
    module, groups = made("llama"), batch(heads=(1.0, 0.0, 2.0, 1.0, 0.0, 2.0))
    routed.grow(module, 3)
    routed.routed_head(module).weight.data[1:] *= torch.tensor([0.5, -0.7])[:, None, None]
    for share in (True, False):
        with torch.no_grad():
            monkeypatch.setattr(logits, "AT_ONCE", 1 << 26)
            whole = score(module, groups, 3, share=share)
            monkeypatch.setattr(logits, "AT_ONCE", CHUNK)
            with seen(routed.routed_head(module)) as (heads,):
                same(score(module, groups, 3, share=share), whole)
        assert len(heads) > 3
        assert max(heads) <= CHUNK


def test_copies_for_several_adapters_go_in_chunks(monkeypatch, tmp_path):
    save(tiny_models.make_model(), tmp_path / "base")
    for seed in (1, 2):
        model = load(tmp_path / "base", lora=Lora(r=2, seed=seed))
        for name, parameter in model.module.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.5)
        save(model, tmp_path / str(seed))
    models, groups = load_all([tmp_path / "1", tmp_path / "2"]), batch()
    with torch.no_grad():
        alone = [model.score(groups, 3) for model in models]
        monkeypatch.setattr(logits, "AT_ONCE", CHUNK)
        for found, own in zip(score_adapters(models[0].module, groups, ["default", "adapter1"], 3), alone, strict=True):
            same(found, own)
    assert not torch.allclose(alone[0].logp, alone[1].logp, atol=1e-2)


def test_a_model_whose_layers_are_not_known_reads_again(monkeypatch):
    module, groups = made("llama"), batch()
    with torch.no_grad():
        whole = score(module, groups, 3, share=False)
        monkeypatch.setattr(logits, "AT_ONCE", CHUNK)
        monkeypatch.setattr(logits, "_layers", lambda _module: None)
        same(score(module, groups, 3, share=False), whole)


def test_after_an_error_the_model_is_as_before(monkeypatch):
    module, groups = made("llama"), batch()
    monkeypatch.setattr(logits, "AT_ONCE", CHUNK)
    calls = []

    def stop(*_):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    handle = module.get_output_embeddings().register_forward_hook(stop)
    with torch.no_grad(), pytest.raises(KeyboardInterrupt):
        score(module, groups, share=True)
    handle.remove()
    assert not any("forward" in vars(part) for part in module.modules())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


def test_how_many_are_asked_for():
    module, groups = made("llama"), batch()
    with pytest.raises(ValueError, match="number of likeliest tokens >= 1, got 0"):
        score(module, groups, 0)
    with torch.no_grad():
        view = score(module, groups, 10**9)
    assert view.top_ids.shape == (*groups.mask.shape, WORDS)
    assert (view.rest[groups.mask] == -torch.inf).all()
