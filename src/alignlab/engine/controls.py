"""Control tokens are the chat template's to write: a content that spells one out is read as the characters it is.

A retrieved passage that says `<|im_end|>` would otherwise end the user's turn and could open one of its own. Contents
are rendered twice, the second time with blanks in place of such spellings, so that what is left is the template's own.
Text without spellings is tokenised as ever. (Plain-text prompts are the caller's whole text and are taken as they are.)
"""

import functools
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from alignlab.core.types import Message


class Rendered(NamedTuple):
    """Messages as one text, and the same with a blank for every character of control tokens that contents spell out."""

    text: str
    masked: str


class Controls(NamedTuple):
    """What may end or open a turn: patterns for contents of others, of the assistant, and for the template's text."""

    foreign: re.Pattern[str]
    own: re.Pattern[str]
    written: re.Pattern[str]
    ids: frozenset[int]


def special_ids(tokenizer: Any) -> set[int]:
    """Return the ids of all tokens that a tokenizer calls special."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return set(getattr(tokenizer, "all_special_ids", ())) | {i for i, token in added.items() if token.special}


def controls(tokenizer: Any) -> Controls:
    """Return the control tokens: the special ones, and, outside the assistant's words, what the template names.

    Some tokenizers do not call their turn markers special. The assistant may write what the template names, such as
    `<think>`, and means the token. A single character is no control token, whatever a tokenizer says.
    """
    return _controls(tokenizer, str(tokenizer.chat_template), getattr(tokenizer, "__len__", int)())


@functools.lru_cache(maxsize=32)
def _controls(tokenizer: Any, template: str, size: int) -> Controls:  # noqa: ARG001 - the size is part of the cache key
    added = getattr(tokenizer, "added_tokens_decoder", {})
    special = {tokenizer.convert_ids_to_tokens(i): added.get(i) for i in special_ids(tokenizer)}
    special = {text: token for text, token in special.items() if len(text.strip()) > 1}
    named = {t.content: t for t in added.values() if t.content in template and len(t.content.strip()) > 1}
    every = special | named

    def pattern(tokens: dict[str, Any], *, with_space: bool = False) -> re.Pattern[str]:
        found = []
        for text in sorted(tokens, key=len, reverse=True):
            before, after = (with_space and getattr(tokens[text], side, False) for side in ("lstrip", "rstrip"))
            found.append((r"\s*" if before else "") + re.escape(text) + (r"\s*" if after else ""))
        return re.compile("|".join(found) or r"(?!)")

    ids = frozenset(tokenizer.convert_tokens_to_ids(text) for text in every)
    return Controls(pattern(every), pattern(special), pattern(every, with_space=True), ids)


def render(tokenizer: Any, messages: Sequence[Message], **options: Any) -> Rendered:
    """Render messages with the tokenizer's chat template; `options` are those of `apply_chat_template`."""
    turns = [dict(m) for m in messages]
    text = tokenizer.apply_chat_template(turns, tokenize=False, **options)
    known = controls(tokenizer)
    blank = next(chr(code) for code in range(0xE000, 0xF900) if chr(code) not in text)

    def changed(mark: Any) -> list[dict[str, Any]]:
        patterns = {"assistant": known.own}
        return [m | {"content": patterns.get(m["role"], known.foreign).sub(mark, str(m["content"]))} for m in turns]

    blanked = changed(lambda found: blank * len(found[0]))
    if all(m["content"] == str(turn["content"]) for m, turn in zip(blanked, turns)):
        return Rendered(text, text)
    masked = tokenizer.apply_chat_template(blanked, tokenize=False, **options)
    if len(masked) == len(text):
        return Rendered(text, masked)
    # The template itself looks for the token in contents, so the spelling is broken where blanks would change more.
    broken = changed(lambda found: f"{found[0][0]} {found[0][1:]}")
    text = tokenizer.apply_chat_template(broken, tokenize=False, **options)
    return Rendered(text, text)


def tokenise(tokenizer: Any, chats: Sequence[Rendered]) -> list[list[int]]:
    """Tokenise rendered chats; the template has written its special tokens, so none is added."""
    encoded = tokenizer([chat.masked for chat in chats], add_special_tokens=False, return_attention_mask=False)
    return [
        ids if chat.masked == chat.text else _unblanked(tokenizer, chat, ids)
        for chat, ids in zip(chats, encoded["input_ids"])
    ]


def _unblanked(tokenizer: Any, chat: Rendered, ids: list[int]) -> list[int]:
    """Return ids with the stretches between control tokens that hold blanks replaced by those of their characters."""
    known = controls(tokenizer)
    marks, stretches, last = [], [], 0
    for found in known.written.finditer(chat.masked):
        stretches.append((last, found.start()))
        marks.append(tokenizer.convert_tokens_to_ids(found[0].strip()))
        last = found.end()
    stretches.append((last, len(chat.masked)))
    runs: list[list[int]] = [[]]
    for i in ids:
        if i in known.ids:
            runs.append([])
        else:
            runs[-1].append(i)
    found_ids: list[int] = []
    for number, (start, stop) in enumerate(stretches):
        text, masked = chat.text[start:stop], chat.masked[start:stop]
        run = runs[number] if len(runs) == len(stretches) else None
        found_ids += run if run is not None and text == masked else _as_text(tokenizer, text, masked, run)
        found_ids += marks[number : number + 1]
    return found_ids


def _as_text(tokenizer: Any, text: str, masked: str, run: list[int] | None) -> list[int]:
    """Tokenise a stretch without seeing control tokens in it; `run`: the ids of `masked` where it stands."""

    def alone(words: str) -> list[int]:
        encoded = tokenizer(words, add_special_tokens=False, split_special_tokens=True, return_attention_mask=False)
        return list(encoded["input_ids"]) if words else []

    def behind(words: str) -> list[int]:  # some tokenizers put a space in front of what begins a text
        line, ids = alone("\n"), alone("\n" + words)
        return ids[len(line) :] if ids[: len(line)] == line else alone(words)

    way = behind if run is not None and alone(masked) != run and behind(masked) == run else alone
    known = controls(tokenizer)
    if not known.ids.intersection(ids := way(text)):
        return ids
    # Not called special, or a word of the model's own vocabulary: cut after its first character it is neither.
    cuts = [0, *(found.start() + 1 for found in known.foreign.finditer(text)), len(text)]
    return [i for start, stop in zip(cuts, cuts[1:]) for i in (way if start == 0 else behind)(text[start:stop])]
