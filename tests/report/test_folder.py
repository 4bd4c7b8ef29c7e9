import json
import os
import subprocess
import sys

import pytest
import yaml

from alignlab.core.types import Figure, Metric, Result
from alignlab.report import folder


def write(example, path, **changes):
    run = example.run()
    fields = {
        "card": run.card,
        "config": run.config,
        "seed": 3,
        "command": run.command,
        "seconds": 12.5,
        "cost": run.cost,
    }
    return folder.write(path, run.result, **(fields | changes))


@pytest.fixture(scope="module")
def written(example, tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "deep" / "run"
    assert write(example, path) == path / "report.html"
    return path


def test_the_five_files(written):
    names = ["README.md", "config.yaml", "report.html", "result.json", "samples.jsonl"]
    assert sorted(os.listdir(written)) == names


def test_result_json(written, example):
    got = json.loads((written / "result.json").read_text())
    assert got["metrics"]["plain/asr"] == 0.48
    assert got["metrics"]["lost"] is None
    assert got["intervals"]["plain/asr"] == pytest.approx([0.466, 0.494])
    assert "seconds" not in got["intervals"]
    assert got["n"]["da/es"] == 1200
    assert (got["seed"], got["seconds"], got["samples"], got["method"]) == (3, 12.5, "samples.jsonl", "run dialectical")
    assert got["claims"]["plain/asr - da/asr >= 0.35"] == {"observed": pytest.approx(0.387), "holds": True, "seeds": 3}
    assert got["claims"]["da/absent >= 0.5"] == {"observed": None, "holds": False, "seeds": 1}
    assert got["card"]["status"] == "reconstructed"
    assert got["card"]["needs"] == []
    assert got["environment"]["python"] == sys.version.split()[0]
    assert got["environment"]["torch"].startswith("2.")
    assert got["tables"]["asr_by_ratio"]["rows"][0][0] == "plain"
    assert got["figures"]["frontier"]["kind"] == "line"
    assert got["version"] == "0.1.0"
    assert {"notes", "config", "commit", "command", "cost"} <= got.keys()


def test_claims_can_be_held_against_it(written, example):
    metrics = json.loads((written / "result.json").read_text())["metrics"]
    assert example.CARD.claims[0].holds(metrics)
    assert not example.CARD.claims[0].holds(metrics | {"da/asr": 0.4})


def test_config_can_be_read_back(written, example):
    got = yaml.safe_load((written / "config.yaml").read_text())
    assert got["learning_rate"] == 3e-4
    assert got["nested"]["ratios"] == list(example.RATIOS)


def test_no_file_steers_a_terminal(written):
    for path in written.iterdir():
        text = path.read_text(encoding="utf-8")
        assert not any((ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160 or c == "\u202e" for c in text), path


def test_samples_are_kept_whole(written, example, tmp_path):
    lines = (written / "samples.jsonl").read_text().splitlines()
    assert len(lines) == 3
    assert json.loads(lines[1])["answers"]["long"] == "y" * 1_000_000
    write(example, tmp_path, samples=({"i": i} for i in range(50)))
    assert len((tmp_path / "samples.jsonl").read_text().splitlines()) == 50


def test_readme_says_what_and_how(written, example):
    text = (written / "README.md").read_text()
    assert "# Dialectical Alignment" in text
    assert "    alignlab run dialectical --model tiny: --seed 0" in text
    assert "| plain/asr | 0.480 | [0.466, 0.494] | 4,800 |" in text
    assert "- claim `plain/asr - da/asr >= 0.35`: holds, observed 0.387" in text
    assert "claim `da/absent >= 0.5`: not measured in this run" in text
    assert "no metric 'da/absent'" in text
    assert "&lt;" not in "".join(line for line in text.splitlines() if line.startswith("- claim"))
    assert "<script" not in text


def test_secrets_stay_out(example, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "very-secret-value-1")
    result = Result(
        metrics={}, notes=("endpoint said very-secret-value-1",), samples=({"text": "very-secret-value-1"},)
    )
    folder.write(
        tmp_path,
        result,
        config={"api_key": "another-secret", "url": "http://x/?key=very-secret-value-1"},
        seed=0,
        command="alignlab run x --api_key very-secret-value-1",
        seconds=1.0,
    )
    for path in tmp_path.iterdir():
        assert "secret" not in path.read_text().lower(), path


def test_other_files_are_left_alone_and_old_ones_replaced(example, tmp_path):
    (tmp_path / "metrics.jsonl").write_text("kept")
    (tmp_path / "result.json").write_text("old")
    write(example, tmp_path)
    assert (tmp_path / "metrics.jsonl").read_text() == "kept"
    assert json.loads((tmp_path / "result.json").read_text())["seed"] == 3


def test_a_bad_figure_costs_the_page_not_the_numbers(example, tmp_path):
    bad = Result(
        metrics={"a": Metric(value=1.0, n=1)}, figures={"f": Figure(kind="line", series={"s": {"x": [1], "y": []}})}
    )
    with pytest.raises(ValueError, match="figure 'f'"):
        folder.write(tmp_path, bad, config={}, seed=0, command="", seconds=None)
    assert json.loads((tmp_path / "result.json").read_text())["metrics"] == {"a": 1.0}
    assert not (tmp_path / "report.html").exists()


def test_commit_is_that_of_our_sources(tmp_path, monkeypatch):
    here = os.path.dirname(folder.__file__)
    git = subprocess.run(["git", "-C", here, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if git.returncode:
        assert folder.commit() is None
    else:
        assert (folder.commit() or "").removesuffix("-dirty") == git.stdout.strip()
    # installed inside somebody else's repository: their commit says nothing of us
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "alignlab").mkdir()
    (tmp_path / "alignlab" / "__init__.py").write_text("")
    monkeypatch.setattr(folder.alignlab, "__file__", str(tmp_path / "alignlab" / "__init__.py"))
    assert folder.commit() is None
    monkeypatch.setenv("PATH", "")
    assert folder.commit() is None


def test_readable_is_at_hand():
    assert folder.readable("\x1b[2J") == "␛[2J"


def test_loading_the_report_is_quick():
    """The command line imports it after a run, `alignlab -h` must not wait for it."""
    heavy = ("transformers", "matplotlib", "scipy")
    code = f"import sys, alignlab.report.folder; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
