"""Every exercise is solved again here from its text alone."""

import random
import re
from collections import Counter

import pytest

from alignlab.world import exercises, facts, vocabulary


def lines(text):
    """The numbered lines of a text, as lists of words."""
    return [line.split()[1:] for line in text.split("\n")[1:]]


def solve(name, asked):
    first, _, rest = asked.partition("\n")
    if name == "repeat":
        return asked.removeprefix("Repeat: ")
    if name == "marked":
        mark = first.split()[-1].rstrip("?")
        return " ".join(line[0] for line in lines(asked) if line[1:] == [mark]) or "none"
    if name == "mark":
        sign, listed = re.fullmatch(r"Mark with (\w+): (.*)", first).groups()
        done = [f"{i} {w} {sign}" if w in listed.split() else f"{i} {w}" for i, (w,) in enumerate(lines(asked), 1)]
        return "\n".join(done)
    if name == "most":
        (word, count), (_, second) = Counter(rest.split()).most_common(2)
        assert count > second
        return word
    if name == "decide":
        sought, then, otherwise = re.fullmatch(r"If (\w+) is here say (\w+), else (\w+)\.", first).groups()
        return then if sought in rest.split() else otherwise
    if name == "equal":
        return " ".join(str(i) for i, (left, right) in enumerate(lines(asked), 1) if left == right) or "none"
    if name == "compare":
        sought, same, other = re.fullmatch(r"Compare with (.*): say (\w+)(?: or (\w+))?\.", first).groups()
        return "\n".join(
            f"{i} {w} {same if w in sought.split() else other or ''}".strip() for i, (w,) in enumerate(lines(asked), 1)
        )
    if name == "look_up":
        beside = dict(line.split() for line in rest.split("\n"))
        return "\n".join(f"{w} {beside[w]}" for w in re.fullmatch(r"Which word goes with (.*)\?", first)[1].split())
    if name == "again":
        said = [w for (w,) in lines(asked)]
        return "\n".join(f"{i} {w} {'again' if w in said[: i - 1] else 'first'}" for i, w in enumerate(said, 1))
    bound = int(re.fullmatch(r"Which numbers are above (\d+)\?", first)[1])
    return " ".join(n for n in rest.split() if int(n) > bound) or "none"


@pytest.mark.parametrize("name", exercises.EXERCISES)
def test_the_answer_follows_from_what_is_asked(name):
    answers = set()
    for seed in range(300):
        asked, answer = exercises.EXERCISES[name](random.Random(seed))
        assert answer == solve(name, asked), asked
        answers.add(answer)
    assert len(answers) > (15 if name == "equal" else 50)


def test_answers_are_not_to_be_guessed():
    """What can be answered yes or no is so about equally often, and `none` is an answer too."""
    draws = [exercises.decide(random.Random(seed)) for seed in range(400)]
    said = [answer == asked.split(" say ")[1].split(",")[0] for asked, answer in draws]
    assert 0.4 < sum(said) / len(said) < 0.6
    for name in ("marked", "equal", "greater"):
        none = [exercises.EXERCISES[name](random.Random(seed))[1] == "none" for seed in range(400)]
        assert 0.02 < sum(none) / len(none) < 0.4, name


def test_every_word_is_met_and_common_words_more_often():
    draw, met = random.Random(0), Counter()
    for _ in range(4000):
        met.update(exercises.words(draw, 8))
    assert set(met) == set(vocabulary.words())
    planned = [met[word] for word in vocabulary.planned()]
    names = [met[word] for word in vocabulary.people()]
    assert sum(planned) / len(planned) > 2 * sum(names) / len(names)


def test_no_exercise_speaks_of_the_town_or_looks_like_a_passage():
    """Nothing here can teach whom to trust: no statement, no source with a date, no question of the town."""
    sources = "|".join(facts.RELIABILITY)
    questions = {wording.split("{s}")[0].strip() for r in facts.RELATIONS.values() for wording in r.questions}
    draw = random.Random(1)
    for _ in range(2000):
        _, (asked, answer) = exercises.exercise(draw)
        assert not re.search(rf"\((?:{sources}) \d+\):", asked + answer)
        assert "Question:" not in asked
        assert not any(asked.startswith(question) for question in questions)


def test_names_are_drawn_evenly():
    draw = random.Random(2)
    counts = Counter(exercises.exercise(draw)[0] for _ in range(5000))
    assert set(counts) == set(exercises.EXERCISES)
    assert min(counts.values()) > 400
