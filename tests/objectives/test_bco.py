"""BCO against the brief's vectors, an independent formula, its bound, its three shifts and prompt matching."""

import dataclasses
import math

import exactness
import numpy as np
import pytest
import torch
from exactness import Completion, Prompt, Scored

from alignlab.core.reduce import total, totals
from alignlab.core.types import Row
from alignlab.objectives import bco

UP, DOWN = (0.8, 0.2), (-0.6, -0.4, 0.1, -0.5)
BOTH = {"liked": 1.0, "disliked": 1.0}


def softplus(x):
    return math.log1p(math.exp(-abs(x))) + max(x, 0.0)


def step_of(up, down, beta=0.1):
    """Rows of one token whose rewards are the given ones."""

    def row(reward, liked):
        return Completion(views={"policy": Scored(logp=[-5 + reward / beta]), "ref": Scored(logp=[-5.0])}, label=liked)

    return [Prompt([row(r, True)]) for r in up] + [Prompt([row(r, False)]) for r in down]


def batch_of_rewards(up, down):
    ((batch, _),) = exactness.lay_out(step_of(up, down), exactness.Layout(), ("policy",))
    return batch


def settled(up, down, cfg, before=None):
    terms = bco.stats(batch_of_rewards(up, down), cfg)
    return bco.settle({t.name: (t.num.detach(), t.den) for t in terms}, before or {}, cfg)


def value(up, down, shift, **settings):
    terms = bco.loss(batch_of_rewards(up, down), bco.Config(**settings), {"shift": shift})
    return total(totals([terms]), {t.name: t.weight for t in terms})


@pytest.mark.parametrize(
    ("shift", "classes", "rows"),
    [(0.0, 1.026864, 0.523036), (0.075, 1.025600, 0.512474), (-1 / 15, 1.030202, 0.533538)],
)
def test_vectors_of_both_reductions(shift, classes, rows):
    assert value(UP, DOWN, shift) == pytest.approx(classes, abs=5e-7)
    assert value(UP, DOWN, shift, reduction="rows") == pytest.approx(rows, abs=5e-7)


@pytest.mark.parametrize(
    ("shift", "expected", "error"),
    [(0.0, 1.440190, 2.853617), (-1.5, 0.948154, 1.213061), (-1.0, 1.006409, None), (1.0, 2.175515, None)],
)
def test_it_bounds_dpo_by_the_error_term(shift, expected, error):
    found = value((-1.0,), (-2.0,), shift)
    gap = math.exp(-(-1.0 - shift)) + math.exp(-2.0 - shift)
    assert found == pytest.approx(expected, abs=5e-7)
    assert found == pytest.approx(math.log(1 + math.exp(-1.0) + gap))
    assert found > softplus(-1.0) == pytest.approx(0.313262, abs=5e-7), "the DPO loss of the pair"
    assert error is None or gap == pytest.approx(error, abs=5e-7)
    assert found >= value((-1.0,), (-2.0,), -1.5), "the midpoint is the best shift"


def test_the_three_shifts_over_two_steps():
    expected = {"midpoint": (0.075, 0.0575), "pooled": (-1 / 15, -0.075), "none": (0.0, 0.0)}
    for form, (first, second) in expected.items():
        cfg = bco.Config(form=form)
        state = settled(UP, DOWN, cfg)
        assert state["shift"] == pytest.approx(first, abs=1e-9)
        assert settled((1.0,), (-1.2,), cfg, state)["shift"] == pytest.approx(second, abs=1e-9)
    once = bco.Config(rate=1.0)
    assert settled((1.0,), (-1.2,), once, settled(UP, DOWN, once))["shift"] == pytest.approx(-0.1)


def test_a_class_that_a_step_lacks_keeps_its_last_mean():
    cfg = bco.Config(rate=0.5)
    alone = settled(UP, (), cfg)
    assert alone["shift"] == 0, "no midpoint before both classes were seen"
    both = settled((), DOWN, cfg, alone)
    assert both["shift"] == pytest.approx(0.075)
    assert settled((0.7,), (), cfg, both)["shift"] == pytest.approx((0.6 - 0.35) / 2)


@pytest.mark.parametrize(("up", "down"), [(UP, ()), ((), DOWN)])
def test_one_class_is_enough_for_a_step(up, down):
    side = [softplus(-(r - 0.1)) for r in up] or [softplus(r - 0.1) for r in down]
    assert value(up, down, 0.1) == pytest.approx(sum(side) / len(side))
    terms = bco.loss(batch_of_rewards(up, down), bco.Config(), {"shift": 0.1})
    assert sorted(float(t.den.sum()) for t in terms) == sorted([0.0, float(len(side))])


def formula(prompts, cfg):
    shift, sides, every = 0.21, {True: [], False: []}, []
    for c in (c for prompt in prompts for c in prompt.completions):
        reward = cfg.beta * c.ratio() - shift
        lost = softplus(-reward) if c.label else c.scores.get("density_ratio", 1.0) * softplus(reward)
        sides[c.label].append(lost)
        every.append(lost)
    if cfg.reduction == "rows":
        return math.fsum(every) / len(every)
    return sum(math.fsum(side) / len(side) for side in sides.values())


@pytest.mark.parametrize("reduction", ["classes", "rows"])
@pytest.mark.parametrize("scores", [(), ("density_ratio",)])
def test_exactness_at_a_fixed_shift(reduction, scores):
    exactness.check(
        lambda batch, cfg: bco.loss(batch, cfg, {"shift": 0.21}),
        bco.Config(beta=0.3, reduction=reduction),
        formula,
        make=lambda seed: exactness.prompts(seed, completions=(1, 2), pairs=False, labels=True, scores=scores, count=8),
    )


def test_the_statistics_do_not_depend_on_the_cut():
    step, cfg = exactness.prompts(3, pairs=False, labels=True), bco.Config(beta=0.3, rate=0.3)
    before = {"liked": 0.4, "disliked": -0.2, "sum": 1.0, "rows": 9.0, "shift": 0.1}
    found = []
    for layout in (exactness.Layout(), exactness.Layout([3, 4], padding=1e9, wider=2, shuffle=1)):
        parts = [bco.stats(batch, cfg) for batch, _ in exactness.lay_out(step, layout, ())]
        items = {t.name: ([], []) for t in parts[0]}
        for term in (t for part in parts for t in part):
            items[term.name][0].append(term.num)
            items[term.name][1].append(term.den)
        found.append(bco.settle({n: (torch.cat(a), torch.cat(b)) for n, (a, b) in items.items()}, before, cfg))
    assert found[0] == pytest.approx(found[1], rel=1e-12)
    means = {up: [0.3 * c.ratio() for p in step for c in p.completions if c.label == up] for up in (True, False)}
    liked, disliked = (
        0.7 * before[n] + 0.3 * sum(m) / len(m) for n, m in (("liked", means[True]), ("disliked", means[False]))
    )
    assert found[0]["shift"] == pytest.approx((liked + disliked) / 2)


def test_gradient_weight_of_a_badly_scored_row():
    batch = batch_of_rewards((-3.0,), ())
    _, gradient = exactness.evaluate(bco.loss, batch, bco.Config(beta=0.1), {"shift": 0.0})
    assert gradient[0, 0].item() == pytest.approx(-0.1 * 0.952574, abs=5e-8)


def test_limits():
    assert value((0.0, 0.0), (0.0,), 0.0) == pytest.approx(2 * math.log(2)), "policy = reference"
    assert value((0.0, 0.0), (0.0,), 0.0, reduction="rows") == pytest.approx(math.log(2))
    moved = value([r + 0.7 for r in UP], [r + 0.7 for r in DOWN], 0.775)
    assert moved == pytest.approx(value(UP, DOWN, 0.075)), "a constant on rewards and shift"
    extreme = batch_of_rewards((-900.0,), (900.0,))
    found, gradient = exactness.evaluate(bco.loss, extreme, bco.Config(), {"shift": 0.0})
    assert found == pytest.approx(1800.0)
    assert bool(torch.isfinite(gradient).all())


def test_density_ratios_weigh_disliked_rows_alone():
    batch = batch_of_rewards(UP, DOWN)
    weights = torch.tensor([7.0, 7.0, 0.5, 1.0, 4.0, 10.0], dtype=torch.float64)
    terms = bco.loss(dataclasses.replace(batch, scores={"density_ratio": weights}), bco.Config(), {"shift": 0.0})
    plain = bco.loss(batch, bco.Config(), {"shift": 0.0})
    assert torch.equal(terms[0].num, plain[0].num)
    assert torch.allclose(terms[1].num, plain[1].num * weights)
    ones = dataclasses.replace(batch, scores={"density_ratio": torch.ones(6, dtype=torch.float64)})
    for term, same in zip(bco.loss(ones, bco.Config(), {"shift": 0.0}), plain):
        assert torch.equal(term.num, same.num)


def labelled(n=300):
    rows = []
    for i in range(n):
        up = i % 2 == 0
        topic = "tea" if (i // 2 % 5 < 4) == up else "clocks"
        rows.append(Row(prompt=f"tell me of {topic}, number {i}", completion="x", label=up, facts={"gold": i}))
    return rows


def test_annotate_matches_the_prompts_of_disliked_rows():
    rows = labelled()
    assert bco.annotate(rows, bco.Config()) == rows
    found = bco.annotate(rows, bco.Config(match_prompts=True))
    assert all(row.facts["gold"] == i for i, row in enumerate(found))
    ratios = {
        topic: [r.facts["scores.density_ratio"] for r in found if topic in r.prompt] for topic in ("tea", "clocks")
    }
    means = {topic: sum(values) / len(values) for topic, values in ratios.items()}
    assert 2.0 < means["tea"] < 7.0, "the truth is 4"
    assert means["clocks"] == pytest.approx(0.5, abs=0.1), "0.25, clamped"


def test_errors_say_what_to_give():
    with pytest.raises(ValueError, match="--match_prompts.*completion and label"):
        bco.annotate([Row(prompt="a", chosen="b", rejected="c")], bco.Config(match_prompts=True))
    with pytest.raises(ValueError, match="all 9 are liked; give rows of both labels"):
        bco.annotate([Row(prompt="a", completion="b", label=True)] * 9, bco.Config(match_prompts=True))
    for flag, bad in (("beta", 0.0), ("rate", 0.0), ("rate", 1.5), ("match_folds", 1)):
        with pytest.raises(ValueError, match=f"--{flag}"):
            bco.Config(**{flag: bad})


def paired_step(seed):
    """One soft, weighted pair per prompt; density ratios differ."""
    step = exactness.prompts(seed, count=7, completions=(2, 2), pairs=False, scores=("density_ratio",))
    draw = np.random.default_rng(seed)
    for prompt in step:
        p, weight = (float(np.float32(x)) for x in (draw.uniform(0.2, 1), draw.uniform(0.1, 3)))
        prompt.pairs = [exactness.Pair(0, 1, p, weight)]
    return step


def sides_of(prompts, value):
    """Weight and value of each completion as a liked and as a disliked row."""
    for better, worse, pair in exactness.ordered_pairs(prompts):
        for completion, p in ((better, pair.p), (worse, 1 - pair.p)):
            yield pair.weight * p, pair.weight * (1 - p), value(completion)


def paired_formula(prompts, cfg):
    def lost(c):
        reward = cfg.beta * c.ratio() - 0.21
        return softplus(-reward), c.scores["density_ratio"] * softplus(reward)

    rows = list(sides_of(prompts, lost))
    liked, disliked = (math.fsum(r[k] * r[2][k] for r in rows) for k in (0, 1))
    up, down = (math.fsum(r[k] for r in rows) for k in (0, 1))
    return (liked + disliked) / (up + down) if cfg.reduction == "rows" else liked / up + disliked / down


@pytest.mark.parametrize("reduction", ["classes", "rows"])
def test_exactness_on_pairs_with_soft_labels_and_weights(reduction):
    cfg = bco.Config(beta=0.3, reduction=reduction)
    exactness.check(lambda batch, cfg: bco.loss(batch, cfg, {"shift": 0.21}), cfg, paired_formula, make=paired_step)


def test_the_shift_of_pairs_with_soft_labels_and_weights():
    step, cfg = paired_step(0), bco.Config(beta=0.3)
    ((batch, _),) = exactness.lay_out(step, exactness.Layout(), ())
    found = bco.settle({t.name: (t.num, t.den) for t in bco.stats(batch, cfg)}, {}, cfg)
    rows = list(sides_of(step, lambda c: 0.3 * c.ratio()))
    means = [math.fsum(r[k] * r[2] for r in rows) / math.fsum(r[k] for r in rows) for k in (0, 1)]
    assert found["shift"] == pytest.approx(sum(means) / 2)


@pytest.mark.parametrize("reduction", ["classes", "rows"])
def test_a_soft_label_is_its_pairs_given_so_often(batch_of, reduction):
    def of(*pairs):
        batch = batch_of([[-1.0], [-2.0]] * len(pairs), [[-2.0], [-1.5]] * len(pairs), pairs, leaf=True)
        cfg = bco.Config(reduction=reduction)
        shift = bco.settle({t.name: (t.num.detach(), t.den) for t in bco.stats(batch, cfg)}, {}, cfg)["shift"]
        value, gradient = exactness.evaluate(bco.loss, batch, cfg, {"shift": shift})
        return [shift, value, *gradient.reshape(-1, 2).sum(0).tolist()]

    times = of((0, 1, 1.0, 1.0), (2, 3, 1.0, 1.0), (4, 5, 1.0, 1.0), (7, 6, 1.0, 1.0))
    assert of((0, 1, 0.75, 4.0)) == pytest.approx(times)
    assert of((0, 1, 0.75, 4.0)) != pytest.approx(of((0, 1, 1.0, 4.0)))
    shift, *_, better, worse = of((0, 1, 0.5, 1.0))
    assert shift == pytest.approx(0.1 * (1.0 - 0.5) / 2), "the mean reward of both, as neither is liked more"
    assert better == pytest.approx(-worse), "a coin toss draws rewards together, whichever is called better"


def test_the_effective_size_of_the_steps_weights_is_reported():
    weights, cfg = torch.tensor([7.0, 7.0, 10.0, 0.5, 0.5, 0.5], dtype=torch.float64), bco.Config()
    batch = dataclasses.replace(batch_of_rewards(UP, DOWN), scores={"density_ratio": weights})
    values = bco.settle({t.name: (t.num.detach(), t.den) for t in bco.stats(batch, cfg)}, {}, cfg)
    assert values["effective_size"] == pytest.approx(11.5**2 / 100.75)
    assert values["shift"] == settled(UP, DOWN, cfg)["shift"]
    for reduction in ("classes", "rows"):
        for term in bco.loss(batch, bco.Config(reduction=reduction), values):
            assert term.logs["effective_size"].tolist() == [pytest.approx(11.5**2 / 100.75)] * 6
    plain = settled(UP, DOWN, cfg, values)
    assert "effective_size" not in plain, "a step without weights says nothing of them"
    assert "effective_size" not in bco.loss(batch_of_rewards(UP, DOWN), cfg, plain)[0].logs
