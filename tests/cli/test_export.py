"""Two goals from the command line to a stock folder: training, mixtures of the heads, and what cannot be exported."""

import json
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from alignlab import world
from alignlab.cli.main import main
from alignlab.data.rows import write
from alignlab.engine.encode import encode
from alignlab.engine.load import Lora, load, save

TRAIN = ["train", "mah_dpo", "--max_steps", "40", "--learning_rate", "5e-4", "--warmup_ratio", "0.1", "--save_steps",
         "0", "--ref_cache", "none", "--use_cpu"]  # fmt: skip
MIXTURES = (1.0, 0.75, 0.5, 0.25, 0.0)
"""weight of head 0"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """`tiny:` with a head that wants kind sentences and one that wants unkind ones, of the same prompts."""
    out = tmp_path_factory.mktemp("run") / "heads"
    argv = ["--dataset", "world:goals", "--limit", "160", "--heads", "2", "--output_dir", str(out)]
    assert main([*TRAIN, *argv]) == 0
    return out


def gaps(model, rows):
    """log p(kind) - log p(unkind) of each prompt."""
    with torch.no_grad():
        logp = model.score(model.collate([encode(row, model.tokenizer) for row in rows])).logp.sum(1)
    return logp[::2] - logp[1::2]


def test_two_goals_that_disagree_and_the_mixtures_between_them(trained):
    metrics = json.loads((trained / "result.json").read_text())["metrics"]
    assert metrics["train/rewards/margins/head_0"] > 0.1
    assert metrics["train/rewards/margins/head_1"] > 0.1
    assert 98 < metrics["train/percent_of_floor"] < 110, "no logits are computed twice"
    rows = list(world.rows("goals", seed=7, limit=80))[::2]
    start = gaps(load("tiny:"), rows)
    found = [gaps(load(trained, head_weights=(w, 1 - w)), rows) - start for w in MIXTURES]
    assert (found[0] > 0).float().mean() >= 0.9, "head 0 has learnt to prefer the kind sentence, on prompts not seen"
    assert (found[-1] < 0).float().mean() >= 0.9, "head 1 the unkind one"
    means = [gap.mean().item() for gap in found]
    assert means == sorted(means, reverse=True), "and the mixture moves between them"
    assert means[0] - means[2] > 0.2 * (means[0] - means[-1]) < means[2] - means[-1]


def test_one_head_cannot_serve_both(tmp_path):
    rows = [replace(row, facts={}) for row in world.rows("goals", limit=160)]
    write(tmp_path / "rows.jsonl", rows)
    assert main([*TRAIN, "--dataset", str(tmp_path / "rows.jsonl"), "--output_dir", str(tmp_path / "one")]) == 0
    metrics = json.loads((tmp_path / "one" / "result.json").read_text())["metrics"]
    assert metrics["train/loss_last"] > 0.65, "the claims of the card are false of a single head"
    assert metrics["train/rewards/margins"] < 0.1


def test_the_export_is_a_stock_model(trained, tmp_path, capsys):
    out = tmp_path / "folded"
    argv = ["export", "--model", str(trained), "--output_dir", str(out)]
    assert main(argv) == 2
    assert "2 output heads" in capsys.readouterr().err
    assert not out.exists()
    assert main([*argv, "--head_weights", "0.3", "0.7"]) == 0
    stock, ours = AutoModelForCausalLM.from_pretrained(out), load(trained, head_weights=(0.3, 0.7))
    ids = torch.arange(5)[None] + 20
    assert torch.equal(stock(ids).logits, ours.module(ids).logits)
    assert main([*argv, "--head_weights", "0.3", "0.7"]) == 2
    assert "there is something already" in capsys.readouterr().err


def test_every_command_takes_a_mixture(trained, capsys):
    argv = ["sample", "--model", str(trained), "--prompt", "I like the baker.", "--raw", "--max_tokens", "2"]
    assert main(argv) == 2
    assert "--head_weights 0.5 0.5" in capsys.readouterr().err
    assert main([*argv, "--head_weights", "1", "0", "--json"]) == 0
    assert "text" in json.loads(capsys.readouterr().out.splitlines()[-1])


def test_what_does_not_fit_is_said_before_anything_is_trained(trained, tmp_path, capsys):
    argv = ["train", "mah_dpo", "--dataset", "world:goals", "--limit", "8", "--max_steps", "1", "--output_dir",
            str(tmp_path / "out"), "--use_cpu"]  # fmt: skip
    for more, message in (
        (["--heads", "2", "--use_peft"], "leave --use_peft and --adapter out"),
        (["--heads", "3", "--model", str(trained)], "has 2 output heads, but 3 are wanted"),
        (["--model", str(trained)], "has 2 output heads, but 1 are wanted"),
        ([], "--heads 1: the batch has pairs of head 1"),
    ):
        assert main([*argv, *more]) == 2
        assert message in capsys.readouterr().err


def test_an_adapter_becomes_part_of_the_model(tiny_models, tmp_path, capsys):
    save(tiny_models.make_model("llama"), tmp_path / "base")
    model = load(tmp_path / "base", lora=Lora(r=2))
    with torch.no_grad():
        for parameter in model.module.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1)
    save(model, tmp_path / "adapter")
    assert main(["export", "--model", str(tmp_path / "adapter"), "--output_dir", str(tmp_path / "out")]) == 0
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    ids = torch.arange(5)[None] + 20
    torch.testing.assert_close(whole(ids).logits, model.module(ids).logits, atol=1e-4, rtol=1e-4)
    assert main(["export", "--model", "tiny:+partisan", "--output_dir", str(tmp_path / "tied")]) == 2
    assert "keep it beside the model" in capsys.readouterr().err


def test_a_run_with_heads_goes_on_from_its_checkpoint(tmp_path):
    argv = ["train", "mah_dpo", "--dataset", "world:goals", "--limit", "16", "--heads", "2", "--max_steps", "4",
            "--save_steps", "2", "--learning_rate", "1e-3", "--ref_cache", "none", "--use_cpu"]  # fmt: skip
    assert main([*argv, "--output_dir", str(tmp_path / "one")]) == 0
    (tmp_path / "two").mkdir()
    (tmp_path / "one" / "checkpoint-2").rename(tmp_path / "two" / "checkpoint-2")
    assert main([*argv, "--output_dir", str(tmp_path / "two"), "--resume_from_checkpoint"]) == 0
    one, two = (load(tmp_path / name).module.state_dict() for name in ("one", "two"))
    assert all(torch.equal(two[name], value) for name, value in one.items())
    assert one["lm_head.weight"].shape[0] == 2


def test_other_objectives_train_a_model_with_heads_where_rows_say_which(trained, tmp_path, capsys):
    argv = ["train", "dpo", "--model", str(trained), "--limit", "8", "--max_steps", "1", "--save_steps", "0",
            "--ref_cache", "none", "--use_cpu"]  # fmt: skip
    assert main([*argv, "--dataset", "world:goals", "--output_dir", str(tmp_path / "a")]) == 0
    assert main([*argv, "--dataset", "world:pairs", "--output_dir", str(tmp_path / "b")]) == 2
    assert "facts.scores.head" in capsys.readouterr().err
