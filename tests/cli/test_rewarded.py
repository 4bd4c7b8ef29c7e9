"""Rewards from a data set to a stock model that gives the same scores, and scores from a folder."""

import json

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from alignlab.cli.main import main
from alignlab.cli.rewarded import ordered

PAIRS = [{"prompt": f"Question {i}?", "chosen": "The mill.", "rejected": "A ferry, a bakery."} for i in range(12)]
STEPS = ["--max_steps", "12", "--per_device_train_batch_size", "6", "--learning_rate", "3e-3", "--save_steps", "6",
         "--use_cpu"]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tiny_models, tmp_path_factory):
    from alignlab.engine.load import save

    path = tmp_path_factory.mktemp("models") / "tiny"
    save(tiny_models.make_model("llama"), path)
    return str(path)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written = {"pairs": PAIRS, "single": [{"prompt": p["prompt"], "completion": p["chosen"]} for p in PAIRS]}
    written["lists"] = [{"prompt": p["prompt"], "completions": ["The mill.", "A ferry.", "Tea."]} for p in PAIRS]
    written["prompts"] = [{"prompt": "Question?"}]
    for name, records in written.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return tmp_path


def result_of(path):
    return json.loads((path / "result.json").read_text())


def lines_of(path):
    return [json.loads(line) for line in (path / "scores.jsonl").read_text().splitlines()]


def stock_scores(folder, texts):
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoded = tokenizer([text + tokenizer.eos_token for text in texts], padding=True, return_tensors="pt")
    with torch.no_grad():
        return model(**encoded).logits[:, 0].tolist()


@pytest.mark.parametrize("lora", [[], ["--use_peft", "--lora_r", "4"]], ids=["full", "lora"])
@pytest.mark.parametrize("method", ["bradley_terry", "order_classifier"])
def test_trained_on_pairs_and_opened_by_transformers(here, folder, lora, method, capsys):
    argv = ["train", method, "--model", folder, "--dataset", "pairs.jsonl", "--output_dir", "out", *STEPS, *lora]
    assert main([*argv, "--eval_dataset", "pairs.jsonl"]) == 0, capsys.readouterr().err
    found = result_of(here / "out")["metrics"]
    assert found["train/loss_last"] < found["train/loss_first"]
    assert found["train/rewards/accuracies"] == found["eval/rewards/accuracies"] == 1.0
    assert not (here / "out" / "adapter_config.json").exists()
    assert main(["score", "--model", "out", "--dataset", "pairs.jsonl", "--output_dir", "scored"]) == 0
    lines = lines_of(here / "scored")
    texts = [pair["prompt"] + pair[side] for pair in PAIRS for side in ("chosen", "rejected")]
    ours = [line[side] for line in lines for side in ("chosen", "rejected")]
    assert ours == pytest.approx(stock_scores(here / "out", texts), abs=1e-4)
    scored = result_of(here / "scored")
    assert scored["metrics"]["accuracy"] == 1.0
    assert scored["intervals"]["accuracy"][0] < 0.8
    assert scored["metrics"]["margin"] > 0


def test_one_answer_or_a_list_per_row(here, folder, capsys):
    argv = ["train", "bradley_terry", "--model", folder, "--dataset", "pairs.jsonl", "--output_dir", "out"]
    assert main([*argv, *STEPS]) == 0
    assert main(["score", "bradley_terry", "--model", "out", "--dataset", "single.jsonl", "--output_dir", "one"]) == 0
    assert main(["score", "--model", "out", "--dataset", "lists.jsonl", "--output_dir", "many"]) == 0
    single, lists = lines_of(here / "one"), lines_of(here / "many")
    assert [line["scores"][0] for line in lists] == pytest.approx([line["score"] for line in single], abs=1e-5)
    assert "accuracy" not in result_of(here / "one")["metrics"]
    capsys.readouterr()
    assert main(["score", "--model", "out", "--dataset", "prompts.jsonl", "--output_dir", "none"]) == 2
    assert "row 0: no answer to score" in capsys.readouterr().err
    assert main(["score", "--model", folder, "--dataset", "single.jsonl", "--output_dir", "none"]) == 2
    assert "is not a whole reward model" in capsys.readouterr().err
    assert main(["train", "ensembles", "--dataset", "pairs.jsonl", "--output_dir", "none"]) == 2
    assert "nothing to train" in capsys.readouterr().err
    resumed = [*argv, *STEPS, "--resume_from_checkpoint"]
    assert main(resumed) == 0


def test_steps_are_scored_row_by_row(here, folder):
    known = {"completions": ["The mill.", "A ferry."], "facts": {"labels": [True, False], "correct": False}}
    records = [{"prompt": f"Question {i}?", **known} for i in range(6)]
    (here / "steps.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    argv = ["--dataset", "steps.jsonl", "--form", "binary"]
    assert main(["train", "process", "--model", folder, *argv, "--output_dir", "out", *STEPS]) == 0
    assert result_of(here / "out")["metrics"]["train/accuracy"] == 1.0
    assert main(["score", "process", "--model", "out", *argv, "--output_dir", "scored"]) == 0
    assert all(line["score"] < 0.5 for line in lines_of(here / "scored"))


def test_ties_are_wrong_and_nothing_is_said_without_pairs():
    found = ordered([(1.0, 0.0), (1.0, 1.0), (0.0, 1.0), (2.0, 1.0)], seed=0)
    assert found["accuracy"].value == 0.5
    assert found["margin"].value == 0.25
    assert ordered([], seed=0) == {}
