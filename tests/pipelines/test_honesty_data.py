import itertools
from collections import Counter

import numpy as np
import pytest

from alignlab.core import honesty
from alignlab.core.types import Row, Sample
from alignlab.pipelines.honesty_data import CARD, Config, balanced, collect, judged, make, targets, training_rows
from alignlab.world import facts, knowledge
from alignlab.world.endpoints import endpoint

RIGHT, WRONG = "Paris it is", "Rome it is"


def asked(right, of=10, *, greedy=False, cfg=None, **more):
    """A question with `right` good answers among `of`, the good ones last."""
    row = Row(prompt="Capital?", facts={"gold": "Paris", **more}, meta={"id": "q"})
    return judged(row, RIGHT if greedy else WRONG, [WRONG] * (of - right) + [RIGHT] * right, cfg or Config())


def target(right, greedy=False, **options):
    cfg = Config(**options)
    return targets(asked(right, greedy=greedy, cfg=cfg), cfg)


@pytest.mark.parametrize("form", ["paper", "code"])
def test_three_of_ten_right(form):
    """The specification's example: greedy wrong, three of ten samples right."""
    assert target(3, variant="absolute", form=form) == [RIGHT]
    assert target(3, variant="absolute", form="paper", threshold=0.5) == [honesty.IDK]
    assert target(3, variant="absolute", form="paper", threshold=0.3) == [RIGHT]
    assert target(3, variant="absolute", form="code", threshold=0.5) == [RIGHT]
    assert target(3, variant="confidence_num", form=form) == ["I am only about 30% sure, but paris it is"]
    assert target(3, variant="confidence_verb", form=form) == ["I am not completely sure, but paris it is"]
    assert Counter(target(3, variant="multisample", form=form)) == {RIGHT: 3, honesty.IDK: 7}
    assert target(3, variant="fine_tuned", form=form) == [RIGHT]


def test_greedy_right_but_no_sample():
    """Where the release differs from the text."""
    assert target(0, True, variant="absolute", form="code") == [RIGHT]
    assert target(0, True, variant="absolute") == [honesty.IDK]
    for variant in ("confidence_num", "confidence_verb"):
        assert target(0, True, variant=variant, form="code") == [honesty.IDK]
        assert target(0, True, variant=variant)[0].endswith("with any degree of confidence.")
    assert target(0, True, variant="multisample") == [honesty.IDK] * 10


def test_levels_and_halves():
    said = [target(n, variant="confidence_verb", form="code")[0] for n in range(11)]
    openings = [honesty.IDK, *honesty.LEVELS]
    assert [next(i for i, o in enumerate(openings, 1) if text.startswith(o)) for text in said] == [
        1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6,
    ]  # fmt: skip
    assert "only about 50%" in target(5, variant="confidence_num")[0]
    assert "am about 50%" in target(5, variant="confidence_num", half_is_low=False)[0]


def test_fine_tuned_gives_the_gold_answer():
    assert target(0, variant="fine_tuned") == ["Paris."]
    assert target(0, True, variant="fine_tuned") == [RIGHT]


def test_the_paper_draws_among_right_samples_and_the_release_takes_the_first():
    row = Row(prompt="Capital?", facts={"gold": "Paris"}, meta={"id": "q"})
    texts = [f"Paris {i}" for i in range(10)]
    drawn = {targets(judged(row, WRONG, texts, Config()), Config(seed=seed))[0] for seed in range(40)}
    assert len(drawn) > 5
    assert targets(judged(row, WRONG, texts, Config()), Config(form="code")) == ["Paris 0"]


def test_a_refusal_is_never_right():
    row = Row(prompt="Capital?", facts={"gold": "Paris"}, meta={"id": "q"})
    assert judged(row, "I am not able to say Paris", ["Paris"], Config()).greedy_right is False


def test_balance():
    many = [asked(5, greedy=True)] * 30 + [asked(5)] * 8
    kept = balanced(many, Config())
    assert Counter(a.greedy_right for a in kept) == {True: 8, False: 8}
    assert Counter(a.greedy_right for a in balanced(many, Config(size=10))) == {True: 5, False: 5}
    assert len(balanced(many, Config(balance=False, size=20))) == 20
    assert len(balanced(many[:30], Config(size=20))) == 20  # one kind only: there is nothing to balance
    assert balanced(many, Config()) == balanced(many, Config())


def test_expected_accuracy_is_unbiased():
    """The student by rule has a known accuracy on every fact: estimates lie around it as binomials do."""
    listed = list(itertools.islice(knowledge.questions(0), 480))
    found = collect(listed, endpoint("student"), Config())
    town = facts.town()
    truth = np.array([knowledge.expected(town.facts[row.facts["cluster"]]) for row in listed])
    seen = np.array([a.expected for a in found])
    variance = truth * (1 - truth) / 10
    assert np.sum(seen - truth) ** 2 < 16 * np.sum(variance)
    assert np.sum((seen - truth) ** 2) == pytest.approx(np.sum(variance), rel=0.25)
    share = np.mean([a.greedy_right for a in found])
    assert share == pytest.approx(truth.mean(), abs=4 * np.sqrt(np.mean(truth * (1 - truth)) / len(truth)))


def test_threshold_moves_the_border():
    found = collect(list(itertools.islice(knowledge.questions(0), 200)), endpoint("student"), Config())
    shares = []
    for threshold in (0.1, 0.3, 0.5, 0.7, 0.9):
        said = [targets(a, Config(threshold=threshold))[0] for a in found]
        shares.append(np.mean([text == knowledge.IDK for text in said]))
    assert shares == sorted(shares)
    assert shares[0] < shares[-1]


def test_rows():
    cfg = Config(variant="multisample", balance=False, samples=4)
    made = list(make(itertools.islice(knowledge.questions(0), 10), {"student": endpoint("student")}, cfg))
    assert len(made) == 40
    assert len({row.meta["id"] for row in made}) == 40
    assert all(honesty.PERMIT in row.prompt[-1]["content"] for row in made)
    assert {row.facts["expected"] for row in made} <= {0.0, 0.25, 0.5, 0.75, 1.0}
    plain = next(training_rows([asked(5)], Config(instruction="")))
    assert plain.prompt == ({"role": "user", "content": "Capital?"},)
    assert plain.meta["variant"] == "absolute"


def test_rows_with_answers_ask_nobody():
    row = Row(prompt="Capital?", completion=WRONG, completions=(RIGHT, WRONG), facts={"gold": "Paris"}, meta={"id": 1})
    made = list(make([row], {}, Config(variant="confidence_verb", balance=False)))
    assert made[0].completion == "I have no strong feeling, but paris it is"
    with pytest.raises(ValueError, match="--endpoints student="):
        collect([Row(prompt="Capital?", facts={"gold": "Paris"})], None, Config())


class Counting:
    name = "counting"

    def __init__(self):
        self.calls = []

    def complete(self, prompts, *, n=1, seed=0, temperature=1.0, max_tokens=256):
        self.calls.append((len(prompts), n, temperature))
        return [[Sample(text=RIGHT)] * n for _ in prompts]


def test_what_is_missing_is_said_before_anybody_is_asked():
    student = Counting()
    with pytest.raises(ValueError, match="row 7: fact 'gold'.*--columns facts.gold="):
        collect([Row(prompt="Capital?", meta={"id": 7})], student, Config())
    assert student.calls == []
    collect([Row(prompt="Capital?", facts={"gold": "Paris"})] * 3, student, Config(samples=5))
    assert student.calls == [(3, 1, 0.0), (3, 5, 1.0)]


@pytest.mark.parametrize("options", [{"threshold": 0}, {"samples": 0}, {"size": 0}, {"variant": "absolutely"}])
def test_wrong_settings(options):
    with pytest.raises(ValueError, match=f"--{next(iter(options))}"):
        Config(**options)


def test_the_card_claims_can_fail():
    assert all(claim.holds({"rows": 270.0}) for claim in CARD.claims)
    assert not all(claim.holds({"rows": 480.0}) for claim in CARD.claims)
    assert not all(claim.holds({"rows": 0.0}) for claim in CARD.claims)
