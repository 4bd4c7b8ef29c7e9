"""Adapters of published formats: one file per format, each with `items(path) -> Iterator[Row]`.

An adapter of conflict data yields *conflict items*: `prompt` is the question, and `facts` holds `scenario, k, ratio,
question, contexts, memory, confidence, gold, target, answers, split` (see `_items.conflict_item`).
"""

import difflib
import importlib
import pkgutil
from types import ModuleType


def names() -> list[str]:
    """Return the names of the adapters: the files of this folder."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def find(name: str) -> ModuleType:
    """Import one adapter; LookupError names the nearest and the known ones."""
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise LookupError(f"no adapter called {name!r}{hint} Known: {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name}")
