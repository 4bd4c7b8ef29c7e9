"""Odds ratio preference optimisation: imitate y_w and, without a reference, give it better odds than y_l.

L = NLL(y_w) - beta * log sigma(log odds(y_w) - log odds(y_l)), odds = P / (1 - P), P = exp(mean token log-probability).

Source: Hong et al. 2024 (arXiv:2403.07691), L_SFT + lambda L_OR; beta is the paper's lambda, as in TRL.
`form` names what weighs the same in the NLL: pairs, each by its mean token (`per_pair`, the paper), or the tokens of
the step (`per_token`, TRL, which also scores the prompt; here it is not scored).
1 - P is formed without cancellation, and the mean log-probability is held at most -1e-6.
The label holds with probability p (`Pairs.p`, 1 for a hard one): the loss is its expectation over both ways round.
Input: pairs. Unit: nats. Reduction: mean over the pairs of the optimiser batch, weighted by the pairs' weights.
Soft labels enter the odds ratio only. The rewards in the logs are beta * mean token log-probability.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from alignlab.core import preference
from alignlab.core.cards import Card, Claim
from alignlab.core.masks import seq_sum
from alignlab.core.types import Groups, Term

CARD = Card(
    title="Odds ratio preference optimisation",
    paper="arXiv:2403.07691",
    bibtex="""@inproceedings{hong2024orpo,
  title = {{ORPO}: Monolithic Preference Optimization without Reference Model},
  author = {Hong, Jiwoo and Lee, Noah and Thorne, James},
  booktitle = {Proceedings of the 2024 Conference on Empirical Methods in Natural Language Processing},
  year = {2024},
  eprint = {2403.07691},
  archivePrefix = {arXiv}
}""",
    brief="janus",
    status="reconstructed",
    summary="Imitate the better completion and raise its odds over the worse one's, without a reference.",
    smoke="alignlab train orpo --model tiny: --dataset world:pairs --limit 64 --max_steps 40"
    " --per_device_train_batch_size 8 --learning_rate 1e-4 --warmup_ratio 0.1 --save_steps 0 --output_dir {out}",
    claims=(
        Claim(metric="train/loss_first - train/loss_last", relation=">", bound=0.05),
        # without a reference the untuned model has a margin too: 0.14 on the first batch
        Claim(metric="train/rewards/margins", relation=">", bound=0.16),
    ),
    needs=frozenset({"policy"}),
    training={"learning_rate": 1e-6},
    deviations=(
        "written from restatements, not checked against the paper's text",
        "the prompt is not scored",
        "Pairs.margin is ignored",
    ),
)


SUREST = -1e-6
"""largest mean log-probability: the slope of the log-odds, 1 / (1 - P), stays below a million"""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of odds ratio preference optimisation."""

    beta: float = 0.1
    """lambda, weight of the odds ratio, >= 0; 0 is supervised fine-tuning on the better completions (paper: 0.1)"""
    form: Literal["per_pair", "per_token"] = "per_pair"
    """what weighs the same in the likelihood term: pairs, each by its mean token (paper), or tokens (TRL)"""

    def __post_init__(self) -> None:
        preference.require_at_least_zero("beta", self.beta)
        preference.require(self.form in ("per_pair", "per_token"), "form", "per_pair or per_token", self.form)


def loss(batch: Groups, cfg: Config) -> tuple[Term, ...]:
    """Likelihood and odds ratio over the pairs of a batch.

    Args:
        batch: view `policy` [N, T], and `pairs` [R] into the N completions.
        cfg: settings.

    Returns:
        Terms `nll` in nats per token of the better completion and `odds_ratio` over the R pairs in nats per pair, with
        TRL's logs.

    Raises:
        ValueError: the batch has no pairs.
    """
    pairs = preference.pairs_of(batch, "orpo")
    policy = seq_sum(batch.views["policy"].logp, batch.mask)
    mean = policy / preference.tokens(batch, policy)
    odds = _log_odds(mean)
    per_pair = preference.expected(lambda better, worse: softplus(worse - better), odds, pairs)
    difference = (odds[pairs.better] - odds[pairs.worse]).detach()
    logs = preference.reward_logs(policy, cfg.beta * mean, pairs)
    logs |= {"log_odds_chosen": difference, "log_odds_ratio": logsigmoid(difference)}
    ratio = preference.pair_term("odds_ratio", per_pair, pairs, logs, weight=cfg.beta)
    return (preference.likelihood_term(policy, batch, pairs, 1.0, cfg.form), ratio)


def _log_odds(logp: Tensor) -> Tensor:
    """log(P / (1 - P)) from log P, to full precision at both ends."""
    logp = logp.clamp(max=SUREST)
    near = logp > -math.log(2)
    # each branch sees only its own side: the other one's gradient must not turn into NaN
    rest = torch.where(
        near, (-torch.where(near, logp, -1.0).expm1()).log(), (-torch.where(near, -1.0, logp).exp()).log1p()
    )
    return logp - rest
