"""The town's own teacher and judge: they read the same prompts a language model would, and answer by rule.

The teacher knows how passages are made (source reliability, dates, consistency, types), reads the student's
remembered answer from the prompt, and walks the reasoning path it is asked for. The judge knows the grammar; its
rating of the process carries known noise.
"""

import random
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from alignlab.core import evidence, trace
from alignlab.core.conflict import kind
from alignlab.core.trace import Trace
from alignlab.core.types import Endpoint, Prompt, Sample
from alignlab.world import conflicts, knowledge
from alignlab.world.facts import FURTHER_STATEMENTS, MEMORY_YEAR, RELATIONS, RELIABILITY, Relation

WEIGHTS = {"good": 3.0, None: -1.0}
"""a claim's weight by its note, about in proportion to the log-odds that the notes carry"""
MEMORY_WEIGHTS = {"sure": 3.0, "fairly": 1.5, "unsure": 0.5, "unknown": 0.0}
_PASSAGE = re.compile(r"^\d+ \((\S+) (\d+)\): (.*)$", re.MULTILINE)
_REMEMBERED = re.compile(r"^Remembered: (.+) \((\w+)\)$", re.MULTILINE)
_STRATEGY = re.compile(r"^Strategy (P\d)", re.MULTILINE)
_QUESTION = re.compile(r"^Question: (.*)$", re.MULTILINE)


@lru_cache(maxsize=1)
def _patterns() -> tuple[list[tuple[Relation, re.Pattern[str]]], list[tuple[Relation, re.Pattern[str]]]]:
    """Return every statement and every question wording as a pattern with groups s and v."""

    def pattern(wording: str) -> re.Pattern[str]:
        return re.compile(re.escape(wording).replace(r"\{s\}", r"(?P<s>\w+)").replace(r"\{v\}", r"(?P<v>\w+)") + "$")

    every = RELATIONS.values()
    statements = [
        (r, pattern(w)) for r in every for w in (*r.statements, *r.unseen_statements, *FURTHER_STATEMENTS[r.name])
    ]
    return statements, [(r, pattern(w)) for r in every for w in r.questions]


@lru_cache(maxsize=65536)
def claim_of(text: str, subject: str, relation: str) -> str | None:
    """Return the value a passage gives for this subject and relation; None when it speaks of something else."""
    body = text.removesuffix(".").split(", yes ")[0]
    for known, pattern in _patterns()[0]:
        if known.name == relation and (match := pattern.match(body)) and match["s"] == subject:
            return match["v"]
    return None


def read(text: str) -> dict[str, Any]:
    """Read question, passages, remembered answer and strategy out of a prompt; ValueError when it is not the town's."""
    asked = _QUESTION.search(text)
    known = ((r, pattern.match(asked[1])) for r, pattern in _patterns()[1]) if asked else ()
    relation, match = next(((r, m) for r, m in known if m), (None, None))
    if relation is None or match is None:
        raise ValueError("the world's teacher was asked something that is no question of the town")
    contexts = [
        {"source": source, "date": date, "text": body, "claim": claim_of(body, match["s"], relation.name)}
        for source, date, body in _PASSAGE.findall(text)
    ]
    remembered, strategy = _REMEMBERED.search(text), _STRATEGY.search(text)
    return {
        "contexts": contexts,
        "values": relation.values,
        "memory": remembered[1] if remembered else None,
        "word": remembered[2] if remembered else "unknown",
        "strategy": strategy[1] if strategy else "P0",
    }


def note(context: dict[str, Any], memory: str | None, values: Sequence[str], cues: conflicts.Cues) -> str | None:
    """Return `good` for a claim that no cue speaks against, else None.

    Against it speak a source that is wrong half of the time or more, an old date on what contradicts memory, a
    contradiction in itself, and a value of the wrong type. What memory and a passage agree on is good.
    """
    claim = context["claim"]
    if claim is None:
        return None
    if claim == memory:
        return "good"
    against = (
        cues.source and RELIABILITY.get(context["source"], 1.0) <= 0.5,
        cues.date and memory not in (None, claim) and int(context["date"]) <= MEMORY_YEAR,
        cues.consistency and ", yes " in context["text"] and not context["text"].endswith(f", yes {claim}."),
        cues.type and claim not in values,
    )
    return None if any(against) else "good"


def _weigh(votes: dict[str, float], first: str | None) -> str | None:
    return max(votes, key=lambda answer: (votes[answer], answer == first)) if votes else None


def decide(asked: dict[str, Any], cues: conflicts.Cues) -> tuple[str | None, str, list[str | None]]:
    """Return (final answer, deciding reason, notes) of one reasoning path.

    The paths differ in what they count: contexts (P0, P2), memory (P1), contexts then memory (P3, P8), both as
    votes (P5), cues (P6), cues with memory (P4), cues with memory and copies counted once (P7).
    """
    contexts, memory, word = asked["contexts"], asked["memory"], asked["word"]
    trusted = memory if word in ("sure", "fairly") else None
    notes = [note(c, trusted, asked["values"], cues) for c in contexts]
    claims = [c["claim"] for c in contexts]
    groups = {claim: indices for claim, indices in trace.groups_of(claims)}
    size = {claim: float(len(indices)) for claim, indices in groups.items()}
    majority = _weigh(size, trusted)
    strategy = asked["strategy"]
    if strategy == "P1" or not groups:
        return memory, "memory confidence", notes
    if strategy in ("P0", "P2"):
        return majority, "majority", notes
    if strategy in ("P3", "P8"):
        backed = trusted is not None and word == "sure" and trusted in groups
        return (trusted, "memory confidence", notes) if backed else (majority, "majority", notes)
    if strategy == "P5":
        votes = dict(size)
        if memory is not None:
            votes[memory] = votes.get(memory, 0.0) + MEMORY_WEIGHTS[word] / 1.5
        return _weigh(votes, trusted), "majority", notes
    weights = {c: [WEIGHTS[notes[i - 1]] for i in indices] for c, indices in groups.items()}
    once = strategy == "P7"
    votes = {c: (max(w, key=abs) if once else sum(w)) for c, w in weights.items()}
    if strategy != "P6" and trusted is not None:
        # Nobody poisons with what memory says: one passage that agrees with memory settles it.
        votes[trusted] = float("inf") if trusted in groups else 0.0
    answer = _weigh(votes, trusted)
    return answer, _reason(asked, answer, trusted), notes


def _reason(asked: dict[str, Any], answer: str | None, trusted: str | None) -> str:
    """Return why `answer` won; the reason also tells memory from passages, so that the last line only has to copy."""
    rejected = [c for c in asked["contexts"] if c["claim"] not in (None, answer)]
    if not rejected:
        return "majority"
    if answer == trusted:
        return "memory confidence"
    return "type clash" if any(c["claim"] not in asked["values"] for c in rejected) else "source"


def teach(text: str, cues: conflicts.Cues) -> str:
    """Answer one prompt along the path it asks for, in the grammar of `core.trace`."""
    asked = read(text)
    answer, reason, notes = decide(asked, cues)
    claims = [c["claim"] for c in asked["contexts"]]
    memory = asked["memory"]
    groups = trace.groups_of(claims)
    sides = [(a, f"{len(i)} passages") for a, i in groups]
    debate = [(s, a, why if s == "For" else "conflict") for a, why in sides for s in ("For", "Against")]
    return trace.render(
        Trace(
            claims=tuple((i, claim, n) for i, (claim, n) in enumerate(zip(claims, notes), 1)),
            groups=groups,
            conflict=kind(claims, memory),
            memory=(memory or "none", asked["word"]),
            debate=tuple(debate),
            weigh=reason,
            answer=answer,
        ),
        trace.STRATEGIES[asked["strategy"]].segments,
    )


_GIVEN = re.compile(r"^<answer>\n(.*)\n</answer>$", re.MULTILINE | re.DOTALL)
_REFERENCE = re.compile(r"^Reference: (.*)$", re.MULTILINE)


def judge(text: str, draw: random.Random, noise: float = 0.1) -> str:
    """Rate an answer: outcome against the reference (or the judge's own reading of clean cues), process 1-10."""
    given = _GIVEN.search(text)
    # What the answer says of passages or of a reference is no evidence.
    text = _GIVEN.sub("", text)
    asked = read(text)
    answer = trace.parse(given[1]) if given else Trace()
    reference = _REFERENCE.search(text)
    believed = reference[1] if reference else decide({**asked, "strategy": "P4"}, conflicts.Cues())[0]
    right = answer.answer is not None and answer.answer == believed
    shown = len(answer.order) / 5 + 0.4 * trace.quotes_are_true(answer, asked["contexts"]) * bool(answer.claims)
    rating = round(1 + 9 * min(1.0, shown) + draw.gauss(0.0, 10 * noise))
    return f"Outcome: {'yes' if right else 'no'}\nProcess: {min(10, max(1, rating))}"


class RuleEndpoint:
    """An endpoint that answers by a function of (prompt text, generator); the same prompt and seed, the same answer."""

    def __init__(self, name: str, answer: Callable[[str, random.Random], str]) -> None:
        self.name = name
        self._answer = answer

    def complete(
        self, prompts: Sequence[Prompt], *, n: int = 1, seed: int = 0, temperature: float = 1.0, max_tokens: int = 256
    ) -> list[list[Sample]]:
        """Return n answers for each prompt; `temperature` and `max_tokens` do not matter to rules."""
        del temperature, max_tokens
        texts = [evidence.text_of(prompt) for prompt in prompts]
        return [[Sample(text=self._answer(t, random.Random(f"{seed}:{i}:{t}"))) for i in range(n)] for t in texts]


def endpoint(role: str, *, cues: conflicts.Cues | None = None) -> Endpoint:
    """Return the town's `teacher`, `judge` or `student` (of `world.knowledge`); LookupError names the roles."""
    known = cues or conflicts.Cues()
    if role == "teacher":
        return RuleEndpoint("world:teacher", lambda text, _: teach(text, known))
    if role == "judge":
        return RuleEndpoint("world:judge", judge)
    if role == "student":
        return RuleEndpoint("world:student", knowledge.student)
    raise LookupError(f"the world has no {role!r}; its roles are teacher, judge and student")
