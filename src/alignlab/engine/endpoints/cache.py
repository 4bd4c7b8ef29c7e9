"""Answers kept by content: one SQLite file, safe under several processes and under `kill -9`.

A row's key is a digest of everything that decides an answer: who is asked (for a local model the digest of its
weights, tokenizer and template), the prompt, the sampling parameters, the seed and the number of the draw. Each answer
is committed by itself, so a batch that ends early keeps what it had. The folder is 0700 and its files are 0600.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from alignlab.core.types import Sample

VERSION = 1
WAIT = 60.0
"""seconds to wait for another process that is writing"""
FILE = "answers.sqlite"


class CacheError(RuntimeError):
    """The answer cache cannot be read or written; the message names the file and what to do."""


def default_folder() -> Path:
    """Return `$ALIGNLAB_CACHE`, else `alignlab` in the user's cache folder."""
    given = os.environ.get("ALIGNLAB_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(given) if given else Path(base) / "alignlab"


def key_of(parts: Mapping[str, Any]) -> str:
    """Return the digest of a JSON-able mapping; raises TypeError on objects, which have no content."""
    text = json.dumps({"version": VERSION, **parts}, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _packed(sample: Sample) -> str:
    return json.dumps(dataclasses.asdict(sample), allow_nan=False)


def _unpacked(text: str) -> Sample:
    fields = json.loads(text)
    return Sample(**{name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()})


class AnswerCache:
    """Sample by key, on disk."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.path = Path(folder) / FILE
        self._lock = threading.Lock()
        self._owner: tuple[int, sqlite3.Connection] | None = None

    @contextlib.contextmanager
    def _using(self) -> Iterator[sqlite3.Connection]:
        """Yield this process's connection; a connection must not cross a fork."""
        with self._lock:
            try:
                if self._owner is None or self._owner[0] != os.getpid():
                    self._owner = (os.getpid(), self._open())
                yield self._owner[1]
            except (sqlite3.Error, OSError) as error:
                raise CacheError(
                    f"answer cache {self.path}: {error}. Answers had so far are kept where they could be written; free "
                    "some space, remove the file if it is damaged, or choose another folder with cache_dir or "
                    "ALIGNLAB_CACHE"
                ) from None

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # SQLite gives its -wal and -shm files the mode of the database
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        self.path.chmod(0o600)
        connection = sqlite3.connect(self.path, timeout=WAIT, isolation_level=None, check_same_thread=False)
        deadline = time.monotonic() + WAIT
        while True:
            try:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=NORMAL")
                connection.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL)")
                return connection
            except sqlite3.OperationalError as error:
                # switching to WAL does not wait for another process that is switching too
                if "locked" not in str(error) or time.monotonic() > deadline:
                    connection.close()
                    raise
                time.sleep(0.02)

    def get(self, keys: Sequence[str]) -> dict[str, Sample]:
        """Return the known ones of these keys."""
        found: dict[str, Sample] = {}
        with self._using() as connection:
            for start in range(0, len(keys), 500):
                part = keys[start : start + 500]
                marks = ",".join("?" * len(part))
                for key, text in connection.execute(f"SELECT key, answer FROM answers WHERE key IN ({marks})", part):
                    # a row that somebody edited into nonsense is asked again, not believed
                    with contextlib.suppress(ValueError, TypeError, AttributeError):
                        found[key] = _unpacked(text)
        return found

    def put(self, key: str, sample: Sample) -> Sample:
        """Keep an answer and return the one kept: the first, where another process was faster."""
        with self._using() as connection:
            connection.execute("INSERT OR IGNORE INTO answers VALUES (?, ?)", (key, _packed(sample)))
            (text,) = connection.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
            try:
                return _unpacked(text)
            except (ValueError, TypeError, AttributeError):
                connection.execute("REPLACE INTO answers VALUES (?, ?)", (key, _packed(sample)))
                return sample

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            if self._owner is not None and self._owner[0] == os.getpid():
                self._owner[1].close()
            self._owner = None
