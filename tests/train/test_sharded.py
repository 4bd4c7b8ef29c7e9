"""FSDP2 by raw `fully_shard` on two gloo ranks gives the gradients of one process with whole weights."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import sharded_runs
import torch
import train_runs as runs
from test_step import free_port


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_sharded_ranks_give_the_gradients_of_one(tmp_path):
    environment = os.environ | {"TEST_PORT": free_port(), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, Path(sharded_runs.__file__), tmp_path]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [torch.load(tmp_path / f"sharded-{k}.pt") for k in (0, 1)]
    for name, (examples, loss, cfg) in sharded_runs.cases().items():
        options = {"reference": runs.small(1)} if name in ("dpo", "mah_dpo") else {}
        model = sharded_runs.model_for(cfg)
        expected = runs.gradients(model, examples, loss, cfg, tmp_path / name, per_device=12, **options)
        for found in ranks:
            runs.assert_close(found[name], expected, 1e-5)
        with pytest.raises(AssertionError, match="relative difference"):
            runs.assert_close({key: g * 0.5 for key, g in ranks[0][name].items()}, expected, 1e-5)
