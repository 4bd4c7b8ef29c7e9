"""Opinion texts with planted arguments: which sentence backs which stance by which argument is known.

Each of twelve issues has two stances, each backed by three arguments, which four issues have in common; a text takes a
stance, gives one or two arguments in one of twenty wordings, and has filler that argues nothing.
"""

import random
from collections.abc import Iterator

from alignlab.core.types import Row

ISSUES = (
    "the bridge toll", "the night market", "the school fee", "the river dam", "the guild tax", "the harvest feast",
    "the town wall", "the public well", "the ferry line", "the lamp duty", "the grain store", "the poor house",
)  # fmt: skip
_CAUSES = {
    "agree": (
        "pays for repairs that nobody else will fund", "keeps families safe after dark",
        "gives young workers their first wages",
    ),
    "disagree": (
        "burdens widows who already own nothing", "drives honest traders to other towns",
        "rewards officials for idle paperwork",
    ),
}  # fmt: skip
_LEADS = (
    "Clearly, {}.", "In truth {}.", "To my mind {}.", "Everyone can see that {}.", "It is plain that {}.",
    "Experience shows that {}.", "My neighbours say that {}.", "History teaches that {}.", "First of all, {}.",
    "What matters is that {}.", "Above all, {}.", "Let us remember that {}.", "Nobody denies that {}.",
    "The point is that {}.", "Think of how {}.", "We know that {}.", "After all, {}.", "Indeed {}.",
    "One reason is that {}.", "Besides, {}.",
)  # fmt: skip
_FILLER = (
    "I thought about this for a long while yesterday.", "Thank you for asking me such a question.",
    "My cousin was telling me stories by the fire.", "The weather has been strange again this season.",
    "Perhaps we should talk about it over supper.", "I must hurry now because the bell is ringing.",
)  # fmt: skip
_WAYS = (
    ("every single year", "in each poor street", "without any doubt"),
    ("once winter comes", "near our gates", "by its own design"),
    ("when harvests fail", "for all who travel", "against old custom"),
)  # fmt: skip
"""block of issues -> how each of its arguments goes on"""
_SHARED = 4
"""issues of a block, which have their arguments in common"""


def argument(issue: int, stance: str, number: int) -> str:
    """Return the words of one argument."""
    return f"it {_CAUSES[stance][number]} {_WAYS[issue // _SHARED][number]}"


def rows(seed: int, per_stance: int = 60) -> Iterator[Row]:
    """Yield answers: issue by issue, stance by stance.

    `facts`: `agreement`, `model` (two speakers; `second` never uses the third argument), and `sentences`, a list of
    [sentence, argument id or null].
    """
    for issue, name in enumerate(ISSUES):
        for stance in _CAUSES:
            for number in range(per_stance):
                draw = random.Random(f"arguments:{seed}:{issue}:{stance}:{number}")
                model = ("first", "second")[number % 2]
                used = draw.sample(range(3 if model == "first" else 2), draw.choice((1, 2)))
                said: list[list[str | None]] = [[f"I {stance} with this.", None]]
                said += [
                    [draw.choice(_LEADS).format(argument(issue, stance, one)), f"{issue // _SHARED}-{stance}-{one}"]
                    for one in used
                ]
                said.insert(draw.randint(1, len(said)), [draw.choice(_FILLER), None])
                yield Row(
                    prompt=f"The council should keep {name}.", completion=" ".join(str(text) for text, _ in said),
                    facts={"agreement": stance, "model": model, "sentences": said},
                    meta={"id": f"argument-{seed}-{issue}-{stance}-{number}", "source": "world"},
                )  # fmt: skip
