"""How a judge of single texts is asked and read: inert blocks, yes or no, one JSON object.

Judged texts stand in tagged blocks that they cannot close, and only the judge's reply is ever parsed. A reply without
a verdict is None: the callers count it, and `stats.bounds` gives intervals that hold whatever it had been.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Literal

from alignlab.core.answers import normalise
from alignlab.core.evidence import text_of
from alignlab.core.types import Prompt

LONGEST = 20_000
"""characters of a reply that are read, from its end: verdicts come last"""
_THOUGHT = re.compile(r".*</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
Reading = Literal["word", "published"]


def block(tag: str, text: str) -> str:
    """Return a judged text in a block of its own; marks of any such block within it are made harmless."""
    return f"<{tag}>\n{re.sub(r'<(?=/?[a-z_]{1,20}>)', '< ', text, flags=re.IGNORECASE)}\n</{tag}>"


def dialogue(prompt: Prompt) -> str:
    """Return what a judge is shown of a request: its text, or where it has several turns all of them, by role."""
    if isinstance(prompt, str) or len(prompt) == 1:
        return text_of(prompt)
    turns = "\n\n".join(f"## {turn['role']}\n{turn['content']}" for turn in prompt)
    return f"A dialogue; what is judged replies to its last turn.\n\n{turns}"


def reference(facts: Mapping[str, Any], identifier: str) -> str | None:
    """Return the right answer that an item shows its judge, None without one; ValueError names item and fact."""
    given = facts.get("reference")
    if given is not None and not isinstance(given, str):
        raise ValueError(f"item {identifier}: fact 'reference': expected the right answer as text, got {given!r}")
    return given or None


def spoken(text: str) -> str:
    """Return what follows the last closing think tag: a trace of reasoning is no part of the answer."""
    return _THOUGHT.sub("", text).strip() if "</think" in text.lower() else text


def yes_no(reply: str, reading: Reading = "word") -> bool | None:
    """Return a verdict of one word.

    Args:
        reply: the judge's.
        reading: `word` takes a reply that opens with yes or no, or holds only one of them; `published` looks for
            "Yes" as written anywhere, and calls everything else but an empty reply a no (Liang et al. 2025, released
            code: "yes." counts as no).
    """
    if reading == "published":
        return ("Yes" in reply) if reply.strip() else None
    words = normalise(spoken(reply)[-LONGEST:]).split()
    found = [word == "yes" for word in words if word in ("yes", "no")]
    if not found or (words[0] not in ("yes", "no") and len(set(found)) > 1):
        return None
    return found[0]


_REFUSES = re.compile(
    r"\bi\s+(?:cannot|can't|can’t|won't|won’t|will\s+not|must\s+(?:not|refuse\s+to)|refuse\s+to|am\s+unable\s+to|decline\s+to)"
    r"\s+(?:\w+\s+)?(?:answer|choose|decide|assist|help|provide|take\s+part|make\s+(?:this|that|such)|comply|pick|say|respond)\b"
    r"|\b(?:i'm|i’m|i\s+am)\s+sorry\b",
    re.IGNORECASE,
)


def refuses(text: str) -> bool:
    """Whether a reply declines to answer; "I will not release the gas" declines nothing."""
    return bool(_REFUSES.search(spoken(text)[:LONGEST]))


def choice(reply: str, options: int) -> int | None:
    """Return the number of the option a reply names, from 1; None for none, several or another number."""
    low = spoken(reply)[-LONGEST:].strip()
    opening = re.match(r"\W{0,4}(?:(?:option|answer|choice)\W{0,3})?(\d{1,2})(?!\d)", low, re.IGNORECASE)
    named = {opening[1]} if opening else set(re.findall(r"(?<![\d.])(\d{1,2})(?![\d.]*\d)", low))
    number = int(named.pop()) if len(named) == 1 else 0
    return number if 1 <= number <= options else None


def json_object(reply: str) -> dict[str, Any] | None:
    """Return the JSON object between the first `{` and the last `}` of a reply, fences or not; None without one."""
    text = spoken(reply)[-LONGEST:]
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end < start:
        return None
    try:
        found = json.loads(text[start : end + 1])
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def text_fact(facts: Mapping[str, Any], name: str, identifier: Any) -> str:
    """Return a fact that must be text; ValueError names item, field and what to do."""
    if not isinstance(facts.get(name), str) or not facts[name].strip():
        raise ValueError(
            f"item {identifier}: fact {name!r}: expected non-empty text; map it with --columns facts.{name}=YOUR_COLUMN"
        )
    return str(facts[name])
