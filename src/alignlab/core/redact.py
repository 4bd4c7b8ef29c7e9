"""What may be written down: plain values as JSON holds them, without secrets, by name, by value and by shape."""

import dataclasses
import math
import os
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

REDACTED = "[redacted]"
_SECRET_NAME = re.compile(
    r"(api_?key|secret|passw(or)?d|authori[sz]ation|credential|(^|api|access|auth|bearer|hf|hub)_?token)$",
    re.IGNORECASE,
)
_SECRET_VALUE = re.compile(r"\b(sk-[\w-]{16,}|hf_\w{20,}|gh[pousr]_\w{20,}|AKIA\w{16}|(?<=Bearer )[\w.~+/-]{12,})")


@lru_cache(maxsize=4096)
def _secret(name: str) -> bool:
    return bool(_SECRET_NAME.search(name.replace("-", "_")))


def redactor() -> Callable[[str], str]:
    """Return `redact` with the secrets of the environment as it is now, for many texts in a row."""
    secrets = [value for name, value in os.environ.items() if len(value) >= 8 and _secret(name)]

    def redacted(text: str) -> str:
        for value in secrets:
            text = text.replace(value, REDACTED)
        return _SECRET_VALUE.sub(REDACTED, text)

    return redacted


def redact(text: str) -> str:
    """Return text without secrets: values of environment variables named like keys, and what has a key's shape."""
    return redactor()(text)


def plain(value: Any, name: str = "", clean: Callable[[str], str] | None = None) -> Any:
    """Return a value as JSON and YAML can hold it, NaN and infinity as None, secrets redacted by name and value.

    Dataclasses and mappings become dicts, other collections lists (sets sorted), numpy scalars numbers, the rest text.
    `clean` takes secrets out of texts, by default `redact`.
    """
    clean = redactor() if clean is None else clean
    if isinstance(value, str) and value and _secret(name):
        return REDACTED
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item, str(key), clean) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted((plain(item, clean=clean) for item in value), key=str)
    if isinstance(value, (list, tuple)):
        return [plain(item, clean=clean) for item in value]
    if hasattr(value, "tolist") and hasattr(value, "dtype"):  # numpy and torch, without importing either
        return plain(value.tolist(), clean=clean)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int)):
        return value
    return clean(str(value))
