import json
import os
import signal
import subprocess
import sys
import time

import pytest

from alignlab.core.files import replacing, replacing_folder, write_json, write_text


def test_writes_and_makes_folders(tmp_path):
    write_text(tmp_path / "a" / "b.txt", "grüße")
    assert (tmp_path / "a" / "b.txt").read_text(encoding="utf-8") == "grüße"
    write_json(tmp_path / "c.json", {"é": [1, None]})
    assert json.loads((tmp_path / "c.json").read_text()) == {"é": [1, None]}
    assert "é" in (tmp_path / "c.json").read_text()


def break_off(write):
    """Begin a write, then fail."""
    with write as beside:
        (beside / "f" if beside.is_dir() else beside).write_text("half")
        raise RuntimeError("half-way")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    write_text(tmp_path / "x", "old")
    with pytest.raises(RuntimeError, match="half-way"):
        break_off(replacing(tmp_path / "x"))
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x", float("nan"))
    assert (tmp_path / "x").read_text() == "old"
    assert os.listdir(tmp_path) == ["x"]


def test_a_failed_folder_leaves_the_old_folder_and_nothing_else(tmp_path):
    for content in ("first", "second"):
        with replacing_folder(tmp_path / "run") as beside:
            (beside / "deep").mkdir()
            (beside / "deep" / "f").write_text(content)
            (beside / content).write_text("")
    assert sorted(os.listdir(tmp_path / "run")) == ["deep", "second"]
    with pytest.raises(RuntimeError, match="half-way"):
        break_off(replacing_folder(tmp_path / "run"))
    assert (tmp_path / "run" / "deep" / "f").read_text() == "second"
    assert os.listdir(tmp_path) == ["run"]


WRITER = """
import sys
from alignlab.core.files import write_text
for i in range(10**9):
    write_text(sys.argv[1], str(i % 10) * 200_000)
    print(i, flush=True)
"""


def test_killed_at_any_moment_the_file_is_whole(tmp_path):
    target = tmp_path / "state"
    for wait in (0.0, 0.013, 0.031):
        with subprocess.Popen([sys.executable, "-c", WRITER, target], stdout=subprocess.PIPE) as writer:
            writer.stdout.readline()
            time.sleep(wait)
            writer.send_signal(signal.SIGKILL)
        text = target.read_text()
        assert len(text) == 200_000
        assert len(set(text)) == 1


def test_a_full_disk_is_an_error_not_a_short_file(tmp_path):
    """A limit on file size stands in for a full disk: the write fails part-way."""
    code = (
        "import resource, signal, sys\n"
        "from alignlab.core.files import write_text\n"
        "write_text(sys.argv[1], 'old')\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "write_text(sys.argv[1], 'x' * 100_000)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "x"], capture_output=True, text=True)
    assert done.returncode != 0
    assert "OSError" in done.stderr
    assert (tmp_path / "x").read_text() == "old"
    assert os.listdir(tmp_path) == ["x"]
