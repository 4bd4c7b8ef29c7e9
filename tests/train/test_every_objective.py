"""The gradient of a step through the whole loop, for every objective and trained reward, in every form that it has.

It is the same however the step is cut, laid out or resumed. Two ranks are in `test_step`.
"""

import dataclasses
import functools
import itertools
import tempfile

import pytest
import torch
import train_runs as runs
from every_objective import DEFAULT, NAMES, case, forms

from alignlab.core import files
from alignlab.core.reduce import totals
from alignlab.engine import score
from alignlab.engine.agreement import Sharing, sharing_of
from alignlab.train import batches
from proofs import proved

EXACT = {getattr(torch, dtype): tolerance for dtype, tolerance in runs.PRECISIONS.items()}
FORMS = {name: (DEFAULT, *forms(name)) for name in NAMES}
each = pytest.mark.parametrize("name", NAMES)
each_form = pytest.mark.parametrize(
    ("name", "form"),
    [
        pytest.param(name, form, id="-".join([name, *(f"{field}={value}" for field, value in form)]))
        for name, found in FORMS.items()
        for form in found
    ],
)


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
def whole(name, dtype, form):
    """Gradients of the step as one batch, packed and shared, the reference computed."""
    with tempfile.TemporaryDirectory() as folder:
        given = case(name, dtype, form)
        model = given.model()
        found = given.gradients(folder, model=model, per_device=12, ref_cache="none")
    known = sharing_of(model.module)
    assert known.reason is None
    assert any(test.packed for test in known.checked), "nothing was packed"
    return found


def mixed(name, dtype, form, folder):
    """Gradients of three micro-batches in another order with another padding."""
    given = case(name, dtype, form)
    model = given.model()
    model.tokenizer.pad_token = "<|end|>"
    return given.gradients(folder, model=model, examples=given.examples[::-1])


@each_form
def test_a_step_does_not_depend_on_cut_order_or_padding(tmp_path, name, form):
    given, expected = case(name, torch.float64, form), whole(name, torch.float64, form)
    for dtype, tolerance in EXACT.items():
        runs.assert_close(mixed(name, dtype, form, tmp_path), whole(name, dtype, form), tolerance)
    if form == DEFAULT:
        single = given.gradients(tmp_path, per_device=1)
        runs.assert_close(single, expected, 1e-9)
        assert single["record"]["loss"] == pytest.approx(expected["record"]["loss"], rel=1e-7)
        broken = given.gradients(tmp_path, loss=mean_of_means(given.module.loss))
        with pytest.raises(AssertionError, match="relative difference"):
            runs.assert_close(broken, expected, 1e-3)
        proved(name, "mean_of_means")
    proved(name, "split", "order", "padding")


@each_form
def test_a_step_does_not_depend_on_packing_or_sharing(tmp_path, name, form, monkeypatch):
    expected = {dtype: whole(name, dtype, form) for dtype in EXACT}  # before anything is patched
    if form == DEFAULT:
        with monkeypatch.context() as patch:
            patch.setattr(score, "row_size_in_tokens", lambda device: 1)
            for dtype, tolerance in EXACT.items():
                apart = case(name, dtype, form).gradients(tmp_path, per_device=12)
                runs.assert_close(apart, expected[dtype], tolerance)
    monkeypatch.setattr(score, "sharing_of", lambda module: Sharing("the test asks for the plain path"))
    monkeypatch.setattr(score, "_shared", None)
    for dtype, tolerance in EXACT.items():
        plain = case(name, dtype, form).gradients(tmp_path, per_device=12)
        runs.assert_close(plain, expected[dtype], tolerance)
    proved(name, "sharing")


@each
def test_a_step_does_not_depend_on_the_cache(tmp_path, name, monkeypatch):
    asked, forward = [], batches.Scorer.forward
    monkeypatch.setattr(batches.Scorer, "forward", lambda s, *args: asked.append(1) or forward(s, *args))
    read = []
    for number, form in enumerate(FORMS[name]):
        for dtype, tolerance in EXACT.items():
            given, folder = case(name, dtype, form), tmp_path / f"{number}-{dtype}"
            found = given.gradients(tmp_path, ref_cache=str(folder))
            runs.assert_close(found, whole(name, dtype, form), tolerance)
            first = len(asked)
            if folder.exists():
                read.append(form)
                asked.clear()
                again = given.gradients(tmp_path, ref_cache=str(folder))
                runs.assert_close(again, whole(name, dtype, form), tolerance)
                assert len(asked) < first, "the reference was scored again"
            else:
                other = given.gradients(tmp_path, reference=runs.small(5, dtype))
                runs.assert_close(other, found, 0.0)
            asked.clear()
    assert bool(read) == ("ref" in case(name).module.CARD.needs)
    proved(name, "cache" if read else "no_reference")


@pytest.mark.parametrize("name", [name for name in NAMES if len(FORMS[name]) > 1])
def test_each_form_has_a_gradient_of_its_own(name):
    for one, other in itertools.combinations(FORMS[name], 2):
        with pytest.raises(AssertionError, match="relative difference"):
            runs.assert_close(whole(name, torch.float64, one), whole(name, torch.float64, other), 1e-6)


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
