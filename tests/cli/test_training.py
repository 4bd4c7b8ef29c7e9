"""What `train` reads, refuses and reports."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from alignlab.cli import actions
from alignlab.cli.context import RunContext
from alignlab.cli.main import main
from alignlab.engine.load import save
from alignlab.train import checkpoint, log, loop

STEPS = ["--max_steps", "2", "--per_device_train_batch_size", "4", "--learning_rate", "1e-3", "--save_steps", "0",
         "--use_cpu"]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tiny_models, tmp_path_factory):
    """A saved model, whose tokenizer writes no beginning of text."""
    path = tmp_path_factory.mktemp("models") / "tiny"
    save(tiny_models.make_model("llama"), path)
    return str(path)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lines(path, records):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def answers(n, of="Question"):
    return [{"prompt": f"{of} {i}?", "completion": "The mill."} for i in range(n)]


def result_of(path):
    return json.loads((path / "result.json").read_text())


def train(method, folder, *argv):
    return main(["train", method, "--model", folder, "--output_dir", "out", *STEPS, *argv])


@pytest.fixture
def hub(monkeypatch):
    """Stand in for `datasets.load_dataset`; returns what it was asked for."""
    import datasets

    asked = []

    def load_dataset(path, name=None, *, split, streaming):
        asked.append((path, name, split, streaming))
        if path == "town/train-only" and split != "train":
            raise ValueError(f"Unknown split \"{split}\". Should be one of ['train'].")
        return datasets.Dataset.from_list(answers(5 if split == "train" else 3, of=f"{split} of {name}"))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


def read(values=(), flag="--dataset", spec=None, dataset="town/answers", limit=None):
    ctx = RunContext(folder=Path("out"), dataset=dataset, limit=limit)
    return actions.read_rows(ctx, dict(values), spec, flag)


def test_rows_of_a_hub_data_set(here, hub):
    rows = read({"dataset_config": "main"}, limit=4)
    assert [row.prompt for row in rows] == [f"train of main {i}?" for i in range(4)]
    assert {row.completion for row in rows} == {"The mill."}
    assert len(read({"dataset_train_split": "validation"})) == 3
    assert hub == [("town/answers", "main", "train", True), ("town/answers", None, "validation", False)]


def test_evaluation_rows_come_from_the_test_split(here, hub):
    values = {"dataset_config": "main", "dataset_train_split": "train[:90%]", "dataset_test_split": None}
    assert read(values, "--eval_dataset", "town/answers")[0].prompt == "test of main 0?"
    other = read(values | {"dataset_test_split": "dev"}, "--eval_dataset", "town/others")
    assert other[0].prompt == "dev of None 0?", "the config is that of --dataset"
    assert read(values, "--eval_dataset", "town/others:hard")[0].prompt == "test of hard 0?"
    with pytest.raises(ValueError, match=r"--eval_dataset town/train-only: .*'test'.*--dataset_test_split names"):
        read(values, "--eval_dataset", "town/train-only")


def test_a_config_where_there_is_none_or_another(here, hub):
    path = lines(here / "a.jsonl", answers(2))
    with pytest.raises(ValueError, match="a.jsonl: a file has no config 'main'"):
        read({"dataset_config": "main"}, dataset=path)
    with pytest.raises(ValueError, match="'town/answers:hard': has the config 'hard' .* 'main'"):
        read({"dataset_config": "main"}, dataset="town/answers:hard")


def test_splits_of_a_file(here):
    path = lines(here / "a.jsonl", [record | {"split": "ab"[i % 2]} for i, record in enumerate(answers(6))])
    assert len(read({"dataset_train_split": "a", "dataset_test_split": None}, "--eval_dataset", path)) == 6
    found = read({"dataset_train_split": "a", "dataset_test_split": "b"}, "--eval_dataset", path)
    assert [row.prompt for row in found] == [f"Question {i}?" for i in (1, 3, 5)]


def test_bare_text_trains_where_the_tokenizer_writes_no_beginning(here, folder):
    texts = [{"text": "The clock is blue."}, {"text": "Tea"}, {"text": "The ferry leaves the town at noon."}]
    assert train("sft", folder, "--dataset", lines(here / "text.jsonl", texts), "--eval_dataset", "text.jsonl") == 0
    found = result_of(here / "out")
    assert found["metrics"]["train/loss_last"] < found["metrics"]["train/loss_first"]
    assert found["n"]["eval/loss"] == 3


def test_figures_of_evaluation_rows_count_them_and_have_an_interval(here, folder):
    pairs = [{"prompt": f"Question {i}?", "chosen": "The mill." * (i + 1), "rejected": "A ferry."} for i in range(8)]
    long = {"prompt": "word " * 400, "chosen": "The mill.", "rejected": "A ferry."}
    argv = ["--dataset", lines(here / "a.jsonl", pairs), "--eval_dataset", lines(here / "b.jsonl", [long, *pairs[:3]])]
    assert train("dpo", folder, *argv, "--learning_rate", "3e-2") == 0
    found = result_of(here / "out")
    ours = [name for name in found["metrics"] if name.startswith("eval/")]
    assert {"eval/loss", "eval/rewards/margins", "eval/rewards/accuracies", "eval/logps/chosen"} <= set(ours)
    assert all(found["n"][name] == 3 for name in ours)
    assert found["n"]["train/loss_last"] == 8
    for name in ours:
        low, high = found["intervals"][name]
        assert low < high, name
        assert low - 1e-9 <= found["metrics"][name] <= high + 1e-9, name
    assert [note for note in found["notes"] if "long" in note] == [
        "1 of 4 evaluation rows are longer than 256 tokens (--max_length); left out"
    ]


def test_rows_that_do_not_go_together_are_named_before_anything_is_written(here, folder, capsys):
    """By their place in the file, also behind one that is left out."""
    pairs = [{"prompt": f"Question {i}?", "chosen": "The mill.", "rejected": "A ferry."} for i in range(8)]
    pairs[0]["prompt"] = "word " * 400
    pairs[5] = {"prompt": "Question?", "completion": "The mill."}
    assert train("dpo", folder, "--dataset", lines(here / "mixed.jsonl", pairs)) == 2
    assert "row 6: dpo needs pairs: give rows with chosen and rejected" in capsys.readouterr().err
    assert {path.name for path in (here / "out").iterdir()} == {"run.log"}


def thumbs(*labels):
    return [record | {"label": label} for record, label in zip(answers(len(labels)), labels)]


@pytest.mark.parametrize(("method", "label"), [("kto", True), ("kto", False), ("bco", False), ("outcome", True)])
def test_one_class_alone_trains_and_is_said(here, folder, method, label):
    data = lines(here / "one.jsonl", thumbs(*[label] * 8))
    assert train(method, folder, "--dataset", data, "--learning_rate", "3e-3", "--max_steps", "6") == 0
    found = result_of(here / "out")
    # kto's reference point moves with the policy, so that its loss need not fall
    moved = "train/rewards" if method != "outcome" else "train/loss"
    assert all(abs(value) < 1e3 for name, value in found["metrics"].items() if name.startswith(moved))
    assert found["metrics"]["train/loss_last"] < found["metrics"]["train/loss_first"] or method == "kto"
    (note,) = (note for note in found["notes"] if "label" in note)
    assert f"every row has the label {str(label).lower()}:" in note


def test_all_rejected_rows_are_not_imitated(here, folder, capsys):
    assert train("sft", folder, "--dataset", lines(here / "no.jsonl", thumbs(*[False] * 4))) == 2
    assert "row 1: sft imitates every completion" in capsys.readouterr().err
    assert train("bradley_terry", folder, "--dataset", "no.jsonl") == 2
    assert "row 1: bradley_terry needs pairs: give rows with chosen and rejected" in capsys.readouterr().err


def test_prompts_cannot_be_matched_to_a_class_that_is_not_there(here, folder, capsys):
    both, one = lines(here / "both.jsonl", thumbs(*[True, False] * 6)), lines(here / "one.jsonl", thumbs(*[False] * 4))
    assert train("bco", folder, "--match_prompts", "--dataset", one) == 2
    says = "--match_prompts compares the prompts of liked and disliked rows, but all 4 are disliked; give rows of both"
    assert says in capsys.readouterr().err
    assert train("bco", folder, "--match_prompts", "--dataset", both, "--eval_dataset", one) == 2
    assert f"--eval_dataset: {says}" in capsys.readouterr().err
    few = lines(here / "few.jsonl", thumbs(True, False, False))
    assert train("bco", folder, "--match_prompts", "--dataset", few) == 2
    assert "--match_folds 5: " in (said := capsys.readouterr().err)
    assert "--match_folds 0 fits on all rows at once" in said


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
    assert [record["step"] for record in log.read(tmp_path / "out" / "metrics.jsonl")] == [1, 2]
