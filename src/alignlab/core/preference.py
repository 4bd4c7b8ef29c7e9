"""Algebra that objectives over pairs share: log-ratios, labels in expectation, the likelihood term, TRL's logs."""

import math
from collections.abc import Callable, Mapping
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from alignlab.core.masks import lengths, seq_sum
from alignlab.core.types import Groups, Pairs, Term

LikelihoodForm = Literal["sum", "per_pair", "per_token"]
"""of the likelihood term: nats per completion; nats per token, each pair or each token of the step weighing the same"""


def pairs_of(batch: Groups, method: str) -> Pairs:
    """Return the pairs of a batch; ValueError, naming the method and the columns it needs, where there are none."""
    if batch.pairs is None:
        raise ValueError(f"{method} needs pairs: give rows with chosen and rejected, or completions with scores")
    return batch.pairs


def require(holds: bool, flag: str, expected: str, value: object) -> None:
    """Raise ValueError naming a setting by its flag, what was expected and what came, unless `holds`."""
    if not holds:
        raise ValueError(f"--{flag}: expected {expected}, got {value!r}")


def require_positive(flag: str, value: float) -> None:
    """Raise ValueError unless a setting is a finite number above 0."""
    require(0 < value < math.inf, flag, "a finite number > 0", value)


def require_at_least_zero(flag: str, value: float) -> None:
    """Raise ValueError unless a setting is a finite number of at least 0."""
    require(0 <= value < math.inf, flag, "a finite number >= 0", value)


def policy_and_ratios(batch: Groups) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"]]:
    """Return log p(y|x) and log p(y|x) - log p_ref(y|x), summed over scored tokens, nats, from `policy` and `ref`."""
    policy = seq_sum(batch.views["policy"].logp, batch.mask)
    return policy, policy - seq_sum(batch.views["ref"].logp, batch.mask)


def tokens(batch: Groups, like: Tensor) -> Float[Tensor, "N"]:
    """Return the number of scored tokens of each completion, at least 1, in the precision of `like`."""
    return lengths(batch.mask).clamp(min=1).to(like.dtype)


def expected(loss: Callable[[Tensor, Tensor], Tensor], values: Float[Tensor, "N"], pairs: Pairs) -> Float[Tensor, "R"]:
    """Return the loss of each pair in expectation over its label: p loss(w, l) + (1 - p) loss(l, w).

    Args:
        loss: of the better and the worse completion's value; finite for every finite value, either way round.
        values: one number per completion, such as a log-ratio.
        pairs: whose p is the probability that the label holds; 1 gives the loss itself.
    """
    better, worse = values[pairs.better], values[pairs.worse]
    return pairs.p * loss(better, worse) + (1 - pairs.p) * loss(worse, better)


def flipped_with(p: Float[Tensor, "R"], rate: float) -> Float[Tensor, "R"]:
    """Return the probability that a label holds after it is flipped with probability `rate`."""
    return p * (1 - rate) + (1 - p) * rate


def pair_term(
    name: str, per_pair: Float[Tensor, "R"], pairs: Pairs, logs: Mapping[str, Tensor], *, weight: float = 1.0
) -> Term:
    """Return the mean over the pairs of the optimiser batch; a pair of weight 2 is the pair given twice."""
    return Term(name=name, num=pairs.weight * per_pair, den=pairs.weight, weight=weight, logs=logs)


def likelihood_term(
    policy: Float[Tensor, "N"], batch: Groups, pairs: Pairs, weight: float, form: LikelihoodForm
) -> Term:
    """Return the term `nll`, the negative log-likelihood of the better completion of each pair.

    Args:
        policy: log p(y|x) of each completion, nats.
        batch: for the lengths.
        pairs: items of the term; soft labels do not enter, the completion called better is imitated.
        weight: of the term.
        form: `sum`: mean over pairs of nats per completion; `per_pair`: mean over pairs of nats per token;
            `per_token`: nats over tokens, both summed over the step, so that long completions count more.
    """
    nll = -policy[pairs.better]
    if form == "per_token":
        count = lengths(batch.mask)[pairs.better]
        return Term(name="nll", num=pairs.weight * nll, den=pairs.weight * count, weight=weight)
    if form == "per_pair":
        nll = nll / tokens(batch, policy)[pairs.better]
    return Term(name="nll", num=pairs.weight * nll, den=pairs.weight, weight=weight)


def reward_logs(policy: Float[Tensor, "N"], rewards: Float[Tensor, "N"], pairs: Pairs) -> dict[str, Tensor]:
    """Return TRL's metrics, one value per pair; a tie counts as wrong, so an untouched policy has accuracy 0."""
    logp, rewards = policy.detach(), rewards.detach()
    chosen, rejected = rewards[pairs.better], rewards[pairs.worse]
    return {
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "rewards/margins": chosen - rejected,
        "rewards/accuracies": (chosen > rejected).to(chosen),
        "logps/chosen": logp[pairs.better],
        "logps/rejected": logp[pairs.worse],
    }
