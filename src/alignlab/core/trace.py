"""The grammar of a dialectical answer: typed segments that a checker can verify without a judge.

One grammar serves generation, checking and parsing (Dialectical Alignment, arXiv 2404.00486; the paper's own
templates could not be read, so the grammar is reconstructed). A trace is lines of text:

    Memory: <remembered answer> <sure|fairly|unsure|unknown>
    Claims:
    <index> <quoted span or none> [weak|fair|good]
    Groups:
    <answer> = <indices>
    Conflict: <none|inter-context|context-memory|both>
    For <candidate>: <reason>        Against <candidate>: <reason>
    Weigh: <deciding reason>
    Answer: <final answer>
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from alignlab.core.answers import LETTERS, first_choice, normalise, same
from alignlab.core.conflict import kind

MARKER = "Answer:"
CONFIDENCE = (("sure", 0.9), ("fairly", 0.6), ("unsure", 0.3), ("unknown", 0.0))
"""word -> least confidence it stands for"""
NOTES = ("weak", "fair", "good")
REASONS = ("majority", "source", "date", "inconsistency", "type clash", "memory confidence", "no reason")


@dataclass(frozen=True)
class Strategy:
    """A reasoning path: which segments an answer shows, in which order."""

    name: str
    segments: tuple[str, ...]


STRATEGIES = {
    "P0": Strategy("direct", ("answer",)),
    "P1": Strategy("memory-only", ("memory", "answer")),
    "P2": Strategy("majority", ("claims", "groups", "answer")),
    "P3": Strategy("context-first", ("claims", "groups", "conflict", "memory", "weigh", "answer")),
    "P4": Strategy("memory-first", ("memory", "notes", "conflict", "weigh", "answer")),
    "P5": Strategy("vote-with-memory", ("claims", "memory", "groups", "answer")),
    "P6": Strategy("cue-based", ("notes", "weigh", "answer")),
    "P7": Strategy("thesis-antithesis-synthesis", ("groups", "memory", "debate", "weigh", "answer")),
    "P8": Strategy("hedge", ("claims", "memory", "conflict", "weigh", "answer")),
}
"""segment `notes` is `claims` with room for a reliability note each; a claim without one was not found reliable, so the
checker asks for none (the specification calls notes optional)"""


@dataclass(frozen=True, kw_only=True)
class Trace:
    """A parsed answer; a segment that is absent is None or empty, an answer that cannot be parsed is None."""

    claims: tuple[tuple[int, str | None, str | None], ...] = ()
    """(index, span or None, note or None)"""
    groups: tuple[tuple[str, tuple[int, ...]], ...] = ()
    conflict: str | None = None
    memory: tuple[str, str] | None = None
    """(remembered answer, confidence word)"""
    debate: tuple[tuple[str, str, str], ...] = ()
    """(For | Against, candidate, reason)"""
    weigh: str | None = None
    answer: str | None = None
    order: tuple[str, ...] = field(default=())
    """segments in the order in which they appeared"""


def confidence_word(confidence: float) -> str:
    """Return the word of the closed list for a confidence in [0, 1]."""
    return next(word for word, least in CONFIDENCE if confidence >= least)


def groups_of(claims: Sequence[str | None]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Return the distinct claims in order of appearance, with the 1-based indices that support each."""
    found: dict[str, list[int]] = {}
    for index, claim in enumerate(claims, 1):
        if claim is not None:
            found.setdefault(claim, []).append(index)
    return tuple((claim, tuple(indices)) for claim, indices in found.items())


def render(trace: Trace, segments: Sequence[str]) -> str:
    """Write the named segments of a trace, in this order."""
    parts: list[str] = []
    for segment in segments:
        if segment == "memory" and trace.memory:
            parts.append(f"Memory: {trace.memory[0]} {trace.memory[1]}")
        elif segment in ("claims", "notes"):
            kept = [(i, span, note if segment == "notes" and span else None) for i, span, note in trace.claims]
            lines = [" ".join(filter(None, (str(i), span or "none", note))) for i, span, note in kept]
            parts.append("\n".join(["Claims:", *lines]))
        elif segment == "groups":
            parts.append("\n".join(["Groups:", *(f"{a} = {' '.join(map(str, i))}" for a, i in trace.groups)]))
        elif segment == "conflict":
            parts.append(f"Conflict: {trace.conflict}")
        elif segment == "debate":
            parts.extend(f"{side} {candidate}: {reason}" for side, candidate, reason in trace.debate)
        elif segment == "weigh":
            parts.append(f"Weigh: {trace.weigh}")
        elif segment == "answer":
            parts.append(f"{MARKER} {trace.answer}")
    return "\n".join(parts)


_CLAIM = re.compile(r"(\d{1,4}) (.{1,400}?)(?: (" + "|".join(NOTES) + r"))?$")
_GROUP = re.compile(r"(.{1,400}?) = ([\d ]{1,400})$")
_DEBATE = re.compile(r"(For|Against) (.{1,400}?): (.{1,2000})$")
_MEMORY = re.compile(r"(.{1,400}?) (" + "|".join(word for word, _ in CONFIDENCE) + r")$")


def parse(text: str) -> Trace:
    """Read a trace; anything outside the grammar is skipped, and only one final-answer marker makes an answer."""
    found: dict[str, Any] = {"claims": [], "groups": [], "debate": []}
    order: list[str] = []
    answers: list[str] = []
    block = ""
    for line in (raw.strip()[:4096] for raw in text.splitlines()):
        head, _, rest = line.partition(":")
        rest = rest.strip()
        name = head.lower()
        if line.startswith(MARKER):
            answers.append(rest)
            block = ""
        elif name in ("claims", "groups") and not rest:
            block = name
        elif name in ("conflict", "weigh"):
            found[name], block = rest, ""
        elif name == "memory" and (match := _MEMORY.match(rest)):
            found["memory"], block = (match[1], match[2]), ""
        elif match := _DEBATE.match(line):
            found["debate"].append((match[1], match[2], match[3]))
            name, block = "debate", ""
        elif block == "claims" and (match := _CLAIM.match(line)):
            found["claims"].append((int(match[1]), None if match[2] == "none" else match[2], match[3]))
            continue
        elif block == "groups" and (match := _GROUP.match(line)):
            found["groups"].append((match[1], tuple(map(int, match[2].split()))))
            continue
        else:
            continue
        if name not in order:
            order.append(name)
    answer = answers[0] if len(answers) == 1 and answers[0] else None
    return Trace(
        claims=tuple(found["claims"]),
        groups=tuple(found["groups"]),
        conflict=found.get("conflict"),
        memory=found.get("memory"),
        debate=tuple(found["debate"]),
        weigh=found.get("weigh"),
        answer=answer,
        order=tuple(order),
    )


def _lines(text: str) -> Iterator[tuple[str, re.Match[str] | None]]:
    """Yield each line of an answer, stripped, with its match where it is a claim's or a group's."""
    pattern: re.Pattern[str] | None = None
    for line in map(str.strip, text.splitlines()):
        match = pattern.match(line) if pattern else None
        yield line, match
        pattern = {"Claims:": _CLAIM, "Groups:": _GROUP}.get(line, pattern if match or ":" not in line else None)


def noted_apart(text: str) -> str:
    """Return an answer that notes `fair`, not `good`, what it finds reliable though its memory says something else.

    Memory that it calls unsure or unknown says nothing. The notes then tell, claim by claim, what stands for memory and
    what against it, and the lines after them need not compare whole lists.
    """
    remembered = parse(text).memory
    memory = remembered[0] if remembered and remembered[1] in ("sure", "fairly") else None
    return "\n".join(
        f"{match[1]} {match[2]} fair"
        if match and match.re is _CLAIM and match[3] == "good" and (memory is None or not same(match[2], memory))
        else line
        for line, match in _lines(text)
    )


def renumbered(text: str, numbers: Sequence[int]) -> str:
    """Return an answer that calls the passages by other numbers, in its claims and groups: `numbers[0]` for 1.

    Raises IndexError where it speaks of a passage beyond them.
    """

    def said(line: str, match: re.Match[str] | None) -> str:
        if match is None:
            return line
        if match.re is _CLAIM:
            return f"{numbers[int(match[1]) - 1]}{line[match.end(1) :]}"
        return f"{match[1]} = {' '.join(str(numbers[int(i) - 1]) for i in match[2].split())}"

    return "\n".join(said(line, match) for line, match in _lines(text))


def chosen(answer: str | None, options: Sequence[str]) -> str | None:
    """Return the option that a final answer chooses, by letter or text; without options, the answer as it is."""
    if answer is None or not options:
        return answer
    letter = first_choice(answer, options)
    return None if letter is None else options[LETTERS.index(letter)]


def _option(text: str, options: Sequence[str]) -> str:
    """Return the option that a claim names by its letter, its text, or both; other text is kept."""
    by_text = {normalise(option): option for option in options}
    match = re.fullmatch(r"\(?([A-Z])[.):]*(?:\s+(.{1,400}))?", text)
    index = LETTERS.index(match[1]) if match else len(options)
    if match and index < len(options) and (not match[2] or normalise(match[2]) == normalise(options[index])):
        return options[index]
    return by_text.get(normalise(text), text)


def settled(trace: Trace, options: Sequence[str]) -> Trace:
    """Return the trace with every option that it names by letter or text in the option's own words.

    Options are shown as lettered lines of the question; without options the trace is returned as it is.
    """
    if not options:
        return trace
    return replace(
        trace,
        claims=tuple((i, None if span is None else _option(span, options), note) for i, span, note in trace.claims),
        groups=tuple((_option(claim, options), indices) for claim, indices in trace.groups),
        memory=(_option(trace.memory[0], options), trace.memory[1]) if trace.memory else None,
        answer=chosen(trace.answer, options),
    )


def named(answer: str, options: Sequence[str]) -> str:
    """Return how an answer is written in a prompt: the letter of an option, or the answer itself."""
    found = [letter for letter, option in zip(LETTERS, options) if normalise(option) == normalise(answer)]
    return found[0] if found else answer


def _stands_in(span: str, context: Mapping[str, Any]) -> bool:
    """Whether a claim is made by a passage: quoted from its text, or what the data say that it claims."""
    quoted = normalise(span)
    return bool(quoted) and (quoted in normalise(context["text"]) or quoted == normalise(context.get("claim") or ""))


def _claim_faults(trace: Trace, contexts: Sequence[Mapping[str, Any]]) -> list[str]:
    faults = []
    if [index for index, _, _ in trace.claims] != list(range(1, len(contexts) + 1)):
        faults.append("claims do not list every passage once, in order")
    for index, span, _ in trace.claims:
        if span and 0 < index <= len(contexts) and not _stands_in(span, contexts[index - 1]):
            faults.append(f"claim {index} quotes {span!r}, which is not in the passage")
    return faults


def check(
    trace: Trace,
    contexts: Sequence[Mapping[str, Any]],
    *,
    memory: str | None,
    confidence: float | None,
    segments: Sequence[str],
) -> tuple[str, ...]:
    """Return what is wrong with a trace, in words; empty means every promised segment is there and true."""
    faults = []
    wanted = ["claims" if s == "notes" else s for s in segments]
    if list(trace.order) != wanted:
        faults.append(f"segments are {', '.join(trace.order) or 'none'}; the path asks for {', '.join(wanted)}")
    if "claims" in wanted:
        faults += _claim_faults(trace, contexts)
    spans = [span for _, span, _ in trace.claims] if trace.claims else [c.get("claim") for c in contexts]
    if "groups" in wanted and dict(trace.groups) != dict(groups_of(spans)):
        faults.append("groups are not the partition of the claims")
    if "memory" in wanted and memory is not None:
        if trace.memory is None or normalise(trace.memory[0]) != normalise(memory):
            faults.append("memory is not the closed-book answer")
        elif confidence is not None and trace.memory[1] != confidence_word(confidence):
            faults.append("the confidence word does not match the confidence")
    plain = [None if span is None else normalise(span) for span in spans]
    if "conflict" in wanted and trace.conflict != kind(plain, None if memory is None else normalise(memory)):
        faults.append("the conflict is not the one between the claims and memory")
    if "weigh" in wanted and (trace.weigh is None or not any(reason in trace.weigh for reason in REASONS)):
        faults.append("no deciding reason from the list")
    if trace.answer is None:
        faults.append("no single final answer")
    return tuple(faults)


def quotes_are_true(trace: Trace, contexts: Sequence[Mapping[str, Any]]) -> bool:
    """Whether every quoted claim really stands in its passage (w_f of the judge's score)."""
    return all(
        0 < index <= len(contexts) and _stands_in(span, contexts[index - 1]) for index, span, _ in trace.claims if span
    )
