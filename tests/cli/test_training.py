"""What `train` makes of its flags before the loop begins."""

import json
import subprocess
import sys

import pytest
import torch

from alignlab.cli.main import main
from alignlab.engine.load import save
from alignlab.train import checkpoint, loop
from alignlab.train.log import read

ROWS = [{"prompt": f"Question {i}?", "completion": "The mill."} for i in range(8)]


def written(tiny_models, folder):
    """Write a model and rows; return the command that trains on them."""
    save(tiny_models.make_model("llama"), folder / "model")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    argv = ["train", "sft", "--model", str(folder / "model"), "--dataset", str(folder / "rows.jsonl")]
    return [*argv, "--output_dir", str(folder / "out")]


@pytest.mark.parametrize(("flags", "on_host"), [(["--device", "cpu"], True), ([], False)])
def test_the_device_that_is_named_is_the_loops_as_well(tiny_models, tmp_path, monkeypatch, flags, on_host):
    """Where there is a GPU, accelerate would take it."""
    command = written(tiny_models, tmp_path)
    seen = []

    def train(model, _examples, _loss, settings, _folder, **_):
        seen.append((settings.use_cpu, model.device.type))
        return {"loss": 1.0}

    monkeypatch.setattr(loop, "train", train)
    assert main([*command, *flags]) == 0
    assert seen[0][0] is on_host
    assert seen[0][1] == "cpu" or not on_host


@pytest.mark.slow
def test_torchrun_makes_one_run_of_two_processes(tiny_models, tmp_path):
    """And not two runs beside each other, as accelerate would where there is no GPU and nothing says so."""
    started = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    settings = ["--max_steps", "2", "--per_device_train_batch_size", "2", "--save_steps", "2", "--logging_steps", "1"]
    settings += ["--use_cpu"] if torch.accelerator.is_available() else []
    command = [*started, "-m", "alignlab.cli.main", *written(tiny_models, tmp_path), *settings]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("report.html") == 1, "the first process speaks for both"
    assert checkpoint.read_state(tmp_path / "out" / "checkpoint-2")["ranks"] == 2
    assert [record["step"] for record in read(tmp_path / "out" / "metrics.jsonl")] == [1, 2]
