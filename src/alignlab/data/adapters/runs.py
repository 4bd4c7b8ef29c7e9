"""Finished runs as rows: what each measured, of which model, how large and of which family.

A JSONL file of `{folder, family, size}`, one line per run: the folder that `alignlab eval` left, relative to the file,
the family of its model (what was trained alike), and its number of parameters; further fields become facts.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alignlab.core.types import Row
from alignlab.data import sources
from alignlab.data.columns import DataError, text_of, wrong

SOURCE = "runs"


def items(path: str | Path) -> Iterator[Row]:
    """Yield one row per run, its folder as the prompt; `facts`: `family`, `size`, `method`, `metrics`, `intervals`.

    Raises:
        DataError: naming the file, the line, the field, what was expected and what was found.
    """
    path = sources.existing(path)
    for where, entry in sources.file_records(path):
        folder, size = text_of(entry, "folder", where), entry.get("size")
        if isinstance(size, bool) or not isinstance(size, (int, float)) or not size > 0:
            raise wrong(where, "size", "a number of parameters above 0", size)
        result = _result(path.parent / Path(folder).expanduser() / "result.json", where)
        facts = {
            **entry, "family": text_of(entry, "family", where), "size": float(size), "method": result.get("method"),
            "metrics": result["metrics"], "intervals": result.get("intervals") or {},
        }  # fmt: skip
        yield Row(prompt=folder, facts=facts, meta={"id": folder, "source": SOURCE})


def _result(path: Path, where: str) -> dict[str, Any]:
    try:
        found = sources.json_file(path)
    except DataError as error:
        raise DataError(f"{where}: field 'folder': no finished run: {error}") from None
    if not isinstance(found, dict) or not isinstance(found.get("metrics"), dict):
        raise DataError(f"{where}: field 'folder': {path} holds no metrics; name a folder that `alignlab eval` left")
    return found
