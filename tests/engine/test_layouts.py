import warnings

import pytest
from torch import nn

from alignlab.engine.layouts import attention_projections, decoder_layers
from alignlab.engine.load import Lora

EXPECTED = {
    "llama": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
    "qwen3": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
    "gpt2": ("attn.c_attn", "attn.c_proj"),
}


@pytest.mark.parametrize("arch", EXPECTED)
def test_the_projections_of_attention_and_nothing_else(tiny_models, arch):
    assert attention_projections(tiny_models.make_model(arch).module) == EXPECTED[arch]


@pytest.mark.parametrize("arch", EXPECTED)
def test_an_adapter_on_attention_trains_nothing_else(tiny_models, arch):
    from alignlab.engine.load import _put_fresh

    model = tiny_models.make_model(arch)
    _put_fresh(model, Lora(r=2, target_modules="attention"))
    trained = [name for name, p in model.module.named_parameters() if p.requires_grad]
    assert trained
    assert all("attn." in name and "lora_" in name for name in trained)


@pytest.mark.parametrize("targets", ["attention", "all-linear"])
@pytest.mark.parametrize("arch", EXPECTED)
def test_a_fresh_adapter_knows_which_way_weights_lie(tiny_models, arch, targets):
    """Peft mends a wrong guess with a warning for every layer; there is none to mend."""
    from alignlab.engine.load import _put_fresh

    model = tiny_models.make_model(arch)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*fan_in_fan_out")
        _put_fresh(model, Lora(r=2, target_modules=targets))
    assert model.module.peft_config["default"].fan_in_fan_out is (arch == "gpt2")


def test_a_fresh_adapter_depends_on_its_seed_alone(tiny_models):
    import torch

    from alignlab.engine.load import _put_fresh

    def first(seed):
        model = tiny_models.make_model("llama")
        torch.manual_seed(first.calls)
        first.calls += 1
        _put_fresh(model, Lora(r=2, seed=seed))
        return next(p for n, p in model.module.named_parameters() if "lora_A" in n)

    first.calls = 0
    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))


def test_a_model_without_attention_is_refused():
    with pytest.raises(ValueError, match="no attention projections in Linear"):
        attention_projections(nn.Linear(2, 2))


@pytest.mark.parametrize("arch", ["llama", "gpt2", "gemma2"])
def test_the_layers_of_a_decoder_with_or_without_an_adapter(tiny_models, arch):
    from alignlab.engine.load import _put_fresh

    model = tiny_models.make_model(arch)
    inner = model.module.transformer.h if arch == "gpt2" else model.module.model.layers
    assert decoder_layers(model.module) == list(inner)
    _put_fresh(model, Lora(r=2))
    assert decoder_layers(model.module) == list(inner)
    del model.module.get_base_model()._modules["transformer" if arch == "gpt2" else "model"]
    with pytest.raises(ValueError, match="has no list of its 2 layers"):
        decoder_layers(model.module)
