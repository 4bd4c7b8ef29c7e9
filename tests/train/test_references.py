"""Reference log-probabilities: looked up where they are known, scored where not, the same either way."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import train_runs as runs

import tiny_models
from alignlab.engine import routed
from alignlab.engine.adapters import load_all
from alignlab.engine.load import Lora, _put_fresh, load, save
from alignlab.engine.refcache import CoverageError
from alignlab.objectives import dpo
from alignlab.train import batches
from alignlab.train.config import TrainConfig

ALONE = SimpleNamespace(num_processes=1, process_index=0)


class Counted(batches.Scorer):
    """A scorer that counts the completions it is asked for."""

    seen = 0

    def forward(self, groups):
        type(self).seen += len(groups.ids)
        return super().forward(groups)


def values(scorer, examples, where, wanted=None):
    Counted.seen = 0
    wanted = range(len(examples)) if wanted is None else wanted
    moved = []
    found = batches.reference_values(scorer, examples, wanted, 0, ALONE, moved.append, scorer.cache(str(where)))
    assert len(moved) == -(-len(wanted) // batches.REFERENCE_BATCH)
    return found


def test_what_is_known_is_not_scored_again(tmp_path):
    model, examples = runs.small(), runs.some(70, pairs=True)
    expected = values(Counted(model, False), examples, "none")
    assert Counted.seen == 140
    first = values(Counted(model, False), examples[:40], tmp_path)
    assert Counted.seen == 80
    found = values(Counted(runs.small(), False), examples, tmp_path)
    assert Counted.seen == 60
    again = values(Counted(model, False), examples, tmp_path)
    assert Counted.seen == 0
    for i in range(70):
        torch.testing.assert_close(found[i], expected[i], atol=1e-5, rtol=0)
        assert torch.equal(found[i], again[i])
        assert i >= 40 or torch.equal(found[i], first[i])


def test_other_weights_and_other_precision_share_nothing(tmp_path):
    examples = runs.some(6, pairs=True)
    one = values(Counted(runs.small(), False), examples, tmp_path)
    other = values(Counted(runs.small(1), False), examples, tmp_path)
    assert Counted.seen == 12
    assert not torch.allclose(one[0], other[0], atol=1e-2)
    rounded = values(Counted(runs.small(), True), examples, tmp_path)
    assert Counted.seen == 12
    assert not torch.equal(one[0], rounded[0])
    assert len(list(tmp_path.glob("*.logp"))) == 3


def test_values_of_different_output_heads_are_kept_apart(tmp_path):
    """The same completions under both heads: one cache file, and never the other head's value."""
    bare = runs.some(3, pairs=True)
    examples = [dataclasses.replace(e, scores={"head": (h, h)}) for e in bare for h in (0.0, 1.0)]
    model = runs.small()
    single = values(Counted(model, False), examples, tmp_path)
    assert Counted.seen == 12, "asked for at once"
    routed.grow(model.module, 2)
    routed.routed_head(model.module).weight.data[1] *= 0.5
    expected = values(Counted(model, False), examples, "none")
    first = values(Counted(model, False), examples, tmp_path)
    again = values(Counted(model, False), examples[::-1], tmp_path)
    assert Counted.seen == 0
    for i in range(6):
        torch.testing.assert_close(first[i], expected[i], atol=1e-5, rtol=0)
        assert torch.equal(first[i], again[5 - i])
        assert torch.allclose(expected[i], single[i], atol=1e-5) == (i % 2 == 0), "head 0 is the model's own still"
    assert Counted(runs.small(), False).cache(str(tmp_path)).path != Counted(model, False).cache(str(tmp_path)).path


def test_a_single_headed_reference_looks_at_no_head(tmp_path):
    examples = runs.some(4, pairs=True)
    values(Counted(runs.small(), False), examples, tmp_path)
    known = [dataclasses.replace(e, scores={"head": (1.0, 1.0)}) for e in examples]
    values(Counted(runs.small(), False), known, tmp_path)
    assert Counted.seen == 0, "its values do not depend on the head, so they are found again"


def test_a_fresh_adapter_finds_the_values_of_its_base(tmp_path):
    examples, model = runs.some(6, pairs=True), runs.small()
    one = values(Counted(model, False), examples, tmp_path)
    _put_fresh(model, Lora(r=4))
    assert torch.equal(values(Counted(model, False), examples, tmp_path)[3], one[3])
    assert Counted.seen == 0


def test_damage_is_scored_again(tmp_path):
    examples, model = runs.some(6, pairs=True), runs.small()
    one = values(Counted(model, False), examples, tmp_path)
    (file,) = tmp_path.glob("*.logp")
    whole = bytearray(file.read_bytes())
    whole[100] ^= 1
    file.write_bytes(whole)
    with pytest.warns(UserWarning, match="no whole record"):
        found = values(Counted(model, False), examples, tmp_path)
    assert Counted.seen == 2
    torch.testing.assert_close(found, one, atol=1e-5, rtol=0)


def test_coverage_is_checked():
    examples = runs.some(3, pairs=True)
    known = values(Counted(runs.small(), False), examples, "none")
    batches.batch_of([0, 2], examples, known, 0)
    with pytest.raises(CoverageError, match="reference values for .* scored tokens"):
        batches.batch_of([0, 2], examples, {**known, 2: known[2][:-1]}, 0)


@pytest.mark.parametrize("more", [True, False])
def test_a_reference_with_another_tokenizer_is_an_error(tmp_path, more):
    """Of more tokens, to which the ids mean something else; of fewer, which lacks some: before anything is scored."""
    other = runs.small(1)
    tokenizer = tiny_models.make_tokenizer(size=340 if more else 300)
    assert (len(tokenizer) > len(other.tokenizer)) == more
    other.tokenizer = tokenizer
    other.module.resize_token_embeddings(len(tokenizer))
    with pytest.raises(ValueError, match="reference tests/small@.* has another tokenizer than the policy; .* give a"):
        runs.gradients(runs.small(), runs.some(4, pairs=True), dpo.loss, dpo.Config(), tmp_path, reference=other)


def test_a_run_looks_up_what_another_run_with_other_settings_scored(tmp_path, monkeypatch):
    """Over beta, seed and epoch; and its gradients are those of a run that scores for itself."""
    examples, options = runs.some(12, pairs=True), {"reference": runs.small(1)}
    monkeypatch.setattr(runs, "TrainConfig", lambda **settings: TrainConfig(ref_cache=str(tmp_path / "c"), **settings))
    first = runs.gradients(runs.small(), examples, dpo.loss, dpo.Config(beta=0.1), tmp_path / "1", **options)
    calls = []
    forward = batches.Scorer.forward
    monkeypatch.setattr(batches.Scorer, "forward", lambda s, g: calls.append(len(g.ids)) or forward(s, g))
    second = runs.gradients(
        runs.small(), examples[::-1], dpo.loss, dpo.Config(beta=0.3), tmp_path / "2", per_device=6, **options
    )
    assert sum(calls) == 24, "the policy alone"
    monkeypatch.setattr(runs, "TrainConfig", lambda **settings: TrainConfig(ref_cache="none", **settings))
    scored = runs.gradients(
        runs.small(), examples[::-1], dpo.loss, dpo.Config(beta=0.3), tmp_path / "3", per_device=6, **options
    )
    assert sum(calls) == 24 + 24 + 24
    runs.assert_close(second, scored, 1e-6)
    with pytest.raises(AssertionError, match="relative difference"):
        runs.assert_close(first, scored, 1e-3)


def test_the_prompt_of_each_completion_is_in_its_key(tmp_path):
    model, (example,) = runs.small(), runs.some(1, pairs=True)
    other = dataclasses.replace(example, prompt_ids=[*example.prompt_ids, 9])
    found = values(Counted(model, False), [example, other], tmp_path)
    assert Counted.seen == 4
    assert not torch.equal(found[0], found[1])


def test_adapters_of_one_module_have_their_own_values(tmp_path):
    """They share all tensors and one cache; their plain base shares its values with the base loaded alone."""
    examples = runs.some(6, pairs=True)
    save(runs.small(), tmp_path / "base")
    for seed in (1, 2):
        model = load(tmp_path / "base", lora=Lora(r=2, seed=seed))
        for name, parameter in model.module.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.5)
        save(model, tmp_path / str(seed))
    names = ("1", "base", "2")
    models = load_all([tmp_path / name for name in names])
    assert len({id(model.module) for model in models}) == 1
    expected = [values(Counted(load(tmp_path / name), False), examples, "none") for name in names]
    for model, own in zip(models, expected):
        found = values(Counted(model, False), examples, tmp_path / "cache")
        assert Counted.seen == 12
        for i in range(6):
            torch.testing.assert_close(found[i], own[i], atol=1e-4, rtol=0)
        assert torch.equal(values(Counted(model, False), examples, tmp_path / "cache")[3], found[3])
        assert Counted.seen == 0
    assert not torch.allclose(expected[0][3], expected[2][3], atol=1e-2)
    for name in names:
        values(Counted(load(tmp_path / name), False), examples, tmp_path / "cache")
        assert Counted.seen == 0, "loaded alone it is the same model"


@pytest.mark.parametrize("where", ["", None])
def test_the_setting_says_what_it_takes(where):
    with pytest.raises(ValueError, match="--ref_cache: expected a folder, auto or none"):
        TrainConfig(ref_cache=where)


@pytest.mark.slow
def test_two_runs_at_once_on_one_cache(tmp_path):
    code = (
        "import sys; sys.path[:0] = sys.argv[3:]; import train_runs as r; from pathlib import Path;"
        "from alignlab.train.config import TrainConfig as T; r.TrainConfig = lambda **s: T(ref_cache=sys.argv[1], **s);"
        "print(r.run(Path(sys.argv[2]))['train/loss'])"
    )
    places = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, tmp_path / "cache", tmp_path / name, *places], stdout=subprocess.PIPE,
            env=os.environ, text=True,
        )
        for name in ("one", "two")
    ]  # fmt: skip
    losses = [float(each.communicate(timeout=120)[0]) for each in started]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
