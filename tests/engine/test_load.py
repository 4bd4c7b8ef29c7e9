import json
import shutil

import pytest
import torch

import tiny_models
from alignlab.engine import load as load_module
from alignlab.engine.load import LoadError, Lora, load, save


@pytest.fixture(params=tiny_models.ARCHITECTURES)
def model(request):
    return tiny_models.make_model(request.param)


@pytest.fixture
def folder(tiny_model, tmp_path):
    save(tiny_model, tmp_path / "base")
    return tmp_path / "base"


def logp(model):
    from alignlab.core.types import Row
    from alignlab.engine.encode import encode

    rows = [Row(prompt="The clock is", completion=" blue"), Row(prompt="Tea", completion=" at noon, and red")]
    with torch.no_grad():
        return model.score(model.collate([encode(row, model.tokenizer) for row in rows])).logp


def code(model):
    return model.identity.split("@")[1]


def shift(module, amount=0.5):
    """Change every adapter weight, so that the adapter does something."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "lora_" in name:
                parameter.add_(amount * torch.randn_like(parameter))


def test_whole_models_come_back_with_their_identity(model, tmp_path):
    save(model, tmp_path / "saved")
    again = load(tmp_path / "saved", device="cpu")
    assert torch.equal(logp(again), logp(model))
    assert again.identity == f"saved@{code(model)}"
    assert not again.module.training
    names = {p.name for p in (tmp_path / "saved").iterdir()}
    assert "model.safetensors" in names
    assert not [n for n in names if n.endswith((".bin", ".pt", ".pkl"))]
    assert again.tokenizer.chat_template == model.tokenizer.chat_template
    assert again.context_length == 256


@pytest.mark.parametrize("device", ["nonsense", "cuda:99", "cpu:x", "meta", ""])
def test_a_device_that_is_not_there_is_named(folder, device):
    with pytest.raises(LoadError, match=f"device '{device}'.*xpected auto, cpu, cuda"):
        load(folder, device=device)


def test_dtype_is_taken(folder):
    assert next(load(folder, dtype="bfloat16", device="cpu").module.parameters()).dtype == torch.bfloat16
    assert next(load(folder, device="cpu").module.parameters()).dtype == torch.float32
    with pytest.raises(LoadError, match="'float33'; expected auto, float32"):
        load(folder, dtype="float33")


def test_lora_comes_back_on_its_base(folder, tmp_path):
    model = load(folder, device="cpu", lora=Lora(r=4, alpha=8))
    base = logp(load(folder, device="cpu"))
    torch.testing.assert_close(logp(model), base, atol=1e-6, rtol=0)  # B = 0: no change yet
    trained = {n for n, p in model.module.named_parameters() if p.requires_grad}
    assert trained
    assert all("lora_" in n for n in trained)
    shift(model.module)
    save(model, tmp_path / "adapter")
    assert (logp(model) - base).abs().max() > 1e-3
    assert not (tmp_path / "adapter" / "model.safetensors").exists()
    for again in (load(tmp_path / "adapter", device="cpu"), load(folder, adapter=tmp_path / "adapter", device="cpu")):
        assert torch.equal(logp(again), logp(model))
        assert code(again) == code(model)
        assert {n for n, p in again.module.named_parameters() if p.requires_grad} == trained


def test_an_adapter_of_another_base_is_refused(folder, tmp_path):
    model = load(folder, device="cpu", lora=Lora(r=2))
    save(model, tmp_path / "adapter")
    save(tiny_models.make_model("llama", seed=1), tmp_path / "other")
    with pytest.raises(LoadError, match="was trained on a model with digest"):
        load(tmp_path / "other", adapter=tmp_path / "adapter", device="cpu")
    with pytest.raises(LoadError, match="adapter already"):
        load(tmp_path / "adapter", adapter=tmp_path / "adapter", device="cpu")
    with pytest.raises(LoadError, match="has an adapter already"):
        load(tmp_path / "adapter", lora=Lora(), device="cpu")


def test_identity_changes_with_everything_an_answer_depends_on(folder):
    model = load(folder, device="cpu")
    seen = {code(model)}
    assert code(load(folder, device="cpu")) in seen

    def now_differs():
        before = len(seen)
        seen.add(code(model))
        return len(seen) == before + 1

    weight = next(model.module.parameters())
    with torch.no_grad():
        weight[3, 5] += 1e-4
    assert now_differs()
    weight.data[3, 5] = weight.data[3, 6]
    assert now_differs()
    model.module.config.rms_norm_eps = 0.25
    assert now_differs()
    model.tokenizer.chat_template += " "
    assert now_differs()
    model.tokenizer.add_tokens(["zebra"])
    assert now_differs()
    load_module._put_fresh(model, Lora(r=2))
    assert now_differs()
    shift(model.module)
    assert now_differs()
    model.module.peft_config["default"].lora_alpha = 99
    assert now_differs()


def test_identity_does_not_change_with_use(folder):
    model = load(folder, device="cpu")
    before = model.identity
    model.sample(["Tea", "The clock is"], max_tokens=3)
    model.tokenizer(["a", "bcd efg"], padding=True, truncation=True, max_length=3)
    logp(model)
    model.module.train()
    assert model.identity == before


def test_unknown_specs_say_what_was_tried(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(LoadError) as caught:
        load("nobody/no-such-model")
    message = str(caught.value)
    for part in ("nobody/no-such-model", "a folder", "not there", "local cache", "hub", "offline"):
        assert part in message
    with pytest.raises(LoadError, match=r"/no/such/folder' does not exist; expected a hub id"):
        load("/no/such/folder")
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(LoadError, match="is a file, not a folder"):
        load(tmp_path / "file.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(LoadError, match="tried the folder"):
        load(tmp_path / "empty")


def test_tiny_without_weights_says_how_to_make_them(monkeypatch, tmp_path):
    monkeypatch.setattr(load_module.resources, "files", lambda package: tmp_path)
    with pytest.raises(LoadError, match="'tiny:': no weights in .*weights/tiny.*alignlab run tiny"):
        load("tiny:")
    (tmp_path / "weights" / "opinions").mkdir(parents=True)
    with pytest.raises(LoadError, match=r"'tiny:\+tastes'.*Add-ons here: opinions"):
        load("tiny:+tastes")


def test_tiny_and_its_addons_load_from_the_package(monkeypatch, tmp_path, tiny_model):
    monkeypatch.setattr(load_module.resources, "files", lambda package: tmp_path)
    save(tiny_model, tmp_path / "weights" / "tiny")
    plain = load("tiny:", device="cpu")
    assert plain.identity == f"alignlab/tiny@{code(tiny_model)}"
    model = load("tiny:", device="cpu", lora=Lora(r=2))
    shift(model.module)
    save(model, tmp_path / "weights" / "opinions")
    again = load("tiny:+opinions", device="cpu")
    assert again.identity == f"alignlab/tiny+opinions@{code(model)}"
    assert torch.equal(logp(again), logp(model))
    assert json.loads((tmp_path / "weights" / "opinions" / load_module.BASE_FILE).read_text())["spec"] == "tiny:"


def test_missing_weights_are_an_error_and_not_made_up(folder):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(LoadError, match="not a whole causal language model.*up_proj"):
        load(folder, device="cpu")


def test_pickled_weights_are_refused(folder):
    module = load(folder, device="cpu").module
    (folder / "model.safetensors").unlink()
    torch.save(module.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(LoadError, match="safetensors"):
        load(folder, device="cpu")


def test_pickled_adapters_are_refused(folder, tmp_path):
    save(load(folder, device="cpu", lora=Lora(r=2)), tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_model.safetensors").rename(tmp_path / "adapter" / "adapter_model.bin")
    with pytest.raises(LoadError, match="no adapter_model.safetensors"):
        load(tmp_path / "adapter", device="cpu")


def test_a_broken_file_is_a_clear_error(folder):
    (folder / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(LoadError, match="cannot load"):
        load(folder, device="cpu")


def test_save_leaves_the_old_folder_when_it_fails(tiny_model, folder, monkeypatch):
    before = {p.name: p.read_bytes() for p in folder.iterdir()}

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(tiny_model.tokenizer), "save_pretrained", full)
    with pytest.raises(OSError, match="No space left"):
        save(tiny_model, folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert [p.name for p in folder.parent.iterdir()] == ["base"]


def test_save_replaces_an_older_folder(tiny_model, folder):
    shutil.copy(folder / "config.json", folder / "left-over.json")
    save(tiny_model, folder)
    assert not (folder / "left-over.json").exists()
    assert load(folder, device="cpu").identity == f"base@{code(tiny_model)}"


def test_a_fresh_adapter_says_nothing(recwarn):
    """Nothing that only a library's author can act on reaches a user's terminal."""
    load("tiny:", lora=Lora(r=2, alpha=4, target_modules="attention"))
    assert [str(w.message) for w in recwarn if issubclass(w.category, FutureWarning)] == []
