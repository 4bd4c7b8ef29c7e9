"""What a run tells: metrics.jsonl, a progress bar with the time left, and trackers; and the sums behind the metrics."""

import contextlib
import importlib.util
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alignlab.core.files import write_text
from alignlab.core.reduce import totals
from alignlab.core.types import Term
from alignlab.engine.progress import progress

Sums = dict[str, tuple[float, float]]
"""name -> (sum of num, sum of den)"""


def with_logs(terms: Iterable[Term]) -> tuple[Term, ...]:
    """Return the terms as `loss/<name>` and each of their logs as a term of its own, so that all are summed alike."""
    found = []
    for term in terms:
        found.append(Term(name=f"loss/{term.name}", num=term.num.detach(), den=term.den))
        for name, value in term.logs.items():
            # where den is 0 the value may be anything, NaN included
            found.append(Term(name=name, num=torch.where(term.den != 0, value * term.den, 0.0), den=term.den))
    return tuple(found)


class Meter:
    """Sums over the steps since the last record; one entry per step, so that saving in between changes no bit."""

    def __init__(self, steps: Sequence[Mapping[str, Sequence[float]]] = ()) -> None:
        self._settled: list[Sums] = [{name: (num, den) for name, (num, den) in step.items()} for step in steps]
        self._open: list[tuple[list[tuple[Term, ...]], Tensor]] = []

    def add(self, terms: list[tuple[Term, ...]], loss: Tensor) -> None:
        """Take one step: terms and logs of its micro-batches, and its loss; nothing is moved off the device yet."""
        self._open.append((terms, loss))

    def state(self) -> list[Sums]:
        """Return the sums of each step, as JSON values."""
        for terms, loss in self._open:
            self._settled.append({"loss": (loss.item(), 1.0), **totals(terms)})
        self._open.clear()
        return self._settled

    def flush(self, reduce: Callable[[Sums], Sums]) -> dict[str, float]:
        """Return the ratios over all steps since the last flush and over all ranks, and forget them."""
        steps = self.state()
        names = sorted({name for step in steps for name in step})
        sums: Sums = {}
        for name in names:
            pairs = [step[name] for step in steps if name in step]
            sums[name] = (math.fsum(num for num, _ in pairs), math.fsum(den for _, den in pairs))
        self._settled = []
        return ratios(reduce(sums))


def ratios(sums: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """Return num / den by name, without zero denominators; a lone term is not shown beside the loss it equals."""
    found = {name: num / den for name, (num, den) in sums.items() if den != 0.0}
    parts = [name for name in sums if name.startswith("loss/")]
    if len(parts) == 1:
        found.pop(parts[0], None)
    return found


def check_tracker(name: str) -> None:
    """Raise ImportError with the command to run, where the package of a tracker is missing."""
    packages = {"tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",)}.get(name, ())
    if packages and not any(importlib.util.find_spec(package) for package in packages):
        raise ImportError(f"--report_to {name} needs a package that is not installed: pip install {packages[0]}")


class Log:
    """metrics.jsonl, progress and trackers of one run; silent on every rank but the first."""

    def __init__(self, folder: Path, accelerator: Any, *, after: int, config: Mapping[str, Any], tracked: bool) -> None:
        self._accelerator, self._tracked = accelerator, tracked
        self._path = folder / "metrics.jsonl"
        self._main = accelerator.is_main_process
        self._shown = contextlib.ExitStack()
        if self._main:
            kept = [record for record in read(self._path) if record["step"] <= after]
            write_text(self._path, "".join(json.dumps(record) + "\n" for record in kept))
        if tracked:
            plain = {k: v if isinstance(v, (int, float, str, bool)) else str(v) for k, v in config.items()}
            accelerator.init_trackers("alignlab", config=plain)

    def bar(self, description: str, total: int, done: int = 0) -> Callable[[str], None]:
        """Show progress with the time left; returns a function that moves it by one and sets its text."""
        if not self._main:
            return lambda _: None
        self._shown.close()
        move = self._shown.enter_context(progress(description, total, done=done))
        return lambda text: move(1, text)

    def write(self, step: int, record: Mapping[str, float]) -> None:
        """Append one record to metrics.jsonl and to the tracker; NaN becomes null."""
        if self._tracked:
            self._accelerator.log(dict(record), step=step)
        if not self._main:
            return
        values = {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in record.items()}
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **values}) + "\n")
        except OSError as error:
            raise OSError(error.errno, f"cannot write {self._path}: {error.strerror}") from error

    def close(self) -> None:
        """Take the bar away and let the tracker finish."""
        self._shown.close()
        if self._tracked:
            for tracker in self._accelerator.trackers:
                tracker.finish()


def read(path: Path) -> list[dict[str, Any]]:
    """Return the records of a metrics.jsonl; a line that a killed run left torn is passed over."""
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            records.append(record)
    return records
