"""Bradley-Terry rewards against hand-worked numbers, a formula in plain Python, closed-form slopes and the optimum."""

import dataclasses
import math

import exactness
import pytest
import torch

from alignlab.core.reduce import share, totals
from alignlab.core.types import View
from alignlab.rewards import bradley_terry
from alignlab.rewards.bradley_terry import Config, loss


def nls(x):
    return math.log1p(math.exp(-x)) if x > 0 else -x + math.log1p(math.exp(x))


def reward(one):
    return one.views["policy"].value[-1]


def formula(step, cfg):
    total = weights = 0.0
    for better, worse, pair in exactness.ordered_pairs(step):
        win, lose, m = reward(better), reward(worse), pair.margin
        likelihood = pair.p * nls(win - lose - m) + (1 - pair.p) * nls(lose - win - m)
        total += pair.weight * (likelihood + cfg.center_rewards_coefficient * (win + lose) ** 2)
        weights += pair.weight
    return total / weights


@pytest.mark.parametrize("cfg", [Config(), Config(center_rewards_coefficient=0.3)])
def test_exactness(cfg, valued, turned):
    exactness.check(loss, cfg, formula, make=valued, flip=turned)


@pytest.mark.parametrize(
    ("values", "margin", "centre", "wanted"),
    [((0.7, -0.2), 0.0, 0.0, 0.341154), ((0.7, -0.2), 0.5, 0.0, 0.513015), ((0.7, -0.2), 0.5, 0.01, 0.515515),
     ((1.2, 0.5), 0.0, 0.0, 0.403186)],
)  # fmt: skip
def test_vectors_and_closed_form_gradient(batch_of, loss_of, values, margin, centre, wanted):
    batch = batch_of(values, [(0, 1, 1.0, 1.0, margin)])
    value, slopes = loss_of(loss, batch, Config(center_rewards_coefficient=centre))
    assert value == pytest.approx(wanted, abs=5e-7)
    slope = -1 / (1 + math.exp(values[0] - values[1] - margin))
    pull = 2 * centre * sum(values)
    assert slopes == pytest.approx([slope + pull, -slope + pull], abs=1e-9)


def test_limits_and_identities(batch_of, loss_of):
    pairs = [(0, 1, 0.8, 1.0), (2, 1, 1.0, 2.0)]

    def at(values, pairs=pairs):
        return loss_of(loss, batch_of(values, pairs), Config())[0]

    assert at((0.3, 0.3, 0.3)) == pytest.approx(math.log(2)), "ties"
    assert at((1.0, -0.5, 0.2)) == pytest.approx(at((8.0, 6.5, 7.2))), "a constant added to all rewards of a prompt"
    assert at((1.0, -0.5, 0.2)) == pytest.approx(at((1.0, -0.5, 0.2), [(1, 0, 0.2, 1.0), *pairs[1:]])), "mirrored"
    assert at((1.0, -0.5, 0.2)) == pytest.approx(at((1.0, -0.5, 0.2), [*pairs[:1], *[(2, 1, 1.0, 1.0)] * 2]))
    assert at((5e3, -5e3, 0.0), [(1, 0, 1.0, 1.0)]) == pytest.approx(1e4), "no overflow"


def test_optimum_is_the_reward_up_to_a_constant(batch_of):
    rewards = torch.tensor([1.0, -0.5, 0.3, 0.0], dtype=torch.float64)
    pairs = [(i, k, torch.sigmoid(rewards[i] - rewards[k]).item(), 1.0) for i in range(4) for k in range(i)]
    batch = batch_of([0.0] * 4, pairs)
    found = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS(
        [found], max_iter=200, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def step():
        solver.zero_grad()
        value = torch.zeros(batch.mask.shape, dtype=torch.float64).index_put(
            (torch.arange(4), torch.ones(4, dtype=torch.long)), found
        )
        terms = loss(dataclasses.replace(batch, views={"policy": View(logp=value, value=value)}), Config())
        whole = share(terms, {name: den for name, (_, den) in totals([terms]).items()})
        whole.backward()
        return whole

    solver.step(step)
    torch.testing.assert_close(found.detach() - found.detach().mean(), rewards - rewards.mean(), atol=1e-6, rtol=0)


def test_logs_and_ties(batch_of):
    (term,) = loss(batch_of((2.0, 0.5, 0.5), [(0, 1, 1.0, 1.0), (1, 2, 1.0, 1.0)]), Config())
    assert term.logs["rewards/margins"].tolist() == [1.5, 0.0]
    assert term.logs["rewards/accuracies"].tolist() == [1.0, 0.0], "a tie is wrong"


def test_a_nan_reward_is_not_hidden_and_stays_in_its_pair(batch_of):
    batch = batch_of((float("nan"), 0.5, 0.1), [(0, 1, 1.0, 1.0), (1, 2, 1.0, 1.0)])
    (term,) = loss(batch, Config())
    assert term.num.isnan().tolist() == [True, False]


def test_errors(batch_of):
    with pytest.raises(ValueError, match="bradley_terry needs pairs: .*chosen and rejected"):
        loss(batch_of((1.0, 2.0)), Config())
    batch = batch_of((1.0, 2.0), [(0, 1)])
    with pytest.raises(ValueError, match="needs a reward model"):
        loss(dataclasses.replace(batch, views={"policy": View(logp=batch.views["policy"].logp)}), Config())
    for wrong in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="--center_rewards_coefficient: expected"):
            Config(center_rewards_coefficient=wrong)
    assert "value" in bradley_terry.CARD.needs
