"""What a procedure is handed: where to write, whom to ask, how to say what is going on (core.types.Context)."""

import contextlib
import io
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from alignlab.cli import options
from alignlab.core.answers import readable
from alignlab.engine.progress import progress
from alignlab.report.text import redact


def is_first_rank() -> bool:
    """Whether this process speaks and writes for all that torchrun started."""
    return int(os.environ.get("RANK", "0")) == 0


@dataclass
class Stage:
    """One announced stage; set `rows_out`, or what was advanced counts as the rows that came out."""

    name: str
    rows_in: int
    total: int | None
    rows_out: int | None = None
    reason: str = ""
    """why nothing came out, if nothing does"""
    done: int = 0
    seconds: float = 0.0
    show: Callable[[int], None] = field(default=lambda _: None, repr=False)

    def advance(self, n: int = 1) -> None:
        """Say that n more items are through."""
        self.done += n
        self.show(n)


def roles(chosen: options.Endpoints) -> dict[str, str]:
    """Return role -> endpoint spec; ValueError for an `--endpoints` entry that is not ROLE=ENDPOINT."""
    found = {}
    for entry in chosen.endpoints:
        role, equals, spec = entry.partition("=")
        if not (equals and role.isidentifier() and spec):
            raise ValueError(f"--endpoints: expected ROLE=ENDPOINT, e.g. judge=world:judge, got {entry!r}")
        found[role] = spec
    named = {"teacher": chosen.teacher, "judge": chosen.judge, "participant": chosen.participant}
    return found | {role: spec for role, spec in named.items() if spec is not None}


class RunContext:
    """The `ctx` of a run: folder, seed, model, dataset, limit, endpoints by role, stages with progress."""

    def __init__(
        self,
        *,
        folder: Path,
        seed: int = 0,
        model: str = "tiny:",
        dataset: str | None = None,
        limit: int | None = None,
        endpoints: Mapping[str, str] | None = None,
        answers: Path | None = None,
        stream: TextIO | None = None,
    ) -> None:
        """Make the run folder; progress goes to `stream`, stderr by default.

        `answers`: the folder that keeps what endpoints say, by default one in the run's own.
        """
        if limit is not None and limit < 1:
            raise ValueError(f"--limit: expected a whole number of at least 1, got {limit}")
        self.folder, self.seed, self.model, self.dataset, self.limit = folder, seed, model, dataset, limit
        self.stages: list[Stage] = []
        self.samples: Sequence[Mapping[str, Any]] | None = None
        """every sample, where they are more than the result shows"""
        self.answers = answers or folder / "answers"
        self._endpoints: dict[str, Any] = {}
        self.specs = dict(endpoints or {})
        self._stream: TextIO = stream or (sys.stderr if is_first_rank() else io.StringIO())
        folder.mkdir(parents=True, exist_ok=True)

    def endpoint(self, role: str) -> Any:
        """Return the endpoint for `role`; the world answers for itself, other data need a flag (ValueError)."""
        if role not in self._endpoints:
            spec = self.specs.get(role)
            if spec is None and (self.dataset is None or self.dataset.startswith("world:")):
                spec = f"world:{role}"
            if spec is None:
                flag = f"--{role}" if role in ("teacher", "judge", "participant") else f"--endpoints {role}="
                raise ValueError(
                    f"this run needs a {role}; name an endpoint, e.g. {flag} openai/gpt-5, hf:FOLDER or replay:FILE"
                )
            from alignlab.engine.endpoints import endpoint

            self._endpoints[role] = endpoint(spec, cache_dir=self.answers)
        return self._endpoints[role]

    @contextlib.contextmanager
    def stage(self, name: str, rows_in: int, total: int | None = None) -> Iterator[Stage]:
        """Show progress and time left; at the end say rows in and out. ValueError with a reason at zero rows out."""
        stage = Stage(name, rows_in, total)
        began = time.monotonic()
        if rows_in == 0:
            raise ValueError(f"{name}: no rows came in; check --dataset and --limit")
        with progress(name, total, stream=self._stream) as stage.show:
            yield stage
        stage.seconds = time.monotonic() - began
        if stage.rows_out is None:
            stage.rows_out = stage.done
        self.stages.append(stage)
        self.say(f"{name}: {rows_in:,} rows in -> {stage.rows_out:,} rows out, {stage.seconds:.1f} s")
        if stage.rows_out == 0:
            reason = stage.reason or "every row was filtered out; check the input, raise --limit or loosen the filters"
            raise ValueError(f"{name}: {rows_in:,} rows in, none out: {reason}")

    def say(self, line: str) -> None:
        """Print one line for the reader and keep it in run.log, which only its owner may read."""
        line = redact(readable(line))
        print(line, file=self._stream, flush=True)
        if not is_first_rank():
            return
        descriptor = os.open(self.folder / "run.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "a", encoding="utf-8") as log:
            log.write(time.strftime("%Y-%m-%dT%H:%M:%S ") + line + "\n")


def private_logs() -> None:
    """Keep libraries quiet: warnings and up only."""
    for library in ("transformers", "httpx", "datasets", "accelerate", "peft"):
        logging.getLogger(library).setLevel(logging.ERROR)
