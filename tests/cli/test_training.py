"""What `train` reads, refuses and reports."""

import json
from pathlib import Path

import pytest

from alignlab.cli import actions
from alignlab.cli.context import RunContext
from alignlab.cli.main import main

STEPS = ["--max_steps", "2", "--per_device_train_batch_size", "4", "--learning_rate", "1e-3", "--save_steps", "0",
         "--use_cpu"]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tiny_models, tmp_path_factory):
    """A saved model, whose tokenizer writes no beginning of text."""
    from alignlab.engine.load import save

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
