"""What the adapters of conflict data share: the item, passages, and splits and orders that depend on content alone."""

import hashlib
import random
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from alignlab.core.types import Row

Scenario = Literal["clean", "pca", "ike", "mixed", "unknown"]
SCENARIOS = ("clean", "pca", "ike", "mixed", "unknown")
TEST_SHARE = 0.3


def passage(
    text: str, claim: str | None, *, poisoned: bool, source: str | None = None, date: str | None = None
) -> dict[str, Any]:
    """Return one context of an item; `claim` is the answer it supports, None where it speaks of something else."""
    return {"text": text, "claim": claim, "source": source, "date": date, "poisoned": poisoned}


def fraction(*parts: str) -> float:
    """Return a number in [0, 1) that depends on the texts alone, the same on every machine."""
    digest = hashlib.sha256("\x1f".join(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_of(question: str) -> str:
    """Return `test` for 30 % of the questions, else `train`.

    By the question's letters, so that all variants of a question, in every file of a family, fall on one side.
    """
    return "test" if fraction("split", " ".join(question.lower().split())) < TEST_SHARE else "train"


def shuffled(values: Sequence[Any], *seed: str) -> list[Any]:
    """Return the values in an order that depends on the seed texts alone."""
    order = list(values)
    random.Random(hashlib.sha256("\x1f".join(seed).encode()).digest()).shuffle(order)
    return order


def conflict_item(
    *,
    id: str,
    source: str,
    licence: str | None,
    question: str,
    scenario: Scenario,
    k: int,
    contexts: Sequence[Mapping[str, Any]],
    memory: str | None = None,
    confidence: float | None = None,
    gold: str | None = None,
    target: str | None = None,
    answers: Sequence[str] = (),
    split: str | None = None,
    ratio: float | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Row:
    """Return a conflict item.

    Args:
        id: unique in its file.
        source: the published set.
        licence: SPDX name, or None.
        question: becomes the prompt.
        scenario: `clean` (contexts agree with true memory), `pca` (k of n contexts support a false `target`), `ike`
            (k contexts state a true answer that memory lacks), `mixed` (such an edit, with k contexts against it),
            `unknown` (which side is true is not known).
        k: how many contexts are poisoned, or new in `ike`, or against memory in `unknown`.
        contexts: from `passage`, in the order the model is shown them.
        memory: the closed-book answer.
        confidence: its share of closed-book samples, in [0, 1].
        gold: the true answer; None where the set labels none.
        target: the answer an attacker wants; None where there is no attack.
        answers: the closed set of answers; empty for free text.
        split: default `split_of(question)`.
        ratio: default k / number of contexts.
        facts: further facts.
    """
    share = ratio if ratio is not None else (k / len(contexts) if contexts else 0.0)
    return Row(
        prompt=question,
        facts={
            "scenario": scenario, "k": k, "ratio": share, "question": question, "contexts": [dict(c) for c in contexts],
            "memory": memory, "confidence": confidence, "gold": gold, "target": target, "answers": list(answers),
            "split": split or split_of(question), **(facts or {}),
        },
        meta={"id": id, "source": source, "licence": licence},
    )  # fmt: skip
