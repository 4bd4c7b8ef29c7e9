"""Several adapters on one module are held against the same adapters loaded one by one."""

from dataclasses import replace

import pytest
import torch

from alignlab.engine import score as score_module
from alignlab.engine.adapters import Switched, load_all, score_all
from alignlab.engine.divergence import groups_of, log_probabilities
from alignlab.engine.load import LoadError, Lora, load, save

TEXTS = [[30, 41, 7], [9, 9, 12]]


@pytest.fixture(scope="module")
def folders(tiny_models, tmp_path_factory):
    """A base and two adapters of it, and one of another base."""
    root = tmp_path_factory.mktemp("adapters")
    save(tiny_models.make_model("llama", seed=1), root / "base")
    save(tiny_models.make_model("llama", seed=2), root / "other")
    for name, base, seed in (("one", "base", 3), ("two", "base", 4), ("stranger", "other", 5)):
        model = load(root / base, lora=Lora(r=2, alpha=4, seed=seed))
        torch.manual_seed(seed)
        for key, parameter in model.module.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(parameter, std=0.5)
        save(model, root / name)
    return root


def scores(model):
    return torch.tensor([row.tolist() for row in log_probabilities(model, [3, 8], TEXTS)])


def test_as_if_loaded_alone(folders):
    specs = [folders / name for name in ("two", "base", "one", "two")]
    found = load_all(specs)
    assert len({id(model.module) for model in found}) == 1
    assert found[0] is found[3]
    for spec, model in zip(specs, found):
        alone = load(spec)
        assert torch.allclose(scores(model), scores(alone), atol=1e-5)
        assert model.identity == alone.identity
        assert model.sample(["The mill"], max_tokens=5) == alone.sample(["The mill"], max_tokens=5)
    assert len({model.identity for model in found}) == 3
    apart = (scores(found[0]) - scores(found[2])).abs().max()
    assert apart > 0.1


def test_adapters_of_words_beside_others(folders):
    """One adapts embeddings and head, the other does not: as if loaded alone, one by one since rows get mixed."""
    model = load(folders / "base", lora=Lora(r=2, alpha=4, target_modules=("q_proj", "embed_tokens", "lm_head")))
    for key, parameter in model.module.named_parameters():
        if "lora_" in key:
            torch.nn.init.normal_(parameter, std=0.1)
    save(model, folders / "words")
    for specs in (("words", "one"), ("one", "words")):
        found = load_all([folders / name for name in specs])
        alone = [load(folders / name) for name in specs]
        assert [model.identity for model in found] == [model.identity for model in alone]
        groups = groups_of([3, 8], TEXTS)
        for view, model in zip(score_all(found, groups), alone, strict=True):
            assert torch.allclose(view.logp, model.score(groups).logp, atol=1e-5)


def test_one_use_leaves_the_others_alone(folders):
    two, one = load_all([folders / "two", folders / "one"])
    before = scores(two)
    assert isinstance(one, Switched)
    with pytest.raises(RuntimeError), one.active():
        raise RuntimeError
    assert two.module.active_adapter == "default"
    scores(one)
    assert torch.equal(scores(two), before)


def test_models_of_other_bases_are_on_their_own(folders):
    one, stranger, other = load_all([folders / "one", folders / "stranger", folders / "other"])
    assert one.module is not stranger.module
    assert stranger.module is other.module
    alone = load_all([folders / "base", str(folders / "base")])
    assert alone[0] is alone[1]
    assert not isinstance(alone[0], Switched)


def test_an_adapter_of_a_base_that_changed(folders, tiny_models, tmp_path):
    import shutil

    shutil.copytree(folders, tmp_path / "copy")
    text = (tmp_path / "copy/two/alignlab_base.json").read_text()
    (tmp_path / "copy/two/alignlab_base.json").write_text(text.replace('"digest": "', '"digest": "0'))
    with pytest.raises(LoadError, match="another model"):
        load_all([tmp_path / "copy/one", tmp_path / "copy/two"])
    (tmp_path / "copy/two/adapter_model.safetensors").unlink()
    with pytest.raises(LoadError, match="pickled adapters"):
        load_all([tmp_path / "copy/one", tmp_path / "copy/two"])


def test_one_batch_for_adapters_of_one_base(folders, monkeypatch):
    """Each row by its own adapter: the same numbers as one by one, for half the calls of the module."""
    models = load_all([folders / "two", folders / "base", folders / "one"])
    groups = groups_of([3, 8], TEXTS)
    at = torch.arange(40).expand(2, 3, 40)
    alone = [model.score(groups, at) for model in models]
    calls = []
    module = models[0].module
    handle = module.get_output_embeddings().register_forward_hook(lambda *_: calls.append(1))
    try:
        assert all(view.logp.shape == (2, 3) for view in score_all(models, groups))
        watched = len(calls)  # hooks of others see plain rows, one model after the other
    finally:
        handle.remove()
    assert watched == 3
    monkeypatch.setattr(Switched, "score", lambda *_: pytest.fail("one by one"))
    for found, expected in zip(score_all(models, groups, at), alone):
        for name in ("logp", "top_logp", "rest"):
            assert torch.allclose(getattr(found, name), getattr(expected, name), atol=1e-5)
    assert (alone[0].logp - alone[2].logp).abs().max() > 0.1


def test_rows_of_several_adapters_hold_their_copies(folders, monkeypatch):
    """They are scored without gradient, whatever the caller's mode: 2,048 tokens in all copies of a row together."""
    module, seen = load_all([folders / "two", folders / "one"])[0].module, []
    groups = groups_of([3] * 200, [[30 + k] * 9 for k in range(20)])
    real = score_module._row_values

    def row_values(module, row, at, device, adapters):
        seen.append(len(row.ids) * len(adapters))
        return real(module, row, at, device, adapters)

    monkeypatch.setattr(score_module, "_row_values", row_values)
    many = replace(
        groups, prompt_ids=groups.prompt_ids.repeat(20, 1) + torch.arange(20)[:, None],
        prompt_mask=groups.prompt_mask.repeat(20, 1), group=torch.arange(20),
    )  # fmt: skip
    assert torch.is_grad_enabled()
    score_module.score_adapters(module, many, ["default", "adapter1"])
    assert sum(seen) == 2 * 20 * 208
    assert max(seen) <= 2048


def test_adapters_beside_their_base(folders):
    """They share the base's tensors, and leave it as it was."""
    base = load(folders / "base")
    before = scores(base)
    first, two, stranger, one = load_all([folders / n for n in ("two", "stranger", "one")], beside=base)
    assert first.module is two.module is one.module
    assert stranger.module is not one.module
    pointers = {p.data_ptr() for p in base.module.parameters()}
    assert pointers <= {p.data_ptr() for p in first.module.parameters()}
    assert first.identity == base.identity
    for model, name in ((one, "one"), (two, "two"), (first, "base")):
        assert torch.allclose(scores(model), scores(load(folders / name)), atol=1e-5)
    assert torch.equal(scores(base), before)
    assert not hasattr(base.module, "peft_config")
    kept, alone = load_all([folders / "stranger"], beside=base)
    assert kept is base
    assert alone.identity == stranger.identity


def test_adapters_that_bring_a_head_of_their_own_are_scored_one_by_one(folders, tmp_path):
    from peft import LoraConfig, get_peft_model

    for name, seed in (("a", 1), ("b", 2)):
        model = load(folders / "base")
        wanted = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"], task_type="CAUSAL_LM")
        torch.manual_seed(seed)
        model.module = get_peft_model(model.module, wanted)
        for parameter in model.module.parameters():
            if parameter.requires_grad:
                parameter.data += 0.1 * torch.randn_like(parameter)
        save(model, tmp_path / name)
    groups = groups_of([3, 8], TEXTS)
    expected = [load(tmp_path / name).score(groups).logp for name in "ab"]
    found = score_all(load_all([tmp_path / name for name in "ab"]), groups)
    assert (expected[0] - expected[1]).abs().max() > 0.1
    for view, logp in zip(found, expected, strict=True):
        assert torch.allclose(view.logp, logp, atol=1e-5)
