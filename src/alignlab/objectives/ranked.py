"""RRHF: the policy's own length-normalised likelihoods shall stand in the order of the scores; the best is imitated.

s_i = sum_t log p(y_it | x, y_i<t) / |y_i|^length_penalty; L = weight * sum over i above j of max(0, s_j - s_i + margin)
+ the mean token loss of the best completion. All K completions of a prompt enter once, whatever the number of pairs.

Source: Yuan et al. 2023 (arXiv:2304.05302), read through their code. That CycleAlign (arXiv:2310.16271) trains with it,
or with Plackett and Luce's loss, is inferred, as its text could not be read. Input: completions with scores, ragged K;
no reference. Unit: nats per token. Reduction: both terms mean over the prompts of the step (the ranking term over those
with an order); tied completions are not compared, and tied best ones share the likelihood term.
Deviations: the mean over prompts (the authors: one prompt per device). `release` divides by the padded width of the
prompt's rows, prompt included, as the authors' code does because it rebuilds its mask from overwritten labels.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from alignlab.core.cards import Card, Claim
from alignlab.core.masks import seq_sum
from alignlab.core.preference import require, require_at_least_zero, tokens
from alignlab.core.types import Groups, Term
from alignlab.objectives._lists import above, best_nll, per_prompt, score_of

CARD = Card(
    title="Rank responses to align with human feedback (RRHF)",
    paper="arXiv:2304.05302",
    bibtex="""@inproceedings{yuan2023rrhf,
  title = {{RRHF}: Rank Responses to Align Language Models with Human Feedback without tears},
  author = {Yuan, Zheng and Yuan, Hongyi and Tan, Chuanqi and Wang, Wei and Huang, Songfang and Huang, Fei},
  booktitle = {Advances in Neural Information Processing Systems},
  volume = {36},
  year = {2023},
  eprint = {2304.05302},
  archivePrefix = {arXiv}
}""",
    brief="cyclealign",
    status="reconstructed",
    summary="Order the likelihoods of K completions as their scores do, by a hinge, and imitate the best.",
    smoke="alignlab train ranked --model tiny: --dataset world:lists --limit 64 --max_steps 40"
    " --per_device_train_batch_size 8 --learning_rate 1e-4 --warmup_ratio 0.1 --save_steps 0 --output_dir {out}",
    claims=(
        Claim(metric="train/loss_first - train/loss_last", relation=">", bound=0.1),
        Claim(metric="train/ranking/accuracies", relation=">", bound=0.8),
    ),
    needs=frozenset({"policy"}),
    deviations=(
        "read through the authors' released code, not checked against the paper's text",
        "mean over the prompts of the step instead of one prompt per device",
        "tied best completions share the likelihood term (the authors take the first)",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of RRHF."""

    weight: float = 1.0
    """weight of the ranking term, >= 0 (the authors' script: 1)"""
    length_penalty: float = 1.0
    """exponent of the length that a log-likelihood is divided by, >= 0 (authors' code: 1, the mean token)"""
    margin: float = 0.0
    """gap that the hinge asks for, in nats per token, >= 0 (authors: 0, so that it rests once in order)"""
    form: Literal["paper", "release"] = "paper"
    """lengths: those of the completions (as meant), or the padded width that the released code divides by"""

    def __post_init__(self) -> None:
        for name in ("weight", "length_penalty", "margin"):
            require_at_least_zero(name, getattr(self, name))
        require(self.form in ("paper", "release"), "form", "paper or release", self.form)


def loss(batch: Groups, cfg: Config) -> tuple[Term, ...]:
    """Ranking and likelihood terms over the lists of a batch.

    Args:
        batch: view `policy` [N, T] and score `score` [N]; a prompt without an order (one completion, or all tied)
            counts in the likelihood term alone.
        cfg: settings.

    Returns:
        Term `rank` over the P prompts, in nats per token summed over pairs, with the share of pairs in the right order
        as `ranking/accuracies`; term `likelihood` over the P prompts, in nats per token of the best completion.

    Raises:
        ValueError: no scores, or one that is not finite.
    """
    score = score_of(batch, "ranked")
    logp = seq_sum(batch.views["policy"].logp, batch.mask)
    length = tokens(batch, logp) if cfg.form == "paper" else _width(batch).to(logp)
    s = logp / length**cfg.length_penalty
    over = above(score, batch.group)
    behind = s[None, :] - s[:, None]
    hinge = torch.where(over, (behind + cfg.margin).clamp(min=0), 0.0).sum(1)
    pairs = per_prompt(over.sum(1).to(logp), batch)
    right = per_prompt((over & (behind.detach() < 0)).sum(1).to(logp), batch)
    ordered = (pairs > 0).float()
    rank = Term(
        name="rank", num=per_prompt(hinge, batch), den=ordered, weight=cfg.weight,
        logs={"ranking/accuracies": right / pairs.clamp(min=1)},
    )  # fmt: skip
    nll, counted = best_nll(-logp / length, score, batch)
    return rank, Term(name="likelihood", num=nll, den=counted)


def _width(batch: Groups) -> Float[Tensor, "N"]:
    """Positions that the authors' code averages over: the longest row of the prompt, its first token excepted."""
    longest = batch.mask.sum(1).new_zeros(batch.prompt_ids.shape[0])
    longest = longest.scatter_reduce(0, batch.group, batch.mask.sum(1), "amax")
    return (batch.prompt_mask.sum(1) + longest - 1)[batch.group].clamp(min=1).float()
