"""`alignlab run dialectical` on a file: every stage with a real server as teacher, and every way it can go wrong."""

import json
import os
import re
import shutil
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from alignlab.cli.main import main
from alignlab.core import files

SIZES = ("--probes", "10", "--sft_steps", "6", "--batch", "4", "--search_per_cell", "1", "--train_per_cell", "3",
         "--test_per_cell", "2", "--max_tokens", "64", "--use_peft", "false")  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.requests += 1
            number = self.server.requests
        status, text = self.server.script(number, asked["messages"][-1]["content"])
        if status == 200 and text is not None:
            choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            raw = json.dumps({"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 9}}).encode()
        else:
            raw = b"<html>out of order"
        try:
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    """A server on loopback; set `script(number, prompt) -> (status, text)`."""
    found = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.lock, found.requests, found.daemon_threads = threading.Lock(), 0, True
    found.spec = f"openai:made?base_url=http://127.0.0.1:{found.server_port}/v1&retries=1&backoff=0&timeout=20"
    thread = threading.Thread(target=found.serve_forever, daemon=True)
    thread.start()
    yield found
    found.shutdown()
    found.server_close()


def run(folder, student, dataset, teacher, *more):
    words = ["--model", student, "--dataset", dataset, "--output_dir", folder, *SIZES, *more]
    return main(["run", "dialectical", *map(str, words), *(["--teacher", teacher] if teacher else [])])


def nothing_half_written(folder):
    """No result, no model, no file or folder of a write that did not end."""
    left = [str(p.relative_to(folder)) for p in folder.rglob("*")] if folder.exists() else []
    return not [p for p in left if p.startswith(("result", "report", "da/model")) or p.endswith(".partial")]


def verdict(number, text):
    """What a judge says who compares the final answer with the reference, and babbles every fourth time."""
    reference = text.split("\nReference: ")[1].splitlines()[0]
    said = text.split("<answer>\n")[1].split("\n</answer>")[0].splitlines()[-1]
    return f"Outcome: {'yes' if said == f'Answer: {reference}' else 'no'}\nProcess: 7" if number % 4 else "Well, well."


def test_every_stage_runs_and_goes_on_after_the_server_broke(server, student, dataset, answers, tmp_path, capsys):
    server.script = lambda number, text: (200, answers[text]) if number <= 20 else (500, None)
    folder = tmp_path / "run"
    assert run(folder, student, f"conflictqa:{dataset}", server.spec) == 2
    said = capsys.readouterr().err
    assert "alignlab: error: openai:made at http://127.0.0.1" in said
    assert "2 attempts" in said
    assert "HTTP 500" in said
    assert "un again later to go on from the answers had so far" in said
    assert nothing_half_written(folder)

    server.requests, server.script = 0, lambda number, text: (200, answers.get(text) or verdict(number, text))
    more = ("--dpo_steps", "2", "--judge", server.spec.replace("made", "judge"))
    assert run(folder, student, f"conflictqa:{dataset}", server.spec, *more) == 0
    said = capsys.readouterr().err
    for stage in ("items that the model can hold", "memory probe", "items that test this student's memory",
                  "search for reasoning paths", "answers along the chosen paths", "preference pairs",
                  "answers of plain", "answers of notice", "answers of majority", "answers of da"):  # fmt: skip
        # on a busy machine progress, `STAGE: 3/10, 0:06`, stands before it
        assert re.search(rf"^{re.escape(stage)}: [\d,]+ rows in -> [\d,]+ rows out", said, re.MULTILINE), stage
    found = json.loads((folder / "result.json").read_text())
    measured = ("asr", "es", "j", "clean", "mixed", "unparsed")
    assert {f"{p}/{m}" for p in ("plain", "notice", "majority", "da") for m in measured} <= set(found["metrics"])
    for policy in ("plain", "notice", "majority", "da"):
        rates = {name: found["metrics"][f"{policy}/{name}"] for name in measured}
        assert all(0 <= rates[name] <= 1 for name in measured if name != "j"), (policy, rates)
        assert rates["j"] == pytest.approx(rates["es"] - rates["asr"]), (policy, rates)
    assert {"change/asr", "change/es", "change/clean"} <= set(found["metrics"])
    judged = {cell: shares for cell, *shares in found["tables"]["judge"]["rows"]}
    answered, readable, agrees = judged.pop("all")
    assert answered == sum(shares[0] for shares in judged.values()) > 9
    assert 0.5 < readable < 1.0, "every fourth reply is nonsense"
    assert agrees == 1.0
    tuned, preferred = (folder / f"da/{name}/model.safetensors" for name in ("supervised", "model"))
    assert tuned.read_bytes() != preferred.read_bytes(), "preferences changed nothing"
    assert 0 < found["metrics"]["accepted"] <= found["metrics"]["written"]
    assert found["tables"]["choices"]["columns"][-1] == "memorisation ratio"
    assert (folder / "report.html").stat().st_size > 10_000
    assert (folder / "da/model/model.safetensors").exists()
    asked = server.requests
    again = tmp_path / "again"
    shutil.copytree(folder / "answers", again / "answers")
    assert run(again, student, f"conflictqa:{dataset}", server.spec, *more[2:]) == 0
    assert server.requests == asked, "answers of the first run are asked for again"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((500, None), "HTTP 500"),
        ((429, None), "HTTP 429"),
        ((200, None), "malformed answer"),
        (None, "no whole answer within 0.3 s (timeout)"),
    ],
)
def test_a_broken_teacher_ends_the_run_with_its_name(answer, said, server, student, dataset, tmp_path, capsys):
    def script(number, text):
        if answer is None:
            time.sleep(1.0)
        return answer or (200, "late")

    server.script = script
    spec = server.spec if answer else server.spec.replace("timeout=20", "timeout=0.3")
    assert run(tmp_path / "run", student, f"conflictqa:{dataset}", spec) == 2
    err = capsys.readouterr().err
    assert "alignlab: error: openai:made at http://127.0.0.1" in err
    assert "2 attempts" in err
    assert said in err
    assert nothing_half_written(tmp_path / "run")


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ((200, "It is \x1b[31mfine."), "none out: no reply of the judge could be read: it is asked for 'Outcome: yes'"),
        ((503, None), "alignlab: error: openai:judge at http://127.0.0.1"),
    ],
)
def test_a_broken_judge_ends_the_run(reply, said, server, student, dataset, answers, tmp_path, capsys):
    server.script = lambda number, text: (200, answers[text]) if text in answers else reply
    judge = server.spec.replace("made", "judge")
    assert run(tmp_path / "run", student, f"conflictqa:{dataset}", server.spec, "--judge", judge) == 2
    err = capsys.readouterr().err
    assert said in err
    assert "\x1b" not in err
    assert nothing_half_written(tmp_path / "run")


def test_a_teacher_that_talks_nonsense_is_filtered_to_nothing(server, student, dataset, tmp_path, capsys):
    server.script = lambda number, text: (200, "I cannot help \x1b[31mwith that.\nAnswer: Z")
    assert run(tmp_path / "run", student, f"conflictqa:{dataset}", server.spec) == 2
    err = capsys.readouterr().err
    assert "answers along the chosen paths" in err
    assert "none out: the teacher's answers were wrong, misquoted or broke the grammar" in err
    assert "\x1b" not in err
    assert nothing_half_written(tmp_path / "run")


def test_no_pair_to_prefer_is_said(student, dataset, replay, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("alignlab.pipelines.conflicts.preference_rows", lambda *_: iter(()))
    folder = tmp_path / "run"
    assert run(folder, student, f"conflictqa:{dataset}", replay, "--dpo_steps", "2") == 2
    said = capsys.readouterr().err
    assert "none out: no failure is about as long as its accepted answer; " in said
    assert (folder / "da/supervised/model.safetensors").exists()
    assert nothing_half_written(folder)


OWN = {"id": "1", "scenario": "pca", "question": "Which?", "gold": "y", "target": "x",
       "contexts": [{"text": "It is x.", "claim": "x", "poisoned": True},
                    {"text": "It is y.", "claim": "y"}]}  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("conflictqa:{here}/none.jsonl", "none.jsonl: no such file"),
        ("conflictqa:{here}", "expected a file, found a folder"),
        ("conflictqa:{here}/cut.jsonl", "cut.jsonl:2: expected one JSON value"),
        ("conflictqa:{here}/number.jsonl", "number.jsonl:1: field 'question': expected"),
        ("conflictqa:{here}/empty.jsonl", "no items in it"),
        ("conflicts:{here}/unknown.jsonl", "unknown.jsonl:1: unknown field 'golden'; did you mean 'gold'?"),
        ("poisonedrag:{here}/own.jsonl", "own.jsonl"),
        ("conflictq:{here}/own.jsonl", "no adapter called 'conflictq'; did you mean 'conflictqa'?"),
        ("{here}/own.jsonl", "expected world: or ADAPTER:FILE with one of alpaca_eval, "),
    ],
)
def test_bad_data_are_named(spec, said, student, tmp_path, capsys):
    (tmp_path / "own.jsonl").write_text(json.dumps(OWN) + "\n")
    (tmp_path / "unknown.jsonl").write_text(json.dumps(OWN | {"golden": "x"}) + "\n")
    (tmp_path / "number.jsonl").write_text('{"question": 3}\n')
    (tmp_path / "empty.jsonl").write_text("")
    record = {"question": "q?", "memory_answer": "a", "counter_answer": "b"}
    (tmp_path / "cut.jsonl").write_text(json.dumps(record) + "\n" + '{"question": "q')
    folder = tmp_path / "run"
    assert run(folder, student, spec.format(here=tmp_path), "world:teacher") == 2
    assert said in capsys.readouterr().err
    assert nothing_half_written(folder)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--sft_stepz", "3"), "sft_stepz"),
        (("--mode", "sideways"), "mode"),
        (("--limit", "0"), "--limit: expected a whole number of at least 1"),
        (("--judge", "openai:m?nonsense=1"), "no option 'nonsense'"),
    ],
)
def test_bad_flags_are_named(more, said, student, dataset, answers, tmp_path, capsys):
    replay = tmp_path / "teacher.jsonl"
    replay.write_text("".join(json.dumps({"prompt": p, "completions": [t] * 9}) + "\n" for p, t in answers.items()))
    assert run(tmp_path / "run", student, f"conflictqa:{dataset}", f"replay:{replay}", *more) == 2
    assert said in capsys.readouterr().err
    assert nothing_half_written(tmp_path / "run")


def test_a_missing_teacher_is_said_before_anything_is_loaded(dataset, tmp_path, capsys):
    assert run(tmp_path / "run", "/no/such/model", f"conflictqa:{dataset}", None) == 2
    assert "this run needs a teacher; name an endpoint" in capsys.readouterr().err


def test_a_model_without_chat_template_is_named(student, dataset, tmp_path, capsys):
    folder = tmp_path / "base"
    shutil.copytree(student, folder)
    (folder / "chat_template.jinja").unlink()
    assert run(tmp_path / "run", folder, f"conflictqa:{dataset}", "replay:x") == 2
    err = capsys.readouterr().err
    assert "base' has no chat template" in err
    assert "instruction-tuned" in err
    assert nothing_half_written(tmp_path / "run")


def test_contexts_longer_than_the_model_leave_nothing(student, dataset, tmp_path, capsys):
    folder = tmp_path / "short"
    shutil.copytree(student, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 96}))
    assert run(tmp_path / "run", folder, f"conflictqa:{dataset}", "replay:x") == 2
    assert "48 rows in, none out: the model takes 96 tokens and --max_tokens keeps 64" in capsys.readouterr().err
    assert nothing_half_written(tmp_path / "run")


@pytest.fixture
def replay(answers, tmp_path):
    path = tmp_path / "teacher.jsonl"
    path.write_text("".join(json.dumps({"prompt": p, "completions": [t] * 9}) + "\n" for p, t in answers.items()))
    return f"replay:{path}"


@pytest.mark.parametrize("victim", ["model.safetensors", "config.yaml", "result.json", "report.html"])
def test_a_full_disk_leaves_nothing_half_written(victim, student, dataset, replay, tmp_path, capsys, monkeypatch):
    whole = files._sync

    def full(path):
        if victim in path.name and path.parent.name != "checkpoint-6":
            raise OSError(28, "No space left on device", str(path))
        whole(path)

    monkeypatch.setattr(files, "_sync", full)
    folder = tmp_path / "run"
    assert run(folder, student, f"conflictqa:{dataset}", replay) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert not list(folder.rglob("*.partial"))
    assert not list(folder.rglob(victim)) or victim == "model.safetensors" and not (folder / "da/model").exists()
    monkeypatch.undo()
    assert run(folder, student, f"conflictqa:{dataset}", replay) == 0
    assert (folder / "result.json").exists()


def test_ctrl_c_while_the_teacher_answers(server, student, dataset, answers, tmp_path, capsys):
    def script(number, text):
        if number == 12:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)
        return 200, answers[text]

    server.script = script
    folder = tmp_path / "run"
    assert run(folder, student, f"conflictqa:{dataset}", server.spec) == 130
    assert "alignlab: interrupted" in capsys.readouterr().err
    assert nothing_half_written(folder)
    before = server.requests
    server.script = lambda number, text: (200, answers[text])
    assert run(folder, student, f"conflictqa:{dataset}", server.spec) == 0
    assert server.requests > before
    assert (folder / "result.json").exists()
