"""A digest says everything that a model's answers depend on, and nothing else."""

import pytest
import torch
from peft import IA3Config, LoHaConfig, LoKrConfig, LoraConfig, get_peft_model

import tiny_models
from alignlab.engine.identity import adapter_digest, base_digest, digest

LAYERS = ["q_proj", "v_proj"]
TOKENIZER = tiny_models.make_tokenizer()


def adapted(config, *others, seed=0):
    """A module under adapters whose weights are all drawn anew."""
    module = get_peft_model(tiny_models.make_module("llama", len(TOKENIZER)), config)
    for n, other in enumerate(others, 1):
        module.add_adapter(f"other{n}", other)
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "default" in name or "other" in name:
                parameter.normal_()
    return module.eval()


def logits(module):
    with torch.no_grad():
        return module(input_ids=torch.tensor([[7, 8, 9]])).logits


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        (LoHaConfig, {"alpha": 8}, {"alpha": 4}),
        (LoKrConfig, {"alpha": 8}, {"alpha": 4}),
        (LoraConfig, {"layers_to_transform": [0]}, {"layers_to_transform": [1]}),
        (LoraConfig, {"lora_alpha": 8}, {"lora_alpha": 4}),
    ],
)
def test_every_setting_that_is_computed_with_is_in_it(kind, one, other):
    modules = [adapted(kind(target_modules=LAYERS, **settings)) for settings in (one, other)]
    assert not torch.allclose(*map(logits, modules))
    assert len({digest(module, TOKENIZER) for module in modules}) == 2


def test_where_ia3_scales_inputs_is_in_it():
    """Both have a vector of 48 numbers at the same place: of its inputs, or of its outputs."""
    modules = [adapted(IA3Config(target_modules=["q_proj"], feedforward_modules=inputs)) for inputs in ([], ["q_proj"])]
    weights = [{key: value.flatten() for key, value in module.state_dict().items()} for module in modules]
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())
    assert not torch.allclose(*map(logits, modules))
    assert len({digest(module, TOKENIZER) for module in modules}) == 2


def test_what_it_was_made_from_and_trained_with_is_not():
    plain = LoraConfig(target_modules=LAYERS)
    passing = LoraConfig(
        target_modules=LAYERS, lora_dropout=0.5, task_type="CAUSAL_LM", inference_mode=True, revision="main",
        base_model_name_or_path="somewhere/else", init_lora_weights=False,
    )  # fmt: skip
    assert digest(adapted(plain), TOKENIZER) == digest(adapted(passing), TOKENIZER)


@pytest.mark.parametrize("kind", [LoraConfig, LoHaConfig, LoKrConfig, IA3Config])
def test_the_base_and_each_adapter_are_what_they_are_alone(kind):
    extra = {"feedforward_modules": []} if kind is IA3Config else {}
    config, narrow = kind(target_modules=LAYERS, **extra), kind(target_modules=["q_proj"], **extra)
    both = adapted(config, narrow)
    plain = digest(tiny_models.make_module("llama", len(TOKENIZER)), TOKENIZER)
    assert base_digest(both, TOKENIZER) == plain
    found = []
    for name, settings in (("default", config), ("other1", narrow)):
        alone = get_peft_model(tiny_models.make_module("llama", len(TOKENIZER)), settings)
        weights = {key: value for key, value in both.state_dict().items() if f".{name}." in f"{key}."}
        for key, value in weights.items():
            alone.state_dict()[key.replace(f".{name}", ".default")].copy_(value)
        found.append(digest(alone, TOKENIZER))
        assert adapter_digest(both, TOKENIZER, name) == found[-1]
    assert len({plain, *found}) == 3


def test_a_module_to_save_is_its_adapters():
    config = LoraConfig(target_modules=LAYERS, modules_to_save=["lm_head"])
    module = adapted(config, LoraConfig(target_modules=["q_proj"]))
    plain = tiny_models.make_module("llama", len(TOKENIZER))
    assert base_digest(module, TOKENIZER) == digest(plain, TOKENIZER)
    alone = adapted(LoraConfig(target_modules=["q_proj"]))
    alone.load_state_dict({
        key.replace(".other1", ".default").replace("lm_head.original_module.", "lm_head.").replace(
            "v_proj.base_layer.", "v_proj."): value
        for key, value in module.state_dict().items() if ".default" not in key
    })  # fmt: skip
    assert adapter_digest(module, TOKENIZER, "other1") == digest(alone, TOKENIZER)


def test_which_adapters_are_on_is_in_it():
    module = adapted(LoraConfig(target_modules=LAYERS), LoraConfig(target_modules=LAYERS))
    found = {digest(module, TOKENIZER)}
    module.set_adapter("other1")
    found.add(digest(module, TOKENIZER))
    module.base_model.set_adapter(["default", "other1"])
    found.add(digest(module, TOKENIZER))
    with module.disable_adapter():
        found.add(digest(module, TOKENIZER))
    assert len(found) == 4


def test_what_is_merged_is_in_it():
    """The same tensors, once with the adapter in the base's weights already, and once to be added to them."""
    one = adapted(LoraConfig(target_modules=LAYERS))
    one.merge_adapter()
    other = adapted(LoraConfig(target_modules=LAYERS))
    other.load_state_dict(one.state_dict())
    assert not torch.allclose(logits(one), logits(other))
    assert digest(one, TOKENIZER) != digest(other, TOKENIZER)
