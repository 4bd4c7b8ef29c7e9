"""Words and numbers for people: formatted, free of secrets, and harmless whatever a model wrote."""

import dataclasses
import math
import os
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import yaml

from alignlab.core.answers import readable

REDACTED = "[redacted]"
_SECRET_NAME = re.compile(
    r"(api_?key|secret|passw(or)?d|authori[sz]ation|credential|(^|api|access|auth|bearer|hf|hub)_?token)$",
    re.IGNORECASE,
)
_SECRET_VALUE = re.compile(r"\b(sk-[\w-]{16,}|hf_\w{20,}|gh[pousr]_\w{20,}|AKIA\w{16}|(?<=Bearer )[\w.~+/-]{12,})")


@lru_cache(maxsize=4096)
def _secret(name: str) -> bool:
    return bool(_SECRET_NAME.search(name.replace("-", "_")))


def redact(text: str) -> str:
    """Return text without secrets: values of environment variables named like keys, and what has a key's shape."""
    for name, value in os.environ.items():
        if len(value) >= 8 and _secret(name):
            text = text.replace(value, REDACTED)
    return _SECRET_VALUE.sub(REDACTED, text)


def plain(value: Any, name: str = "") -> Any:
    """Return a value as JSON and YAML can hold it, NaN and infinity as None, secrets redacted by name and value.

    Dataclasses and mappings become dicts, other collections lists (sets sorted), numpy scalars numbers, the rest text.
    """
    if isinstance(value, str) and value and _secret(name):
        return REDACTED
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item, str(key)) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted((plain(item) for item in value), key=str)
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist") and hasattr(value, "dtype"):  # numpy and torch, without importing either
        return plain(value.tolist())
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int)):
        return value
    return redact(str(value))


def number(value: Any) -> str:
    """Return a number with three digits or so, a dash for what is missing, and other values as text."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, (int, float)):
        return show(value)
    if isinstance(value, int):
        shown = f"{value:,}"
    elif not math.isfinite(value):
        shown = "∞" if value > 0 else "-∞"
    elif value and not 1e-3 <= abs(value) < 1e6:
        shown = f"{value:.2e}"
    else:
        size = abs(value)
        shown = f"{value:,.{0 if size >= 1000 else 1 if size >= 100 else 2 if size >= 10 else 3}f}"
    return shown.replace("-", "−")


def show(value: Any, limit: int | None = 4000) -> str:
    """Return any value as harmless text of at most `limit` characters and a word on what was cut."""
    return readable(redact(value if isinstance(value, str) else str(plain(value))), limit)


def duration(seconds: float) -> str:
    """Return seconds as people say them."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def escape_json(text: str) -> str:
    """Escape what JSON leaves raw but a terminal or a script block would obey; the JSON means the same."""
    return _STEERING.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def yaml_text(value: Any) -> str:
    """Return plain settings as YAML; other scripts as written, unless something in it would steer a terminal."""
    text = str(yaml.safe_dump(plain(value), sort_keys=False, allow_unicode=True, width=1000))
    return text if not _STEERING.search(text) else str(yaml.safe_dump(plain(value), sort_keys=False, width=1000))


_STEERING = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
