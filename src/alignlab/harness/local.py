"""The local runner of evals: plays all items at once and answers their Asks in batches, the longest first.

An eval is pure: `items(cfg)` yields items, `play(item, cfg)` is a generator that yields `Ask`s and receives answers,
`score(item, answers)` returns a record. Free text is sampled; an Ask with options is answered by the option of the
highest score, so that an answer always exists. Each batch is in the journal before the next begins.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

from alignlab.core.types import Reply, Result
from alignlab.harness import results
from alignlab.harness.answerers import Answerer, by_endpoint, by_model, same_model
from alignlab.harness.dialogue import SUBJECT, Dialogue, begin
from alignlab.harness.journal import Journal, digest

__all__ = ["Answerer", "by_endpoint", "by_model", "play", "played", "result_of"]
FIRST, MOST, SECONDS = 64, 1024, 5.0
"""a batch has FIRST Asks, twice as many after each that took under SECONDS, never above MOST: a kill loses little"""


def play(
    module: ModuleType,
    cfg: Any,
    items: Sequence[Any],
    answerer: Callable[[str], Answerer],
    advance: Callable[[int], None] | None = None,
) -> list[Mapping[str, Any]]:
    """Play every item to its end and return one record per item, in order, without those the model did not answer.

    Args and errors: as of `played`.
    """
    return records_of(module, played(module, cfg, items, answerer, advance=advance))


def played(
    module: ModuleType,
    cfg: Any,
    items: Sequence[Any],
    answerer: Callable[[str], Answerer],
    *,
    seed: int = 0,
    journal: Journal | None = None,
    advance: Callable[[int], None] | None = None,
) -> list[Dialogue]:
    """Play every item to its end.

    Args:
        module: the eval.
        cfg: its settings.
        items: what its `items` yielded.
        answerer: role -> who answers it.
        seed: of all sampling; each repetition of an Ask draws anew (`dialogue.seed_of`).
        journal: answers had so far; new ones are added batch by batch.
        advance: told how many items have just ended.

    Returns:
        One dialogue per item, in order; those with a `problem` have no record.

    Raises:
        TypeError: the eval yields something other than an Ask.
        Exception: whatever an answerer raises; what was answered before is in the journal.
    """
    dialogues = begin(module, cfg, items)
    run = _Run(answerer, seed, journal)
    open_: list[Dialogue] = []
    ended = run.recall(dialogues, open_)
    while True:
        if advance and ended:
            advance(ended)
        if not open_:
            return dialogues
        ended = 0
        by_role: dict[str, list[Dialogue]] = {}
        for dialogue in open_:
            by_role.setdefault(dialogue.asks[-1].role, []).append(dialogue)
        open_ = []
        for role, some in by_role.items():
            # the longest first: batches of one length pad little, and what does not fit shows at once
            some.sort(key=lambda d: -sum(len(turn["content"]) for turn in d.asks[-1].messages))
            while some:
                batch, some = some[: run.size], some[run.size :]
                run.answer(role, batch)
                done = run.recall(batch, open_)
                if advance and done:
                    advance(done)


class _Run:
    """What stays the same over the batches of a run."""

    def __init__(self, answerer: Callable[[str], Answerer], seed: int, journal: Journal | None) -> None:
        self.answerer, self.base, self.journal = answerer, seed, journal
        self.size = FIRST
        self._who: dict[str, str | None] = {}

    def key(self, dialogue: Dialogue) -> str | None:
        """Return the journal's key of the Ask that waits; None where nobody knows who answers."""
        if self.journal is None:
            return None
        role = dialogue.asks[-1].role
        if role not in self._who:
            identity = getattr(self.answerer(role), "identity", None)
            who = identity() if identity else None
            self._who[role] = None if who is None else digest(who)
        who = self._who[role]
        return None if who is None else digest([who, dialogue.contents[-1], dialogue.seed(self.base)])

    def recall(self, dialogues: Sequence[Dialogue], open_: list[Dialogue]) -> int:
        """Tell dialogues what the journal knows; put those that still wait into `open_`, return how many ended."""
        ended = 0
        for dialogue in dialogues:
            while not dialogue.over:
                key = self.key(dialogue)
                reply = None if key is None or self.journal is None else self.journal.get(key)
                if reply is None:
                    open_.append(dialogue)
                    break
                dialogue.tell(reply)
            ended += dialogue.over
        return ended

    def answer(self, role: str, batch: Sequence[Dialogue]) -> None:
        """Answer one batch, keep the answers, go on with each dialogue up to its next Ask."""
        began = time.monotonic()
        seeds = [dialogue.seed(self.base) for dialogue in batch]
        given = self.answerer(role)([dialogue.asks[-1] for dialogue in batch], seeds)
        replies = [reply if isinstance(reply, Reply) else Reply(reply) for reply in given]
        if self.journal is not None:
            kept = [(self.key(d), reply) for d, reply in zip(batch, replies, strict=True)]
            self.journal.put((key, reply) for key, reply in kept if key is not None)
        for dialogue, reply in zip(batch, replies, strict=True):
            dialogue.tell(reply)
        if time.monotonic() - began < SECONDS:
            self.size = min(MOST, 2 * self.size)


def records_of(module: ModuleType, dialogues: Sequence[Dialogue]) -> list[Mapping[str, Any]]:
    """Return the records of the items that the model answered, in order."""
    return [module.score(d.item, d.replies) for d in dialogues if not d.problem]


def result_of(
    module: ModuleType, dialogues: Sequence[Dialogue], records: Sequence[Mapping[str, Any]],
    identities: Mapping[str, Mapping[str, Any] | None], before: Sequence[Mapping[str, Any]] | None = None,
) -> Result:  # fmt: skip
    """Return the result of dialogues as `results.of` does, and say where the model plays another role too."""
    outcomes = [
        results.Played(
            item=d.item, problem=d.problem,
            others=tuple((a.role, r.problem) for a, r in zip(d.asks, d.replies) if a.role != SUBJECT),
        )
        for d in dialogues
    ]  # fmt: skip
    found = results.of(module, outcomes, records, before)
    doubled = [f"the {role} is the model under evaluation itself" for role in same_model(identities)]
    return replace(found, notes=(*found.notes, *doubled))
