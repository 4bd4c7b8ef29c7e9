"""The journal of a run: every answer as it comes, so that a run that was killed goes on where it was.

A line's key is a digest of everything that decides the answer: who answers, the Ask, the seed. So a finished answer is
never asked for again, items may be added or taken away, and the answer of one model never passes for another's: each
set of identities has a file of its own, whose first line names them.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from alignlab.core.types import Reply

VERSION = 1


class JournalError(ValueError):
    """A journal that cannot be gone on with; the message names the file and says what to do."""


def digest(value: Any) -> str:
    """Return 32 hex digits of JSON-able content; TypeError for objects, which have none."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class Journal:
    """Reply by key, in one JSONL file that only its owner may read.

    A torn last line, left by a kill inside a write, is forgotten; so is any line that is not one of ours.
    """

    def __init__(self, folder: str | os.PathLike[str], who: Mapping[str, Any]) -> None:
        """Open the journal of `who` in a folder, or begin it.

        Args:
            folder: of the run.
            who: what decides the answers as a whole, JSON-able: the eval, the model's identity.

        Raises:
            JournalError: the file that `who` would have there is another's, or no journal.
        """
        self.who = json.loads(json.dumps(who))
        self.path = Path(folder) / f"journal-{digest(self.who)[:12]}.jsonl"
        self.known: dict[str, Reply] = {}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists() and self.path.stat().st_size:
            self._read()
        else:
            self._write(json.dumps({"journal": VERSION, "who": self.who}) + "\n")

    def _read(self) -> None:
        raw = self.path.read_bytes()
        first, *lines = raw.split(b"\n")
        header = _object(first)
        if header.get("journal") != VERSION or header.get("who") != self.who:
            raise JournalError(
                f"{self.path}: this journal belongs to {header.get('who', 'something else')}, not to {self.who}; "
                "remove the file or choose another --output_dir"
            )
        for line in lines:
            entry = _object(line)
            key, text, logp = entry.get("key"), entry.get("text"), entry.get("logp", [])
            if isinstance(key, str) and isinstance(text, str) and isinstance(logp, list):
                self.known[key] = Reply(text, logp=logp)
        if not raw.endswith(b"\n"):
            self._write("\n")

    def get(self, key: str) -> Reply | None:
        """Return the reply to a key, if there is one."""
        return self.known.get(key)

    def put(self, replies: Iterable[tuple[str, Reply]]) -> None:
        """Keep a batch of replies: on disk when this returns. Failures are not kept, so that they are tried again."""
        lines = []
        for key, reply in replies:
            if reply.problem or key in self.known:
                continue
            self.known[key] = reply
            entry = {"key": key, "text": str(reply), **({"logp": reply.logp} if reply.logp else {})}
            lines.append(json.dumps(entry, ensure_ascii=True) + "\n")
        if lines:
            self._write("".join(lines))

    def _write(self, text: str) -> None:
        # one write in append mode: lines of two processes may alternate, but never mix
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            data = text.encode("ascii")
            while data:
                data = data[os.write(descriptor, data) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _object(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
