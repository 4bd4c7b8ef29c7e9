"""Read and write rows: one place where files, hub datasets and published formats become `core.types.Row`."""

import contextlib
import gzip
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path

from alignlab.core import files
from alignlab.core.types import Row

from . import adapters, sources
from .columns import ROW_FIELDS, DataError, check_mapping, nearest, shown, to_record, to_row

KIND = re.compile(r"[A-Za-z][\w-]+")
"""what an adapter could be called; one letter is a drive"""
WORLD = "world"
"""rows of the embedded town, which commands read without a file"""


def read(
    spec: str | Path, *, columns: Mapping[str, str] | None = None, limit: int | None = None, split: str | None = None,
    hub_split: str = "train", config: str | None = None,
) -> Iterator[Row]:  # fmt: skip
    """Yield the rows of a dataset, one at a time.

    Args:
        spec: a file (`.jsonl[.gz]`, `.json[.gz]`, `.parquet`), a folder of such files, `adapter:FILE` for a published
            format (`conflictqa:FILE`), or a hub dataset (`org/name` or `org/name:config`).
        columns: field -> column where the columns have other names than TRL's, e.g. `{"prompt": "instruction",
            "query": "input", "response": "output"}`; see `columns.to_row`.
        limit: at most this many rows.
        split: the hub split; for files and adapters only rows whose `split` fact is this.
        hub_split: the hub split where `split` is not given; files and adapters then give all rows.
        config: the config of a hub dataset or folder, beside `org/name:config`.

    Raises:
        DataError: where a record cannot be used: `FILE:LINE: field 'x': expected ..., got ...`.
    """
    if limit is not None and limit < 0:
        raise DataError(f"limit: expected a number of rows, 0 or more, got {limit}")
    check_mapping(columns or {})
    return islice(_rows(str(spec), columns, limit, split, hub_split, config), limit)


def _rows(
    spec: str, columns: Mapping[str, str] | None, limit: int | None, split: str | None, hub_split: str,
    config: str | None,
) -> Iterator[Row]:  # fmt: skip
    kind, colon, path = spec.partition(":")
    if colon and kind in adapters.names():
        if columns:
            raise DataError(f"columns: the adapter {kind!r} knows its own columns; leave the mapping out")
        if config:
            raise DataError(f"{spec}: an adapter's file has no config {config!r}; leave it out")
        yield from _of_split(((spec, row) for row in adapters.find(kind).items(path)), split)
        return
    if colon and KIND.fullmatch(kind) and not Path(spec).expanduser().exists():
        found = _from_hub(kind, path, split or hub_split, limit, config)
    else:
        found = sources.records(spec, split=split or hub_split, limit=limit, config=config)
    from_hub = not (Path(spec).expanduser().is_file() or spec.endswith(sources.SUFFIXES))
    rows = ((where, to_row(record, where, columns)) for where, record in found)
    yield from (row for _, row in rows) if from_hub else _of_split(rows, split)


def _from_hub(
    kind: str, path: str, split: str, limit: int | None, config: str | None
) -> Iterator[sources.Record]:  # fmt: skip
    """Yield what `KIND:PATH`, which is no adapter's, holds as a hub dataset with its config, else say the adapters."""
    known = [*adapters.names(), WORLD]
    near = nearest(kind.replace("-", "_"), known, 0.6)
    hint = f"; did you mean {near}:{path}?" if near else "."
    listed = f"{kind}:{path}: no adapter {kind!r}{hint} Adapters, as KIND:FILE: {', '.join(known)}"
    if sources.HUB_ID.fullmatch(f"{kind}:{path}") is None or path.endswith(sources.SUFFIXES):
        raise DataError(listed)
    try:
        yield from sources.hub_records(f"{kind}:{path}", split, limit, config)
    except DataError as error:
        raise DataError(f"{listed}. Nor as a hub dataset: {error}") from None


def _of_split(rows: Iterable[tuple[str, Row]], split: str | None) -> Iterator[Row]:
    for where, row in rows:
        if split is not None and "split" not in row.facts:
            raise DataError(f"{where}: field 'split': asked for split {split!r}, but the record has none")
        if split is None or row.facts["split"] == split:
            yield row


def dumps(row: Row) -> str:
    """Return the row as one line of JSON; NaN is an error, since no JSON reader need accept it."""
    try:
        return json.dumps(to_record(row), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DataError(f"row {shown(row.meta.get('id'))}: cannot be written as JSON: {error}") from None


def write(path: str | Path, rows: Iterable[Row]) -> int:
    """Write rows to `.jsonl`, `.jsonl.gz` or `.parquet`, whole or not at all, and return how many.

    Parquet keeps `facts` and `meta` as JSON text, since their keys differ between rows; `read` turns them back.
    """
    path = Path(path)
    count = 0
    with files.replacing(path) as beside:
        if path.suffix == ".parquet":
            return _write_parquet(beside, rows)
        if not path.name.endswith((".jsonl", ".jsonl.gz")):
            raise DataError(f"{path}: expected a name ending in .jsonl, .jsonl.gz or .parquet")
        with beside.open("wb") as raw, contextlib.ExitStack() as stack:
            # no name and no time inside: the same rows give the same bytes
            packed = path.suffix == ".gz"
            file = stack.enter_context(gzip.GzipFile("", "wb", fileobj=raw, mtime=0)) if packed else raw
            for row in rows:
                file.write(dumps(row).encode() + b"\n")
                count += 1
    return count


def _write_parquet(path: Path, rows: Iterable[Row]) -> int:
    import pyarrow as arrow
    import pyarrow.parquet

    records = [json.loads(dumps(row)) for row in rows]
    for record in records:
        for name in ("facts", "meta"):
            record[name] = json.dumps(record.get(name, {}), ensure_ascii=False)
    # the table takes its columns from the first record, so each record must have all of them
    names = [name for name in ("text", *ROW_FIELDS) if any(name in record for record in records)]
    try:
        table = arrow.Table.from_pylist([{name: record.get(name) for name in names} for record in records])
    except arrow.ArrowException as error:
        raise DataError(f"rows cannot share Parquet columns ({error}); write .jsonl instead") from None
    arrow.parquet.write_table(table, path)
    return len(records)
