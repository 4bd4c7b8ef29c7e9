"""What running an eval costs beside the model: a plain batched loop, the local runner, Inspect AI; on `tiny:`.

The plain loop answers all questions with one call (free text) or 64 at a time (options), scores them and aggregates:
what anyone would write by hand. The local runner does the same with its journal on disk and an Inspect log at the end;
Inspect runs the same task with our provider and, to show what is its own, a task of its own parts with its mock of a
model. Reported per sample: CPU milliseconds of the process (wall time too, for machines that do nothing else), best of
--repeats, runs interleaved. Goals: the local runner at most 10 % + 2.5 ms of CPU above the plain loop,
Inspect at most 15 ms above it. Texts must be the same wherever a model answers; reading them is not part of a run.
"""

import argparse
import importlib.metadata
import itertools
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from alignlab.core import evidence, files
from alignlab.core.cards import Card
from alignlab.core.types import Ask, Result, Row
from alignlab.harness import local, log, models, options
from alignlab.harness.journal import Journal
from alignlab.stats.proportion import share
from alignlab.world import conflicts, facts
from alignlab.world.sets import believed

OUT = Path(__file__).parent / "results" / "harness.json"
TOKENS = 8
"""longest answer"""
MOCK = "Inspect, defaults, its mock model"


@dataclass(frozen=True, kw_only=True)
class Config:
    """The made-up eval's settings."""

    count: int = 2000
    kind: str = "text"


def made_up() -> ModuleType:
    """Return an eval with one question per item about the town, as free text or with four options."""
    module = ModuleType("alignlab.evals.bench", "A question about the town.")

    def items(cfg: Config) -> list[Row]:
        town = facts.town()
        cells = [conflicts.Cell("clean")]
        drawn = conflicts.items(town, believed(town), cells, cfg.count, split="train", cues=conflicts.Cues(), seed=0)
        found = []
        for number, row in enumerate(drawn):
            known = {"gold": row.facts["gold"], "options": list(row.facts["answers"])[:4]}
            # numbered, so that no two are alike: equal questions would be answered once
            question = evidence.ask(f"{row.facts['question']} ({number})")
            found.append(Row(prompt=question, facts=known, meta={"id": str(number)}))
        return found

    def play(item: Row, cfg: Config) -> Any:
        listed = tuple(item.facts["options"]) if cfg.kind == "options" else ()
        yield Ask(role="model", messages=tuple(item.prompt), options=listed)  # type: ignore[arg-type]

    def score(item: Row, answers: Any) -> dict[str, Any]:
        return {"id": item.meta["id"], "right": item.facts["gold"] in answers[0], "text": answers[0]}

    def aggregate(records: Any, before: Any = None) -> Result:
        del before
        return Result(metrics={"right": share(r["right"] for r in records)})

    module.Config, module.items, module.play, module.score = Config, items, play, score  # type: ignore[attr-defined]
    module.aggregate = aggregate  # type: ignore[attr-defined]
    module.CARD = Card(title="bench", paper="", bibtex="", brief="", status="faithful", summary="", smoke="", claims=())  # type: ignore[attr-defined]
    return module


def plain(module: ModuleType, cfg: Config, model: Any) -> list[str]:
    """Answer by hand, without any runner."""
    items = module.items(cfg)
    asks = [next(module.play(item, cfg)) for item in items]
    if cfg.kind == "text":
        texts = [one[0].text for one in model.sample([a.messages for a in asks], temperature=0.0, max_tokens=TOKENS)]
    else:
        texts = [str(r) for start in range(0, len(asks), 64) for r in options.choose(model, asks[start : start + 64])]
    module.aggregate([module.score(item, [text]) for item, text in zip(items, texts, strict=True)])
    return texts


def ours(module: ModuleType, cfg: Config, model: Any, folder: Path) -> list[str]:
    """Answer with the local runner, its journal and its log."""
    began = datetime.now(UTC)
    items = module.items(cfg)
    subject = local.by_model(model, seed=0, max_tokens=TOKENS)
    journal = Journal(folder, {"eval": "bench", "model": subject.identity()})
    dialogues = local.played(module, cfg, items, lambda _: subject, journal=journal)
    records = local.records_of(module, dialogues)
    result = local.result_of(module, dialogues, records, {"model": subject.identity()})
    log.write(folder / "bench.eval", module, dialogues, records, result, settings={"kind": cfg.kind},
              identities={"model": subject.identity()}, seed=0, began=began)  # fmt: skip
    return [str(d.replies[0]) for d in dialogues]


def inspects(module: ModuleType, cfg: Config, name: str, folder: Path, realtime: bool) -> Callable[[], list[str]]:
    """Answer through Inspect AI; what is returned reads the texts from its log, which is the check's cost alone."""
    import inspect_ai

    from alignlab.harness import _registry, tasks  # noqa: F401 - registers the provider

    task = tasks.built(module, count=cfg.count, kind=cfg.kind, max_tokens=TOKENS)
    (done,) = inspect_ai.eval(task, model=name, log_dir=str(folder), display="none", log_realtime=realtime,
                              max_connections=128)  # fmt: skip
    assert done.status == "success", done.error

    def texts() -> list[str]:
        said = {sample.id: sample.output.completion for sample in done.samples or ()}
        return [said[item.meta["id"]] for item in module.items(cfg)]

    return texts


def bare(module: ModuleType, cfg: Config, folder: Path) -> list[str]:
    """Run as many samples through Inspect AI's own parts and its mock of a model, which no adapter can go below."""
    import inspect_ai
    from inspect_ai import Task
    from inspect_ai.dataset import MemoryDataset, Sample
    from inspect_ai.model import ModelOutput, ModelUsage, get_model
    from inspect_ai.scorer import includes
    from inspect_ai.solver import generate

    asked = [
        Sample(id=item.meta["id"], input=evidence.text_of(item.prompt), target=item.facts["gold"])
        for item in module.items(cfg)
    ]
    said = ModelOutput.from_content("mockllm/model", "Answer: stew")
    said.usage = ModelUsage(input_tokens=20, output_tokens=4, total_tokens=24)  # else it downloads a tokenizer to count
    mock = get_model("mockllm/model", custom_outputs=itertools.repeat(said))
    task = Task(dataset=MemoryDataset(asked), solver=generate(), scorer=includes())
    (done,) = inspect_ai.eval(task, model=mock, log_dir=str(folder), display="none", max_connections=128)
    assert done.status == "success", done.error
    return []


def measured(
    module: ModuleType, cfg: Config, model: Any, name: str, args: argparse.Namespace
) -> dict[str, dict[str, Any]]:
    """Return run -> milliseconds per sample, the goal and whether it is met."""
    fewer = Config(count=min(cfg.count, args.inspect_samples or cfg.count), kind=cfg.kind)
    runs: dict[str, tuple[Config, Callable[[Path], list[str] | Callable[[], list[str]]]]] = {
        "plain loop": (cfg, lambda _: plain(module, cfg, model)),
        "local runner": (cfg, lambda folder: ours(module, cfg, model, folder)),
    }
    if not args.no_inspect:
        runs["Inspect, log_realtime off"] = fewer, lambda folder: inspects(module, fewer, name, folder, False)
        if cfg.kind == "text":
            runs["Inspect, defaults"] = fewer, lambda folder: inspects(module, fewer, name, folder, True)
            runs[MOCK] = fewer, lambda folder: bare(module, fewer, folder)
    plain(module, Config(count=64, kind=cfg.kind), model)
    best: dict[str, dict[str, float]] = {}
    texts: dict[str, list[str]] = {}
    for repeat in range(args.repeats):
        for run, (used, action) in runs.items():
            with tempfile.TemporaryDirectory() as folder:
                wall, cpu = time.perf_counter(), time.process_time()
                said = action(Path(folder))
                took = {"cpu_ms": time.process_time() - cpu, "wall_ms": time.perf_counter() - wall}
                texts[run] = said() if callable(said) else said
            each = {key: 1000 * value / used.count for key, value in took.items()}
            best[run] = each if run not in best else {key: min(best[run][key], each[key]) for key in each}
            print(f"{cfg.kind:8} {repeat} {run:28} {each['cpu_ms']:8.2f} ms CPU {each['wall_ms']:8.2f} ms", flush=True)
    apart = [run for run, given in texts.items() if given != texts["plain loop"][: len(given)]]
    assert not apart, f"other texts than the plain loop: {apart}"
    base, found = best["plain loop"]["cpu_ms"], {}
    for run, each in best.items():
        above = each["cpu_ms"] - (0 if run == MOCK else base)  # no model answers there
        goal = 15.0 if run.startswith("Inspect") else 0.1 * base + 2.5
        numbers = {**each, "above_plain_ms": above, "goal_ms": goal, "samples": runs[run][0].count}
        found[run] = {**{key: round(value, 3) for key, value in numbers.items()}, "met": above <= goal}
    return found


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--inspect_samples", type=int, default=None, help="fewer for Inspect AI, which takes long")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--model", default="tiny:")
    parser.add_argument("--no_inspect", action="store_true", help="leave Inspect AI out")
    parser.add_argument("--output", type=Path, default=OUT)
    args = parser.parse_args()
    torch.set_num_threads(1)
    here = {"cwd": Path(__file__).parent, "capture_output": True, "text": True, "check": False}
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], **here).stdout.strip()
    began, module, model = time.monotonic(), made_up(), models.loaded(args.model)
    name = f"alignlab/{args.model}@{models.digest_of(model.identity)}"
    if not args.no_inspect:  # its import and first run are not what a sample costs
        with tempfile.TemporaryDirectory() as folder:
            inspects(module, Config(count=8), name, Path(folder), False)
    found = {kind: measured(module, Config(count=args.samples, kind=kind), model, name, args)
             for kind in ("text", "options")}  # fmt: skip
    for kind, rows in found.items():
        for run, each in rows.items():
            verdict = "met" if each["met"] else "MISSED"
            print(f"{kind:8} {run:28} {each['above_plain_ms']:+8.2f} ms, goal {each['goal_ms']:.2f}: {verdict}")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(args.output, {
        "name": "harness", "model": model.identity, "samples": args.samples, "per_sample": found,
        "settings": {k: v for k, v in vars(args).items() if k != "output"} | {"max_tokens": TOKENS, "options": 4},
        "seconds": round(time.monotonic() - began, 1), "machine": f"{platform.machine()}, 1 thread, shared with others",
        "torch": torch.__version__, "inspect_ai": importlib.metadata.version("inspect_ai"),
        "date": date.today().isoformat(), "commit": commit,
    })  # fmt: skip


if __name__ == "__main__":
    main()
