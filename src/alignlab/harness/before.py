"""The run before: its records, held against the items of this run, so that a change compares like with like.

A run keeps a digest of every item beside its records. An item is the same where its name, its question and
its facts are, whoever answered, so runs with other seeds or settings are not compared in silence.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from alignlab.core import files
from alignlab.core.types import Row
from alignlab.data.columns import to_record
from alignlab.harness.dialogue import Dialogue

Record = Mapping[str, Any]
ITEMS = "items.json"
"""record id -> digest of the item, in the folder of a run"""


def digest(item: Any) -> str:
    """Return 16 hex digits of what is asked and known of an item; an answer that a row brings along is no part."""
    known: Any = repr(item)
    if isinstance(item, Row):
        known = to_record(dataclasses.replace(item, completion=None, meta={"id": item.meta.get("id")}))
    text = json.dumps(known, sort_keys=True, default=repr)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def keep(folder: Path, name: str, dialogues: Iterable[Dialogue], records: Iterable[Record]) -> None:
    """Write which items the records of a run of the eval `name` are of, for runs that will be compared with it."""
    played = [dialogue.item for dialogue in dialogues if not dialogue.problem]
    known = [[record.get("id"), digest(item)] for item, record in zip(played, records, strict=True)]
    files.write_text(folder / ITEMS, json.dumps({"eval": name, "items": known}) + "\n")


def read(folder: str, name: str, items: Sequence[Any], here: Path, settings: Mapping[str, Any]) -> list[Record]:
    """Return the records of an earlier run on items that this run plays too.

    Args:
        folder: of the earlier run.
        name: of the eval.
        items: of this run.
        here: folder of this run.
        settings: of this run, to say what differs.

    Raises:
        ValueError: no such run, this run itself, another eval, records that cannot be told apart, or no item in common.
    """
    there = Path(folder).expanduser()
    said = f"--before {folder}"
    if not there.is_dir():
        raise ValueError(f"{said}: no such folder; name the --output_dir of an earlier `alignlab eval {name}`")
    if there.resolve() == here.resolve():
        raise ValueError(f"{said}: this run writes there too; give it another --output_dir")
    result, known = _json(there / "result.json"), _json(there / ITEMS)
    ran = result.get("method") or known.get("eval")
    if ran is not None and str(ran).rpartition("/")[2] != name:
        raise ValueError(f"{said}: a run of {ran}, not of evals/{name}")
    if not known or not result:
        lacking = ITEMS if result else "result.json"
        raise ValueError(f"{said}: no {lacking} in it; only a finished `alignlab eval {name}` can be compared with")
    records = [json.loads(line) for line in (there / "samples.jsonl").open(encoding="utf-8")]
    names = [record.get("id") for record in records]
    if None in names or len(set(names)) < len(names) or names != [one for one, _ in known["items"]]:
        raise ValueError(f"{said}: its records cannot be told apart; give every row of --dataset an `id` of its own")
    asked = {digest(item) for item in items}
    kept = [record for record, (_, item) in zip(records, known["items"]) if item in asked]
    if not kept:
        raise ValueError(f"{said}: none of its {len(records)} items is asked here{_differing(result, settings)}")
    return kept


def note(folder: str, records: Sequence[Record], items: Sequence[Any]) -> str:
    """Say what the changes of a result are to."""
    model = _json(Path(folder).expanduser() / "result.json").get("config", {})
    who = model.get("target") or model.get("model")
    return f"changes are to {folder} ({who}), on {len(records)} of {len(items)} items"


def _differing(result: Record, settings: Mapping[str, Any]) -> str:
    earlier = result.get("config") or {}
    quiet = {
        "output_dir",
        "before",
        "model",
        "target",
        "adapter",
        "steer",
        "device",
        "dtype",
        "inspect_log",
        "answer_cache",
    }
    other = [
        f"--{name} {earlier[name]} there, {value} here"
        for name, value in settings.items()
        if name not in quiet and name in earlier and _plain(earlier[name]) != _plain(value)
    ]
    return f": {'; '.join(other)}" if other else ""


def _plain(value: Any) -> str:
    return json.dumps(value, default=str)


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
