"""The order classifier against a formula in plain Python, limits, and the order it finds where labels are noisy."""

import math

import exactness
import pytest
import torch

from alignlab.rewards.order_classifier import Config, loss


def nls(x):
    return math.log1p(math.exp(-x)) if x > 0 else -x + math.log1p(math.exp(x))


def formula(step, cfg):
    total = weights = 0.0
    for better, worse, pair in exactness.ordered_pairs(step):
        p = pair.p * (1 - cfg.label_smoothing) + (1 - pair.p) * cfg.label_smoothing
        for one, wins in ((better, p), (worse, 1 - p)):
            r = one.views["policy"].value[-1]
            total += pair.weight * (wins * nls(r) + (1 - wins) * nls(-r))
            weights += pair.weight
    return total / weights


@pytest.mark.parametrize("cfg", [Config(), Config(label_smoothing=0.1)])
def test_exactness(cfg, valued, turned):
    exactness.check(loss, cfg, formula, make=valued, flip=turned)


def test_vector_and_closed_form_gradient(batch_of, loss_of):
    # log sigma(2) = -0.126928, log sigma(-0.5) = -0.974077; log(1 - sigma(-0.5)) = -0.474077
    value, slopes = loss_of(loss, batch_of((2.0, -0.5), [(0, 1)]), Config())
    assert value == pytest.approx((0.126928 + 0.474077) / 2, abs=1e-6)
    sigma = [1 / (1 + math.exp(-2.0)), 1 / (1 + math.exp(0.5))]
    assert slopes == pytest.approx([(sigma[0] - 1) / 2, sigma[1] / 2], abs=1e-9)


def test_limits_and_what_sets_it_apart_from_bradley_terry(batch_of, loss_of):
    def at(*values, pairs=((0, 1),)):
        return loss_of(loss, batch_of(values, pairs), Config())[0]

    assert at(0.0, 0.0) == pytest.approx(math.log(2))
    assert at(3.0, 3.0) > math.log(2), "a tie away from 0 costs: rewards have a fixed origin"
    assert at(1.0, 0.0) != pytest.approx(at(2.0, 1.0)), "a constant is not free, as it is for Bradley and Terry"
    assert at(-3e3, 3e3) == pytest.approx(3e3), "no overflow"
    assert at(0.4, 0.4, pairs=((0, 1, 0.5),)) == pytest.approx((nls(0.4) + nls(-0.4)) / 2), "a coin's label"


def test_the_order_is_found_under_noisy_labels(batch_of):
    """Closed form: an answer's logit is the log-odds of how often it won, which is monotone in its true reward."""
    truth = torch.tensor([-1.0, -0.2, 0.1, 0.8], dtype=torch.float64)
    pairs = [(i, k, torch.sigmoid(0.5 * (truth[i] - truth[k])).item()) for i in range(4) for k in range(i)]
    rate = torch.zeros(4, dtype=torch.float64)
    for i, k, p in pairs:
        rate[i] += p / 3
        rate[k] += (1 - p) / 3
    logit = (rate / (1 - rate)).log()
    batch = batch_of(logit.tolist(), pairs)
    (term,) = loss(batch, Config())
    (gradient,) = torch.autograd.grad(term.num.sum(), batch.views["policy"].value)
    torch.testing.assert_close(gradient[:, 1], torch.zeros(4, dtype=torch.float64), atol=1e-12, rtol=0)
    assert (logit[1:] > logit[:-1]).all()


def test_logs_are_those_of_the_pairs(batch_of):
    (term,) = loss(batch_of((2.0, 0.5, 0.5), [(0, 1), (1, 2)]), Config())
    assert term.logs["rewards/accuracies"].tolist() == [1.0, 0.0] * 2


def test_errors(batch_of):
    with pytest.raises(ValueError, match="order_classifier needs pairs"):
        loss(batch_of((1.0, 2.0)), Config())
    for wrong in (-0.1, 0.5):
        with pytest.raises(ValueError, match="--label_smoothing: expected"):
            Config(label_smoothing=wrong)
