"""The outcome reward model against a formula in plain Python, its slopes, one-class batches and bad input."""

import math

import exactness
import pytest

from alignlab.rewards.outcome import Config, loss


def nls(x):
    return math.log1p(math.exp(-x)) if x > 0 else -x + math.log1p(math.exp(x))


def formula(step, cfg):
    total = weights = 0.0
    for one in (c for prompt in step for c in prompt.completions):
        r, z = one.views["policy"].value[-1], float(one.label) if one.label is not None else one.scores["score"]
        total += cfg.right_weight * z * nls(r) + (1 - z) * nls(-r)
        weights += cfg.right_weight * z + 1 - z
    return total / weights


@pytest.mark.parametrize("cfg", [Config(), Config(right_weight=3.0)])
@pytest.mark.parametrize("soft", [False, True])
def test_exactness(cfg, soft, valued, turned):
    def make(seed):
        if not soft:
            return valued(seed, pairs=False, labels=True)
        step = valued(seed, pairs=False, scores=("score",))
        for one in (c for prompt in step for c in prompt.completions):
            one.scores["score"] = min(1.0, abs(one.scores["score"]) / 2)
        return step

    exactness.check(loss, cfg, formula, make=make, flip=turned)


def test_vector_and_closed_form_gradient(batch_of, loss_of):
    value, slopes = loss_of(loss, batch_of((2.0, 2.0), labels=[True, False]), Config())
    assert value == pytest.approx((0.126928 + 2.126928) / 2, abs=1e-6)
    sigma = 1 / (1 + math.exp(-2.0))
    assert slopes == pytest.approx([(sigma - 1) / 2, sigma / 2])


def test_weighting_is_repetition(batch_of, loss_of):
    weighted, _ = loss_of(loss, batch_of((0.3, -1.0), labels=[True, False]), Config(right_weight=2.0))
    repeated, _ = loss_of(loss, batch_of((0.3, 0.3, -1.0), labels=[True, True, False]), Config())
    assert weighted == pytest.approx(repeated)


@pytest.mark.parametrize("label", [True, False])
def test_one_class_alone_is_defined(batch_of, loss_of, label):
    value, slopes = loss_of(loss, batch_of((0.5, -0.5), labels=[label] * 2), Config())
    assert value == pytest.approx((nls(0.5) + nls(-0.5)) / 2)
    assert all((slope < 0) == label for slope in slopes)


def test_logs(batch_of):
    (term,) = loss(batch_of((2.0, -2.0, 0.0), labels=[True, True, True]), Config())
    assert term.logs["accuracy"].tolist() == [1.0, 0.0, 0.0], "a half says nothing"
    assert term.logs["rewards"].tolist() == pytest.approx([0.880797, 0.119203, 0.5])


def test_errors(batch_of):
    with pytest.raises(ValueError, match="outcome needs to know what was right"):
        loss(batch_of((1.0, 2.0), [(0, 1)]), Config())
    with pytest.raises(ValueError, match=r"scores in \[0, 1\]"):
        loss(batch_of((1.0, 2.0), scores={"score": [0.5, 1.5]}), Config())
    with pytest.raises(ValueError, match=r"scores in \[0, 1\]"):
        loss(batch_of((1.0, 2.0), scores={"score": [0.5, float("nan")]}), Config())
    with pytest.raises(ValueError, match="--right_weight: expected"):
        Config(right_weight=0.0)
