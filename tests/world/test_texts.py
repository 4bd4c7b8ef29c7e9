import itertools
import random
import re
from collections import Counter

import pytest
from scipy import stats

from alignlab.core import evidence
from alignlab.core.answers import final_answer
from alignlab.world import facts, grammar, texts

STREAMS = {
    "documents": texts.documents,
    "closed_book": texts.closed_book,
    "reading": texts.reading,
    "practice": texts.practice,
}


def take(stream, n):
    return list(itertools.islice(stream, n))


def whole(row):
    prompt = row.prompt if isinstance(row.prompt, str) else "\n".join(m["content"] for m in row.prompt)
    return f"{prompt}\n{row.completion}"


@pytest.mark.parametrize("name", STREAMS)
def test_same_seed_same_bits(name, town):
    first, again, other = (take(STREAMS[name](town, seed), 40) for seed in (3, 3, 4))
    assert first == again
    assert [whole(row) for row in first] != [whole(row) for row in other]


@pytest.mark.parametrize("name", STREAMS)
def test_no_training_text_shows_what_is_kept_out(name, town):
    """Neither the last question form nor an unseen statement of any relation occurs."""
    kept_out = [
        re.compile(re.escape(w).replace(r"\{s\}", r"\w+").replace(r"\{v\}", rf"\b({'|'.join(r.values)})\b"))
        for r in facts.RELATIONS.values()
        for w in (*r.unseen_statements, r.questions[-1])
    ]
    shown = "\n".join(whole(row) for row in take(STREAMS[name](town, 5), 1500))
    assert [pattern.pattern for pattern in kept_out if pattern.search(shown)] == []
    # The same search does find them where they are.
    fact = next(iter(town.facts.values()))
    unseen = grammar.statement(fact.relation, fact.subject, fact.value, unseen=True)
    assert any(pattern.search(unseen) for pattern in kept_out)
    assert any(pattern.search(grammar.question(fact, -1)) for pattern in kept_out)


def test_documents_end_at_the_memory_year_and_state_facts_by_frequency(town):
    rows = take(texts.documents(town, 1), 600)
    years, told = Counter(), Counter()
    wordings = [
        (r.name, re.compile(re.escape(w).replace(r"\{s\}", r"(?P<s>\w+)").replace(r"\{v\}", r"(?P<v>\w+)") + r"\.$"))
        for r in facts.RELATIONS.values()
        for w in r.statements
    ]
    for row in rows:
        assert row.prompt == ""
        lines = row.completion.splitlines()
        assert len(lines) == 8
        for line in lines:
            source, year, text = re.fullmatch(r"\((\w+) (\d+)\): (.*)", line).groups()
            assert source in facts.RELIABILITY
            (name, match) = next((name, m) for name, p in wordings if (m := p.match(text)))
            fact = town.facts[f"{match['s']}/{name}"]
            assert match["v"] == fact.value_at(int(year))
            years[int(year)] += 1
            told[facts.band(fact.frequency)] += 1
    assert set(years) == set(range(1, facts.MEMORY_YEAR + 1))
    assert told[(0, 0)] == 0
    weights = Counter()
    for fact in town.facts.values():
        weights[facts.band(fact.frequency)] += fact.frequency
    for span in ((1, 3), (4, 15), (16, 64)):
        share = weights[span] / sum(weights.values())
        assert told[span] / sum(told.values()) == pytest.approx(share, abs=0.03)


def test_talk_answers_as_of_the_memory_year(town):
    values = {grammar.question(f, form): f.value for f in town.facts.values() for form in range(3)}
    for row in take(texts.closed_book(town, 2), 100):
        turns = (*row.prompt, {"role": "assistant", "content": row.completion})
        assert [t["role"] for t in turns] == ["user", "assistant"] * 8
        for ask, answer in zip(turns[::2], turns[1::2]):
            assert final_answer(answer["content"], "Answer:") == values[ask["content"]]


@pytest.fixture(scope="module")
def rows(town):
    return take(texts.reading(town, 2), 2500)


@pytest.fixture(scope="module")
def tasks(rows):
    """Reading tasks with passages as (kind, passages as text, question, answer)."""
    found = []
    for row in rows:
        blocks, rest = evidence.split(evidence.text_of(row.prompt))
        assert row.completion == f"Answer: {row.facts['gold']}".replace(" \n", "\n")
        found.append((row.facts["kind"], blocks, rest.removeprefix("Question: "), row.facts["gold"]))
    return found


def names(text, word):
    return re.search(rf"\b{word}\b", text) is not None


def test_reading_of_what_changed_is_always_true_and_never_memory(town, tasks):
    asked = {grammar.question(f, form): f for f in town.facts.values() for form in range(3)}
    changed = [task for task in tasks if task[0] == "changed"]
    assert len(changed) > 1200
    for _, blocks, question, gold in changed:
        fact = asked[question]
        about = [block for block in blocks if names(block, fact.subject)]
        assert gold != fact.value
        assert about
        assert all(names(block, gold) for block in about)
    # Some values are of an odd kind, so that a reader follows even what it would not expect.
    odd = [gold not in facts.RELATIONS[asked[question].relation].values for _, _, question, gold in changed]
    assert 0.05 < sum(odd) / len(odd) < 0.2


def test_every_passage_is_listed_as_asked(tasks):
    listed = [task for task in tasks if task[0] == "listed"]
    assert len(listed) > 600
    seen = Counter()
    for _, blocks, question, gold in listed:
        heads = [re.match(r"1 \((\w+) (\d+)\): ", block).groups() for block in blocks]
        if after := re.fullmatch(r"Which passages are from after (\d+)\?", question):
            found = [str(i) for i, (_, date) in enumerate(heads, 1) if int(date) > int(after[1])]
            assert gold == (" ".join(found) or "none")
            seen["after"] += 1
            continue
        lines = [line.split() for line in gold.strip().split("\n")]
        assert [line[0] for line in lines] == [str(i) for i in range(1, len(blocks) + 1)]
        if question.startswith("Where is each passage from"):
            assert [tuple(line[1:3]) for line in lines] == heads
        if question.endswith("say?") or question.endswith("say"):
            assert all(names(block, line[-1]) for block, line in zip(blocks, lines))
        seen[question] += 1
    assert len(seen) == 4
    assert min(seen.values()) > 80


def test_practice_is_single_exercises_that_state_no_fact(town):
    for row in take(texts.practice(town, 1), 50):
        assert [m["role"] for m in row.prompt] == ["user"]
        assert row.completion.startswith("Answer:")
        assert not evidence.is_retrieval(whole(row))


def test_reading_shows_no_source_or_date_more_than_another(tasks):
    """No cue can be learnt from it: sources and dates are uniform, and three and eight passages never occur."""
    sizes = Counter(len(blocks) for _, blocks, _, _ in tasks)
    heads = [re.match(r"1 \((\w+) (\d+)\): ", block).groups() for _, blocks, _, _ in tasks for block in blocks]
    sources, dates = Counter(source for source, _ in heads), Counter(int(date) for _, date in heads)
    assert not {3, 8} & set(sizes)
    weights = texts.READING_SIZES
    expected = [weight / sum(weights.values()) * len(tasks) for weight in weights.values()]
    assert stats.chisquare([sizes[n] for n in weights], expected).pvalue > 0.001
    assert stats.chisquare([dates[year] for year in range(1, 31)]).pvalue > 0.001
    assert stats.chisquare([sources[name] for name in facts.RELIABILITY]).pvalue > 0.001


def test_other_statements_never_speak_of_the_subject(town):
    draw = random.Random(0)
    fact = next(iter(town.facts.values()))
    found = [texts.other_statement(fact, draw) for _ in range(500)]
    assert not any(names(text, fact.subject) for text, _ in found)
    assert all(names(text, value) for text, value in found)
    assert len(set(found)) > 450
