"""Recipes: files for `--config` that hold, beside flags, what a source published and what was observed here.

`command` is the command that the flags are for; `needs` lists flags that the file leaves to the command line; `recipe`
stands in a run's config.yaml and names where its flags came from. The other two keys:

- published: `source`, `place` in it, `settings` and `figures` as they stand there, `inferred` (which settings, figures
  or flags do not stand there), `note`;
- observed: `metrics` (name -> value, low, high, n), what the `interval` is of, `seeds`, `commit` that ran it or that
  holds its `result`, a committed file, `command`, `note`; or `not_run`: why nothing was measured.
"""

import difflib
import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import alignlab

HOME = Path(alignlab.__file__).parent / "recipes"
"""the recipes that ship with the package"""
PREFIX = "recipe:"
KEYS = ("command", "needs", "published", "observed", "recipe")
"""what stands in a recipe and is no flag, but for a command with a flag of that name"""
PUBLISHED = {"source": True, "place": True, "settings": True, "figures": False, "inferred": False, "note": False}
OBSERVED = {
    "metrics": True, "interval": True, "seeds": True, "commit": True, "command": True, "result": False, "note": False,
}  # fmt: skip
"""key -> whether it must be there"""


def shipped() -> dict[str, Path]:
    """Return name -> file of the recipes that ship with the package."""
    return {path.stem: path for path in sorted(HOME.glob("*.yaml"))}


def located(config: str) -> Path:
    """Return the file that `--config` names: a path, or `recipe:NAME`; ValueError for a name that does not ship."""
    if not config.startswith(PREFIX):
        return Path(config)
    name, known = config.removeprefix(PREFIX).removesuffix(".yaml"), shipped()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {PREFIX}{near[0]}?" if near else "."
        raise ValueError(f"--config: no recipe {name!r}{hint} Recipes: {', '.join(known)}")
    return known[name]


def of(command: str) -> list[str]:
    """Return the names of the recipes for a command, e.g. `train dpo`."""
    line = re.compile(rf"^command: {re.escape(command)}$", re.MULTILINE)
    return [name for name, path in shipped().items() if line.search(path.read_text(encoding="utf-8"))]


def apart(
    content: Mapping[str, Any], where: str, prog: str, known: Collection[str], given: Collection[str]
) -> tuple[dict[str, Any], str | None]:
    """Check what is no flag in a file for `--config`, and take it away.

    Args:
        content: the file.
        where: the file as the user named it, for messages.
        prog: the command that reads it, e.g. `alignlab train dpo`.
        known: the flags of that command.
        given: those of them that stand on the command line.

    Returns:
        The flags, and the recipe that they come from; None where the file is none.

    Raises:
        ValueError: it is for another command or needs a flag, or a key is malformed; the message names it.
    """
    own = {key: content[key] for key in KEYS if key in content and key not in known}
    flags = {name: value for name, value in content.items() if name not in own}
    if "command" in own:
        command = _text(own["command"], where, "command", "a command such as `train dpo`")
        command = command.removeprefix("alignlab ").replace("-", "_")
        if f"alignlab {command}" != prog:
            raise ValueError(f"{where}: a recipe for `alignlab {command}`; it cannot be used with `{prog}`")
    if "published" in own:
        _published(own["published"], where, flags)
    if "observed" in own:
        _observed(own["observed"], where)
    if "needs" in own:
        _needs(own["needs"], where, {name for name in known if name not in flags}, given)
    if "recipe" in own:
        return flags, _text(own["recipe"], where, "recipe", "the name of a recipe")
    return flags, where if own else None


def _needs(value: Any, where: str, free: Collection[str], given: Collection[str]) -> None:
    fine = isinstance(value, list) and value and all(isinstance(name, str) and name in free for name in value)
    _need(fine, where, "needs", "a list of flags that the file does not set", value)
    missing = [f"--{name}" for name in value if name not in given]
    if missing:
        raise ValueError(f"{where}: give {', '.join(missing)} on the command line; the recipe leaves that to you")


def _published(value: Any, where: str, flags: Collection[str]) -> None:
    _keys(value, where, "published", PUBLISHED)
    for key in ("source", "place", "note"):
        if key in value:
            _text(value[key], where, f"published.{key}", "text")
    for key in ("settings", "figures"):
        _need(isinstance(value.get(key, {}), dict), where, f"published.{key}", "a mapping", value.get(key))
    inferred = value.get("inferred", [])
    _need(isinstance(inferred, list), where, "published.inferred", "a list of names", inferred)
    named = {*flags, *value["settings"], *value.get("figures", {})}
    for name in inferred:
        fine = isinstance(name, str) and name in named
        _need(fine, where, "published.inferred", "names of flags, settings or figures of this file", name)


def _observed(value: Any, where: str) -> None:
    if isinstance(value, dict) and "not_run" in value:
        _keys(value, where, "observed", {"not_run": True})
        _text(value["not_run"], where, "observed.not_run", "why nothing was measured")
        return
    _keys(value, where, "observed", OBSERVED)
    for key in ("interval", "command", "result", "note"):
        if key in value:
            _text(value[key], where, f"observed.{key}", "text")
    commit, seeds, metrics = value["commit"], value["seeds"], value["metrics"]
    fine = isinstance(commit, str) and re.fullmatch("[0-9a-f]{7,40}", commit)
    _need(fine, where, "observed.commit", "7 to 40 hexadecimal digits in quotes", commit)
    fine = isinstance(seeds, list) and seeds and all(type(seed) is int for seed in seeds)
    _need(fine, where, "observed.seeds", "a list of whole numbers", seeds)
    _need(isinstance(metrics, dict) and metrics, where, "observed.metrics", "a mapping that is not empty", metrics)
    for name, metric in metrics.items():
        _metric(metric, where, f"observed.metrics.{name}")


def _metric(metric: Any, where: str, key: str) -> None:
    _keys(metric, where, key, dict.fromkeys(("value", "low", "high", "n"), True))
    for part in ("value", "low", "high"):
        fine = type(metric[part]) in (int, float) and math.isfinite(metric[part])
        _need(fine, where, f"{key}.{part}", "a finite number (YAML reads 1.0e-4 as one, 1e-4 as text)", metric[part])
    fine = metric["low"] <= metric["value"] <= metric["high"]
    _need(fine, where, key, "low <= value <= high", metric)
    _need(type(metric["n"]) is int and metric["n"] >= 1, where, f"{key}.n", "a whole number >= 1", metric["n"])


def _keys(value: Any, where: str, key: str, known: Mapping[str, bool]) -> None:
    """Hold a mapping against key -> whether it must be there."""
    _need(isinstance(value, dict), where, key, f"a mapping with {', '.join(known)}", value)
    for name in value:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"; did you mean {near[0]}?" if near else "."
            raise ValueError(f"{where}: {key}: no key {name!r}{hint} Keys: {', '.join(known)}")
    missing = [name for name, needed in known.items() if needed and name not in value]
    if missing:
        raise ValueError(f"{where}: {key}: missing {', '.join(missing)}")


def _text(value: Any, where: str, key: str, expected: str) -> str:
    _need(isinstance(value, str) and value.strip(), where, key, expected, value)
    return str(value)


def _need(fine: Any, where: str, key: str, expected: str, got: Any) -> None:
    if not fine:
        raise ValueError(f"{where}: {key}: expected {expected}, got {ascii(got)[:80]}")
