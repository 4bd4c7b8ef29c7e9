import itertools
import math
import random

import pytest

from alignlab.core.oracle import pool, source_classes, source_frontier

TOWN = (0.95, 0.95, 0.95, 0.8, 0.8, 0.5, 0.2, 0.2)


def poisoned(k, **options):
    return pool(["B"] * k + ["A"] * (5 - k), size=10, reliability=0.7, memory="A", confidence=0.9, **options)


def test_naive_pooling_flips_at_four_copies():
    want = (1.0, 0.999998, 0.999402, 0.793976, 0.008670, 0.000020)
    assert [poisoned(k).probability("A") for k in range(6)] == pytest.approx(want, abs=5e-7)
    assert poisoned(3).probability("B") == pytest.approx(0.205846, abs=5e-7)
    assert poisoned(4).probability("B") == pytest.approx(0.991289, abs=5e-7)
    assert [poisoned(k).best() for k in range(6)] == ["A", "A", "A", "A", "B", "B"]


def test_dedup_never_flips():
    for k in (1, 3):
        got = poisoned(k, pooling="dedup")
        assert (got.probability("A"), got.probability("B")) == pytest.approx((0.983237, 0.012139), abs=5e-7)
    got = poisoned(5, pooling="dedup")
    assert (got.probability("A"), got.probability("B")) == pytest.approx((0.736364, 0.190909), abs=5e-7)
    assert {poisoned(k, pooling="dedup").best() for k in range(6)} == {"A"}


def test_temper_lies_between():
    naive, temper, dedup = (poisoned(4, pooling=p).probability("B") for p in ("naive", "temper", "dedup"))
    assert dedup < temper < naive
    # sqrt(4) = 2 votes for B against 1 for A
    two = pool(["B", "B", "A"], size=10, reliability=0.7, memory="A", confidence=0.9)
    assert temper == pytest.approx(two.probability("B"))


def test_against_a_direct_enumeration_of_worlds():
    """Bayes' rule by summing over every truth, with cues that are drawn given whether a passage is true."""
    answers = "ABCDEFG"
    claims, rates, cues = ["B", "A", "B", "C"], [0.6, 0.9, 0.3, 0.5], [(0.9, 0.2), (0.5, 0.5), (0.1, 0.4), (0.3, 0.6)]
    masses = {}
    for truth in answers:
        mass = 0.55 if truth == "A" else 0.45 / 6
        for claim, r, (given_true, given_false) in zip(claims, rates, cues):
            mass *= r * given_true if claim == truth else (1 - r) / 6 * given_false
        masses[truth] = mass
    got = pool(
        claims,
        size=7,
        reliability=rates,
        memory="A",
        confidence=0.55,
        cue_logratio=[math.log(t / f) for t, f in cues],
    )
    assert [got.probability(a) for a in answers] == pytest.approx([masses[a] / sum(masses.values()) for a in answers])
    assert sum(got.named.values()) + got.unnamed * got.other == pytest.approx(1.0)


def test_order_does_not_matter_and_duplicates_do_not_fool_dedup():
    claims, rates, cues = ["A", "B", "B", None, "C"], [0.9, 0.6, 0.7, 0.5, 0.8], [0.3, -0.2, 0.9, 0.1, -1.0]
    options = {"size": 9, "memory": "A", "confidence": 0.4}
    for pooling in ("naive", "temper", "dedup"):
        first = pool(claims, reliability=rates, cue_logratio=cues, pooling=pooling, **options)
        for order in random.Random(0).sample(list(itertools.permutations(range(5))), 30):
            again = pool(
                [claims[i] for i in order],
                reliability=[rates[i] for i in order],
                cue_logratio=[cues[i] for i in order],
                pooling=pooling,
                **options,
            )
            assert again.named == pytest.approx(first.named, rel=1e-12)
        twice = pool(claims * 2, reliability=rates * 2, cue_logratio=cues * 2, pooling=pooling, **options)
        same = twice.named == pytest.approx(first.named, rel=1e-12)
        assert same == (pooling == "dedup")


def test_cues_can_turn_a_unanimous_contradiction():
    plain = pool(["B"] * 2, size=10, reliability=0.5, memory="A", confidence=0.9)
    trusted = pool(["B"] * 2, size=10, reliability=0.5, memory="A", confidence=0.9, cue_logratio=[2.0, 2.0])
    doubted = pool(["B"] * 2, size=10, reliability=0.5, memory="A", confidence=0.9, cue_logratio=[-2.0, -2.0])
    assert doubted.probability("B") < plain.probability("B") < trusted.probability("B")
    assert (trusted.best(), doubted.best()) == ("B", "A")


def test_without_memory_or_claims_the_prior_is_uniform():
    got = pool([None, None], size=4, reliability=0.7)
    assert (got.named, got.other, got.unnamed) == ({}, 0.25, 4)
    assert got.best() is None
    assert pool(["B"], size=4, reliability=0.7).probability("B") == pytest.approx(0.7)


def test_ties_and_liars():
    tie = pool(["B", "A"], size=4, reliability=0.7)
    assert (tie.best(), tie.best("B"), tie.best("C")) == ("A", "B", "A")
    assert pool(["B"], size=4, reliability=0.1).best() is None  # a known liar: any unnamed answer is likelier


def test_certain_memory_never_moves():
    assert pool(["B"] * 50, size=4, reliability=0.99, memory="A", confidence=1.0).probability("A") == 1.0


def test_many_contexts_do_not_underflow():
    got = pool(["B"] * 5000 + ["A"] * 4990, size=10, reliability=0.7, memory="A", confidence=0.9)
    assert got.probability("B") == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reliability": [0.5]}, "reliability has 1 entries for 2"),
        ({"reliability": 1.0}, "outside"),
        ({"reliability": 0.5, "size": 2, "memory": "C"}, "at least 3"),
        ({"reliability": 0.5, "confidence": 1.5}, "confidence"),
        ({"reliability": 0.5, "cue_logratio": [0.0]}, "cue_logratio"),
        ({"reliability": 0.5, "clusters": [0]}, "clusters"),
    ],
)
def test_bad_input_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        pool(["A", "B"], **{"size": 10, **options})


def test_source_classes_of_the_town():
    classes = source_classes(TOWN)
    assert [c.reliability for c in classes] == [0.95, 0.8, 0.5, 0.2]
    assert [c.p_true for c in classes] == pytest.approx([0.532710, 0.299065, 0.093458, 0.074766], abs=5e-7)
    assert [c.p_poison for c in classes] == pytest.approx([0.056604, 0.150943, 0.188679, 0.603774], abs=5e-7)


@pytest.mark.parametrize(
    ("n", "es", "asr", "j"),
    [
        (1, 0.831776, 0.207547, 0.624229),
        (2, 0.871080, 0.132787, 0.738293),
        (3, 0.918520, 0.076123, 0.842397),
        (5, 0.960852, 0.032833, 0.928019),
    ],
)
def test_frontier_of_the_brief(n, es, asr, j):
    got = source_frontier(n, TOWN)
    assert (got.es, got.asr, got.j) == pytest.approx((es, asr, j), abs=5e-7)


def test_frontier_against_enumerating_source_sequences_and_its_ends():
    weights = [(r / sum(TOWN), (1 - r) / sum(1 - x for x in TOWN)) for r in TOWN]
    es = asr = 0.0
    for taken in itertools.product(weights, repeat=3):
        if sum(math.log(t / p) for t, p in taken) > 0.5:
            es += math.prod(t for t, _ in taken)
            asr += math.prod(p for _, p in taken)
    got = source_frontier(3, TOWN, threshold=0.5)
    assert (got.es, got.asr) == pytest.approx((es, asr), rel=1e-12)
    everything, nothing = source_frontier(3, TOWN, -math.inf), source_frontier(3, TOWN, math.inf)
    assert (everything.es, everything.asr) == pytest.approx((1.0, 1.0))
    assert (nothing.es, nothing.asr) == (0.0, 0.0)
    assert source_frontier(4, (0.7, 0.7)).j == 0.0  # sources that tell nothing apart


def test_frontier_input():
    with pytest.raises(ValueError, match="at least one"):
        source_frontier(0, TOWN)
    with pytest.raises(ValueError, match="outside"):
        source_classes((1.0, 0.5))
