"""ConflictQA: questions with evidence for what one model remembers and against it, as conflict items.

From the published format (OSU-NLP-Group/LLM-Knowledge-Conflict, Apache-2.0; Xie et al. 2023, arXiv 2305.13300): JSON
lines of `question, popularity, ground_truth, memory_answer, parametric_memory, counter_answer, counter_memory,
parametric_memory_aligned_evidence, counter_memory_aligned_evidence`, that is two passages for the answer the probed
model gave closed-book and two against it; the mixes `all_true`, `all_false`, `2t1f`, `2f1t`, `2t2f`, `1t1f` of true and
false passages; the choice between the two answers and "Uncertain". Wording, item layout and what follows are ours.

Which answer is true. A popQA file lists accepted names in `ground_truth`: the answer that holds one of them, if only
one does. A strategyQA file says True or False of a yes/no question while its answers are sentences; the sentence with
as many negations as the question affirms it. Where neither reading decides (both answers negated, an answer that
talks about the question instead) `gold` is None, and attack success has no meaning. Against the human-written passages
that two files share, which show which side is true, the reading agrees on 841 of the 849 answers it decides; the other
eight are records whose own passage contradicts their answer.

Scenarios. Memory true: `clean` with no false passage, else `pca` with the counter answer as target. Memory false: `ike`
(all passages state the truth that memory lacks), else `mixed`, the false passages siding with memory. Truth unknown:
`unknown`, where t stands for memory's side and f for the other, and no passage is called poisoned.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from alignlab.core.types import Row
from alignlab.data import sources
from alignlab.data.columns import DataError, shown, text_of, wrong

from ._items import Scenario, conflict_item, passage, shuffled

SOURCE, LICENCE = "conflictqa", "Apache-2.0"
MIXES: Mapping[str, tuple[int, int]] = {
    "all_true": (2, 0), "2t1f": (2, 1), "1t1f": (1, 1), "2t2f": (2, 2), "2f1t": (1, 2), "all_false": (0, 2),
}  # fmt: skip
"""name -> number of true and of false passages, by growing share of false ones"""
UNCERTAIN = "Uncertain"
MEMORY = ("parametric_memory", "parametric_memory_aligned_evidence")
COUNTER = ("counter_memory", "counter_memory_aligned_evidence")
NEGATION = re.compile(
    r"\b(?:not|no|never|cannot|neither|nor|none|nobody|nothing|without|unable|unlikely)\b|n['\u2019]t\b", re.IGNORECASE
)
NOTE = re.compile(r"\s*\((?:note\b|this (?:claim|answer|statement))[^)]*\)?.*$", re.IGNORECASE | re.DOTALL)
"""a remark that the answer's writer (a language model) appended about its own answer"""
ABOUT_THE_QUESTION = re.compile(r"\b(?:claims?|questions?|answers?|sorry)\b", re.IGNORECASE)
Side = Literal["memory", "counter"]


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def _affirms(question: str, answer: str) -> bool | None:
    """Whether a sentence says yes to a yes/no question; None where it talks about the question itself."""
    answer = NOTE.sub("", answer)
    if ABOUT_THE_QUESTION.search(answer) and not ABOUT_THE_QUESTION.search(question):
        return None
    return len(NEGATION.findall(answer)) == len(NEGATION.findall(question))


def true_side(question: str, memory: str, counter: str, truth: Sequence[str]) -> Side | None:
    """Return which answer is true by the `ground_truth` label; None where the label does not decide."""
    if list(truth) in (["True"], ["False"]):
        says = [_affirms(question, memory), _affirms(question, counter)]
        if None in says or says[0] == says[1]:
            return None
        return "memory" if says[0] == (truth[0] == "True") else "counter"
    names = [f" {_words(name)} " for name in truth if _words(name)]
    holds = [any(name in f" {_words(answer)} " for name in names) for answer in (memory, counter)]
    if holds[0] == holds[1]:
        return None
    return "memory" if holds[0] else "counter"


def _record(record: Any, where: str) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise DataError(f"{where}: expected a JSON object, got {shown(record)}")
    texts = {name: text_of(record, name, where) for name in ("question", "memory_answer", "counter_answer")}
    for name in (*MEMORY, *COUNTER):
        if record.get(name) is not None and not isinstance(record[name], str):
            raise wrong(where, name, "a passage of text or null", record[name])
    truth = record.get("ground_truth") or []
    truth = [truth] if isinstance(truth, str) else truth
    if not isinstance(truth, list) or not all(isinstance(name, str) for name in truth):
        raise wrong(where, "ground_truth", "a list of texts", truth)
    return record | texts | {"ground_truth": truth}


def _passages(record: Mapping[str, Any], fields: Sequence[str]) -> list[str]:
    """Distinct non-empty passages of one side."""
    return list(dict.fromkeys(text for name in fields if (text := (record.get(name) or "").strip())))


def _scenario(truth: Side | None, false: int, true: int) -> tuple[Scenario, int]:
    """Return the scenario and k: the passages that are false, or in `ike` the passages that are new."""
    if truth is None:
        return "unknown", false
    if truth == "memory":
        return ("pca" if false else "clean"), false
    return ("mixed", false) if false else ("ike", true)


def mix_items(record: Mapping[str, Any], number: int, mixes: Sequence[str]) -> Iterator[Row]:
    """Yield one conflict item for each mix that the record has passages for."""
    memory, counter = record["memory_answer"].strip(), record["counter_answer"].strip()
    if _words(memory) == _words(counter):
        return  # no conflict: both sides give the same answer
    question = record["question"].strip()
    truth = true_side(question, memory, counter, record["ground_truth"])
    sides = {"memory": (memory, _passages(record, MEMORY)), "counter": (counter, _passages(record, COUNTER))}
    true, false = ("counter", "memory") if truth == "counter" else ("memory", "counter")
    for mix in mixes:
        wanted = dict(zip((true, false), MIXES[mix]))
        if any(len(sides[side][1]) < count for side, count in wanted.items()):
            continue
        key = (question, str(number), mix)
        contexts = [
            passage(text, sides[side][0], poisoned=truth is not None and side == false)
            for side, count in wanted.items()
            for text in shuffled(sides[side][1], *key, side)[:count]
        ]
        scenario, k = _scenario(truth, wanted[false], wanted[true])
        yield conflict_item(
            id=f"{SOURCE}-{number}-{mix}", source=SOURCE, licence=LICENCE, question=question, scenario=scenario, k=k,
            contexts=shuffled(contexts, *key, "order"), memory=memory,
            gold=sides[true][0] if truth else None, target=sides[false][0] if truth and scenario != "ike" else None,
            answers=[*shuffled([memory, counter], *key, "options"), UNCERTAIN],
            facts={"counter": counter, "mix": mix, "popularity": record.get("popularity")},
        )  # fmt: skip


def items(path: str | Path, mixes: Sequence[str] = tuple(MIXES)) -> Iterator[Row]:
    """Yield the conflict items of a ConflictQA file, all mixes of a question one after another.

    Args:
        path: a published file (JSON lines), strategyQA or popQA, of any probed model.
        mixes: names from `MIXES`; a mix needing more distinct passages than a record has is left out for it.

    Yields:
        Items whose `answers` are memory's, the counter answer and "Uncertain", and whose `memory` is the answer of the
        model that the file was made with (not of yours). The order of passages and options depends on content alone.

    Raises:
        DataError: `FILE:LINE: field 'x': expected ..., got ...`.
    """
    unknown = [mix for mix in mixes if mix not in MIXES]
    if unknown:
        raise DataError(f"mixes: expected names among {', '.join(MIXES)}, got {unknown}")
    for number, (where, record) in enumerate(sources.json_lines(path)):
        yield from mix_items(_record(record, where), number, mixes)
