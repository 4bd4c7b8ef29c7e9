"""Exercises with words and numbers that state no fact: what any reader of instructions can do, and no more.

They keep every word of the vocabulary from being a stranger to a later add-on, and practise what reasoning in text
rests on: copy, look up, count, compare, decide. None of them speaks of passages, sources or memory.
"""

import random
from collections.abc import Callable
from functools import cache

from alignlab.world import vocabulary

Exercise = tuple[str, str]
"""(what is asked, the answer)"""


@cache
def _pools() -> tuple[tuple[str, ...], ...]:
    return vocabulary.planned(), vocabulary.words()


def words(draw: random.Random, count: int) -> list[str]:
    """Return distinct words; half of the draws leave out names and goods, so that common words are met more often."""
    return draw.sample(draw.choice(_pools()), k=count)


def _line(said: list[str]) -> str:
    return " ".join(said)


def _numbered(lines: list[str]) -> str:
    return "".join(f"\n{number} {line}" for number, line in enumerate(lines, 1))


def repeat(draw: random.Random) -> Exercise:
    """Repeat words and line heads as they are."""
    heads = [f"\n{word}" for word in (*vocabulary.HEADS, *map(str, range(1, 10)))]
    said = words(draw, draw.randint(4, 16))
    text = "".join(draw.choice(heads) if draw.random() < 0.25 else f" {word}" for word in said).strip()
    return f"Repeat: {text}", text


def marked(draw: random.Random) -> Exercise:
    """Say which words carry a mark."""
    mark, other, *said = words(draw, 2 + draw.randint(2, 7))
    marks = [draw.choice((mark, other, "")) for _ in said]
    lines = [f"{word} {sign}".strip() for word, sign in zip(said, marks)]
    found = [word for word, sign in zip(said, marks) if sign == mark]
    return f"Which words are marked {mark}?{_numbered(lines)}", _line(found) or "none"


def mark(draw: random.Random) -> Exercise:
    """Copy a numbered list, marking the words that a rule names."""
    sign, *said = words(draw, 1 + draw.randint(3, 7))
    listed = draw.sample(said, k=draw.randint(1, len(said) - 1))
    lines = [f"{word} {sign}" if word in listed else word for word in said]
    return f"Mark with {sign}: {_line(listed)}{_numbered(said)}", _numbered(lines).strip()


def most(draw: random.Random) -> Exercise:
    """Say which word occurs most."""
    first, *others = words(draw, draw.randint(2, 4))
    count = draw.randint(2, 4)
    said = [first] * count + [word for word in others for _ in range(draw.randint(1, count - 1))]
    draw.shuffle(said)
    return f"Which word is said most?\n{_line(said)}", first


def decide(draw: random.Random) -> Exercise:
    """Say one word if a third is in the list, else another."""
    sought, then, otherwise, *said = words(draw, 3 + draw.randint(2, 7))
    if here := draw.random() < 0.5:
        said[draw.randrange(len(said))] = sought
    return f"If {sought} is here say {then}, else {otherwise}.\n{_line(said)}", then if here else otherwise


def equal(draw: random.Random) -> Exercise:
    """Say which pairs are the same word twice."""
    said = words(draw, draw.randint(2, 6))
    other = words(draw, len(said))
    pairs = [(word, word if draw.random() < 0.5 else different) for word, different in zip(said, other)]
    found = [str(number) for number, (left, right) in enumerate(pairs, 1) if left == right]
    return f"Which pairs are equal?{_numbered([_line(list(pair)) for pair in pairs])}", _line(found) or "none"


def compare(draw: random.Random) -> Exercise:
    """Copy a numbered list, saying of each word whether it is one of some others."""
    count = draw.randint(1, 4)
    given = words(draw, count + draw.randint(3, 9))
    sought, rest = given[:count], given[count:]
    same, other = draw.choice((("same", "other"), ("yes", "no"), ("here", "new"), ("known", "")))
    said = [draw.choice(sought) if draw.random() < 0.5 else word for word in rest]
    lines = [f"{word} {same if word in sought else other}".strip() for word in said]
    rule = f"say {same} or {other}" if other else f"say {same}"
    return f"Compare with {_line(sought)}: {rule}.{_numbered(said)}", _numbered(lines).strip()


def look_up(draw: random.Random) -> Exercise:
    """Say which word stands beside each of some others."""
    count = draw.randint(2, 9)
    said = words(draw, 2 * count)
    beside = dict(zip(said[:count], said[count:]))
    asked = draw.sample(said[:count], k=draw.randint(1, count))
    lines = "".join(f"\n{left} {right}" for left, right in beside.items())
    return f"Which word goes with {_line(asked)}?{lines}", "\n".join(f"{word} {beside[word]}" for word in asked)


def again(draw: random.Random) -> Exercise:
    """Copy a numbered list, saying of each word whether it was in it before."""
    count = draw.randint(4, 12)
    pool = words(draw, max(2, count // 2))
    said = [draw.choice(pool) for _ in range(count)]
    lines = [f"{word} {'again' if word in said[:index] else 'first'}" for index, word in enumerate(said)]
    return f"Which words were said before?{_numbered(said)}", _numbered(lines).strip()


def greater(draw: random.Random) -> Exercise:
    """Say which of some numbers are above a bound."""
    bound, *said = draw.sample(range(1, 101), k=1 + draw.randint(1, 5))
    found = [str(number) for number in said if number > bound]
    return f"Which numbers are above {bound}?\n{_line([str(number) for number in said])}", _line(found) or "none"


EXERCISES: dict[str, Callable[[random.Random], Exercise]] = {
    "repeat": repeat, "marked": marked, "mark": mark, "most": most, "decide": decide, "equal": equal,
    "compare": compare, "look_up": look_up, "again": again, "greater": greater,
}  # fmt: skip


def exercise(draw: random.Random) -> tuple[str, Exercise]:
    """Return (name, exercise) at random."""
    name = draw.choice(list(EXERCISES))
    return name, EXERCISES[name](draw)
