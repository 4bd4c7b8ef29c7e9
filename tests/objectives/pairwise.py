"""What the tests of losses over pairs share: single pairs with chosen numbers, enumerable worlds, errors."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import exactness
import numpy as np
import pytest
import torch
from exact_steps import Completion, Layout, Pair, Prompt, Scored, lay_out
from scipy.optimize import minimize

from alignlab.core.reduce import share, totals
from alignlab.core.types import Groups, View

BRIEF = ((-12.0, -13.0, 5), (-15.0, -14.0, 8))
"""The pair of all vectors: better and worse completion as (log p, log p_ref, tokens); with beta 0.1, z = 0.2."""

Side = tuple[float, float, int]


def pair(better: Side, worse: Side, p: float = 1.0) -> Groups:
    """A batch of one pair, each side's log-probabilities spread evenly over its tokens."""
    given = []
    for policy, ref, n in (better, worse):
        views = {"policy": Scored(logp=[policy / n] * n), "ref": Scored(logp=[ref / n] * n)}
        given.append(Completion(views=views))
    ((batch, _),) = lay_out([Prompt(given, [Pair(0, 1, p)])], Layout(), ("policy",))
    return batch


def ratios(better: float, worse: float, p: float = 1.0) -> Groups:
    """A batch of one pair of single tokens with the given log-ratios of policy to reference."""
    return pair((-5.0 + better, -5.0, 1), (-7.0 + worse, -7.0, 1), p)


def slopes(method: ModuleType, cfg: Any, batch: Groups, *values: Mapping[str, float]) -> tuple[float, float, float]:
    """Return the loss, and its slope in the log-probability of a token of the better and of the worse completion."""
    value, gradient = exactness.evaluate(method.loss, batch, cfg, *values)
    return value, gradient[0, 0].item(), gradient[1, 0].item()


def value(method: ModuleType, cfg: Any, batch: Groups, *values: Mapping[str, float]) -> float:
    """Return the loss of a batch."""
    return slopes(method, cfg, batch, *values)[0]


def sigmoid(x: float) -> float:
    """1 / (1 + e^-x)."""
    return 1 / (1 + math.exp(-x))


def nls(x: float) -> float:
    """-log sigma(x)."""
    return math.log1p(math.exp(-x)) if x > 0 else -x + math.log1p(math.exp(x))


def mean_over_pairs(of_pair: Callable[[Completion, Completion], float], step: Sequence[Prompt]) -> float:
    """Weighted mean over the pairs of a step of a loss in expectation over the label."""
    total = weights = 0.0
    for better, worse, judged in exactness.ordered_pairs(step):
        total += judged.weight * (judged.p * of_pair(better, worse) + (1 - judged.p) * of_pair(worse, better))
        weights += judged.weight
    return total / weights


def likelihood(step: Sequence[Prompt], form: str) -> float:
    """Negative log-likelihood of the better completions: `sum`, `per_pair` or `per_token`."""
    rows = [(judged.weight, -better.logp(), len(better)) for better, _, judged in exactness.ordered_pairs(step)]
    if form == "per_token":
        return sum(w * nll for w, nll, _ in rows) / sum(w * n for w, _, n in rows)
    return sum(w * (nll if form == "sum" else nll / n) for w, nll, n in rows) / sum(w for w, _, _ in rows)


def check_errors(method: ModuleType, wrong: Sequence[dict[str, Any]], *values: Mapping[str, float]) -> None:
    """A batch without pairs names the columns; a bad setting names its flag and value."""
    bare = dataclasses.replace(ratios(0.0, 0.0), pairs=None)
    for call in (method.loss, getattr(method, "stats", method.loss)):
        with pytest.raises(
            ValueError, match=f"{method.__name__.rpartition('.')[2]} needs pairs: .*chosen and rejected"
        ):
            call(bare, method.Config(), *(values if call is method.loss else ()))
    for setting in wrong:
        ((flag, bad),) = setting.items()
        # TypeError: the run-time type check of the tests comes before the method's own for a wrong word
        with pytest.raises((ValueError, TypeError), match=flag) as error:
            method.Config(**setting)
        if not isinstance(bad, str):
            assert f"--{flag}: expected" in str(error.value)


def minimised(objective: Callable[[torch.Tensor], torch.Tensor], start: torch.Tensor) -> torch.Tensor:
    """Return log-probabilities over an enumerable set of answers that minimise a smooth function of them."""

    def with_slope(theta: np.ndarray) -> tuple[float, np.ndarray]:
        leaf = torch.tensor(theta, dtype=torch.float64, requires_grad=True)
        loss = objective(leaf.log_softmax(0))
        loss.backward()
        return loss.item(), leaf.grad.numpy()

    found = minimize(with_slope, start.numpy(), jac=True, method="BFGS", options={"gtol": 1e-10})
    return torch.tensor(found.x).log_softmax(0)


def optimum(method: ModuleType, cfg: Any, ref: Sequence[float], pairs: Sequence[Pair]) -> torch.Tensor:
    """Return the policy [K] that minimises a loss over all answers of one prompt, as log-probabilities."""
    logp = torch.tensor(ref, dtype=torch.float64).log_softmax(0)
    given = [Completion(views={"policy": Scored([x]), "ref": Scored([x])}) for x in logp.tolist()]
    ((batch, _),) = lay_out([Prompt(given, list(pairs))], Layout(), ())

    def objective(policy: torch.Tensor) -> torch.Tensor:
        terms = method.loss(
            dataclasses.replace(batch, views={**batch.views, "policy": View(logp=policy[:, None])}), cfg
        )
        return share(terms, {name: den for name, (_, den) in totals([terms]).items()})

    return minimised(objective, logp)


REF = (0.5, -1.0, 0.0, -0.3)
REWARDS = (1.0, -0.5, 0.3, 0.0)


def all_pairs(p: Callable[[float, float], float], rewards: Sequence[float] = REWARDS) -> list[Pair]:
    """Every pair of answers once, whose label holds with the probability that `p` gives to the two rewards."""
    n = len(rewards)
    return [Pair(i, k, p(rewards[i], rewards[k])) for i in range(n) for k in range(i)]


def centred(values: torch.Tensor | Sequence[float]) -> torch.Tensor:
    """Values without their mean: what preferences identify."""
    values = torch.as_tensor(values, dtype=torch.float64)
    return values - values.mean()


def log_ratio(policy: torch.Tensor, ref: Sequence[float] = REF) -> torch.Tensor:
    """Log-ratio of a policy to the reference."""
    return policy - torch.tensor(ref, dtype=torch.float64).log_softmax(0)
