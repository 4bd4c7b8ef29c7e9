"""BCO against the brief's vectors, an independent formula, its bound, its three shifts and prompt matching."""

import dataclasses
import math

import exactness
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
    with pytest.raises(ValueError, match="both samples"):
        bco.annotate([Row(prompt="a", completion="b", label=True)] * 9, bco.Config(match_prompts=True))
    for flag, bad in (("beta", 0.0), ("rate", 0.0), ("rate", 1.5), ("match_folds", 1)):
        with pytest.raises(ValueError, match=f"--{flag}"):
            bco.Config(**{flag: bad})
