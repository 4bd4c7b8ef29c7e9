import json
import math
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from types import ModuleType

import pytest
import yaml

import alignlab.evals
import alignlab.pipelines
import alignlab.probes
import alignlab.procedures
from alignlab.cli import actions, training
from alignlab.cli.context import RunContext
from alignlab.cli.main import main
from alignlab.core.cards import Card, Claim
from alignlab.core.types import Ask, Metric, Result, Row

SFT = [{"prompt": f"Question {i}?", "completion": "The mill."} for i in range(8)]
PAIRS = [{"prompt": f"Question {i}?", "chosen": "The mill.", "rejected": "A ferry."} for i in range(8)]
STEPS = [
    "--max_steps",
    "3",
    "--per_device_train_batch_size",
    "4",
    "--learning_rate",
    "1e-3",
    "--save_steps",
    "0",
    "--use_cpu",
]


@pytest.fixture(scope="module")
def folder(tiny_models, tmp_path_factory):
    """A saved model."""
    from alignlab.engine.load import save

    path = tmp_path_factory.mktemp("models") / "tiny"
    save(tiny_models.make_model("llama"), path)
    return path


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, records in (("sft", SFT), ("pairs", PAIRS)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return tmp_path


@pytest.fixture
def method(monkeypatch):
    """Make a module with the given functions a method of a family."""

    def make(family, **functions):
        name = f"made_up_{family.__name__.rpartition('.')[2]}"
        module = ModuleType(f"{family.__name__}.{name}", "A method that stands in for any other.")

        @dataclass(frozen=True, kw_only=True)
        class Config:
            """Settings."""

            word: str = "x"
            """any word"""
            seed: int = 3
            """seed"""

        module.CARD = Card(
            title="Made up", paper="2305.18290", bibtex="@misc{a}", brief="b", status="faithful", summary="s",
            smoke="alignlab run x --output_dir {out}", claims=(Claim(metric="m", relation=">", bound=0.0),),
        )  # fmt: skip
        module.Config = Config
        vars(module).update(functions)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        found = {name: module.__name__}
        for place in ("alignlab.core.find.names", "alignlab.cli.verbs.names"):
            monkeypatch.setattr(place, lambda f: found if f == family.__name__.rpartition(".")[2] else {})
        monkeypatch.setattr("alignlab.cli.verbs.headline", lambda module: "Made up")
        return name

    return make


def result_of(path):
    return json.loads((path / "result.json").read_text())


def test_sft_from_a_file_to_a_model_that_loads(here, folder, capsys):
    assert main(["train", "sft", "--model", str(folder), "--dataset", "sft.jsonl", "--output_dir", "out", *STEPS]) == 0
    out = here / "out"
    found = result_of(out)
    assert found["metrics"]["train/loss_last"] < found["metrics"]["train/loss_first"]
    assert math.isfinite(found["metrics"]["train/loss_last"])
    settings = yaml.safe_load((out / "config.yaml").read_text())
    assert settings["learning_rate"] == 1e-3
    assert (out / "report.html").exists()
    assert len((out / "metrics.jsonl").read_text().splitlines()) >= 2
    assert "rows in" in capsys.readouterr().err
    assert not list(out.glob(".*partial*"))
    assert main(["sample", "--model", str(out), "--prompt", "Question 1?", "--max_tokens", "4", "--json"]) == 0
    assert "text" in json.loads(capsys.readouterr().out.splitlines()[-1])


def test_dpo_with_lora_leaves_an_adapter(here, folder):
    argv = [
        "--model",
        str(folder),
        "--dataset",
        "pairs.jsonl",
        "--output_dir",
        "out",
        "--use_peft",
        "--lora_r",
        "4",
        *STEPS,
    ]
    assert main(["train", "dpo", *argv]) == 0
    found = result_of(here / "out")["metrics"]
    assert found["train/loss_first"] == pytest.approx(math.log(2), abs=1e-4)
    assert found["train/rewards/margins"] > 0
    assert (here / "out" / "adapter_model.safetensors").exists()
    assert not (here / "out" / "model.safetensors").exists()


def test_a_run_goes_on_by_every_spelling(here, folder, capsys):
    argv = ["train", "sft", "--model", str(folder), "--dataset", "sft.jsonl", "--output_dir", "out", *STEPS[2:]]
    argv += ["--lr_scheduler_type", "constant", "--save_steps", "1"]
    assert main([*argv, "--max_steps", "1", "--resume_from_checkpoint", "null"]) == 0
    checkpoint = str(here / "out" / "checkpoint-1")
    for steps, resume in enumerate([[], ["True"], ["true"], [checkpoint]], 2):
        assert main([*argv, "--max_steps", str(steps), "--resume_from_checkpoint", *resume]) == 0
        assert result_of(here / "out")["metrics"]["steps"] == steps
    capsys.readouterr()
    assert main([*argv, "--max_steps", "9", "--resume_from_checkpoint", "none"]) == 2
    assert "is from an earlier run: go on with --resume_from_checkpoint" in capsys.readouterr().err
    assert main([*argv, "--max_steps", "9", "--resume_from_checkpoint", "out/checkpoint-77"]) == 2
    assert "checkpoint-77" in capsys.readouterr().err


def test_settings_from_a_file_give_the_same_run(here, folder):
    argv = ["train", "sft", "--model", str(folder), "--dataset", "sft.jsonl", *STEPS]
    assert main([*argv, "--output_dir", "one"]) == 0
    kept = {"max_steps": 3, "per-device-train-batch-size": 4, "learning_rate": 1e-3, "save_steps": 0, "use_cpu": True}
    (here / "c.yaml").write_text(
        yaml.safe_dump(kept | {"model": str(folder), "dataset": "sft.jsonl", "output_dir": "x"})
    )
    assert main(["train", "sft", "--config", "c.yaml", "--output_dir", "two"]) == 0
    first, second = (result_of(here / name)["metrics"] for name in ("one", "two"))
    assert first["train/loss_last"] == second["train/loss_last"]
    assert not (here / "x").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"prompt": "a"}\n', "bad.jsonl"),
        ('{"prompt": "a", "completion": ""}\n', "bad.jsonl|row 1"),
        ('{"prompt": "a", "completion"\n', "bad.jsonl:1"),
        ("", "bad.jsonl"),
    ],
)
def test_bad_rows_are_named_and_nothing_is_trained(here, folder, capsys, text, message):
    import re

    (here / "bad.jsonl").write_text(text)
    assert main(["train", "sft", "--model", str(folder), "--dataset", "bad.jsonl", "--output_dir", "out", *STEPS]) == 2
    shown = capsys.readouterr().err
    assert re.search(message, shown)
    assert "Traceback" not in shown
    assert not (here / "out" / "model.safetensors").exists()
    assert not (here / "out" / "result.json").exists()


def test_rows_that_are_too_long_are_counted_and_left_out(here, folder):
    with (here / "sft.jsonl").open("a") as file:
        file.write(json.dumps({"prompt": "word " * 400, "completion": "The mill."}) + "\n")
    assert main(["train", "sft", "--model", str(folder), "--dataset", "sft.jsonl", "--output_dir", "out", *STEPS]) == 0
    assert any("1 of 9 rows" in note for note in result_of(here / "out")["notes"])
    short = ["--max_length", "3"]
    assert (
        main(["train", "sft", "--model", str(folder), "--dataset", "sft.jsonl", "--output_dir", "o2", *STEPS, *short])
        == 2
    )


def test_a_failed_save_leaves_no_half_model(tmp_path, tiny_model, monkeypatch):
    def full(model, path):
        path.mkdir(parents=True)
        (path / "config.json").write_text("{}")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("alignlab.engine.load.save", full)
    with pytest.raises(OSError, match="No space"):
        training.save(tiny_model, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_procedure_gets_its_context_and_one_seed_serves_all(here, method):
    seen = {}

    def run(ctx, cfg):
        seen.update(word=cfg.word, seeds=(ctx.seed, cfg.seed), dataset=ctx.dataset, limit=ctx.limit, folder=ctx.folder)
        return Result(metrics={"m": Metric(value=0.5, n=4, low=0.25, high=0.75)}, notes=("a note",))

    name = method(alignlab.procedures, run=run)
    assert (
        main(["run", name.replace("_", "-"), "--word", "hello", "--dataset", "world:", "--limit", "5", "--seed", "9"])
        == 0
    )
    assert seen["word"] == "hello"
    assert seen["seeds"] == (9, 9)
    assert (seen["dataset"], seen["limit"]) == ("world:", 5)
    found = result_of(here / "runs" / f"{name}-9")
    assert found["metrics"] == {"m": 0.5}
    assert found["intervals"]["m"] == [0.25, 0.75]
    assert found["seed"] == 9
    assert found["command"].startswith(f"alignlab run {name} --word hello")
    seen.clear()
    assert main(["run", name]) == 0
    assert seen["seeds"] == (3, 3)


def test_a_pipeline_writes_rows_and_says_why_there_are_none(here, method, capsys):
    def make(rows, endpoints, cfg):
        teacher = endpoints["teacher"]
        for row in rows:
            if cfg.word == "x":
                yield Row(prompt=row.prompt, completion=teacher.name)

    name = method(alignlab.pipelines, make=make)
    (here / "answers.jsonl").write_text(json.dumps({"prompt": "a", "completions": ["b"]}) + "\n")
    argv = ["make", name, "--dataset", "sft.jsonl", "--output_dir", "out"]
    assert main(argv) == 2
    assert "needs a teacher" in capsys.readouterr().err
    assert main([*argv, "--teacher", "replay:answers.jsonl"]) == 0
    assert len((here / "out" / "rows.jsonl").read_text().splitlines()) == 8
    assert result_of(here / "out")["metrics"] == {"rows_in": 8, "rows": 8}
    assert main([*argv[:-1], "none", "--teacher", "replay:answers.jsonl", "--word", "y"]) == 2
    assert "8 rows in, none out" in capsys.readouterr().err


def test_an_eval_shows_trivial_policies_beside_the_model(here, folder, method):
    def play(item, cfg):
        yield Ask(role="model", messages=({"role": "user", "content": item},), options=("yes", "no"))

    def aggregate(records, before=None):
        return Result(metrics={"yes": Metric(value=sum(r["yes"] for r in records) / len(records), n=len(records))})

    name = method(
        alignlab.evals, items=lambda cfg: ["Is it?", "Was it?", "Will it?"], play=play, aggregate=aggregate,
        score=lambda item, answers: {"yes": answers == ["yes"]},
        baselines=lambda items: {"always yes": ["yes"] * len(items), "always no": ["no"] * len(items)},
    )  # fmt: skip
    assert main(["eval", name, "--model", str(folder), "--limit", "2", "--output_dir", "out"]) == 0
    found = result_of(here / "out")
    assert found["n"]["yes"] == 2
    rows = {row[0]: row[1] for row in found["tables"]["baselines"]["rows"]}
    assert rows["always yes"] == 1
    assert rows["always no"] == 0
    assert rows["measured"] == found["metrics"]["yes"]


def test_a_probe_of_rows_alone_loads_no_model(here, folder, method):
    """A model that is not there is no matter to it; a probe that reads a model still gets one."""

    def measure_rows(model: None, rows: list[Row], cfg: object) -> Result:
        assert model is None
        return Result(metrics={"rows": Metric(value=float(len(rows)), n=len(rows))})

    def measure_model(model: object, rows: list[Row], cfg: object) -> Result:
        return Result(metrics={"named": Metric(value=float(model.identity.startswith("tiny@")), n=1)})

    argv = ["--dataset", "sft.jsonl", "--output_dir", "out", "--model"]
    name = method(alignlab.probes, measure=measure_rows)
    assert main(["probe", name, *argv, "/no/such/model"]) == 0
    assert result_of(here / "out")["metrics"] == {"rows": 8}
    name = method(alignlab.probes, measure=measure_model)
    assert main(["probe", name, *argv, "/no/such/model"]) == 2
    assert main(["probe", name, *argv, str(folder)]) == 0
    assert result_of(here / "out")["metrics"] == {"named": 1}


@pytest.mark.parametrize(
    ("entries", "mapping"),
    [((), None), (("prompt=instruction,completion=output",), {"prompt": "instruction", "completion": "output"}),
     (("prompt=a", "completion=b"), {"prompt": "a", "completion": "b"})],
)  # fmt: skip
def test_columns(entries, mapping):
    assert actions.columns_of(entries) == mapping


def test_columns_must_be_pairs():
    with pytest.raises(ValueError, match="--columns: expected OUR_COLUMN=YOUR_COLUMN"):
        actions.columns_of(("prompt",))


def test_rows_of_a_foreign_file(here):
    (here / "alpaca.jsonl").write_text(json.dumps({"instruction": "a", "output": "b"}) + "\n")
    ctx = RunContext(folder=here / "out", dataset="alpaca.jsonl")
    (row,) = actions.read_rows(ctx, {"columns": ("prompt=instruction", "completion=output")})
    assert (row.prompt, row.completion) == ("a", "b")


def test_ctrl_c_leaves_130_a_message_and_nothing_half_written(here, folder):
    many = ["--max_steps", "100000", "--per_device_train_batch_size", "4", "--save_steps", "5", "--use_cpu"]
    argv = ["train", "sft", "--model", str(folder), "--dataset", "sft.jsonl", "--output_dir", "out", *many]
    argv += ["--save_total_limit", "2"]
    run = subprocess.Popen([sys.executable, "-m", "alignlab.cli.main", *argv], stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while not list((here / "out").glob("checkpoint-*")) and time.monotonic() < until and run.poll() is None:
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    shown = run.communicate(timeout=60)[1]
    assert run.returncode == 130, shown
    assert "--resume_from_checkpoint" in shown
    assert "Traceback" not in shown
    assert not (here / "out" / "result.json").exists()
    steps = max(int(path.name.split("-")[1]) for path in (here / "out").glob("checkpoint-*"))
    more = [*argv, "--resume_from_checkpoint", "--max_steps", str(steps + 2)]
    assert main(more) == 0
    assert result_of(here / "out")["metrics"]["steps"] == steps + 2
