import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignlab.theory import _beb_check as checks
from alignlab.theory import _beb_examples as examples
from alignlab.theory import beb
from alignlab.theory._beb_worlds import (
    best_of_expectation,
    constants,
    divergence,
    extremes,
    independent,
    log_mixture,
    lowest,
    sample,
    variance,
    weight,
)

TWO = np.array([-1.0, 1.0])
COIN = independent("coin", TWO, np.array([0.9, 0.1]), np.array([0.1, 0.9]))
ALPHAS = [10.0**-k for k in range(1, 13)]
HERE = {"beta_prime": 3.0, "sigma": 1.5, "delta": 0.1}


def test_lengths_of_the_specification():
    assert beb.prompt_length(1e-6, 2, 0.1) == pytest.approx(8.752195, abs=1e-6)
    assert beb.prompt_length(math.exp(-30), 20, 0.1) == pytest.approx(1.684444, abs=1e-6)
    assert beb.best_of_length(1e-6, 2, 0.1, best_of=16) == pytest.approx(10.138489, abs=1e-6)
    assert beb.prefixed_length(1e-6, 2, 0.1, prefix=4, **HERE) == pytest.approx(20.495611, abs=1e-6)
    total, caps = beb.dialogue_length(1e-6, 2, 0.1, answers=(1, 2, 1), **HERE)
    assert total == pytest.approx(31.777508, abs=1e-6)
    assert caps == pytest.approx((9.525318, 12.726873, 9.525318), abs=1e-6)
    assert beb.sampled_length(1e-6, 2, 0.1, sigma=1.5, delta=0.1) == pytest.approx(22.5)
    assert beb.prompt_length(0.01, 0.8 * math.log(9), 0.1) == pytest.approx(4.718481, abs=1e-6)
    assert beb.prompt_length(0.01, 0.8 * math.log(9), 0.1, form="tight") == pytest.approx(4.289251, abs=1e-6)


def test_limits_of_the_lengths():
    assert beb.prompt_length(1 - 1e-12, 2, 0.1) == pytest.approx((math.log(10) + math.log(4)) / 2)
    assert beb.prompt_length(1e-6, 1e-9, 0.1) > 1e9
    assert beb.best_of_length(1e-6, 2, 0.1, best_of=1) == beb.prompt_length(1e-6, 2, 0.1)
    assert beb.prefixed_length(1e-6, 2, 0.1, prefix=0, **HERE) == pytest.approx(beb.prompt_length(1e-6, 2, 0.1) + 1)
    one, _ = beb.dialogue_length(1e-6, 2, 0.1, answers=(4,), **HERE)
    assert one == pytest.approx(beb.prefixed_length(1e-6, 2, 0.1, prefix=4, **HERE))
    assert beb.dialogue_length(1e-6, 2, 0.1, answers=(), **HERE) == (beb.prompt_length(1e-6, 2, 0.1), ())
    assert beb.prompt_length(1e-6, 2, 0.1, eta=0.5) == pytest.approx(beb.prompt_length(1e-6, 2, 0.1) ** 2)


@pytest.mark.parametrize(
    ("arguments", "named"), [((0.0, 2, 0.1), "alpha"), ((1e-3, 0.0, 0.1), "beta"), ((1e-3, 2, 2.0), "eps")]
)
def test_outside_the_theorems_is_refused(arguments, named):
    with pytest.raises(ValueError, match=f"^{named} is"):
        beb.prompt_length(*arguments)


unit = st.floats(0.01, 0.99)


@given(st.floats(1e-12, 0.5), st.floats(0.1, 20), st.floats(0.01, 1), unit, st.floats(0.1, 5), st.integers(1, 64))
def test_tight_forms_never_ask_for_more(alpha, beta, eps, delta, sigma, n):
    pairs = [
        [beb.best_of_length(alpha, beta, eps, best_of=n, form=f) for f in ("published", "tight")],
        [beb.sampled_length(alpha, beta, eps, sigma=sigma, delta=delta, form=f) for f in ("published", "tight")],
        [
            beb.prefixed_length(alpha, beta, eps, beta_prime=1.0, sigma=sigma, delta=delta, prefix=n, form=f)
            for f in ("published", "tight")
        ],
        [
            beb.dialogue_length(alpha, beta, eps, beta_prime=1.0, sigma=sigma, delta=delta, answers=(n, 1), form=f)[0]
            for f in ("published", "tight")
        ],
    ]
    assert all(tight <= published * (1 + 1e-12) for published, tight in pairs)


def test_coin_constants():
    known = constants(COIN)
    assert known.beta == known.beta_prime == pytest.approx(1.757780, abs=1e-6)
    assert known.sigma_minus**2 == pytest.approx(1.738007, abs=1e-6)
    assert known.gamma == pytest.approx(-0.8)
    assert known.positive
    assert known.best_rate == pytest.approx(math.log(9))


@pytest.mark.parametrize(
    ("n", "w", "b", "kl", "nats"),
    [
        (0, 0.010000, 0.784000, 1.689408, 4.605170),
        (1, 0.083333, 0.666667, 1.305733, 2.484907),
        (2, 0.450000, 0.080000, 0.435412, 0.798508),
        (3, 0.880435, -0.608696, 0.034010, 0.127339),
        (4, 0.985135, -0.776216, 0.000735, 0.014976),
    ],
)
def test_coin_after_bad_sentences(n, w, b, kl, nats):
    minus, plus = COIN.start_minus, COIN.start_plus
    found = float(weight(np.array(n * math.log(9)), 0.01))
    mixed = found * minus + (1 - found) * plus
    assert found == pytest.approx(w, abs=1e-6)
    assert mixed @ TWO == pytest.approx(b, abs=1e-6)
    assert minus @ np.log(minus / mixed) == pytest.approx(kl, abs=1e-6)
    assert -math.log(found) == pytest.approx(nats, abs=1e-6)
    # the search over all prompts finds the same: only bad sentences are the best prompt of n
    assert lowest(COIN, 0.01, 4)[n] == pytest.approx(b, abs=1e-6)


@pytest.mark.parametrize(
    ("delta", "bound", "at", "success", "smallest"), [(0.1, 22.5, 23, 0.999967, 8), (0.2, 11.25, 12, 0.995671, 6)]
)
def test_coin_theorem_5_against_the_binomial(delta, bound, at, success, smallest):
    from scipy.stats import binom

    known = constants(COIN)
    published = beb.sampled_length(0.01, known.beta, 0.1, sigma=known.sigma_minus, delta=delta)
    assert published == pytest.approx(bound, abs=1e-5)

    def share(n):
        bad = np.arange(n + 1)
        w = weight((2 * bad - n) * math.log(9), 0.01)
        return float(binom.pmf(bad, n, 0.9)[0.8 - 1.6 * w < -0.7].sum())

    assert share(at) == pytest.approx(success, abs=1e-6)
    assert next(n for n in range(1, 50) if share(n) >= 1 - delta) == smallest
    texts = sample(COIN, "minus", 20000, at, 3)
    drawn = (checks.behaviour(COIN, texts, 0.01) < -0.7).mean(0)
    assert drawn[smallest - 1] == pytest.approx(share(smallest), abs=0.01)


def test_published_curves():
    agreeable = [30.818, 17.638, 9.670, 7.977, 7.114, 5.843, 5.340, 4.537, 3.854, 3.230]
    immigration = [18.468, 9.871, 6.844, 5.313, 3.249, 3.480, 2.769, 1.997, 1.784, 1.778]
    fits = [beb.decay(curve) for curve in (agreeable, immigration, [6.333, 3.441, 2.771], [5.014, 3.319, 2.973])]
    # the curves are printed with three digits, the fits with six
    assert [f.beta for f in fits] == pytest.approx([10.573780, 5.811793, 1.781196, 1.020373], abs=1e-3)
    assert [f.log_inverse_alpha for f in fits] == pytest.approx([29.949013, 17.539505, 5.963114, 4.788838], abs=1e-3)
    assert [f.length for f in fits[:2]] == pytest.approx([2.832385, 3.017916], abs=1e-3)
    assert [beb.decay(c, first=1).length for c in (agreeable, immigration)] == pytest.approx([3.83, 4.02], abs=0.005)
    good = [
        [32, 29.1, 6.8, 2, 0.9, 0.9, 2.4, 0.3, 0.4, 0.8],
        [32, 31.5, 17.3, 8.5, 5.6, 2.1, 3.7, 0.9, 0.9, 0.9],
        [32, 30.9, 25.7, 20.3, 13, 8.7, 7, 3.9, 3.1, 2.8],
        [32, 32, 31.2, 28.3, 23.4, 19, 16.2, 14.6, 8.3, 6.8],
    ]
    assert [beb.half_crossing(curve, 16) for curve in good] == pytest.approx([2.59, 3.15, 4.59, 7.13], abs=0.01)
    assert beb.envelope([29.145, 25.0, 22.716]) == (22.716, 29.145)
    assert beb.variance_slope([45.6, 60.0, 70.0]) == 45.6
    assert math.isnan(beb.half_crossing([32, 31], 16))
    with pytest.raises(ValueError, match="expected 2 to 2"):
        beb.decay([1.0, 2.0])


def test_window_of_the_released_code_drops_a_token():
    minus = (-0.5, -1, -0.2, -0.1, -0.4, -0.3, -0.6, -0.2)
    plus = (-3, -2, -1.2, -0.6, -2.4, -1.3, -1.1, -0.7)
    assert beb.window(minus, plus) == pytest.approx(9.0)
    assert beb.window(minus, plus, "released") == pytest.approx(6.5)


@pytest.mark.parametrize("number", range(6))
def test_moments_of_a_world_against_its_samples(number):
    world = examples.worlds(0)[number]
    texts = sample(world, "minus", 40000, 6, 5)
    error = texts.log_ratio.std(0) / 200
    assert (np.abs(texts.log_ratio.mean(0) - divergence(world, 6).cumsum()) < 4.5 * error + 1e-12).all()
    assert texts.log_ratio.var(0) == pytest.approx(variance(world, 6), rel=0.15)


def test_extreme_prompts_against_all_prompts():
    import itertools

    world = examples.drawn(0)
    high, low = extremes(world, 4, last=2)
    ends = {s: [] for s in range(5)}
    for text in itertools.product(range(5), repeat=4):
        path = (2, *text)
        ends[text[-1]].append(sum(world.ratio(1)[a, b] for a, b in itertools.pairwise(path)))
    assert high[4] == pytest.approx([max(ends[s]) for s in range(5)])
    assert low[4] == pytest.approx([min(ends[s]) for s in range(5)])
    curve = lowest(world, 1e-2, 3)
    least = []
    for text in itertools.product(range(5), repeat=3):
        w = float(weight(np.array(np.subtract(*checks._log_probabilities(world, text))), 1e-2))
        law = w * world.law("minus", 3)[text[-1]] + (1 - w) * world.law("plus", 3)[text[-1]]
        least.append(law @ world.score)
    assert curve[3] == pytest.approx(min(least))


def test_best_of_n_by_enumeration():
    law = np.array([0.5, 0.3, 0.2])
    score = np.array([0.5, -1.0, 0.0])
    by_hand = sum(
        law[i] * law[j] * max(score[i], score[j]) for i in range(3) for j in range(3)
    )  # two answers, all nine pairs
    assert best_of_expectation(score, law, 2) == pytest.approx(by_hand)
    assert best_of_expectation(score, law, 1) == pytest.approx(law @ score)


def test_one_samples_gamma_is_no_bound_for_the_best_of_n():
    """Why theorem 4 is read with gamma of best of n: the coin is prompt-misalignable, its best of 16 never is."""
    assert lowest(COIN, 0.5, 60, best_of=16).min() > 0.6
    assert (
        checks.existence(COIN, constants(COIN).beta, constants(COIN, best_of=16).gamma, ALPHAS, 0.1, best_of=16) == []
    )


def test_disjoint_supports():
    """Lemma 6: KL(P_- || P) = log(1 / alpha) exactly; and P / P_- >= alpha."""
    apart = independent("apart", TWO, np.array([1.0, 0.0]), np.array([0.0, 1.0]))
    mixed = log_mixture(np.array([0.0, -np.inf]), np.array([-np.inf, 0.0]), 1e-3)
    assert -mixed[0] == pytest.approx(math.log(1e3))
    assert apart.ratio(0)[0, 0] == np.inf


@pytest.fixture(scope="module")
def result():
    return beb.check(beb.Config(texts=500, longest=3))


def test_claims_hold_and_a_tampered_value_flips_them(result):
    found = {name: metric.value for name, metric in result.metrics.items()}
    assert all(claim.holds(found) for claim in beb.CARD.claims)
    assert result.metrics["violations/theorem_1"].n == 72
    for claim in beb.CARD.claims:
        assert not claim.holds({**found, claim.metric: claim.bound + 1})


def test_every_alpha_of_every_world_is_a_cell(result):
    rows = result.tables["lengths"].rows
    assert {(world, alpha) for world, theorem, alpha, *_ in rows if theorem == "5"} == {
        (world.name, alpha) for world in examples.worlds(0) for alpha in ALPHAS
    }


def test_conditions_are_audited(result):
    audit = {row[0]: row for row in result.tables["worlds"].rows}
    assert audit["drifting"][-1] == "no: gamma >= 0"
    assert {row[-1] for name, row in audit.items() if name != "drifting"} == {"yes"}


def test_a_beta_that_is_too_large_is_noticed():
    """The checks are not empty: with three times the divergence the bounds are beaten."""
    import dataclasses

    world = examples.worlds(0)[0]
    wrong = dataclasses.replace(constants(world), beta=3 * constants(world).beta, beta_prompt=10.0, beta_prime=0.0)
    assert any(c.violated for c in checks.existence(world, wrong.beta, wrong.gamma, ALPHAS, 0.1))
    texts = sample(world, "minus", 500, 60, 0)
    low_sigma = dataclasses.replace(wrong, sigma_minus=0.1)
    assert any(c.violated for c in checks.sampled(world, low_sigma, ALPHAS, 0.1, 0.1, texts)[0])
    loose = dataclasses.replace(low_sigma, sigma_plus=0.0)
    assert any(c.violated for c in checks.prefixed(world, loose, ALPHAS, 0.1, 0.1, prefix=8, count=50, seed=0))
    assert any(c.violated for c in checks.dialogues(world, loose, ALPHAS, 0.1, 0.1, answers=(3, 3), count=50, seed=0))
    assert min(checks.lemmas(world, wrong, 1e-3, 3)["3"], 0) < 0
    better = dataclasses.replace(constants(world), gamma=-1.0)
    assert checks.lemmas(world, better, 0.5, 3)["7"] < 0


def test_a_fading_gap():
    world = examples.fading(2.0, 0.5, 30)
    assert divergence(world, 30) == pytest.approx(2.0 / np.arange(1, 31) ** 0.5)
    assert any(c.violated for c in checks.existence(world, 8.0, -0.8, ALPHAS[:6], 0.1, eta=0.01))


def test_worlds_that_are_none_are_refused():
    with pytest.raises(ValueError, match="start_plus has rows that are no probabilities"):
        independent("x", TWO, np.array([0.9, 0.1]), np.array([0.1, 0.8]))
    with pytest.raises(ValueError, match="score must lie"):
        independent("x", 2 * TWO, np.array([0.9, 0.1]), np.array([0.1, 0.9]))
    with pytest.raises(ValueError, match="--texts: expected a number >= 100"):
        beb.Config(texts=5)
