"""The gradient of a step before clipping: right, and the same however the step is cut, ordered, padded or spread."""

import dataclasses
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import train_runs as runs

from alignlab.core.masks import seq_sum
from alignlab.core.types import Term
from alignlab.engine.load import Lora, _put_fresh
from alignlab.objectives import dpo, sft
from proofs import proved

CASES = ("sft", "sequence_mean", "dpo", "shifted")


def mean_of_means(batch, _cfg):
    nll = -seq_sum(batch.views["policy"].logp, batch.mask).sum() / batch.mask.sum()
    return (Term(name="sft", num=nll[None], den=torch.ones(1)),)


def shift_of_the_micro_batch(batch, cfg, _values):
    sums = {t.name: (t.num.detach().sum() / t.den.sum().clamp(min=1)).item() for t in runs.shift(batch, cfg)}
    return runs.shifted_loss(batch, cfg, sums)


def check_cuts(name, folder, dtype, tolerance, broken=None):
    """The gradient of 12 rows as one batch, against every other cut of them."""
    examples, loss, config, options = runs.cases()[name]
    if "reference" in options:
        options["reference"].module.to(dtype)
    whole = runs.gradients(runs.small(dtype=dtype), examples, broken or loss, config, folder, per_device=12, **options)
    for per_device in (1, 2, 3, 4, 6):
        cut = runs.gradients(
            runs.small(dtype=dtype), examples, broken or loss, config, folder, per_device=per_device, **options
        )
        runs.assert_close(cut, whole, tolerance)
        assert cut["record"]["loss"] == pytest.approx(whole["record"]["loss"], rel=max(tolerance, 1e-7))
    return whole


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-9)])
def test_a_step_does_not_depend_on_the_cut(tmp_path, name, dtype, tolerance):
    check_cuts(name, tmp_path, dtype, tolerance)


@pytest.mark.parametrize(("name", "broken"), [("sft", mean_of_means), ("shifted", shift_of_the_micro_batch)])
def test_the_cut_check_sees_means_of_micro_batches(tmp_path, name, broken):
    with pytest.raises(AssertionError, match="relative difference"):
        check_cuts(name, tmp_path, torch.float64, 1e-5, broken)


@pytest.mark.parametrize("name", CASES)
def test_a_step_does_not_depend_on_order_or_padding(tmp_path, name):
    examples, loss, config, options = runs.cases()[name]
    expected = runs.gradients(runs.small(), examples, loss, config, tmp_path, **options)
    found = runs.gradients(runs.small(), examples[::-1], loss, config, tmp_path, **options)
    runs.assert_close(found, expected, 1e-5)
    other_padding = runs.small()
    other_padding.tokenizer.pad_token = "<|end|>"
    found = runs.gradients(other_padding, examples, loss, config, tmp_path, **options)
    assert all(torch.equal(found[key], expected[key]) for key in expected if key != "record"), (
        "padding reached a gradient"
    )


def by_hand(model, reference, examples, config):
    """Gradients of SFT or DPO with autograd over plain forward passes, row by row; no code in common with the loop."""

    def log_prob(module, example, k):
        ids = torch.tensor([example.prompt_ids + example.completions[k]])
        logp = module(input_ids=ids).logits[0, :-1].log_softmax(-1)
        start = len(example.prompt_ids) - 1
        return logp[range(start, logp.shape[0]), ids[0, start + 1 :]].sum()

    total = 0.0
    if isinstance(config, sft.Config):
        tokens = sum(len(e.completions[0]) for e in examples)
        total = -sum(log_prob(model.module, e, 0) for e in examples) / tokens
    else:
        labels = [torch.tensor(e.pairs[0][2::2]).tolist() for e in examples]  # p, weight: as float32 holds them
        weights = sum(weight for _, weight in labels)
        chosen_tokens = sum((torch.tensor(w) * len(e.completions[0])).item() for e, (_, w) in zip(examples, labels))
        for e, (p, weight) in zip(examples, labels):
            policy = [log_prob(model.module, e, k) for k in (0, 1)]
            with torch.no_grad():
                ref = [log_prob(reference.module, e, k) for k in (0, 1)]
            z = config.beta * ((policy[0] - ref[0]) - (policy[1] - ref[1]))
            preference = p * torch.log1p(torch.exp(-z)) + (1 - p) * torch.log1p(torch.exp(z))
            total += weight * preference / weights - config.nll_weight * weight * policy[0] / chosen_tokens
    total.backward()
    return total.item(), {name: p.grad for name, p in model.module.named_parameters()}


def check_by_hand(name, folder, broken=None):
    examples, loss, config, options = runs.cases()[name]
    if "reference" in options:
        options["reference"].module.double()
    found = runs.gradients(runs.small(dtype=torch.float64), examples, broken or loss, config, folder, **options)
    total, expected = by_hand(runs.small(dtype=torch.float64), options.get("reference"), examples, config)
    runs.assert_close(found, expected, 1e-9)
    assert found["record"]["loss"] == pytest.approx(total, rel=1e-9)


@pytest.mark.parametrize("name", ["sft", "dpo"])
def test_the_gradient_is_the_one_worked_out_row_by_row(tmp_path, name):
    check_by_hand(name, tmp_path)


def flipped(loss):
    return lambda batch, cfg: tuple(dataclasses.replace(t, num=-t.num) for t in loss(batch, cfg))


def without_end(loss):
    def changed(batch, cfg):
        ends = torch.arange(batch.mask.shape[1]) == batch.mask.sum(1)[:, None] - 1
        return loss(dataclasses.replace(batch, mask=batch.mask & ~ends), cfg)

    return changed


def swapped(loss):
    def changed(batch, cfg):
        pairs = dataclasses.replace(batch.pairs, better=batch.pairs.worse, worse=batch.pairs.better)
        return loss(dataclasses.replace(batch, pairs=pairs), cfg)

    return changed


@pytest.mark.parametrize(
    ("name", "broken"),
    [("sft", flipped), ("sft", without_end), ("dpo", flipped), ("dpo", without_end), ("dpo", swapped)],
)
def test_the_row_by_row_check_sees_broken_losses(tmp_path, name, broken):
    with pytest.raises(AssertionError, match="relative difference"):
        check_by_hand(name, tmp_path, broken(runs.cases()[name][1]))


@pytest.fixture
def on_gpu():
    """Accelerate keeps its first device for the whole process."""
    from accelerate.state import AcceleratorState

    if not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["sft", "dpo", "kto", "bco"])
def test_a_gpu_gives_the_gradient_of_a_processor(tmp_path, name, on_gpu):
    from accelerate.state import AcceleratorState

    found = []
    for use_cpu, per_device in ((True, 4), (False, 4), (False, 12)):
        AcceleratorState._reset_state(True)
        examples, loss, config, options = runs.cases()[name]
        model = runs.small()
        found.append(
            runs.gradients(model, examples, loss, config, tmp_path, per_device=per_device, use_cpu=use_cpu, **options)
        )
        assert model.device.type == ("cpu" if use_cpu else "cuda")
    expected, *others = (
        {key: value if key == "record" else value.cpu() for key, value in gradient.items()} for gradient in found
    )
    for other in others:
        runs.assert_close(other, expected, 1e-4)
        assert other["record"]["loss"] == pytest.approx(expected["record"]["loss"], rel=1e-4)


def test_recomputed_activations_and_bfloat16_give_the_same_step(tmp_path):
    examples, loss, config, options = runs.cases()["dpo"]
    expected = runs.gradients(runs.small(), examples, loss, config, tmp_path, **options)
    recomputed = runs.gradients(runs.small(), examples, loss, config, tmp_path, gradient_checkpointing=True, **options)
    runs.assert_close(recomputed, expected, 1e-5)
    rounded = runs.gradients(runs.small(), examples, loss, config, tmp_path, bf16=True, **options)
    runs.assert_close(rounded, expected, 5e-2)
    with pytest.raises(AssertionError, match="relative difference"):
        runs.assert_close(rounded, expected, 1e-5)
    assert {g.dtype for name, g in rounded.items() if name != "record"} == {torch.float32}
    half = runs.gradients(runs.small(dtype=torch.bfloat16), examples, loss, config, tmp_path, **options)
    assert {g.dtype for name, g in half.items() if name != "record"} == {torch.float32}, (
        "weights in training are float32"
    )


def test_only_the_adapter_is_trained_and_the_reference_is_the_model_as_it_came(tmp_path):
    examples = runs.some(12, pairs=True)
    model = runs.small()
    _put_fresh(model, Lora(r=4))
    found = runs.gradients(model, examples, dpo.loss, dpo.Config(beta=0.3), tmp_path, per_device=2)
    names = [name for name in found if name != "record"]
    assert names
    assert all("lora_" in name for name in names)
    assert found["record"]["rewards/margins"] == pytest.approx(0.0, abs=1e-4)
    base = runs.gradients(model, examples, dpo.loss, dpo.Config(beta=0.3), tmp_path, reference=runs.small())
    runs.assert_close(base, found, 1e-4)


def test_lora_dropout_is_not_lost_in_silence(tmp_path):
    model = runs.small()
    _put_fresh(model, Lora(r=4, dropout=0.1))
    with pytest.raises(ValueError, match="--no_disable_dropout"):
        runs.gradients(model, runs.some(12, pairs=False), sft.loss, sft.Config(), tmp_path)


def test_dropout_is_off_during_training_and_back_afterwards(tmp_path):
    model = runs.small(architecture="gpt2")
    for part in model.module.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.5
    examples = runs.some(12, pairs=False)
    once, again = (runs.gradients(model, examples, sft.loss, sft.Config(), tmp_path) for _ in range(2))
    runs.assert_close(once, again, 1e-7)
    assert {part.p for part in model.module.modules() if isinstance(part, torch.nn.Dropout)} == {0.5}
    noisy = runs.gradients(model, examples, sft.loss, sft.Config(), tmp_path, disable_dropout=False)
    with pytest.raises(AssertionError, match="relative difference"):
        runs.assert_close(noisy, once, 1e-2)


def test_a_term_that_nothing_counts_for_is_omitted_and_counted(tmp_path):
    def loss(batch, cfg):
        (term,) = sft.loss(batch, cfg)
        return (term, Term(name="void", num=term.num * torch.inf, den=term.den * 0.0))

    examples = runs.some(12, pairs=False)
    expected = runs.gradients(runs.small(), examples, sft.loss, sft.Config(), tmp_path)
    found = runs.gradients(runs.small(), examples, loss, sft.Config(), tmp_path)
    runs.assert_close(found, expected, 1e-6)
    assert found["record"]["omitted_terms"] == 1
    assert "omitted_terms" not in expected["record"]


def free_port() -> str:
    with socket.socket() as at:
        at.bind(("127.0.0.1", 0))
        return str(at.getsockname()[1])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_ranks_give_the_gradients_of_one(tmp_path):
    """Under DistributedDataParallel on gloo, world size and class asserted there; 7 rows do not even go round."""
    script = Path(runs.__file__)
    environment = os.environ | {"TEST_PORT": free_port(), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, script, "ddp", tmp_path], env=environment, capture_output=True, text=True, timeout=1700
    )
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [torch.load(tmp_path / f"rank-{k}.pt") for k in (0, 1)]
    for name, (examples, loss, config, options) in runs.every_case().items():
        expected = runs.gradients(
            runs.model_of(name), examples, loss, config, tmp_path / "one", per_device=4, **options
        )
        method, dtype = name.split("/")
        for found, _ in ranks:
            runs.assert_close(found[name], expected, runs.PRECISIONS.get(dtype, 1e-5))
        for key in ("loss", "grad_norm"):
            assert ranks[0][0][name]["record"][key] == pytest.approx(expected["record"][key], rel=1e-5)
        if dtype == "float64":
            proved(method, "ranks")
    one = runs.eight_rows_a_step(tmp_path / "one", accumulation=4)
    two = ranks[0][1]
    assert set(one) == set(two)
    # six rows in micro-batches of two do not go round: a rank computes one that counts for nothing, to keep in step
    repeated = ("computed_tokens", "teraflops", "percent_of_floor")
    for name in set(one) - set(runs.TIMES):
        if name.rpartition("/")[2] in repeated:
            assert one[name] < two[name] < 1.15 * one[name], name
            continue
        assert two[name] == pytest.approx(one[name], rel=2e-3, abs=2e-3), name
    records = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert len(records) == 4, "steps 1, 2, 4, 6, written by the first rank alone"
    state = runs.checkpoint.read_state(tmp_path / "run" / "checkpoint-3")
    assert state["ranks"] == 2
    assert len(state["meter"]) == 2
