"""Verbs that run a method: settle its flags, hand it to the family's action, write the run folder."""

import importlib
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from alignlab.cli import flags, options, outline, verbs
from alignlab.cli.context import RunContext, is_first_rank, private_logs, roles
from alignlab.core.answers import readable
from alignlab.core.find import find, names
from alignlab.report.text import plain, redact

if TYPE_CHECKING:
    from alignlab.core.types import Result

NO_MODEL, NOTHING_READ = frozenset({"model"}), frozenset({"model", "dataset", "limit"})
SHARED: dict[str, tuple[flags.Group, ...]] = {
    "run": (flags.Group("Run", options.Run), flags.Group("Endpoints", options.Endpoints)),
    "make": (
        flags.Group("Run", options.Run, NO_MODEL),
        flags.Group("Endpoints", options.Endpoints),
        flags.Group("Data", options.Data),
    ),
    "check": (flags.Group("Run", options.Run, NOTHING_READ),),
    "eval": (
        flags.Group("Run", options.Run),
        flags.Group("Model", options.Loading),
        flags.Group("Endpoints", options.Endpoints),
        flags.Group("Sampling", options.Answering),
    ),
    "steer": (
        flags.Group("Run", options.Run),
        flags.Group("Steering", options.Steering),
        flags.Group("Model", options.Loading),
        flags.Group("Data", options.Data),
        flags.Group("Sampling", options.Sampling),
    ),
}
WITH_ROWS = (
    flags.Group("Run", options.Run),
    flags.Group("Model", options.Loading),
    flags.Group("Data", options.Data),
)
"""attack, score, probe"""


def groups_of(verb: str, own: flags.Group, training: Mapping[str, Any] | None = None) -> tuple[flags.Group, ...]:
    """Return the groups of flags of a method: its own first, so that its defaults and words count.

    `training`: what its card says of the loop's defaults.
    """
    if verb == "train":
        from alignlab.train.config import TrainConfig

        loop = flags.with_defaults(flags.Group("Training", TrainConfig), training or {})

        return (
            own,
            flags.Group("Run", options.Run, frozenset({"seed"})),
            loop,
            flags.Group("LoRA", options.Peft),
            flags.Group("Model", options.Loading),
            flags.Group("Data", options.Data),
            flags.Group("Evaluation", options.Evaluation),
        )
    return (own, *SHARED.get(verb, WITH_ROWS))


def own_flags(path: str) -> flags.Group:
    """Return the flags of a method's Config, from its source if that is plain, else by importing it."""
    settings = outline.settings(path, "Method")
    return flags.Group("Method", importlib.import_module(path).Config if settings is None else settings)


def run(verb: str, name: str, argv: Sequence[str]) -> int:
    """Run one method and return the exit code."""
    family, method = verbs.method(verb, name)
    prog = f"alignlab {verb} {method}"
    if any(word in ("-h", "--help") for word in argv):
        path = names(family)[method]
        groups = groups_of(verb, own_flags(path), outline.training(path))
        sys.stdout.write(flags.show_help(prog, groups, verbs.headline(path) + "."))
        return 0
    module = find(family, method)
    groups = groups_of(verb, flags.Group("Method", module.Config), module.CARD.training)
    values = flags.parse(prog, groups, argv)
    values["output_dir"] = values["output_dir"] or f"runs/{method}-{values['seed']}"
    cfg = flags.build(module.Config, values)
    if values["dry_run"]:
        import yaml

        print(f"# {prog}, resolved; nothing was run")
        print(redact(yaml.safe_dump(plain(values), sort_keys=False, allow_unicode=True)), end="")
        return 0
    private_logs()
    ctx = context(values)
    began = time.monotonic()
    action = getattr(importlib.import_module("alignlab.cli.actions"), verb)
    result = action(module, cfg, ctx, values)
    if is_first_rank():
        write(result, module, ctx, values, " ".join(["alignlab", verb, method, *map(shlex.quote, argv)]), began)
    return 0


def context(values: dict[str, Any]) -> RunContext:
    """Build the context of a run from its flags."""
    chosen = flags.build(options.Endpoints, values)
    return RunContext(
        folder=Path(values["output_dir"]),
        seed=values["seed"],
        model=values.get("model") or "tiny:",
        dataset=values.get("dataset"),
        limit=values.get("limit"),
        endpoints=roles(chosen),
        answers=Path(chosen.answer_cache).expanduser() if chosen.answer_cache else None,
    )


def write(
    result: "Result", module: ModuleType, ctx: RunContext, values: dict[str, Any], command: str, began: float
) -> None:
    """Write the run folder and print the numbers."""
    from alignlab.report import folder

    folder.write(
        ctx.folder,
        result,
        card=module.CARD,
        config=values,
        seed=ctx.seed,
        command=command,
        seconds=time.monotonic() - began,
        name=module.__name__.removeprefix("alignlab.").replace(".", "/"),
        cost={stage.name: f"{stage.seconds:.1f} s" for stage in ctx.stages},
        samples=ctx.samples,
    )
    width = max((len(name) for name in result.metrics), default=0) + 2
    for name, metric in result.metrics.items():
        interval = "" if metric.low is None or metric.high is None else f"  [{metric.low:.4g}, {metric.high:.4g}]"
        print(f"{readable(name):<{width}}{metric.value:.4g}{interval}  n={metric.n}")
    for note in result.notes:
        print(f"note: {readable(note)}")
    print(f"{ctx.folder}/report.html")
