"""Answers out of untrusted text: normalise, compare, parse a final answer or a choice, show it harmlessly.

Nothing here evaluates what it reads, and every function is linear in the length of the text.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import Literal

ARTICLES = frozenset({"a", "an", "the"})
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_JOINERS = "\u200c\u200d"  # Persian and emoji need them; they move nothing


class _Folding(dict[int, str]):
    """Translation table: punctuation and control characters vanish, dashes and white space become a space."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        category = unicodedata.category(char)
        if char.isspace() or category == "Pd":
            folded = " "
        elif category.startswith("P") or category in ("Cc", "Cf", "Cs", "Sk"):
            folded = ""
        else:
            folded = char
        self[code] = folded
        return folded


class _Showing(dict[int, str]):
    """Translation table: what could steer a terminal or reorder a line becomes a visible sign."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        category = unicodedata.category(char)
        if char in "\n\t" or char in _JOINERS:
            shown = char
        elif code < 0x20:
            shown = chr(0x2400 + code)
        elif code == 0x7F:
            shown = "\u2421"
        elif category == "Cs":
            shown = "\ufffd"
        elif category in ("Cc", "Cf", "Zl", "Zp"):
            shown = f"<U+{code:04X}>"
        else:
            shown = char
        self[code] = shown
        return shown


_FOLDING, _SHOWING = _Folding(), _Showing()


def readable(text: str, limit: int | None = None) -> str:
    """Return text that no terminal obeys: control, bidirectional and surrogate characters become visible signs.

    Line feeds and tabs stay; CR LF becomes one line feed. With `limit`, at most so many characters of the text are
    kept and the number left out is said.
    """
    left_out = 0 if limit is None else max(0, len(text) - limit)
    kept = text[:limit] if left_out else text
    shown = kept.replace("\r\n", "\n").translate(_SHOWING)
    return f"{shown} [... {left_out:,} more characters]" if left_out else shown


def normalise(text: str) -> str:
    """Return the text in lower case without punctuation, control characters, articles and repeated white space.

    Dashes count as spaces. A text of articles alone keeps them: the answer "A" is "a", not "".
    """
    words = unicodedata.normalize("NFKC", text).lower().translate(_FOLDING).split()
    return " ".join([word for word in words if word not in ARTICLES] or words)


def same(answer: str | None, reference: str | None) -> bool:
    """Whether two answers are equal once normalised; None and empty answers equal nothing."""
    return bool(answer and reference) and normalise(answer or "") == normalise(reference or "") != ""


def contains(reply: str, answer: str) -> bool:
    """Whether the normalised answer is a substring of the normalised reply, PoisonedRAG's way of scoring.

    Not for traces: they quote the poison they reject. Score their final answer.
    """
    wanted = normalise(answer)
    return bool(wanted) and wanted in normalise(reply)


def final_answer(
    text: str,
    marker: str,
    *,
    end: str | None = None,
    which: Literal["last", "only"] = "last",
    longest: int = 500,
) -> str | None:
    """Return what follows the marker, as written but for outer white space and control characters; else None.

    Args:
        text: untrusted reply.
        marker: the fixed final-answer marker, matched literally without regard to case.
        end: cut the answer at this mark; without it the answer is the first non-empty line after the marker.
        which: `last` takes the last marker, `only` calls a reply with several markers unparsed.
        longest: an answer of more characters is unparsed.
    """
    if not marker.strip():
        raise ValueError("final_answer: the marker is empty; give a fixed text that ends the reasoning")
    ends = [match.end() for match in re.finditer(re.escape(marker), text, re.IGNORECASE)]
    if not ends or (which == "only" and len(ends) > 1):
        return None
    tail = text[ends[-1] :]
    if end is not None:
        tail = re.split(re.escape(end), tail, maxsplit=1, flags=re.IGNORECASE)[0]
    line = next((line for line in tail.split("\n") if line.strip()), "") if end is None else tail
    if len(line) > 2 * longest:
        return None
    kept = "".join(c if not c.isspace() else " " for c in line if c.isspace() or unicodedata.category(c)[0] != "C")
    answer = " ".join(kept.split())
    return answer if answer and len(answer) <= longest and normalise(answer) else None


def first_choice(text: str, options: Sequence[str]) -> str | None:
    """Return the letter (A, B, ...) of the option a reply chooses first; None where it chooses none.

    In this order: a letter that opens the reply ("B", "(b)", "B. because"); "answer is B", "option: B" and the like;
    the reply is an option's text ("Uncertain"); a capital letter on its own (an "A" before a lower-case word is an
    article); the one option whose text occurs in the reply. Raises ValueError for more options than letters.
    """
    if not 0 < len(options) <= len(LETTERS):
        raise ValueError(f"first_choice: {len(options)} options; between 1 and {len(LETTERS)} can be lettered")
    letters = LETTERS[: len(options)]
    span = f"{letters[0]}-{letters[-1]}"
    reply = " ".join(readable(text).split())
    patterns = (
        re.compile(rf"\W{{0,8}}([{span}{span.lower()}])(?:[.:),\]*]|\s?$)"),
        re.compile(rf"\b(?:(?i:answer|choice|option|choose|pick)(?:(?i: is)|:| is:)?)\s?\W{{0,4}}([{span}])(?![\w'’])"),
    )
    if found := patterns[0].match(reply) or patterns[1].search(reply):
        return found.group(1).upper()
    texts = [normalise(option) for option in options]
    whole = normalise(text)
    if whole and whole in texts:
        return letters[texts.index(whole)]
    if found := re.search(rf"(?<![\w'’])(?!A [a-z])([{span}])(?![\w'’])", reply):
        return found.group(1)
    padded = f" {whole} "
    named = [i for i, option in enumerate(texts) if option and f" {option} " in padded]
    return letters[named[0]] if len(named) == 1 else None


def named(low: str, phrases: Sequence[str], gap: int = 0) -> tuple[list[int], str]:
    """Return which of some phrases a text names, and what stands beside them; both are normalised already.

    Longer phrases are looked for first and taken out, since "strongly agree" holds "agree". With `gap`, up to so many
    words may stand between each two of a phrase's; they count as beside it.
    """
    rest, found = f" {low} ", []
    for i in sorted(range(len(phrases)), key=lambda i: -len(phrases[i])):
        between = f"((?: [^ ]+){{0,{gap}}}?) "
        spread = re.compile(rf"(?<!\S){between.join(map(re.escape, phrases[i].split()))}(?!\S)")
        if phrases[i] and spread.search(rest):
            found.append(i)
            rest = spread.sub(lambda match: " ".join(match.groups()), rest)
    return found, rest
