import itertools

import numpy as np
import pytest

from alignlab.core.types import Row
from alignlab.probes.overoptimisation import (
    CARD,
    Config,
    annotator,
    best_of_n,
    best_of_n_kl,
    combined,
    ensemble,
    measure,
    tilted,
)

GOLD = np.array([0.1, 0.5, 0.3, 0.9, 0.2])
MEMBERS = np.array([[1, 2, 0.5], [0.8, 3, 0.6], [1.2, -1, 0.4]])


@pytest.mark.parametrize(("n", "value"), [(1, 0.4), (2, 0.46), (3, 0.42), (5, 0.2)])
def test_best_of_n(n, value):
    assert best_of_n(np.arange(5.0), GOLD, n) == pytest.approx(value)
    by_hand = np.mean([GOLD[max(chosen)] for chosen in itertools.combinations(range(5), n)])
    assert best_of_n(np.arange(5.0), GOLD, n) == pytest.approx(by_hand)
    shuffled = np.array([3, 0, 4, 1, 2])
    assert best_of_n(np.arange(5.0)[shuffled], GOLD[shuffled], n) == pytest.approx(value)


def test_best_of_more_than_there_are():
    with pytest.raises(ValueError, match="n is 6 of 5 samples"):
        best_of_n(np.arange(5.0), GOLD, 6)
    assert np.isfinite(best_of_n(np.arange(20000.0), np.zeros(20000), 10000))


@pytest.mark.parametrize(("n", "kl"), [(1, 0), (4, 0.636294), (16, 1.835089), (64, 3.174508)])
def test_kl_of_best_of_n(n, kl):
    assert best_of_n_kl(n) == pytest.approx(kl, abs=1e-6)


def test_ensembles():
    assert ensemble(MEMBERS, "mean") == pytest.approx([1, 4 / 3, 0.5])
    assert ensemble(MEMBERS, "worst") == pytest.approx([0.8, -1, 0.4])
    assert ensemble(MEMBERS, "uncertainty", 0.5) == pytest.approx([0.986667, -0.111111, 0.496667], abs=1e-6)


@pytest.mark.parametrize(("quality", "share"), [(0.1, 0.524979), (1, 0.731059), (10, 0.999955), (-1, 1.0)])
def test_annotators(quality, share):
    assert annotator(1.0, quality) == pytest.approx(share, abs=1e-6)


@pytest.mark.parametrize("kl", [0.01, 0.5, 2.0])
def test_tilting_to_a_kl(kl):
    proxy = np.random.default_rng(0).normal(size=64)
    weights = tilted(proxy, kl)
    assert weights.sum() == pytest.approx(1)
    assert weights @ np.log(weights * 64) == pytest.approx(kl, abs=1e-8)
    ratio = np.diff(np.log(weights)[np.argsort(proxy)]) / np.diff(np.sort(proxy))
    assert ratio == pytest.approx(np.full(63, ratio[0]))  # exponential in the proxy


def test_a_kl_out_of_reach():
    assert tilted(np.array([0.0, 1.0, 1.0, 0.5]), 5.0).tolist() == [0, 0.5, 0.5, 0]
    assert tilted(np.zeros(4), 1.0).tolist() == [0.25] * 4


def test_a_prompts_offset_is_nothing_to_centred_rewards():
    scores = np.random.default_rng(1).normal(size=(2, 40))
    shifted = scores + np.array([[3.0], [-7.0]])
    assert combined(shifted, "log_sigmoid", Config()) == pytest.approx(combined(scores, "log_sigmoid", Config()))
    assert np.abs(combined(shifted, "worst", Config()) - combined(scores, "worst", Config())).max() > 1


def test_a_faithful_proxy_is_not_overoptimised():
    draw = np.random.default_rng(2)
    rows = [
        Row(prompt="?", completions=("x",) * 32, facts={"scores": {"first": gold, "gold": gold}})
        for gold in draw.normal(size=(20, 32)).tolist()
    ]
    found = {name: m.value for name, m in measure(None, rows, Config(proxies=("first",))).metrics.items()}
    assert found["sum/gold/peak"] == found["sum/gold/last"] > found["sum/gold/first"]
    assert found["sum/n at peak"] == 32
    assert found["log_sigmoid/gold/last"] == found["sum/gold/last"]  # one reward: the same choice
    assert not any(name.startswith("worst") for name in found)


def test_the_town_overoptimises_and_centred_rewards_do_so_less():
    result = measure(None, [], Config(prompts=100))
    found = {name: m.value for name, m in result.metrics.items()}
    assert all(claim.holds(found) for claim in CARD.claims)
    assert not all(claim.holds({**found, "sum/gold/last": found["sum/gold/peak"]}) for claim in CARD.claims)
    for kl in ("0.5", "1", "2"):
        assert found[f"log_sigmoid/gold at KL {kl}"] > found[f"sum/gold at KL {kl}"]
    rises = [row[3] for row in result.tables["best of n"].rows if row[0] == "sum"]
    assert rises == sorted(rises)  # the proxy itself never falls


@pytest.mark.parametrize("scores", [{}, {"first": (1.0,), "second": (1.0, 2.0), "gold": (0.0, 1.0)}])
def test_missing_scores_are_named(scores):
    with pytest.raises(ValueError, match=r"row 0: expected facts.scores.first"):
        measure(None, [Row(prompt="?", completions=("a", "b"), facts={"scores": scores})], Config())
    with pytest.raises(ValueError, match="--kls > 0"):
        Config(kls=(0.0,))
