"""Raw records with their places: JSON Lines (plain or gzip), JSON, Parquet, and `datasets` for the hub and folders."""

import contextlib
import gzip
import json
import re
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

from .columns import DataError, nearest, shown

Record = tuple[str, dict[str, Any]]
"""place (`FILE:LINE`) and columns"""
SUFFIXES = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz", ".json", ".json.gz", ".parquet")
HUB_ID = re.compile(r"(?:[\w.-]+/)?[\w.-]+(?::[\w.-]+)?")


def existing(path: str | Path) -> Path:
    """Return the path of an existing file; DataError says what is there instead."""
    path = Path(path).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        raise DataError(f"{path}: expected a file, found a folder")
    siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    near = nearest(path.name, siblings, 0.6)
    hint = f"; did you mean {path.parent / near}?" if near else ""
    reason = "" if path.parent.is_dir() else f" (there is no folder {path.parent})"
    raise DataError(f"{path}: no such file{reason}{hint}")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number that JSON or a loss can hold")


def parse(text: str, where: str) -> Any:
    """Parse JSON from an untrusted file; NaN and Infinity are errors."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where}: expected one JSON value, got {shown(text)}: {error.msg} at column {error.colno}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: expected one JSON value, got {shown(text)}: {error}") from None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a file, gzip by its suffix; what goes wrong while it is read becomes a DataError naming it."""
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            yield file
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: not a whole gzip file ({error}); copy or download it again") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


def _text(raw: bytes, where: str, *, start: bool) -> str:
    try:
        return raw.decode("utf-8-sig" if start else "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: expected UTF-8 text, {error.reason} at byte {error.start}") from None


def json_lines(path: str | Path) -> Iterator[tuple[str, Any]]:
    """Yield `FILE:LINE` and the JSON value of each line that is not blank; a last line cut short is an error."""
    path = existing(path)
    with _opened(path) as file:
        for number, raw in enumerate(file, start=1):
            where = f"{path}:{number}"
            if (line := _text(raw, where, start=number == 1)).strip():
                yield where, parse(line, where)


def json_file(path: str | Path) -> Any:
    """Return the one JSON value of a file."""
    path = existing(path)
    with _opened(path) as file:
        return parse(_text(file.read(), str(path), start=True), str(path))


def json_objects(path: str | Path) -> Iterator[Record]:
    """Yield `FILE[NUMBER]`, from 0, and each object of a file that is a JSON array of them.

    Raises:
        DataError: the file is anything else, or an empty array.
    """
    found = json_file(path)
    if not isinstance(found, list) or not found:
        raise DataError(f"{path}: expected a JSON array of objects, got {shown(found)}")
    yield from _objects((f"{path}[{i}]", value) for i, value in enumerate(found))


def _is_array(path: Path) -> bool:
    with _opened(path) as file:
        return file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"["


def _parquet(path: Path) -> Iterator[Record]:
    import pyarrow as arrow
    import pyarrow.parquet

    try:
        file = arrow.parquet.ParquetFile(path)
        number = 0
        for batch in file.iter_batches(1024):
            for record in batch.to_pylist():
                number += 1
                yield f"{path}:row {number}", record
    except (arrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file: {error}") from None


def _objects(values: Iterator[tuple[str, Any]]) -> Iterator[Record]:
    for where, value in values:
        if not isinstance(value, dict):
            raise DataError(f"{where}: expected one JSON object with columns, got {shown(value)}")
        yield where, value


def file_records(path: str | Path) -> Iterator[Record]:
    """Yield the records of a data file, by its suffix; `.json` may hold one array or JSON lines."""
    path = existing(path)
    if path.suffix == ".parquet":
        return _parquet(path)
    if ".json" in path.suffixes and _is_array(path):
        return _objects((f"{path}[{i}]", value) for i, value in enumerate(json_file(path)))
    if path.name.endswith(SUFFIXES):
        return _objects(json_lines(path))
    raise DataError(f"{path}: unknown kind of data file; known: {', '.join(SUFFIXES)}")


def hub_records(name: str, split: str | None, limit: int | None, config: str | None = None) -> Iterator[Record]:
    """Yield the records of a hub dataset (`org/name` or `org/name:config`) or a folder of data files.

    Streams where a `limit` is given, so that a quick look at a large set does not download it.
    """
    import datasets

    folder = Path(name).expanduser()
    path, _, named = (str(folder), "", "") if folder.is_dir() else name.partition(":")
    if config and named:
        raise DataError(f"dataset {name!r}: has the config {named!r} in its name already, and {config!r} beside it")
    split = split or "train"
    try:
        table = datasets.load_dataset(path, named or config, split=split, streaming=limit is not None)
        for number, record in enumerate(islice(table, limit)):
            yield f"{name}[{split}] row {number}", dict(record)
    except DataError:
        raise
    except (ConnectionError, TimeoutError, FileNotFoundError) as error:
        raise DataError(
            f"dataset {name!r}: no such file, and not reachable on the hub ({type(error).__name__}: {_first(error)}). "
            "Offline? Download it once where there is a connection (`hf download --repo-type dataset ...`), or give a "
            f"local file ({', '.join(SUFFIXES)}); behind a mirror set HF_ENDPOINT"
        ) from None
    except Exception as error:  # datasets raises its own, pyarrow's, fsspec's and requests' errors
        raise DataError(f"dataset {name!r}, split {split!r}: {type(error).__name__}: {_first(error)}") from None


def _first(error: BaseException) -> str:
    return ascii(str(error).split("\n")[0][:200])[1:-1]


def records(
    spec: str | Path, *, split: str | None = None, limit: int | None = None, config: str | None = None
) -> Iterator[Record]:
    """Yield place and columns of every record of a file, a folder or a hub dataset, which alone has configs."""
    text = str(spec)
    path = Path(text).expanduser()
    if path.is_file() or text.endswith(SUFFIXES):
        if config:
            raise DataError(f"{text}: a file has no config {config!r}; leave it out, or give a hub dataset or a folder")
        return file_records(path)
    if path.is_dir() or HUB_ID.fullmatch(text):
        return hub_records(text, split, limit, config)
    existing(path)
    raise AssertionError("unreachable: `existing` raised")
