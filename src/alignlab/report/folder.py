"""The folder a run leaves: config.yaml, samples.jsonl, result.json, README.md, report.html; each whole or not there."""

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import alignlab
from alignlab.core import files
from alignlab.core.answers import readable
from alignlab.core.cards import Card
from alignlab.core.types import Result
from alignlab.report.page import Run, interval, page, verdicts
from alignlab.report.text import duration, escape_json, number, plain, redact, show, yaml_text

__all__ = ["commit", "environment", "readable", "write"]

PACKAGES = (
    "torch", "transformers", "peft", "accelerate", "datasets", "tokenizers", "safetensors", "numpy", "scipy",
    "scikit-learn", "statsmodels", "inspect-ai",
)  # fmt: skip


def commit() -> str | None:
    """Return the git commit of alignlab's own sources, `-dirty` where they differ from it; None outside a checkout."""
    here = Path(alignlab.__file__).resolve()

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(here.parent), *arguments],
            capture_output=True, text=True, timeout=10, check=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return done.stdout.strip()

    try:
        git(
            "ls-files", "--error-unmatch", here.name
        )  # a virtual environment inside a stranger's repository is not ours
        return git("rev-parse", "HEAD") + (
            "-dirty" if git("status", "--porcelain", "--untracked-files=no", ".") else ""
        )
    except (OSError, subprocess.SubprocessError):
        return None


def environment() -> dict[str, str]:
    """Return Python, platform, processors, accelerator and the versions of the libraries that matter."""
    found = {"python": platform.python_version(), "platform": platform.platform(), "cpus": str(os.cpu_count())}
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        found["accelerator"] = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def record(run: Run) -> dict[str, Any]:
    """Return what result.json holds: plain numbers under `metrics`, everything else beside them; NaN is null."""
    metrics = run.result.metrics
    held = {v.text: {"observed": v.observed, "holds": v.holds, "seeds": v.seeds} for v in verdicts(run)}
    value: dict[str, Any] = plain(
        {
            "metrics": {name: metric.value for name, metric in metrics.items()},
            "intervals": {n: [m.low, m.high] for n, m in metrics.items() if m.low is not None and m.high is not None},
            "n": {name: metric.n for name, metric in metrics.items()},
            "claims": held,
            "tables": run.result.tables,
            "figures": run.result.figures,
            "notes": run.result.notes,
            "samples": "samples.jsonl",
            "method": run.name,
            "card": run.card,
            "version": run.version,
            "config": run.config,
            "seed": run.seed,
            "commit": run.commit,
            "command": run.command,
            "environment": run.environment,
            "cost": run.cost,
            "seconds": run.seconds,
        }
    )
    return value


def readme(run: Run) -> str:
    """Return the folder's README: what was run, the numbers, how to run it again."""
    title = run.card.title if run.card else run.name
    lines = [f"# {_line(title)}", ""]
    if run.card:
        lines += [f"{_line(run.card.summary)} ({run.card.status}; {_line(run.card.paper)})", ""]
    lines += ["Open `report.html` in a browser; it needs no network.", ""]
    if run.command:
        lines += ["Run again with", "", "    " + _code(run.command), ""]
    lines += ["| metric | value | 95 % interval | n |", "|---|---:|---|---:|"]
    lines += [
        f"| {_cell(name)} | {number(metric.value)} | {interval(metric) or '–'} | {number(metric.n)} |"
        for name, metric in run.result.metrics.items()
    ]
    lines += [""] + [
        f"- claim `{_code(v.text).replace('`', '')}`: "
        + (
            f"not measured in this run; {_line(v.problem)}"
            if v.problem
            else f"{'holds' if v.holds else 'does not hold'}, observed {number(v.observed)}"
        )
        for v in verdicts(run)
    ]
    lines += [f"- {_line(note)}" for note in run.result.notes]
    took = f", {duration(run.seconds)}" if run.seconds is not None else ""
    lines += ["", f"alignlab {run.version}, commit {run.commit or 'unknown'}, seed {run.seed}{took}.", ""]
    lines += [
        "- `config.yaml`: the settings, for `--config`",
        "- `result.json`: metrics, intervals, tables, figures, environment",
        "- `samples.jsonl`: every sample; text in it was written by models, so treat it as untrusted",
    ]
    return "\n".join(lines) + "\n"


def _line(text: str) -> str:
    """Return text on one line that Markdown shows as text."""
    return " ".join(show(text, 2000).split()).replace("<", "&lt;")


def _code(text: str) -> str:
    """Return text on one line of code, where Markdown reads nothing into it."""
    return " ".join(show(text, 2000).split())


def _cell(text: str) -> str:
    return _line(text).replace("|", "\\|")


def write(
    folder: str | os.PathLike[str],
    result: Result,
    *,
    card: Card | None = None,
    config: Mapping[str, Any],
    seed: int | None,
    command: str,
    seconds: float | None,
    name: str = "",
    cost: Mapping[str, Any] | None = None,
    samples: Iterable[Mapping[str, Any]] | None = None,
    highlights: Sequence[str] = (),
) -> Path:
    """Write a run's folder, each file atomically and the page last; files of other names are left alone.

    Args:
        folder: where; made if missing.
        result: what the method returned.
        card: the method's card, for claims, citation and deviations.
        config: resolved settings; secrets are redacted by name and by value.
        seed: seed of the run.
        command: the command line that runs it again.
        seconds: wall-clock time.
        name: family/name of the method; by default the first words of the command.
        cost: what was spent, name -> number or text.
        samples: every sample for samples.jsonl, where they are more than the result shows.
        highlights: metrics for the page's tiles.

    Returns:
        The path of report.html.

    Raises:
        ValueError: a figure or table of the result is malformed; the numbers are on disk by then.
        OSError: the disk is full or the folder cannot be written.
    """
    target = Path(folder)
    run = Run(
        result=result,
        name=name or " ".join(command.split()[1:3]) or "run",
        card=card,
        config=config,
        seed=seed,
        command=redact(command),
        seconds=seconds,
        version=importlib.metadata.version("alignlab"),
        commit=commit(),
        environment=environment(),
        cost=cost or {},
    )
    files.write_text(target / "config.yaml", yaml_text(config))
    with files.replacing(target / "samples.jsonl") as beside, beside.open("w", encoding="utf-8") as out:
        for item in result.samples if samples is None else samples:
            out.write(escape_json(json.dumps(plain(item), ensure_ascii=False, allow_nan=False)) + "\n")
    written = json.dumps(record(run), indent=2, ensure_ascii=False, allow_nan=False)
    files.write_text(target / "result.json", escape_json(written) + "\n")
    files.write_text(target / "README.md", readme(run))
    files.write_text(target / "report.html", page(run, highlights))
    return target / "report.html"
