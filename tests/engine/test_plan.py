import random

import pytest

from alignlab.engine.plan import Span, attention_pairs, plan


def sequences(row):
    """Read a row back: place in the row -> the tokens that the model sees there, from attention's point of view."""
    seen, start = {}, 0
    for span in row.spans:
        prompt = row.ids[start : start + span.prompt]
        for k in range(span.prompt):
            seen[start + k] = prompt[: k + 1]
        start += span.prompt
        for length in span.completions:
            for k in range(length):
                seen[start + k] = prompt + row.ids[start : start + k + 1]
            start += length
    assert start == len(row.ids) == len(row.positions)
    return seen


def check(prompts, completions, group, scored=None, row_tokens=64):
    """Every scored token is predicted once, from exactly the tokens before it."""
    rows = plan(prompts, completions, group, scored, row_tokens=row_tokens)
    columns = [list(range(len(c))) for c in completions] if scored is None else scored
    found = set()
    for row in rows:
        seen = sequences(row)
        assert list(row.positions) == [len(seen[k]) - 1 for k in range(len(row.ids))]
        assert row.longest == max(map(len, seen.values()))
        assert list(row.heads) == sorted(set(row.heads))
        assert {k for k, _, _ in row.scored} == set(range(len(row.heads)))
        assert [k for k, _, _ in row.scored] == sorted(k for k, _, _ in row.scored)
        for k, n, t in row.scored:
            assert row.targets[row.scored.index((k, n, t))] == completions[n][t]
            assert seen[row.heads[k]] == (*prompts[group[n]], *completions[n][:t])
            assert (n, t) not in found
            found.add((n, t))
        assert len(row.ids) <= row_tokens or len(row.spans) == 1
    assert found == {(n, t) for n, c in enumerate(columns) for t in c}
    return rows


def size(rows):
    return sum(len(row.ids) for row in rows)


def test_a_prompt_is_read_once_for_all_its_completions():
    prompt, completions = list(range(10, 22)), [[1, 2, 3, 4], [5, 6, 7], [8, 9, 1, 2, 3]]
    rows = check([prompt], completions, [0, 0, 0])
    # P + C of the formula, less the last token of each completion, which nothing is predicted from
    assert size(rows) == 12 + (4 + 3 + 5) - 3
    assert rows[0].spans == (Span(12, (4, 3, 2)),)
    # one prediction for the first token of all three
    assert len(rows[0].heads) == 1 + 3 + 2 + 4


def test_equal_prompts_are_one_and_equal_completions_too():
    rows = check([[1, 2, 3], [1, 2, 3], [1, 2]], [[4, 5, 6], [4, 5, 6], [4, 5, 7], [4, 5, 6]], [0, 1, 1, 2])
    assert sorted(row.spans for row in rows) == sorted([(Span(3, (2,)), Span(2, (2,)))])
    assert size(rows) == 3 + 2 + 2 + 2


def test_steps_of_one_solution_are_one_sequence():
    solution = [5, 6, 7, 8, 9, 10]
    rows = check([[1, 2]], [solution[:2], solution, solution[:4]], [0, 0, 0])
    assert rows[0].spans == (Span(2, (5,)),)


def test_options_of_one_token_cost_their_prompt_only():
    rows = check([[1, 2, 3]], [[7], [8], [9]], [0, 0, 0])
    assert rows[0].spans == (Span(3, ()),)
    assert rows[0].heads == (2,)


def test_unscored_tokens_in_between_are_read_and_those_after_are_not():
    rows = check([[1, 2]], [[3, 4, 5, 6, 7], [3, 9], [5, 5]], [0, 0, 0], [[1, 3], [], [0]])
    assert rows[0].spans == (Span(2, (3,)),)
    assert rows[0].heads == (1, 2, 4)


@pytest.mark.parametrize("seed", range(30))
def test_random_batches(seed):
    draw = random.Random(seed)
    prompts = [[draw.randrange(3) for _ in range(draw.randint(1, 4))] for _ in range(draw.randint(1, 6))]
    group = [draw.randrange(len(prompts)) for _ in range(draw.randint(1, 14))]
    completions = [[draw.randrange(2) for _ in range(draw.randint(1, 5))] for _ in group]
    scored = [sorted(draw.sample(range(len(c)), draw.randint(0, len(c)))) for c in completions]
    rows = check(prompts, completions, group, scored, row_tokens=draw.choice([1, 8, 20, 10**6]))
    # folded as far as whole sequences allow: no sequence that is read begins another one after the same prompt
    reads = {}
    for row in rows:
        start = 0
        for span in row.spans:
            prompt = row.ids[start : start + span.prompt]
            assert prompt not in reads
            start += span.prompt
            reads[prompt] = []
            for length in span.completions:
                reads[prompt].append(row.ids[start : start + length])
                start += length
    for found in reads.values():
        for i, a in enumerate(found):
            assert a
            assert not any(b[: len(a)] == a for j, b in enumerate(found) if i != j)


def test_rows_are_filled_and_the_same_every_time():
    draw = random.Random(1)
    prompts = [[k, *range(draw.randint(3, 30))] for k in range(100, 140)]
    completions = [[draw.randrange(50) for _ in range(draw.randint(2, 20))] for _ in range(80)]
    group = [k // 2 for k in range(80)]
    rows = check(prompts, completions, group, row_tokens=256)
    assert rows == plan(prompts, completions, group, row_tokens=256)
    # first fit, large ones first: at most one row is less than half full, and few are wasted
    assert len(rows) <= -(-size(rows) // 256) + 1


def test_attention_pairs_are_those_of_the_formula():
    assert attention_pairs(Span(300, (200, 100))) == 300**2 + 200**2 + 100**2 + 2 * 300 * (200 + 100)
    span = Span(7, (3, 4))
    exact = sum(k + 1 for k in range(7)) + sum(7 + k + 1 for c in (3, 4) for k in range(c))
    assert attention_pairs(span) == 2 * exact - span.size  # twice the pairs, but for the diagonal


def test_bad_input():
    with pytest.raises(ValueError, match="prompt without tokens"):
        plan([[]], [[1]], [0], row_tokens=8)
    with pytest.raises(ValueError, match="row_tokens: expected a whole number >= 1, got 0"):
        plan([[1]], [[1]], [0], row_tokens=0)
    assert plan([[]], [[1]], [0], [[]], row_tokens=8) == []


def test_what_is_only_looked_at_stands_in_a_row_of_its_own():
    prompt, completions = [7, 8, 9], [[1, 2, 3, 4], [5, 6, 1], [1, 2, 9], [5, 6, 2, 3], [4]]
    (row,) = plan([prompt], completions, [0] * 5, row_tokens=64, looked_at={1, 2, 3, 4})
    # of the lent ones [1, 2] is read anyway, and [4] is predicted by the prompt's end
    assert (row.ids, row.spans) == ((7, 8, 9, 1, 2, 3), (Span(3, (3,)),))
    assert row.after.ids == (5, 6, 2)
    assert row.after.positions == (3, 4, 5)
    assert row.after.spans == (Span(3, (3,)),)
    assert row.after.longest == 6
    found = sorted((n, t) for part in (row, row.after) for _, n, t in part.scored)
    assert found == sorted((n, t) for n, c in enumerate(completions) for t in range(len(c)))
    assert [(row.after.heads[k], n, t) for k, n, t in row.after.scored] == [
        (0, 1, 1),
        (0, 3, 1),
        (1, 1, 2),
        (1, 3, 2),
        (2, 3, 3),
    ]
    assert row.after.targets == tuple(completions[n][t] for _, n, t in row.after.scored)


def test_rows_read_afterwards_keep_the_prompts_in_order():
    prompts, completions = [[1, 2], [3], [4, 5, 6]], [[7, 8], [9, 7], [8, 8], [9, 9, 9]]
    rows = plan(prompts, completions, [0, 1, 2, 2], row_tokens=64, looked_at={3})
    (row,) = rows
    assert [span.prompt for span in row.spans] == [span.prompt for span in row.after.spans]
    assert [span.completions for span in row.after.spans] == [(2,), (), ()]
    assert plan(prompts, completions, [0, 1, 2, 2], row_tokens=64)[0].after is None
