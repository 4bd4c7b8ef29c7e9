import errno
import os
import resource
import subprocess
import sys
import time

import pytest

from alignlab.cli import main as cli
from alignlab.cli import verbs


def seconds(*argv):
    """The smaller of wall and processor time: neither a busy machine nor a waiting disk is the program's fault."""
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "alignlab.cli.main", *argv], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return min(time.monotonic() - began, processor)


def best(*argv):
    return min(seconds(*argv) for _ in range(3))


def test_help_pages_are_quick():
    assert best("-h") < 1
    assert best("train", "-h") < 1
    assert best("selftest", "-h") < 1


def test_a_methods_help_is_quick():
    assert best("train", "dpo", "-h") < 3
    assert best("run", "dialectical", "-h") < 3


def test_help_loads_nothing_heavy():
    code = "import sys; from alignlab.cli.main import main; main(['-h']); main(['train', '-h']); print([*sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    for heavy in ("'torch'", "'transformers'", "'numpy'", "'jsonargparse'", "'rich'"):
        assert heavy not in shown


def test_main_help_names_every_verb(capsys):
    assert cli.main(["-h"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {verb}" in shown for verb in verbs.VERBS)


@pytest.mark.parametrize("verb", [name for name, verb in verbs.VERBS.items() if verb.families])
def test_every_verb_has_a_page(verb, capsys):
    assert cli.main([verb, "-h"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in verbs.methods(verb))


@pytest.mark.parametrize("verb", sorted(cli.MODULES))
def test_every_other_verb_too(verb, capsys):
    assert cli.main([verb, "--help"]) == 0
    assert f"alignlab {verb}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["trian"], "no verb 'trian'; did you mean 'train'?"),
        (["dpo"], "'dpo' is a method: alignlab train dpo"),
        (["train", "dop"], "no method 'dop'. Did you mean 'dpo'?"),
        (["probe", "dpo"], "It is run by: alignlab train dpo"),
        (["train", "dpo", "--betta", "1"], "did you mean --beta?"),
        (["train", "dpo", "--beta", "-1"], "--beta: expected a finite number > 0, got -1.0"),
        (["train", "dpo", "--limit", "0"], "--limit: expected a whole number of at least 1, got 0"),
        (["train", "sft"], "--dataset: which rows?"),
        (["train", "sft", "--dataset", "nowhere.jsonl"], "nowhere.jsonl"),
        (["train", "sft", "--dataset", "world:", "--config", "/nowhere.yaml"], "/nowhere.yaml"),
        (["cite", "dop"], "no method 'dop'; did you mean 'dpo'?"),
        (["show", "nope/dpo"], "family"),
        (["sample"], "missing --prompt"),
    ],
)
def test_misuse_is_one_line_and_exit_code_2(argv, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert cli.main(argv) == cli.MISUSED
    shown = capsys.readouterr().err
    assert message in shown
    assert "Traceback" not in shown
    assert shown.startswith("alignlab: error: ")


def test_dry_run_prints_the_settings_and_writes_nothing(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "d-p-o".replace("-", ""), "--beta", "0.5", "--dry-run", "--dataset", "x.jsonl"]) == 0
    shown = capsys.readouterr().out
    assert "beta: 0.5" in shown
    assert "output_dir: runs/dpo-0" in shown
    assert list(tmp_path.iterdir()) == []


def raiser(error):
    def dispatch(words):
        raise error

    return dispatch


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyboardInterrupt(), 130),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "file"), 2),
        (RuntimeError("I/O error: No space left on device (os error 28)"), 2),
        (RuntimeError("I/O error: Disk quota exceeded (os error 122)"), 2),
        (ZeroDivisionError("division by zero"), 1),
        (KeyError("x"), 1),
    ],
)
def test_exit_codes(monkeypatch, capsys, error, code):
    monkeypatch.setattr(cli, "dispatch", raiser(error))
    assert cli.main(["ls"]) == code
    assert ("Traceback" in capsys.readouterr().err) == (code == 1)


def test_debug_shows_the_traceback(capsys):
    assert cli.main(["trian", "--debug"]) == cli.MISUSED
    assert "Traceback" in capsys.readouterr().err


def test_control_characters_of_a_message_stay_harmless(monkeypatch, capsys):
    monkeypatch.setattr(cli, "dispatch", raiser(OSError("bad \x1b[2Jname")))
    cli.main(["ls"])
    assert "\x1b" not in capsys.readouterr().err


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("alignlab 0.")
