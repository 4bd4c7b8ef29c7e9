import dataclasses
import subprocess
import sys

import pytest
import torch

from alignlab.core import types
from alignlab.core.types import Figure, Groups, Metric, Row, Table, Term

RECORDS = [
    value for value in vars(types).values() if dataclasses.is_dataclass(value) and value.__module__ == types.__name__
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: r.__name__)
def test_records_are_frozen_and_named(record):
    assert record.__dataclass_params__.frozen
    assert all(field.kw_only for field in dataclasses.fields(record))
    assert record.__doc__


def test_a_row_cannot_be_changed():
    row = Row(prompt="q", chosen="a", rejected="b")
    with pytest.raises(dataclasses.FrozenInstanceError):
        row.prompt = "other"
    assert dataclasses.replace(row, chosen="c").chosen == "c"
    assert row.facts == {}


def test_shapes_are_checked_in_tests():
    with pytest.raises(Exception, match="items|shape|mask"):
        Term(name="x", num=torch.zeros(3), den=torch.zeros(2))
    with pytest.raises(Exception, match="mask"):
        Groups(
            prompt_ids=torch.zeros(1, 2, dtype=torch.long),
            prompt_mask=torch.ones(1, 2, dtype=torch.bool),
            ids=torch.zeros(2, 3, dtype=torch.long),
            mask=torch.ones(2, 4, dtype=torch.bool),
            group=torch.zeros(2, dtype=torch.long),
        )


def test_results_hold_what_a_report_needs():
    result = types.Result(metrics={"asr": Metric(value=0.5, n=10, low=0.3, high=0.7)})
    assert (result.tables, result.figures, result.notes, result.samples) == ({}, {}, (), ())
    assert Table(columns=("a",), rows=((1,), (None,))).caption == ""
    assert Figure(kind="bars", series={"s": {"label": ["x"], "y": [1.0]}}).x_label == ""


def test_core_loads_no_heavy_library():
    """A report, a card listing or an objective must not wait for transformers."""
    code = (
        "import sys, pkgutil, importlib, alignlab.core as core\n"
        "[importlib.import_module(f'alignlab.core.{m.name}') for m in pkgutil.iter_modules(core.__path__)]\n"
        "print([m for m in ('transformers', 'peft', 'datasets', 'scipy', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
