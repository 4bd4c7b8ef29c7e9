"""alignlab's own conflict items, as JSON lines.

Fields: `id, scenario, ratio, question, contexts, memory_answer, memory_conf, gold, target, split`, and optionally `k,
answers, source, licence`. Each context is `{text, claim, source, date, poisoned}`. `items` and `write` are
inverse to each other.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from alignlab.core import files
from alignlab.core.types import Row
from alignlab.data import sources
from alignlab.data.columns import DataError, nearest, shown, text_of, wrong

from ._items import SCENARIOS, conflict_item, passage

REQUIRED = ("id", "scenario", "question", "contexts")
OPTIONAL = (
    "ratio", "k", "memory_answer", "memory_conf", "gold", "target", "answers", "split", "source", "licence",
)  # fmt: skip
CONTEXT = ("text", "claim", "source", "date", "poisoned")


def _known(record: dict[str, Any], known: tuple[str, ...], where: str, prefix: str = "") -> None:
    for name in record:
        if name not in known:
            near = nearest(name, known, 0.6)
            hint = f"; did you mean {near!r}?" if near else ""
            raise DataError(f"{where}: unknown field {prefix + name!r}{hint} Fields: {', '.join(known)}")


def _optional_text(record: dict[str, Any], name: str, where: str, prefix: str = "") -> str | None:
    value = record.get(name)
    if value is not None and not isinstance(value, str):
        raise wrong(where, prefix + name, "text or null", value)
    return value


def _share(record: dict[str, Any], name: str, where: str) -> float | None:
    value = record.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise wrong(where, name, "a number from 0 to 1", value)
    return float(value)


def _context(value: Any, number: int, where: str) -> dict[str, Any]:
    prefix = f"contexts[{number}]."
    if not isinstance(value, dict):
        raise wrong(where, prefix[:-1], f"an object with {', '.join(CONTEXT)}", value)
    _known(value, CONTEXT, where, prefix)
    if not isinstance(value.get("text"), str) or not value["text"].strip():
        raise wrong(where, f"{prefix}text", "non-empty text", value.get("text"))
    if not isinstance(value.get("poisoned", False), bool):
        raise wrong(where, f"{prefix}poisoned", "true or false", value["poisoned"])
    rest = {name: _optional_text(value, name, where, prefix) for name in ("claim", "source", "date")}
    return passage(value["text"], rest.pop("claim"), poisoned=value.get("poisoned", False), **rest)


def _count(record: dict[str, Any], contexts: list[dict[str, Any]], where: str) -> int:
    """Return k: as given, else from `ratio` (edits), else the number of poisoned contexts."""
    poisoned = sum(bool(c["poisoned"]) for c in contexts)
    k = record.get("k")
    if k is None:
        edit = record["scenario"] in ("ike", "unknown") and record.get("ratio") is not None
        return round(record["ratio"] * len(contexts)) if edit else poisoned
    if isinstance(k, bool) or not isinstance(k, int) or not 0 <= k <= len(contexts):
        raise wrong(where, "k", f"a whole number from 0 to {len(contexts)}, the number of contexts", k)
    if record["scenario"] in ("clean", "pca", "mixed") and k != poisoned:
        raise wrong(where, "k", f"{poisoned}, the number of contexts with `poisoned` true", k)
    return k


def item(record: Any, where: str) -> Row:
    """Return the conflict item of one record, checked field by field."""
    if not isinstance(record, dict):
        raise DataError(f"{where}: expected a JSON object, got {shown(record)}")
    _known(record, REQUIRED + OPTIONAL, where)
    if record.get("scenario") not in SCENARIOS:
        raise wrong(where, "scenario", f"one of {', '.join(SCENARIOS)}", record.get("scenario"))
    if not isinstance(record.get("contexts"), list):
        raise wrong(where, "contexts", "a list of contexts", record.get("contexts"))
    contexts = [_context(value, number, where) for number, value in enumerate(record["contexts"])]
    texts = {
        n: _optional_text(record, n, where) for n in ("memory_answer", "gold", "target", "split", "source", "licence")
    }
    answers = record.get("answers") or []
    if not isinstance(answers, list) or not all(isinstance(a, str) and a.strip() for a in answers):
        raise wrong(where, "answers", "a list of texts", answers)
    for name in ("gold", "target"):
        if answers and texts[name] is not None and texts[name] not in answers:
            raise wrong(where, name, f"one of the closed answers {answers}", texts[name])
    ratio = _share(record, "ratio", where)
    return conflict_item(
        id=text_of(record, "id", where), source=texts["source"] or "conflicts", licence=texts["licence"],
        question=text_of(record, "question", where), scenario=record["scenario"], k=_count(record, contexts, where),
        contexts=contexts, memory=texts["memory_answer"], confidence=_share(record, "memory_conf", where),
        gold=texts["gold"], target=texts["target"], answers=answers, split=texts["split"], ratio=ratio,
    )  # fmt: skip


def items(path: str | Path) -> Iterator[Row]:
    """Yield the conflict items of a JSON-lines file; DataError names `FILE:LINE` and the field."""
    seen: dict[str, str] = {}
    for where, record in sources.json_lines(path):
        row = item(record, where)
        if (first := seen.setdefault(row.meta["id"], where)) != where:
            raise wrong(where, "id", f"an id not used before (see {first})", row.meta["id"])
        yield row


def record(row: Row) -> dict[str, Any]:
    """Return the JSON record of a conflict item."""
    facts = row.facts
    return {
        "id": row.meta["id"], "scenario": facts["scenario"], "ratio": facts["ratio"], "k": facts["k"],
        "question": facts["question"], "contexts": [{name: c[name] for name in CONTEXT} for c in facts["contexts"]],
        "memory_answer": facts["memory"], "memory_conf": facts["confidence"], "gold": facts["gold"],
        "target": facts["target"], "answers": list(facts["answers"]), "split": facts["split"],
        "source": row.meta.get("source"), "licence": row.meta.get("licence"),
    }  # fmt: skip


def write(path: str | Path, rows: Iterable[Row]) -> int:
    """Write conflict items as JSON lines, whole or not at all, and return how many."""
    count = 0
    with files.replacing(path) as beside, beside.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(record(row), ensure_ascii=False, allow_nan=False) + "\n")
            count += 1
    return count
