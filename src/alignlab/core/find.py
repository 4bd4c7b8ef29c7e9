"""The registry is the file name: list a family's modules, import the chosen one, say what exists on a miss."""

import difflib
import importlib
import pkgutil
from importlib.metadata import entry_points
from types import ModuleType

FAMILIES = (
    "objectives", "rewards", "steering", "attacks", "pipelines", "probes", "theory", "evals", "procedures", "fields",
)  # fmt: skip


def names(family: str) -> dict[str, str]:
    """Return method name -> module path: the family's files, and outside packages' `alignlab.<family>` entry points."""
    if family not in FAMILIES:
        raise LookupError(f"no family {family!r}; families: {', '.join(FAMILIES)}")
    package = importlib.import_module(f"alignlab.{family}")
    found = {m.name: f"alignlab.{family}.{m.name}" for m in pkgutil.iter_modules(package.__path__)}
    found |= {e.name: e.value for e in entry_points(group=f"alignlab.{family}")}
    return {name: found[name] for name in sorted(found) if not name.startswith("_")}


def find(family: str, name: str) -> ModuleType:
    """Import one method by name, `-` and `_` alike; LookupError names the nearest and the known ones."""
    known = names(family)
    wanted = name.replace("-", "_")
    if wanted not in known:
        near = difflib.get_close_matches(wanted, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise LookupError(f"no {family} called {name!r}{hint} Known: {', '.join(known) or 'none yet'}")
    return importlib.import_module(known[wanted])
