"""Words and numbers for people: formatted, free of secrets, and harmless whatever a model wrote."""

import math
import re
from typing import Any

import yaml

from alignlab.core.answers import readable
from alignlab.core.redact import REDACTED, plain, redact

__all__ = ["REDACTED", "duration", "escape_json", "number", "plain", "redact", "show", "yaml_text"]


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
