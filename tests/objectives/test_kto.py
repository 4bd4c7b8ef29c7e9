"""KTO against the brief's vectors, an independent formula, its reference point over the step, and its gradient."""

import dataclasses
import math
import warnings

import exactness
import numpy as np
import pytest
import torch
from exactness import Completion, Prompt, Scored

from alignlab.core.reduce import total, totals
from alignlab.core.types import Row
from alignlab.objectives import kto

POLICY, REF, LABELS = (-10.0, -20.0, -8.0, -30.0), (-11.0, -19.0, -9.5, -27.0), (True, False, True, False)
LENT = ((-40.0, -40.5), (-35.0, -36.0), (-50.0, -49.8), (-45.0, -45.3))


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def views(policy, ref):
    return {"policy": Scored(logp=list(policy)), "ref": Scored(logp=list(ref))}


def step_of(policy=POLICY, ref=REF, labels=LABELS, lent=LENT):
    """Rows of one scored token each, with the completions that the step lends them."""
    rows = [Completion(views=views([p], [r]), label=up, origin="dataset") for p, r, up in zip(policy, ref, labels)]
    rows += [Completion(views=views([p], [r]), label=False, origin="mismatched") for p, r in lent]
    return [Prompt([row]) for row in rows]


def evaluate(step, cfg, loss=kto.loss):
    ((batch, _),) = exactness.lay_out(step, exactness.Layout(), ("policy",))
    values = exactness.statistics_of([batch], kto.stats, cfg)
    return (*exactness.evaluate(loss, batch, cfg, values), values)


def check_vectors(loss):
    """The brief's four rows: z0 = 0.4 and the mean of four values."""
    value, gradient, values = evaluate(step_of(), kto.Config(beta=0.1), loss)
    assert values == {"kl": pytest.approx(0.4)}
    assert value == pytest.approx(0.459600, abs=5e-7)
    singles = [0.485004, 0.465057, 0.472528, 0.415809]
    for n, (single, up) in enumerate(zip(singles, LABELS)):
        # d/d logp of lambda (1 - sigma(u)) is -+ beta sigma(u) (1 - sigma(u)) / rows
        slope = 0.1 * single * (1 - single) / 4
        assert gradient[n, 0].item() == pytest.approx(-slope if up else slope, abs=1e-7)
    assert (gradient[4:] == 0).all(), "no gradient flows through the reference point"
    assert evaluate(step_of(), kto.Config(beta=0.1, undesirable_weight=2.0), loss)[0] == pytest.approx(
        0.679816, abs=5e-7
    )


def test_vectors():
    check_vectors(kto.loss)


def test_each_row_of_the_vector():
    ((batch, _),) = exactness.lay_out(step_of(), exactness.Layout(), ())
    (term,) = kto.loss(batch, kto.Config(beta=0.1), {"kl": 0.4})
    assert term.num[:4].tolist() == pytest.approx([0.485004, 0.465057, 0.472528, 0.415809], abs=5e-7)
    assert term.num[4:].tolist() == [0, 0, 0, 0]
    assert term.den.tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    logs = {name: log[:4].tolist() for name, log in term.logs.items()}
    assert logs["rewards"] == pytest.approx([0.1, -0.1, 0.15, -0.3])
    assert logs["rewards/accuracies"] == [1, 1, 1, 1]
    assert logs["kl"] == [0.4] * 4


def wrong_class(batch, cfg, values):
    return kto.loss(dataclasses.replace(batch, label=~batch.label), cfg, values)


def without_reference_point(batch, cfg, values):
    return kto.loss(batch, cfg, {})


@pytest.mark.parametrize("broken", [exactness.negated(kto.loss), wrong_class, without_reference_point])
def test_the_vector_check_sees_broken_losses(broken):
    with pytest.raises(AssertionError):
        check_vectors(broken)


def test_the_reference_point_is_never_below_zero():
    step = step_of(lent=[(-41.0, -40.5), (-36.2, -36.0)])
    value, _, values = evaluate(step, kto.Config(beta=0.1))
    assert values["kl"] == pytest.approx(-0.35)
    assert value == pytest.approx(0.459542, abs=5e-7)


def formula(prompts, cfg, values):
    z0, lost, rows = max(0.0, values["kl"]), 0.0, 0
    for completion in (c for prompt in prompts for c in prompt.completions if c.origin != "mismatched"):
        u = cfg.beta * (completion.ratio() - z0)
        lost += (
            cfg.desirable_weight * (1 - sigmoid(u)) if completion.label else cfg.undesirable_weight * (1 - sigmoid(-u))
        )
        rows += 1
    return lost / rows


def statistics(prompts, cfg):
    lent = [c.ratio() for prompt in prompts for c in prompt.completions if c.origin == "mismatched"]
    return {"kl": math.fsum(lent) / len(lent)}


def random_step(seed, sign=1.0):
    step = exactness.prompts(seed, count=7, completions=(2, 2), pairs=False, labels=True)
    for prompt in step:
        for k, completion in enumerate(prompt.completions):
            completion.origin = "mismatched" if k else "dataset"
            if k:  # the policy gains on unrelated answers, or loses, so that z0 is on a known side of 0
                both = sorted((completion.views["policy"].logp, completion.views["ref"].logp), key=math.fsum)
                low, high = both if sign > 0 else both[::-1]
                completion.views = views(high, low)
    return step


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_exactness(sign):
    cfg = kto.Config(beta=0.3, desirable_weight=1.5, undesirable_weight=0.7)
    kwargs = {"make": lambda seed: random_step(seed, sign), "stats": kto.stats, "statistics": statistics}
    if sign > 0:
        exactness.check(kto.loss, cfg, formula, **kwargs)
    else:  # clamped at 0, a micro-batch's own reference point is as good as the step's
        step = random_step(0, sign)
        exactness.check_formula(step, kto.loss, cfg, formula, kto.stats, statistics)
        exactness.check_layouts(step, kto.loss, cfg, kto.stats)


def test_pairs_count_as_a_liked_and_a_disliked_row(batch_of):
    policy, ref = [[-1.0], [-2.0], [-4.0], [-3.0]], [[-2.0], [-1.0], [-3.5], [-3.5]]
    paired = batch_of(policy, ref, [(0, 1, 1.0, 1.0), (3, 2, 1.0, 1.0)])
    single = dataclasses.replace(batch_of(policy, ref), label=torch.tensor([True, False, False, True]))
    found, wanted = (kto.loss(batch, kto.Config(), {"kl": 0.2})[0].num for batch in (paired, single))
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("up", [True, False])
def test_one_class_is_enough(up):
    step = step_of(labels=(up,) * 4)
    value, gradient, _ = evaluate(step, kto.Config(beta=0.1))
    expected = [sigmoid(-0.1 * (p - r - 0.4) * (1 if up else -1)) for p, r in zip(POLICY, REF)]
    assert value == pytest.approx(sum(expected) / 4)
    assert bool((gradient[:4] < 0).all()) if up else bool((gradient[:4] > 0).all())


def test_limits():
    same = step_of(ref=POLICY, lent=[(-3.0, -3.0)])
    value, _, values = evaluate(same, kto.Config(desirable_weight=3.0, undesirable_weight=1.0))
    assert values["kl"] == 0
    assert value == pytest.approx(0.5 * (3 + 1) / 2), "policy = reference: half of each weight"
    shifted = step_of(policy=[p + 2 for p in POLICY], lent=[(-3.0, -3.0)])
    assert evaluate(shifted, kto.Config())[0] != pytest.approx(evaluate(step_of(lent=[(-3.0, -3.0)]), kto.Config())[0])
    extreme = step_of(policy=(-9000.0, -1.0), ref=(-1.0, -9000.0), labels=(True, False), lent=[(-1.0, -1.0)])
    value, gradient, _ = evaluate(extreme, kto.Config(beta=1.0))
    assert value == pytest.approx(1.0)
    assert bool(torch.isfinite(gradient).all())


def test_without_mismatched_completions_the_reference_point_is_zero():
    ((batch, _),) = exactness.lay_out(step_of(lent=[]), exactness.Layout(), ())
    assert exactness.statistics_of([batch], kto.stats, kto.Config()) == {}
    assert total(totals([kto.loss(batch, kto.Config(beta=0.1), {})]), {"kto": 1.0}) == pytest.approx(0.459542, abs=5e-7)


def test_errors_name_columns_and_flags(batch_of):
    with pytest.raises(ValueError, match="completion and label"):
        kto.loss(batch_of([[-1.0]], [[-1.0]]), kto.Config(), {})
    with pytest.raises(ValueError, match="one verdict per completion"):
        kto.loss(batch_of([[-1.0]] * 3, [[-1.0]] * 3, [(0, 1, 1.0, 1.0)]), kto.Config(), {})
    both_sides = [(0, 1, 1.0, 1.0), (1, 2, 1.0, 1.0)]
    with pytest.raises(ValueError, match="one verdict per completion"):
        kto.loss(batch_of([[-1.0]] * 3, [[-1.0]] * 3, both_sides), kto.Config(), {})
    for flag in ("beta", "desirable_weight", "undesirable_weight"):
        with pytest.raises(ValueError, match=f"--{flag}"):
            kto.Config(**{flag: -1.0})


def paired_step(seed, lent=1):
    """One soft, weighted pair per prompt, and completions of other rows behind it."""
    step = exactness.prompts(seed, count=7, completions=(2 + lent, 2 + lent), pairs=False)
    draw = np.random.default_rng(seed)
    for prompt in step:
        for k, completion in enumerate(prompt.completions):
            completion.origin = "mismatched" if k > 1 else "dataset"
        p, weight = (float(np.float32(x)) for x in (draw.uniform(0.2, 1), draw.uniform(0.1, 3)))
        prompt.pairs = [exactness.Pair(0, 1, p, weight)]
    return step


def paired_formula(prompts, cfg, values):
    z0, lost, rows = max(0.0, values["kl"]), 0.0, 0.0
    for better, worse, pair in exactness.ordered_pairs(prompts):
        for completion, p in ((better, pair.p), (worse, 1 - pair.p)):
            u = cfg.beta * (completion.ratio() - z0)
            liked, disliked = cfg.desirable_weight * sigmoid(-u), cfg.undesirable_weight * sigmoid(u)
            lost += pair.weight * (p * liked + (1 - p) * disliked)
            rows += pair.weight
    return lost / rows


def test_exactness_on_pairs_with_soft_labels_and_weights():
    cfg = kto.Config(beta=0.3, desirable_weight=1.5, undesirable_weight=0.7)
    exactness.check(kto.loss, cfg, paired_formula, make=paired_step, stats=kto.stats, statistics=statistics)


def test_a_coin_toss_teaches_nothing_and_a_pair_of_weight_two_is_two_pairs(batch_of):
    def of(*pairs, count=2):
        batch = batch_of([[-1.0], [-2.0]] * count, [[-2.0], [-1.5]] * count, pairs, leaf=True)
        value, gradient = exactness.evaluate(kto.loss, batch, kto.Config(), {"kl": 0.2})
        return value, gradient.reshape(count, 2).sum(0)

    value, gradient = of((0, 1, 0.5, 1.0), count=1)
    assert value == pytest.approx(0.5)
    assert gradient.tolist() == [0, 0]
    one, two = of((0, 1, 0.75, 2.0), (2, 3, 1.0, 2.0)), of(*[(0, 1, 1.0, 1.0), (2, 3, 1.0, 1.0), (4, 5, 1.0, 1.0)],
        (7, 6, 1.0, 1.0), *[(k, k + 1, 1.0, 1.0) for k in (8, 10, 12, 14)], count=8)  # fmt: skip
    assert one[0] == pytest.approx(two[0])
    assert one[1].tolist() == pytest.approx(two[1].tolist())


def test_the_reward_logs_of_a_soft_label_are_its_share(batch_of):
    batch = batch_of([[-1.0], [-2.0]], [[-2.0], [-1.5]], [(0, 1, 0.75, 1.0)])
    (term,) = kto.loss(batch, kto.Config(), {})
    assert term.logs["rewards/accuracies"].tolist() == [0.75, 0.75]


def test_gradient_weight_of_a_badly_scored_row():
    """The brief: at reward -3, without a reference point, KTO has all but given the row up; BCO has not."""
    step = step_of(policy=(-8.0,), ref=(-5.0,), labels=(True,), lent=())
    ((batch, _),) = exactness.lay_out(step, exactness.Layout(), ("policy",))
    _, gradient = exactness.evaluate(kto.loss, batch, kto.Config(beta=1.0), {})
    assert gradient[0, 0].item() == pytest.approx(-0.045177, abs=5e-7)


def rows_of(up, down):
    return [Row(prompt="Q?", completion="a", label=side) for side, n in ((True, up), (False, down)) for _ in range(n)]


def test_thumbs_out_of_balance_are_named_with_the_weights_that_balance_them():
    """The brief: 100 liked and 300 disliked rows ask for lambda_D in [3, 3.99]."""
    with pytest.warns(
        UserWarning, match=r"--desirable_weight in \[3, 3\.99\], .*--undesirable_weight in \[0\.25.*, 0\.3333\]"
    ):
        assert len(kto.annotate(rows_of(100, 300), kto.Config())) == 400
    with pytest.warns(UserWarning, match=r"--desirable_weight in \[1\.5, 1\.995\]"):
        kto.annotate(rows_of(100, 300), kto.Config(undesirable_weight=0.5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for cfg in (
            kto.Config(desirable_weight=3.0),
            kto.Config(desirable_weight=3.99),
            kto.Config(undesirable_weight=0.3),
        ):
            kto.annotate(rows_of(100, 300), cfg)
        kto.annotate(rows_of(100, 300), kto.Config(undesirable_weight=0.0))
        kto.annotate(rows_of(5, 0), kto.Config())
        kto.annotate([Row(prompt="Q?", chosen="a", rejected="b")], kto.Config())
