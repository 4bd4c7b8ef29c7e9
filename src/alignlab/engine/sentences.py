"""Texts by sentences, in token ids: where a sentence ends, texts sampled from a model, prompts cut after a sentence."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from alignlab.core.types import Prompt
from alignlab.engine.encode import prompt_ids

_CLOSING = set("\"'\u201d\u2019)]")
_END = re.compile(r"[.!?][\"'\u201d\u2019)\]]*(?=\s|$)|\n")


@dataclass(frozen=True, kw_only=True)
class Text:
    """One text of a model, after a start that is not part of it."""

    ids: tuple[int, ...]
    ends: tuple[int, ...]
    """tokens up to and including sentence 1, 2, ...; what follows the last one is unfinished"""

    def tokens(self, first: int, last: int) -> slice:
        """Return the places of the tokens of sentences first + 1 .. last."""
        borders = (0, *self.ends)
        return slice(borders[first], borders[last])


def sentence_ends(tokenizer: Any, ids: Sequence[int]) -> tuple[int, ...]:
    """Return, for each sentence, the number of tokens up to and including its last.

    A sentence has a letter or a figure, and ends in a full stop, question or exclamation mark before white space or the
    end of the text, or at a line break. Abbreviations end sentences too.
    """
    found: list[int] = []
    alone = tokenizer.batch_decode([[i] for i in ids], skip_special_tokens=True)

    def joined(place: int) -> str:
        """Return the text that a token adds to the one before it."""
        both = tokenizer.decode(list(ids[place - 1 : place + 1]), skip_special_tokens=True)
        return str(both[len(alone[place - 1]) :])

    for place, piece in enumerate(alone):
        if not any(sign in piece for sign in ".!?\n"):
            continue
        stop = place + 1
        while stop < len(ids) and alone[stop].strip() and set(joined(stop)) <= _CLOSING:
            stop += 1
        # the neighbour says whether white space follows; a lone token may have lost its own
        match = _END.search(tokenizer.decode(list(ids[place : stop + 1]), skip_special_tokens=True))
        last = found[-1] if found else 0
        said = tokenizer.decode(list(ids[last:stop]), skip_special_tokens=True)
        if match and match.start() < len(piece) and any(letter.isalnum() for letter in said):
            found.append(stop)
    return tuple(found)


def default_start(tokenizer: Any) -> str:
    """Return the prompt that stands for the beginning of a text: empty, or the end of the one before (GPT-2)."""
    return "" if tokenizer("")["input_ids"] else str(tokenizer.eos_token)


def after(tokenizer: Any, start: Prompt, ids: Sequence[int]) -> Prompt:
    """Return the prompt that reads `start` and then these tokens; in a chat they are the assistant's, left open."""
    if not ids:
        return start
    if isinstance(start, str):
        before = prompt_ids(tokenizer, [start])[0]
        shown = tokenizer.decode(before, skip_special_tokens=True)
        return start + str(tokenizer.decode([*before, *ids], skip_special_tokens=True))[len(shown) :]
    said = tokenizer.decode(list(ids), skip_special_tokens=True)
    if start[-1]["role"] == "assistant":
        return (*start[:-1], {"role": "assistant", "content": start[-1]["content"] + said})
    return (*start, {"role": "assistant", "content": said})


def sample_texts(
    model: Any,
    start: Prompt,
    count: int,
    *,
    max_tokens: int,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> list[Text]:
    """Return `count` texts that the model says after `start`, at temperature 1."""
    drawn = model.sample([start], n=count, max_tokens=max_tokens, seed=seed)[0]
    if progress is not None:
        progress(count)
    return [Text(ids=sample.ids, ends=sentence_ends(model.tokenizer, sample.ids)) for sample in drawn]


def first_sentence(text: str) -> str:
    """Return the text up to the end of its first sentence, without white space around it."""
    text = text.strip()
    match = _END.search(text)
    return text[: match.end()].strip() if match else text
