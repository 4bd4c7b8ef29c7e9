"""Runs that are killed without warning leave whole checkpoints only, and go on to the same bits."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import train_runs as runs

from alignlab.train import checkpoint


def script(*arguments: object) -> dict[str, int]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, runs.__file__, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_kill_at_twenty_random_moments(tmp_path):
    counts = script("kill", tmp_path, 20, 0)
    assert counts["kills"] == 20
    assert counts["finished"] >= 1


@pytest.mark.slow
def test_kill_inside_a_save(tmp_path):
    assert script("save", tmp_path) == {"stages": 14}


def test_nothing_is_pickled_and_the_folder_is_a_model(tmp_path):
    runs.run(tmp_path, steps=3)
    names = {path.name for path in (tmp_path / "checkpoint-3").iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", checkpoint.TENSORS, checkpoint.STATE} <= names
    assert all(Path(name).suffix in (".safetensors", ".json", ".jinja") for name in names)
    assert runs.check_whole(tmp_path) == 1


def test_another_models_checkpoint_is_refused(tmp_path):
    runs.run(tmp_path, steps=3)
    other = runs.small(architecture="gpt2")
    optimizer = torch.optim.AdamW(checkpoint.trained(other).values())
    with pytest.raises(ValueError, match="trained on other parameters"):
        checkpoint.load(tmp_path / "checkpoint-3", other, optimizer)
