import itertools

import numpy as np

from alignlab.world.candidates import BASE, LIFT, PER_PROMPT, SHORTCUT, candidates, rewarded


def test_qualities_oppose_and_shortcuts_lift_the_wrong_answers():
    rows = list(itertools.islice(candidates(0), 60))
    columns = {name: np.array([row.facts["scores"][name] for row in rows]) for name in rows[0].facts["scores"]}
    assert columns["first"].shape == (60, PER_PROMPT)
    within = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(columns["first"], columns["second"])])
    assert within < -0.2
    taken = columns["shortcut"] == 1
    assert abs(taken.mean() - SHORTCUT) < 0.01
    centred = columns["first"] - np.median(columns["first"], axis=1, keepdims=True)
    assert centred[taken].mean() > LIFT / 2
    assert columns["gold"][taken].mean() < columns["gold"][~taken].mean() / 2
    assert 0.1 < columns["gold"].mean() < 0.3
    assert columns["first"].mean(1).std() > 1  # offsets of prompts


def test_single_answers_carry_their_base():
    whole, single = next(candidates(3)), list(itertools.islice(rewarded(3), 5))
    assert single[0].completion == whole.completions[0]
    assert single[1].facts["scores"]["first"] == whole.facts["scores"]["first"][1]
    assert len(single[0].facts["base"]["second"]) == BASE
    assert single[4].prompt != single[0].prompt
    assert len({row.meta["id"] for row in single}) == 5
