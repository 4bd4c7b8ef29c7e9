"""`alignlab run dialectical` on a file when it is killed, interrupted, out of space, or judged by nonsense."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def found(student, dataset, answers, tmp_path_factory):
    """What `broken_runs.py` saw."""
    folder = tmp_path_factory.mktemp("broken")
    replay = folder / "teacher.jsonl"
    replay.write_text("".join(json.dumps({"prompt": p, "completions": [t] * 9}) + "\n" for p, t in answers.items()))
    script = Path(__file__).with_name("broken_runs.py")
    words = [folder, student, f"conflictqa:{dataset}", f"replay:{replay}"]
    done = subprocess.run(
        [sys.executable, script, *map(str, words)], env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_killed_while_tuning_it_goes_on_to_the_same_weights(found):
    assert found["kills"] == 2, "a run ended before it was killed, or left something half-written"
    assert found["resumed"], "no checkpoint to go on from"
    assert found["same"], "killed runs went on to other weights or figures"
    assert found["swept"], "unfinished writes of killed runs are left"


@pytest.mark.slow
def test_ctrl_c_while_tuning(found):
    seen = found["interrupted"]
    assert seen["code"] == 130
    last = seen["said"].splitlines()[-1]
    assert "interrupted at step " in last
    assert "checkpoint-50 is whole; the same command goes on" in last
    assert "Traceback" not in seen["said"]
    assert seen["left"] == []
    assert seen["swept"]


@pytest.mark.slow
def test_files_that_may_not_grow(found):
    seen = found["crowded"]
    assert seen["code"] == 2
    assert "alignlab: error: " in seen["said"]
    assert "File too large" in seen["said"]
    assert "Traceback" not in seen["said"]
    assert seen["left"] == []
    assert seen["swept"]
