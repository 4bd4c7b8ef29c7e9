"""Weak-to-strong losses against the brief's vectors, an independent formula, their limits and the step's quantile."""

import dataclasses
import functools
import math

import exactness
import numpy as np
import pytest
import torch
from exactness import Completion, Prompt, Scored

from alignlab.objectives import weak_to_strong as w2s

LOGITS = [[2.0, 0.0], [0.5, 1.0], [-1.0, 1.0], [1.0, -1.0]]
WEAK = [[0.9, 0.1], [0.4, 0.6], [0.7, 0.3], [0.2, 0.8]]


def rows(logits=LOGITS, weak=WEAK, gold=None):
    return [
        Prompt(
            [
                Completion(
                    views={"policy": Scored(logp=[z - 5.0])},
                    scores={"weak": q, "place": float(k)} | ({} if gold is None else {"gold": float(k == gold[i])}),
                )
                for k, (z, q) in enumerate(zip(zs, qs))
            ]
        )
        for i, (zs, qs) in enumerate(zip(logits, weak))
    ]


def batch_of_rows(*args, **kwargs):
    ((batch, _),) = exactness.lay_out(rows(*args, **kwargs), exactness.Layout(), ("policy",))
    return batch


def settled(batches, cfg, before=None):
    parts = [w2s.stats(batch, cfg) for batch in batches]
    items = {t.name: ([], []) for t in parts[0]}
    for term in (t for part in parts for t in part):
        items[term.name][0].append(term.num.detach().double())
        items[term.name][1].append(term.den.double())
    return w2s.settle({n: (torch.cat(a), torch.cat(b)) for n, (a, b) in items.items()}, before or {}, cfg)


def value(cfg, coefficient=1.0, loss=w2s.loss, **kwargs):
    batch = batch_of_rows(**kwargs)
    values = {**settled([batch], cfg), "coefficient": coefficient}
    return exactness.evaluate(loss, batch, cfg, values)[0]


def check_vectors(loss):
    assert value(w2s.Config(form="xent"), loss=loss) == pytest.approx(1.063715, abs=5e-7)
    assert value(w2s.Config(), 0.05, loss=loss) == pytest.approx(1.042465, abs=5e-7)
    assert value(w2s.Config(), 1.0, loss=loss) == pytest.approx(0.638715, abs=5e-7)
    assert value(w2s.Config(form="product"), loss=loss) == pytest.approx(0.552719, abs=5e-7)


def test_vectors():
    check_vectors(w2s.loss)


def other_class(batch, cfg, values):
    return w2s.loss(dataclasses.replace(batch, scores={"weak": 1 - batch.scores["weak"]}), cfg, values)


@pytest.mark.parametrize("broken", [exactness.negated(w2s.loss), other_class])
def test_the_vector_check_sees_broken_losses(broken):
    with pytest.raises(AssertionError):
        check_vectors(broken)


def test_threshold_keeps_the_teachers_class_balance():
    batch = batch_of_rows()
    assert settled([batch], w2s.Config())["threshold"] == pytest.approx(0.553680, abs=5e-7)
    p0 = batch.views["policy"].logp.reshape(4, 2).softmax(1)[:, 0]
    assert (p0 >= 0.553680).tolist() == [True, False, False, True]


def test_threshold_of_the_step_not_of_its_parts():
    whole = settled([batch_of_rows()], w2s.Config())
    parts = [batch_of_rows(LOGITS[:1], WEAK[:1]), batch_of_rows(LOGITS[1:], WEAK[1:])]
    assert settled(parts[::-1], w2s.Config()) == pytest.approx(whole, rel=1e-12)
    assert settled(parts[:1], w2s.Config())["threshold"] != pytest.approx(whole["threshold"])


def test_confidence_rises_over_the_warm_up():
    cfg, found, state = w2s.Config(rise_steps=4), [], {}
    for _ in range(6):
        state = settled([batch_of_rows()], cfg, state)
        found.append(state["coefficient"])
    assert found == [0, 0.25, 0.5, 0.75, 1, 1]
    assert settled([batch_of_rows()], w2s.Config(rise_steps=0))["coefficient"] == 1
    assert w2s.stats(batch_of_rows(), w2s.Config(form="xent")) == ()
    assert w2s.settle({}, {}, w2s.Config(form="product"))["steps"] == 1


# far from a half, so that it matters which option is class 0
THRESHOLD, COEFFICIENT = 0.3, 0.6


def formula(prompts, cfg):
    lost = []
    for prompt in prompts:
        ordered = sorted(prompt.completions, key=lambda c: c.scores["place"])
        s, q = [c.logp() for c in ordered], [c.scores["weak"] for c in ordered]
        p = [math.exp(a) / sum(map(math.exp, s)) for a in s]
        target, still = q, prompt.still
        if cfg.form == "logconf":
            share, hard = cfg.confidence * COEFFICIENT, float(still[0] >= THRESHOLD)
            target = [(1 - share) * a + share * b for a, b in zip(q, (hard, 1 - hard))]
        elif cfg.form == "product":
            mixed = [a**cfg.beta * b**cfg.alpha for a, b in zip(still, q)]
            target = [a / sum(mixed) for a in mixed]
        lost.append(-sum(t * math.log(a) for t, a in zip(target, p)))
    return math.fsum(lost) / len(lost)


def random_step(seed, options):
    step, draw = [], np.random.default_rng(seed)
    for prompt in exactness.prompts(
        seed, completions=(options, options), views=("policy",), pairs=False, tokens=(1, 3)
    ):
        weak = np.float32(draw.dirichlet([1.0] * options)).astype(float)
        for k, c in enumerate(prompt.completions):
            c.scores = {"weak": float(weak[k]), "place": float(k)}
        s = [c.logp() for c in prompt.completions]
        prompt.still = [math.exp(a) / sum(map(math.exp, s)) for a in s]
        step.append(prompt)
    return step


def at_values(batch, cfg):
    return w2s.loss(batch, cfg, {"threshold": THRESHOLD, "coefficient": COEFFICIENT})


def config_of(form):
    return w2s.Config(form=form, confidence=0.8, alpha=0.7, beta=1.3)


@pytest.mark.parametrize(("form", "options"), [("xent", 3), ("logconf", 2), ("product", 3)])
def test_exactness(form, options):
    """`logconf` reads which option comes first, class 0; the others are shuffled like everything else."""
    step = functools.partial(random_step, options=options)
    exactness.check(at_values, config_of(form), formula, make=step, ranked=form == "logconf")


def test_options_in_another_order_are_other_classes():
    exactness.check_layouts(random_step(0, 2), at_values, config_of("logconf"), ranked=True)
    with pytest.raises(AssertionError):
        exactness.check_layouts(random_step(0, 2), at_values, config_of("logconf"))


def test_the_classes_may_be_exchanged():
    cfg = w2s.Config(rise_steps=0, confidence=0.8)
    found = value(cfg)
    assert found != pytest.approx(value(w2s.Config(form="xent")), rel=1e-3)
    other = value(cfg, logits=[row[::-1] for row in LOGITS], weak=[row[::-1] for row in WEAK])
    assert other == pytest.approx(found, rel=1e-12)


def test_limits():
    assert value(w2s.Config(), 0.0) == pytest.approx(value(w2s.Config(form="xent"))), "no confidence is cross-entropy"
    assert value(w2s.Config(confidence=0.0)) == pytest.approx(value(w2s.Config(form="xent")))
    assert value(w2s.Config(form="product", beta=0.0)) == pytest.approx(value(w2s.Config(form="xent")))
    own = value(w2s.Config(form="product", alpha=0.0))
    p = torch.tensor(LOGITS, dtype=torch.float64).softmax(1)
    assert own == pytest.approx(-(p * p.log()).sum(1).mean().item()), "the student's own entropy"


def test_certain_teachers_and_impossible_options_stay_finite():
    hard = [[1.0, 0.0]] * 4
    for form in ("xent", "logconf", "product"):
        cfg = w2s.Config(form=form, confidence=1.0)
        batch = batch_of_rows([[900.0, -900.0]] * 4, hard)
        found, gradient = exactness.evaluate(w2s.loss, batch, cfg, {**settled([batch], cfg), "coefficient": 1.0})
        assert math.isfinite(found)
        assert bool(torch.isfinite(gradient).all())


def test_a_single_row_decides_for_its_own_threshold():
    batch = batch_of_rows(LOGITS[:1], WEAK[:1])
    cfg = w2s.Config(rise_steps=0, confidence=1.0)
    found = exactness.evaluate(w2s.loss, batch, cfg, settled([batch], cfg))[0]
    assert found == pytest.approx(math.log(1 + math.exp(-2.0))), "p_0 is the quantile, and not below it"


def test_logs():
    batch = batch_of_rows(gold=[0, 0, 1, 1])
    (term,) = w2s.loss(batch, w2s.Config(form="xent"), {})
    assert term.logs["agreement"].tolist() == [1, 1, 0, 0]
    assert term.logs["accuracies"].tolist() == [1, 0, 1, 0]
    assert term.logs["confidence"].tolist() == pytest.approx([0.880797, 0.622459, 0.880797, 0.880797], abs=5e-7)


def test_errors():
    batch = batch_of_rows()
    with pytest.raises(ValueError, match=r"facts.scores.weak"):
        w2s.loss(dataclasses.replace(batch, scores={}), w2s.Config(form="xent"), {})
    with pytest.raises(ValueError, match="a distribution over the completions"):
        w2s.loss(dataclasses.replace(batch, scores={"weak": torch.ones(8)}), w2s.Config(form="xent"), {})
    with pytest.raises(ValueError, match="a distribution over the completions"):
        w2s.loss(dataclasses.replace(batch, scores={"weak": torch.full((8,), math.nan)}), w2s.Config(form="xent"), {})
    three = batch_of_rows([[1.0, 0.0, 2.0]], [[0.5, 0.25, 0.25]])
    with pytest.raises(ValueError, match="--form logconf: expected two completions per row"):
        w2s.stats(three, w2s.Config())
    for flag, bad in (("confidence", 1.5), ("rise_steps", -1), ("alpha", -1.0), ("beta", -1.0)):
        with pytest.raises(ValueError, match=f"--{flag}"):
            w2s.Config(**{flag: bad})
