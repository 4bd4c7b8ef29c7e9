"""The nearest adapter is held against the difference itself and against the bound of Eckart and Young."""

import pytest
import torch

from alignlab.engine.load import Lora, load, save
from alignlab.engine.low_rank import copy_into

TARGETS = ("q_proj", "down_proj", "embed_tokens", "lm_head")


@pytest.fixture
def pair(tiny_models, tmp_path):
    """A base's folder, and the model tuned in some of its matrices by a difference of rank 3."""
    save(tiny_models.make_model("llama", seed=1), tmp_path / "base")
    learnt = load(tmp_path / "base")
    torch.manual_seed(0)
    for name, weight in learnt.module.named_parameters():
        if any(target in name for target in TARGETS):
            weight.data += 0.1 * torch.randn(weight.shape[0], 3) @ torch.randn(3, weight.shape[1])
    return tmp_path / "base", learnt


def logits(model):
    return model.module(torch.arange(5)[None] + 20).logits.detach()


@pytest.mark.parametrize("alpha", [3, 12])
def test_full_rank_gives_the_model_back(pair, alpha):
    folder, learnt = pair
    adapted = load(folder, lora=Lora(r=3, alpha=alpha, target_modules=TARGETS))
    apart = (logits(adapted) - logits(learnt)).abs().max()
    copy_into(adapted, learnt)
    assert torch.allclose(logits(adapted), logits(learnt), atol=2e-4)
    assert apart > 0.1


def test_a_lower_rank_loses_what_it_must(pair):
    folder, learnt = pair
    adapted = load(folder, lora=Lora(r=2, alpha=8, target_modules=("q_proj",)))
    copy_into(adapted, learnt)
    layer = adapted.module.base_model.model.model.layers[0].self_attn.q_proj
    wanted = learnt.module.state_dict()["model.layers.0.self_attn.q_proj.weight"] - layer.base_layer.weight
    made = layer.scaling["default"] * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    sizes = torch.linalg.svdvals(wanted)
    assert float(torch.linalg.matrix_norm(wanted - made)) == pytest.approx(float(sizes[2:].norm()), rel=1e-3)


def test_another_architecture_is_refused(pair, tiny_models):
    folder, _ = pair
    adapted = load(folder, lora=Lora(r=2, alpha=2, target_modules=("q_proj",)))
    with pytest.raises(ValueError, match=r"no weight model\.layers\.0\.self_attn\.q_proj\.weight of shape"):
        copy_into(adapted, tiny_models.make_model("gpt2"))


@pytest.mark.parametrize("target", ["attn.c_proj", "c_attn", "mlp.c_fc"])
def test_weights_that_store_inputs_first(tiny_models, tmp_path, target):
    save(tiny_models.make_model("gpt2", seed=1), tmp_path / "base")
    learnt = load(tmp_path / "base")
    torch.manual_seed(0)
    for name, weight in learnt.module.named_parameters():
        if name.endswith(f"{target}.weight"):
            weight.data += 0.1 * torch.randn(weight.shape[0], 3) @ torch.randn(3, weight.shape[1])
    adapted = load(tmp_path / "base", lora=Lora(r=3, alpha=3, target_modules=(target,)))
    assert (logits(adapted) - logits(learnt)).abs().max() > 0.1
    copy_into(adapted, learnt)
    assert torch.allclose(logits(adapted), logits(learnt), atol=2e-4)


def test_a_rank_above_that_of_a_matrix_is_refused(pair):
    folder, learnt = pair
    adapted = load(folder, lora=Lora(r=64, target_modules=("q_proj",)))
    with pytest.raises(ValueError, match=r"q_proj: an adapter of rank 64 for a matrix of \(48, 48\); lower its rank"):
        copy_into(adapted, learnt)
