"""Runs of `alignlab run dialectical` that are killed, interrupted or denied space; every run is a process of its own.

`python broken_runs.py FOLDER STUDENT DATASET TEACHER` imports everything once, then forks, and prints one JSON line.
"""

import importlib
import itertools
import json
import os
import random
import resource
import signal
import sys
import threading
from pathlib import Path

import torch

from alignlab.cli.main import main
from alignlab.train import checkpoint

SIZES = ("--probes", "10", "--sft_steps", "60", "--batch", "2", "--search_per_cell", "1", "--train_per_cell", "3",
         "--test_per_cell", "2", "--max_tokens", "64", "--use_peft", "false")  # fmt: skip
STEPS = (20, 52, 2)
"""optimiser steps of a process after which it is stopped; the third goes on from step 50"""


def begun(
    folder: Path, words: list[str], *, largest: int | None = None, stop: tuple[int, int, float] | None = None
) -> int:
    """Start a run in a child process.

    Args:
        folder: of the run.
        words: its command's flags.
        largest: the most bytes that one of its files may have.
        stop: (signal, optimiser step, seconds after that step) that the run sends itself.
    """
    child = os.fork()
    if child:
        return child
    folder.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    sys.stderr = (folder.parent / f"{folder.name}.err").open("w", encoding="utf-8")
    if largest is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    if stop is not None:
        stopped_at(*stop)
    code = main(["run", "dialectical", *words, "--output_dir", str(folder)])
    sys.stderr.flush()
    os._exit(code)


def stopped_at(number: int, step: int, after: float) -> None:
    """Send this process a signal some time after an optimiser step, so that a busy machine changes nothing."""
    whole, steps = torch.optim.AdamW.step, itertools.count(1)

    def counted(*args, **kwargs):
        if next(steps) == step:
            threading.Timer(after, os.kill, (os.getpid(), number)).start()
        return whole(*args, **kwargs)

    torch.optim.AdamW.step = counted


def ended(child: int) -> int:
    """Wait for a child; its exit code, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def said(folder: Path) -> str:
    """What a run printed."""
    return (folder.parent / f"{folder.name}.err").read_text(encoding="utf-8")


def left(folder: Path) -> list[str]:
    """What a run that did not end may not leave: results, a model, a checkpoint that cannot be gone on from."""
    names = [str(path.relative_to(folder)) for path in folder.rglob("*")]
    half = [name for name in names if name.startswith(("result.json", "report.html", "da/model"))]
    for each in checkpoint.checkpoints(folder / "da" / "sft") if (folder / "da" / "sft").exists() else []:
        if each.name != f"checkpoint-{checkpoint.read_state(each)['step']}":
            half.append(each.name)
    return half


def outcome(folder: Path) -> tuple[bytes, dict[str, float]]:
    """The tuned weights and all measured rates of a run that ended."""
    metrics = json.loads((folder / "result.json").read_text())["metrics"]
    kept = ("plain", "notice", "majority", "da", "change", "accepted", "written")
    rates = {name: value for name, value in metrics.items() if name.split("/")[0] in kept}
    return (folder / "da/model/model.safetensors").read_bytes(), rates


def swept(folder: Path) -> bool:
    """Whether nothing of an earlier run's unfinished writes is left."""
    return not list(folder.rglob("*.partial"))


def broken(folder: Path, words: list[str]) -> dict[str, object]:
    """Run alone, then killed at random moments of tuning, interrupted there, and with files that may not grow."""
    alone = folder / "alone"
    assert ended(begun(alone, words)) == 0, said(alone)
    expected = outcome(alone)

    killed, draw, kills = folder / "killed", random.Random(0), 0
    for step in STEPS[:-1]:
        code = ended(begun(killed, words, stop=(signal.SIGKILL, step, draw.uniform(0.0, 0.02))))
        kills += code == -signal.SIGKILL and not left(killed)
    resumed = bool(checkpoint.checkpoints(killed / "da" / "sft"))
    code = ended(begun(killed, words, stop=(signal.SIGINT, STEPS[-1], 0.0)))
    interrupted = {"code": code, "said": said(killed), "left": left(killed), "swept": swept(killed)}
    assert ended(begun(killed, words)) == 0, said(killed)

    full = folder / "full"
    size = (alone / "da/model/model.safetensors").stat().st_size
    code = ended(begun(full, words, largest=size // 2))
    crowded = {"code": code, "said": said(full), "left": left(full), "swept": swept(full)}
    same = outcome(killed) == expected
    return {
        "kills": kills, "resumed": resumed, "same": same, "swept": swept(killed), "interrupted": interrupted,
        "crowded": crowded,
    }  # fmt: skip


if __name__ == "__main__":
    where, student, dataset, teacher = sys.argv[1:]
    for name in ("alignlab.procedures.dialectical", "alignlab.cli.runs", "alignlab.train.loop", "alignlab.report.page"):
        importlib.import_module(name)
    given = ["--model", student, "--dataset", dataset, "--teacher", teacher, *SIZES]
    print(json.dumps(broken(Path(where), given)))
