"""Listwise preference by Plackett and Luce: each completion against all that rank below it.

L = - sum_k log [ exp(s_k) / (exp(s_k) + sum over m below k of exp(s_m)) ], from best to worst. `likelihood`: s is the
mean token log-probability (PRO), with a likelihood term on the best completion; `log_ratio`: s is beta times the summed
log-ratio to a reference (DPO over rankings, whose case K = 2 is DPO itself).

Source: Song et al. 2023 (arXiv:2306.17492) for `likelihood`; Rafailov et al. 2023
(arXiv:2305.18290), for `log_ratio`, which alone
reads the reference. Input: completions with scores, ragged K. Unit: nats.
Reduction: both terms mean over the prompts of the step (the ranking term over those with an order).
Deviations: tied completions are not compared with each other (with no ties this is the formula above); PRO's own
temperatures from a reward model are left out; both forms are written from restatements and
were not checked against the papers' texts.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from alignlab.core.cards import Card, Claim
from alignlab.core.masks import seq_mean
from alignlab.core.preference import policy_and_ratios, require, require_at_least_zero, require_positive
from alignlab.core.types import Groups, Term
from alignlab.objectives._lists import above, best_nll, per_prompt, score_of

CARD = Card(
    title="Plackett-Luce ranking (PRO, listwise DPO)",
    paper="arXiv:2306.17492",
    bibtex="""@inproceedings{song2024preference,
  title = {Preference Ranking Optimization for Human Alignment},
  author = {Song, Feifan and Yu, Bowen and Li, Minghao and Yu, Haiyang and Huang, Fei and Li, Yongbin
    and Wang, Houfeng},
  booktitle = {AAAI Conference on Artificial Intelligence},
  year = {2024},
  eprint = {2306.17492},
  archivePrefix = {arXiv}
}""",
    brief="cyclealign",
    status="reconstructed",
    summary="Rank K completions by the likelihood of their order, each against all that stand below it.",
    smoke="alignlab train plackett_luce --model tiny: --dataset world:lists --limit 64 --max_steps 40"
    " --per_device_train_batch_size 8 --learning_rate 1e-4 --warmup_ratio 0.1 --save_steps 0 --output_dir {out}",
    claims=(
        Claim(metric="train/loss_first - train/loss_last", relation=">", bound=0.2),
        Claim(metric="train/ranking/accuracies", relation=">", bound=0.8),
    ),
    needs=frozenset({"policy", "ref"}),
    deviations=(
        "tied completions are not compared",
        "only the form log_ratio reads a reference",
        "PRO without its temperatures from a reward model",
        "written from restatements of PRO and of DPO over rankings, not from the papers' texts",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of Plackett-Luce ranking."""

    form: Literal["likelihood", "log_ratio"] = "likelihood"
    """what is ranked: mean token log-probabilities (PRO) or log-ratios to a reference (DPO over rankings)"""
    beta: float = 0.1
    """`log_ratio` only: strength of the pull towards the reference, > 0 (DPO: 0.1)"""
    nll_weight: float = 0.05
    """weight of the likelihood of the best completion, >= 0 (PRO's script: 0.05; DPO: 0)"""

    def __post_init__(self) -> None:
        require(self.form in ("likelihood", "log_ratio"), "form", "likelihood or log_ratio", self.form)
        require_positive("beta", self.beta)
        require_at_least_zero("nll_weight", self.nll_weight)


def loss(batch: Groups, cfg: Config) -> tuple[Term, ...]:
    """Negative log-likelihood of the order of each list.

    Args:
        batch: view `policy` [N, T], with `ref` for `log_ratio`, and score `score` [N].
        cfg: settings.

    Returns:
        Term `rank` over the P prompts, in nats per list, with the share of pairs in the right order as
        `ranking/accuracies`; where `nll_weight` > 0 also term `likelihood`, in nats per token of the best completion.

    Raises:
        ValueError: no scores, or one that is not finite.
    """
    score = score_of(batch, "plackett_luce")
    mean = seq_mean(batch.views["policy"].logp, batch.mask)
    s = mean if cfg.form == "likelihood" else cfg.beta * policy_and_ratios(batch)[1]
    over = above(score, batch.group)
    pairs = per_prompt(over.sum(1).to(s), batch)
    right = per_prompt((over & (s.detach()[:, None] > s.detach()[None, :])).sum(1).to(s), batch)
    rank = Term(
        name="rank", num=per_prompt(_per_completion(s, over), batch), den=(pairs > 0).float(),
        logs={"ranking/accuracies": right / pairs.clamp(min=1)},
    )  # fmt: skip
    if cfg.nll_weight == 0:
        return (rank,)
    nll, counted = best_nll(-mean, score, batch)
    return rank, Term(name="likelihood", num=nll, den=counted, weight=cfg.nll_weight)


def _per_completion(s: Tensor, over: Tensor) -> Tensor:
    """Return log(1 + sum over those below of exp(s_m - s_k)) for each completion k; 0 for one with none below."""
    gaps = torch.where(over, s[None, :] - s[:, None], -torch.inf)
    return torch.logsumexp(torch.cat([torch.zeros_like(s)[:, None], gaps], 1), 1)
