"""What `train` makes of its flags before the loop begins."""

import json

import pytest

from alignlab.cli.main import main
from alignlab.engine.load import save
from alignlab.train import loop


@pytest.mark.parametrize(("flags", "on_host"), [(["--device", "cpu"], True), ([], False)])
def test_the_device_that_is_named_is_the_loops_as_well(tiny_models, tmp_path, monkeypatch, flags, on_host):
    """Where there is a GPU, accelerate would take it."""
    save(tiny_models.make_model("llama"), tmp_path / "model")
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": "Where?", "completion": "The mill."}) + "\n")
    seen = []

    def train(model, _examples, _loss, settings, _folder, **_):
        seen.append((settings.use_cpu, model.device.type))
        return {"loss": 1.0}

    monkeypatch.setattr(loop, "train", train)
    argv = ["train", "sft", "--model", str(tmp_path / "model"), "--dataset", str(tmp_path / "rows.jsonl")]
    assert main([*argv, *flags, "--output_dir", str(tmp_path / "out")]) == 0
    assert seen[0][0] is on_host
    assert seen[0][1] == "cpu" or not on_host
