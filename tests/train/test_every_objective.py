"""The gradient of a step through the whole loop, for every objective: the same however it is cut, laid out or resumed.

Two ranks are in `test_step`.
"""

import dataclasses
import functools
import tempfile

import pytest
import torch
import train_runs as runs
from every_objective import NAMES, case

from alignlab.cli.checks import applies
from alignlab.core import files
from alignlab.core.reduce import totals
from alignlab.engine import score
from alignlab.engine.agreement import Sharing, sharing_of
from alignlab.train import batches
from proofs import proved

EXACT = {torch.float64: 1e-9, torch.float32: 1e-5}
each = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(autouse=True)
def quick_saves(monkeypatch):
    """What is written need not reach the disk."""
    monkeypatch.setattr(files, "_sync", lambda path: None)


def mean_of_means(loss):
    """Divide inside each micro-batch."""

    def broken(*given):
        terms = loss(*given)
        dens = {name: den for name, (_, den) in totals([terms]).items()}
        ones = [t.num.new_ones(1) * (dens[t.name] != 0) for t in terms]
        return tuple(
            dataclasses.replace(t, num=t.num.sum()[None] / max(dens[t.name], 1e-300), den=one, logs={})
            for t, one in zip(terms, ones)
        )

    return broken


@functools.cache
def whole(name, dtype):
    """Gradients of the step as one batch, packed and shared, the reference computed."""
    with tempfile.TemporaryDirectory() as folder:
        given = case(name, dtype)
        model = given.model()
        found = given.gradients(folder, model=model, per_device=12, ref_cache="none")
    known = sharing_of(model.module)
    assert known.reason is None
    assert any(test.packed for test in known.checked), "nothing was packed"
    return found


def mixed(name, dtype, folder):
    """Gradients of three micro-batches in another order with another padding."""
    given = case(name, dtype)
    model = given.model()
    model.tokenizer.pad_token = "<|end|>"
    return given.gradients(folder, model=model, examples=given.examples[::-1])


@each
def test_a_step_does_not_depend_on_cut_order_or_padding(tmp_path, name):
    given, expected = case(name, torch.float64), whole(name, torch.float64)
    single = given.gradients(tmp_path, per_device=1)
    runs.assert_close(single, expected, 1e-9)
    assert single["record"]["loss"] == pytest.approx(expected["record"]["loss"], rel=1e-7)
    for dtype, tolerance in EXACT.items():
        runs.assert_close(mixed(name, dtype, tmp_path), whole(name, dtype), tolerance)
    broken = given.gradients(tmp_path, loss=mean_of_means(given.module.loss))
    with pytest.raises(AssertionError, match="relative difference"):
        runs.assert_close(broken, expected, 1e-3)
    proved(name, "split", "order", "padding", "mean_of_means")


@each
def test_a_step_does_not_depend_on_packing_or_sharing(tmp_path, name, monkeypatch):
    expected = {dtype: whole(name, dtype) for dtype in EXACT}  # before anything is patched
    with monkeypatch.context() as patch:
        patch.setattr(score, "row_size_in_tokens", lambda device: 1)
        apart = case(name, torch.float64).gradients(tmp_path, per_device=12)
    runs.assert_close(apart, expected[torch.float64], 1e-9)
    monkeypatch.setattr(score, "sharing_of", lambda module: Sharing("the test asks for the plain path"))
    monkeypatch.setattr(score, "_shared", None)
    for dtype, tolerance in EXACT.items():
        plain = case(name, dtype).gradients(tmp_path, per_device=12)
        runs.assert_close(plain, expected[dtype], tolerance)
    proved(name, "sharing")


@pytest.mark.parametrize("name", [name for name in NAMES if applies(name, "cache")])
def test_a_step_does_not_depend_on_the_cache(tmp_path, name, monkeypatch):
    asked = []
    forward = batches.Scorer.forward
    monkeypatch.setattr(batches.Scorer, "forward", lambda s, *args: asked.append(1) or forward(s, *args))
    calls = []
    for _ in range(2):
        asked.clear()
        found = case(name).gradients(tmp_path, ref_cache=str(tmp_path / "cache"))
        calls.append(len(asked))
        runs.assert_close(found, whole(name, torch.float32), 1e-5)
    assert calls[1] < calls[0], "the reference was scored again"
    proved(name, "cache")


@pytest.mark.parametrize("name", [name for name in NAMES if not applies(name, "cache")])
def test_without_a_reference_none_is_scored(tmp_path, name):
    case(name).gradients(tmp_path, ref_cache=str(tmp_path / "cache"), examples=case(name).examples[:4], size=4)
    assert not (tmp_path / "cache").exists()


class Stopped(Exception):
    """Raised in the middle of a run."""


@each
def test_going_on_gives_the_bits_of_a_run_without_a_stop(tmp_path, name):
    def stop(step, _record):
        if step == 3:
            raise Stopped

    given = case(name)
    given.run(tmp_path / "alone")
    with pytest.raises(Stopped):
        given.run(tmp_path / "stopped", on_step=stop)
    given.run(tmp_path / "stopped", resume_from_checkpoint=True)
    assert runs.outcome(tmp_path / "stopped") == runs.outcome(tmp_path / "alone")
    proved(name, "resume")
