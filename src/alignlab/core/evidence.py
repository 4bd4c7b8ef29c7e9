"""The retrieval prompt: numbered evidence blocks, then the question; written and read back in one place."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from alignlab.core.types import Prompt, Row

QUESTION = "Question:"
_BLOCK = re.compile(r"^\d+((?: \(.*?\))?: .*)$", re.MULTILINE)


def block(index: int, context: Mapping[str, Any]) -> str:
    """Return one evidence block on one line, headed by its source and date where it has them."""
    head = " ".join(" ".join(str(context[key]).split()) for key in ("source", "date") if context.get(key))
    text = " ".join(str(context["text"]).split())
    return f"{index} ({head}): {text}" if head else f"{index}: {text}"


def retrieval(
    question: str, contexts: Sequence[Mapping[str, Any]], instruction: str = "", numbers: Sequence[int] = ()
) -> str:
    """Return evidence, question and, for models that were not taught to, how to give the final answer.

    `numbers` are those of the passages, if not 1, 2, 3 and so on.
    """
    numbered = zip(numbers or range(1, len(contexts) + 1), contexts, strict=True)
    lines = [block(number, context) for number, context in numbered]
    return "\n".join([*lines, f"{QUESTION} {question}", *([instruction] if instruction else [])])


def split(text: str) -> tuple[list[str], str]:
    """Return (evidence blocks, each as number 1, and everything from the question on) of a `retrieval` prompt.

    Raises ValueError when the text holds no question line.
    """
    evidence, mark, rest = text.partition(f"\n{QUESTION}")
    if not mark:
        raise ValueError(f"not a retrieval prompt: no line starts with {QUESTION!r}")
    return [f"1{match[1]}" for match in _BLOCK.finditer(evidence)], mark.strip() + rest


def is_retrieval(text: str) -> bool:
    """Whether a text has passages in front of its question."""
    return f"\n{QUESTION}" in text


def text_of(prompt: Prompt) -> str:
    """Return the last user turn of a prompt, or the prompt itself when it is plain text."""
    return prompt if isinstance(prompt, str) else prompt[-1]["content"]


def ask(text: str) -> Prompt:
    """Return a prompt of one user turn."""
    return ({"role": "user", "content": text},)


def digest(prompt: Prompt) -> str:
    """Return 16 hex digits of a whole prompt; one turn and its bare text are the same request."""
    turns = [prompt] if isinstance(prompt, str) else [turn["content"] for turn in prompt]
    return hashlib.sha256("\x1f".join(turns).encode()).hexdigest()[:16]


def identifier(item: Row) -> str:
    """Return the item's id, or a digest of its request."""
    return str(item.meta.get("id") or digest(item.prompt))
