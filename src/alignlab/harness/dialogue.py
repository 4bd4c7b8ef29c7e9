"""One item of an eval being played: its generator, what it asked, what it was told, and the seeds it draws with.

Both runners use it, so that an item asks the same things with the same seeds whoever runs it and whatever runs beside.
"""

import hashlib
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from alignlab.core.types import Ask, Reply
from alignlab.harness.answerers import content

SUBJECT = "model"
"""the role under evaluation"""


def seed_of(seed: int, repeat: int, again: int) -> int:
    """Return the seed of one draw: the run's own for the first, another for each repetition.

    Args:
        seed: of the run.
        repeat: how many items before this one begin with the same Ask, so that equal items are not equal draws.
        again: how often this very Ask was yielded before in the same dialogue.
    """
    if not repeat and not again:
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed}:{repeat}:{again}".encode()).digest()[:4], "big") >> 1


@dataclass
class Dialogue:
    """An item that is being played, or has been."""

    item: Any
    game: Generator[Ask, str, Any]
    repeat: int = 0
    """see `seed_of`"""
    asks: list[Ask] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    contents: list[str] = field(default_factory=list)
    over: bool = False
    problem: str = ""
    """why the item has no record: the model under evaluation did not answer"""

    def begin(self) -> None:
        """Play up to the first Ask."""
        self._step(None)

    @property
    def waiting(self) -> Ask | None:
        """The Ask that wants an answer."""
        return None if self.over else self.asks[-1]

    def seed(self, seed: int) -> int:
        """Return the seed of the Ask that waits."""
        return seed_of(seed, self.repeat, self.contents[:-1].count(self.contents[-1]))

    def tell(self, reply: str) -> None:
        """Give the reply to the Ask that waits, and play up to the next.

        Where the model under evaluation has none the item ends; another role's missing answer is an empty one, which
        an eval takes for an answer that it cannot read.
        """
        reply = reply if isinstance(reply, Reply) else Reply(reply)
        self.replies.append(reply)
        if reply.problem and self.asks[-1].role == SUBJECT:
            self.over, self.problem = True, reply.problem
            self.game.close()
        else:
            self._step(reply)

    def _step(self, reply: Reply | None) -> None:
        try:
            ask = next(self.game) if reply is None else self.game.send(reply)
        except StopIteration:
            self.over = True
            return
        if not isinstance(ask, Ask):
            raise TypeError(f"an eval's play yields Ask, got {type(ask).__name__}")
        self.asks.append(ask)
        self.contents.append(content(ask))


def begin(module: ModuleType, cfg: Any, items: Sequence[Any]) -> list[Dialogue]:
    """Start every item and number those that begin alike.

    `score` and `aggregate` see no settings: an eval whose reading of answers depends on them exports
    `settled(item, cfg)`, which returns the item, a user's too, with those settings among its facts.
    """
    seen: Counter[str] = Counter()
    dialogues = []
    for item in items:
        if hasattr(module, "settled"):
            item = module.settled(item, cfg)  # noqa: PLW2901
        dialogue = Dialogue(item, module.play(item, cfg))
        dialogue.begin()
        if dialogue.contents:
            dialogue.repeat = seen[dialogue.contents[0]]
            seen[dialogue.contents[0]] += 1
        dialogues.append(dialogue)
    return dialogues


def roles(module: ModuleType, cfg: Any, items: Sequence[Any], turns: int = 8) -> list[str]:
    """Return the roles that the items turn to when every answer is empty, in order of appearance.

    A role asked only after particular answers is not seen here; it is looked up when it is asked.
    """
    found: dict[str, None] = {}
    for item in items:
        dialogue = Dialogue(item, module.play(item, cfg))
        try:
            dialogue.begin()
            for _ in range(turns):
                if dialogue.waiting is None:
                    break
                found.setdefault(dialogue.waiting.role)
                dialogue.tell(Reply())
        except Exception:  # a rehearsal: what fails on an empty answer is met when it is played
            continue
        finally:
            dialogue.game.close()
    return list(found)
