"""Routed heads against one stock model per head, which share no code with them: values, gradients, work, files."""

import copy
import json
import random

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

import tiny_models
from alignlab.engine import routed, work
from alignlab.engine.encode import Example, collate
from alignlab.engine.load import LanguageModel, LoadError, Lora, load, save
from alignlab.engine.plan import plan
from alignlab.engine.score import score

HEADS = 3
each_architecture = pytest.mark.parametrize("architecture", tiny_models.ARCHITECTURES)


def batch(seed=0, *, heads=(0, 1), prompts=4):
    """Groups of four completions, two of each head; the first prompt has the same two completions under both."""
    draw = random.Random(seed)

    def ids(low, high):
        return [draw.randrange(6, 300) for _ in range(draw.randint(low, high))]

    found = []
    for number in range(prompts):
        pair = [[*ids(1, 7), 2] for _ in range(2)]
        others = pair if not number else [[*ids(1, 7), 2] for _ in range(2)]
        found.append(
            Example(prompt_ids=ids(2, 9), completions=(*pair, *others),
                    scores={"head": tuple(map(float, (heads[0], heads[0], heads[1], heads[1])))})
        )  # fmt: skip
    return collate(found, 0)


def headed(architecture="llama", count=HEADS, dtype=torch.float64):
    """A module whose heads differ from its own head and from each other."""
    module = tiny_models.make_module(architecture, 320).to(dtype)
    routed.grow(module, count)
    draw = torch.Generator().manual_seed(1)
    weight = routed.routed_head(module).weight
    with torch.no_grad():
        weight.add_(0.3 * weight.std() * torch.randn(weight.shape, generator=draw).to(weight))
    return module


def stock(architecture, matrix):
    """The same backbone with one head, untied, put together by hand."""
    module = tiny_models.make_module(architecture, 320).double()
    module.lm_head = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False, dtype=matrix.dtype)
    module.lm_head.weight = nn.Parameter(matrix.detach().clone())
    module.config.tie_word_embeddings = False
    return module


def alone(module, groups, n):
    """Log-probabilities of one completion by a plain forward pass over its own sequence."""
    prompt = groups.prompt_ids[groups.group[n]][groups.prompt_mask[groups.group[n]]]
    completion = groups.ids[n][groups.mask[n]]
    ids = torch.cat([prompt, completion])
    logp = module(input_ids=ids[None]).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    return logp.gather(1, completion[:, None])[:, 0]


def weighted(logp, groups):
    draw = torch.Generator().manual_seed(2)
    return (logp * torch.randn(groups.mask.shape, generator=draw, dtype=torch.float64)).sum()


def check_routing(architecture, share, scoring=score, heads=(0, 1)):
    module, groups = headed(architecture), batch(heads=heads)
    found = scoring(module, groups, share=share).logp
    weighted(found, groups).backward()
    head = routed.routed_head(module)
    twins = [stock(architecture, matrix) for matrix in head.weight]
    expected = torch.zeros(groups.mask.shape, dtype=torch.float64)
    for n, h in enumerate(groups.head.tolist()):
        row = torch.zeros(groups.mask.shape[1], dtype=torch.float64)
        expected[n] = row.masked_scatter(groups.mask[n], alone(twins[h], groups, n))
    weighted(expected, groups).backward()
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)
    for h, twin in enumerate(twins):
        own = twin.lm_head.weight.grad
        own = torch.zeros_like(head.weight[h]) if own is None else own
        torch.testing.assert_close(head.weight.grad[h], own, atol=1e-9, rtol=1e-9)
        assert bool(own.any()) == (h in heads), "a head without completions learns nothing"
    others = [dict(twin.named_parameters()) for twin in twins]
    for name, parameter in module.named_parameters():
        if parameter is not head.weight:
            grads = [twin[name].grad for twin in others if twin[name].grad is not None]
            torch.testing.assert_close(parameter.grad, sum(grads), atol=1e-9, rtol=1e-9, msg=name)


@each_architecture
@pytest.mark.parametrize("share", [True, False, None])
def test_each_completion_is_scored_by_its_head_and_backbone_gradients_add_up(architecture, share):
    check_routing(architecture, share)


def test_the_check_sees_a_wrong_route():
    def crossed(module, groups, share):
        return score(module, type(groups)(**{**vars(groups), "head": 1 - groups.head}), share=share)

    def pooled(module, groups, share):
        return score(module, type(groups)(**{**vars(groups), "head": groups.head * 0}), share=share)

    for broken in (crossed, pooled):
        with pytest.raises(AssertionError, match="not close"):
            check_routing("llama", True, broken)


@pytest.mark.parametrize("share", [True, False])
def test_a_batch_may_be_of_one_head_alone(share):
    check_routing("llama", share, heads=(2, 2))


@pytest.mark.parametrize("share", [True, False])
def test_cuts_and_looks_without_gradient_change_nothing(share):
    module, groups = headed(), batch()
    at = torch.arange(groups.mask.numel() * 2).reshape(*groups.mask.shape, 2) % 300
    whole = score(module, groups, at, share=share)
    with torch.no_grad():
        cut = score(module, groups, at, share=share, batch_tokens=1)
    for name in ("logp", "top_logp", "rest"):
        torch.testing.assert_close(getattr(cut, name), getattr(whole, name), atol=1e-9, rtol=1e-9)


def test_the_trial_of_a_large_first_batch_is_routed_too():
    groups = batch(prompts=60)
    found, expected = score(headed(), groups), score(headed(), groups, share=False)
    torch.testing.assert_close(found.logp, expected.logp, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("share", [True, False])
def test_lent_completions_are_looked_at_by_their_head(share):
    module, groups = headed(), batch()
    lent = type(groups)(**{**vars(groups), "origin": ("dataset", "mismatched", "mismatched", "dataset") * 4})
    found = score(module, lent, share=share).logp
    torch.testing.assert_close(found, score(module, groups, share=share).logp, atol=1e-9, rtol=1e-9)


def test_no_position_is_computed_by_two_heads_and_no_node_is_read_twice():
    groups, module = batch(), headed(dtype=torch.float32)
    module.set_attn_implementation("eager")
    rows = [groups.prompt_ids[g][groups.prompt_mask[g]].tolist() for g in range(len(groups.prompt_ids))]
    completions = [ids[mask].tolist() for ids, mask in zip(groups.ids, groups.mask)]
    given = (rows, completions, groups.group.tolist())
    (one,), (several,) = (plan(*given, row_tokens=9999, head=h) for h in (None, groups.head.tolist()))
    assert several.ids == one.ids, "the backbone reads what it would read with one head"
    assert len(set(zip(several.routes, several.heads))) == len(several.heads)
    assert list(several.routes) == sorted(several.routes)
    # the first prompt has the same answers under both heads; of the others, the prompt's end alone is both heads'
    shared = len(completions[0]) + len(completions[1]) - 1 + len(rows) - 1
    assert len(several.heads) == len(one.heads) + shared
    with FlopCounterMode(display=False) as counter, work.measured() as found, torch.no_grad():
        score(module, groups, share=True)
    assert found.heads == len(several.heads) == work.least(module, [groups]).heads
    price = work.price(module)
    hidden = sum((s.prompt + s.completions[0]) ** 2 for s in several.spans)  # half of a causal square is masked
    assert counter.get_total_flops() == price.forward(found) + price.pair * hidden
    assert price == work.price(stock("llama", routed.routed_head(module).weight[0].double()))


def test_at_the_start_every_head_is_the_models_own():
    module = tiny_models.make_module("qwen3", 320).double()
    groups = batch(heads=(0, 1))
    before = score(module, groups).logp
    embedding = module.get_input_embeddings().weight
    assert module.lm_head.weight is embedding
    routed.grow(module, 2)
    torch.testing.assert_close(score(module, groups).logp, before, atol=1e-12, rtol=1e-12)
    weight = routed.routed_head(module).weight
    assert weight.shape == (2, 320, 48)
    weight.data.add_(1.0)
    assert not torch.equal(weight[0], embedding), "heads are untied from the input embedding"
    routed.grow(module, 2)
    assert routed.routed_head(module).weight is weight, "as many heads as asked are left alone"


def test_one_head_is_a_stock_model():
    module = tiny_models.make_module("llama", 320)
    head = module.lm_head
    routed.grow(module, 1)
    assert module.lm_head is head
    assert not hasattr(module.config, routed.ENTRY)


def saved(folder, architecture="qwen3"):
    model = LanguageModel(headed(architecture), tiny_models.make_tokenizer(), "tests/headed")
    save(model, folder)
    return model


@each_architecture
def test_saving_and_loading_keeps_every_bit(tmp_path, architecture):
    model = saved(tmp_path / "heads", architecture)
    again = load(tmp_path / "heads")
    assert json.loads((tmp_path / "heads" / "config.json").read_text())[routed.ENTRY] == HEADS
    assert again.identity.split("@")[1] == model.identity.split("@")[1]
    state, before = again.module.state_dict(), model.module.state_dict()
    assert state.keys() == before.keys()
    assert all(torch.equal(state[name], value) for name, value in before.items())
    save(again, tmp_path / "again")
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "heads" / name).read_bytes()


def test_a_stock_loader_stops_at_several_heads(tmp_path):
    saved(tmp_path / "heads")
    with pytest.raises(RuntimeError, match="mismatch"):
        AutoModelForCausalLM.from_pretrained(tmp_path / "heads")


@each_architecture
@pytest.mark.parametrize("weights", [(0.2, 0.5, 0.3), (0.0, 1.0, 0.0)])
def test_the_folded_model_is_stock_and_mixes_the_logits(tmp_path, architecture, weights):
    model = saved(tmp_path / "heads", architecture)
    folded = load(tmp_path / "heads", head_weights=weights)
    assert routed.routed_head(folded.module) is None
    save(folded, tmp_path / "one")
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "one", dtype="float64")
    ids = torch.tensor([[7, 9, 30, 41, 12]])
    hidden = model.module.base_model(input_ids=ids).last_hidden_state
    mixed = torch.einsum("h,hvd,bsd->bsv", torch.tensor(weights).double(), model.module.lm_head.weight, hidden.double())
    if (cap := getattr(whole.config, "final_logit_softcapping", None)) is not None:
        mixed = cap * torch.tanh(mixed / cap)
    torch.testing.assert_close(whole(input_ids=ids).logits, mixed, atol=1e-4, rtol=1e-4)
    assert not hasattr(whole.config, routed.ENTRY)
    assert load(tmp_path / "one").identity.split("@")[1] == folded.identity.split("@")[1]


def test_a_folded_models_policy_is_the_geometric_mean_of_the_heads(tmp_path):
    saved(tmp_path / "heads", "llama")
    ids, weights = torch.tensor([[7, 9, 30, 41, 12]]), (0.2, 0.5, 0.3)
    each = [load(tmp_path / "heads", head_weights=[float(i == h) for i in range(HEADS)]) for h in range(HEADS)]
    logp = torch.stack([model.module(input_ids=ids).logits.log_softmax(-1) for model in each])
    expected = torch.einsum("h,h...->...", torch.tensor(weights).to(logp), logp).softmax(-1)
    folded = load(tmp_path / "heads", head_weights=weights).module(input_ids=ids).logits.softmax(-1)
    torch.testing.assert_close(folded, expected, atol=1e-6, rtol=1e-4)


def test_a_bias_is_routed_and_folded():
    torch.manual_seed(0)
    head = routed.RoutedHead(torch.randn(2, 5, 3), torch.randn(2, 5))
    hidden = torch.randn(1, 4, 3)
    with routed.routing([1, 3]):
        found = head(hidden)
    for place, h in enumerate((0, 1, 1, 1)):
        expected = head.weight[h] @ hidden[0, place] + head.bias[h]
        torch.testing.assert_close(found[0, place], expected)
    with routed.routing([0, 0]):
        assert head(hidden[:, :0]).shape == (1, 0, 5)


def test_without_a_route_there_is_no_answer(tmp_path):
    model = saved(tmp_path / "heads", "llama")
    groups = batch()
    for share in (True, False, None):
        with pytest.raises(ValueError, match="3 output heads.*--head_weights 0.333333"):
            score(model.module, type(groups)(**{**vars(groups), "head": None}), share=share)
        with pytest.raises(ValueError, match="of output head 5, but the model has 3"):
            score(model.module, type(groups)(**{**vars(groups), "head": groups.head + 5}), share=share)
    with pytest.raises(ValueError, match="3 output heads, and it is not said"):
        model.sample(["Where"], max_tokens=2)
    with routed.routing([1, 2]), pytest.raises(ValueError, match="3 places are routed to 2 output heads, not 4"):
        routed.RoutedHead(torch.ones(2, 5, 3))(torch.ones(1, 4, 3))


def test_a_stock_model_looks_at_no_head():
    groups, module = batch(), tiny_models.make_module("llama", 320)
    bare = type(groups)(**{**vars(groups), "head": None})
    assert torch.equal(score(module, groups).logp, score(module, bare).logp)


def test_what_does_not_go_together_is_refused(tmp_path):
    model = saved(tmp_path / "heads", "llama")
    with pytest.raises(ValueError, match="has 3 output heads, but 2 are wanted.*--head_weights"):
        load(tmp_path / "heads", output_heads=2)
    with pytest.raises(ValueError, match="has 3 output heads, but 1 are wanted"):
        load(tmp_path / "heads", output_heads=1)
    for weights, message in (((0.5, 0.5), "expected 3, one per"), ((0.5, 0.5, 0.5), "add up to 1")):
        with pytest.raises(ValueError, match=message):
            load(tmp_path / "heads", head_weights=weights)
    with pytest.raises(ValueError, match="leave --use_peft and --adapter out"):
        load(tmp_path / "heads", lora=Lora(r=2))
    save(load(tmp_path / "heads", head_weights=(1, 0, 0)), tmp_path / "one")
    with pytest.raises(ValueError, match="one output head; leave it out"):
        load(tmp_path / "one", head_weights=(0.5, 0.5))
    with pytest.raises(ValueError, match="leave --use_peft"):
        load(tmp_path / "one", lora=Lora(r=2), output_heads=2)
    assert load(tmp_path / "heads", head_weights=(0, 0, 1), lora=Lora(r=2)), "one head may be tuned by an adapter"
    assert len(routed.routed_head(load(tmp_path / "one", output_heads=2).module).weight) == 2
    model.module.config.model_type = "unheard"
    config = json.loads((tmp_path / "heads" / "config.json").read_text()) | {"model_type": "vit"}
    (tmp_path / "heads" / "config.json").write_text(json.dumps(config))
    with pytest.raises(LoadError, match="no causal language model of this kind"):
        load(tmp_path / "heads")


def test_a_copy_is_routed_too():
    module, groups = headed(), batch()
    twin = copy.deepcopy(module)
    assert torch.equal(score(twin, groups).logp, score(module, groups).logp)
