"""What both runners write of an eval into an Inspect log: names, versions, values of records, sample ids."""

import hashlib
import importlib.metadata
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from alignlab.core.redact import plain

SHORT = 80
"""longer texts of a record are no score"""


def version_of(module: ModuleType) -> str:
    """Return the version of an eval: the package's, and a digest of its file and of the private ones it uses."""
    family = module.__name__.rpartition(".")[0]
    used = {str(getattr(value, "__module__", "")) for value in vars(module).values()}
    used |= {value.__name__ for value in vars(module).values() if isinstance(value, ModuleType)}
    folder = Path(str(module.__file__)).parent if getattr(module, "__file__", None) else None
    whole = hashlib.sha256()
    for name in sorted({module.__name__, *(u for u in used if u.startswith(f"{family}._"))}):
        path = folder and folder / f"{name.rpartition('.')[2]}.py"
        if path and path.exists():
            whole.update(path.name.encode() + b"\0" + path.read_bytes())
    return f"{importlib.metadata.version('alignlab')}+{whole.hexdigest()[:8]}"


def sample_ids(items: Sequence[Any]) -> list[str]:
    """Return the items' own ids (`meta["id"]`), else their places from 1; one that is taken gets a number."""
    seen: Counter[str] = Counter()
    found = []
    for place, item in enumerate(items, 1):
        meta = getattr(item, "meta", None)
        name = str(meta["id"]) if isinstance(meta, Mapping) and meta.get("id") is not None else str(place)
        seen[name] += 1
        found.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return found


def value_of(record: Any) -> dict[str, str | int | float | bool | None] | float:
    """Return the numbers, switches and short words of a record: what a sample's score shows; 1 where there are none."""
    if not isinstance(record, Mapping):
        return 1.0
    found: dict[str, str | int | float | bool | None] = {}
    for name, value in record.items():
        if isinstance(value, float) and not math.isfinite(value):
            continue
        if isinstance(value, (bool, int, float)) or (isinstance(value, str) and len(value) <= SHORT and name != "id"):
            found[str(name)] = str(value) if isinstance(value, str) else value
    return found or 1.0


def facts_of(item: Any, clean: Callable[[str], str] | None = None) -> dict[str, Any]:
    """Return the numbers, switches and short words that are known of an item, without secrets (`core.redact`)."""
    facts = dict(getattr(item, "facts", None) or {})
    short = {name: value for name, value in facts.items() if isinstance(value, (bool, int, float)) or (
        isinstance(value, str) and len(value) <= SHORT)}  # fmt: skip
    found: dict[str, Any] = plain(short, clean=clean)
    return found


def target_of(item: Any) -> str:
    """Return the right answer of an item, where its facts hold one."""
    facts = getattr(item, "facts", None) or {}
    gold = facts.get("gold", facts.get("target", ""))
    return gold if isinstance(gold, str) else ""
