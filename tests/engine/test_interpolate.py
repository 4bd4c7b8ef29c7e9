import pytest
import torch

from alignlab.engine.interpolate import towards
from alignlab.engine.load import Lora, load


def _moved(model, seed=0):
    """Change every weight that is tuned, by known amounts."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.module.parameters():
            if weight.requires_grad:
                weight.add_(0.05 * torch.randn(weight.shape, generator=draw))
    return model


def _logits(model):
    with torch.no_grad():
        return model.module(torch.arange(12)[None]).logits


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_every_weight_lies_at_its_share_of_the_way(share):
    start, learnt = load("tiny:"), _moved(load("tiny:"))
    after = {name: weight.clone() for name, weight in learnt.module.named_parameters()}
    towards(learnt, start, share)
    for (name, weight), before in zip(learnt.module.named_parameters(), start.module.parameters()):
        torch.testing.assert_close(weight, before + share * (after[name] - before))
    assert (learnt.identity == start.identity) == (share == 0)


def test_an_adapter_changes_its_product_by_the_share():
    learnt = _moved(load("tiny:", lora=Lora(r=2, alpha=4)))
    layer = next(m for m in learnt.module.modules() if hasattr(m, "get_delta_weight"))
    whole = layer.get_delta_weight("default").clone()
    base = {name: weight.clone() for name, weight in learnt.module.named_parameters() if ".lora_" not in name}
    towards(learnt, load("tiny:"), 0.8)
    torch.testing.assert_close(layer.get_delta_weight("default"), 0.8 * whole)
    assert all(torch.equal(weight, dict(learnt.module.named_parameters())[name]) for name, weight in base.items())
    towards(learnt, load("tiny:"), 0.0)
    torch.testing.assert_close(_logits(learnt), _logits(load("tiny:")))


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_outside_the_unit_interval_is_refused(share):
    with pytest.raises(ValueError, match="share in"):
        towards(load("tiny:"), load("tiny:"), share)


def test_another_model_is_refused():
    learnt, start = load("tiny:"), load("tiny:")
    start.module.lm_head = torch.nn.Identity()
    start.module.model.layers = start.module.model.layers[:2]
    with pytest.raises(ValueError, match="has no weight model.layers.2"):
        towards(learnt, start, 0.5)
