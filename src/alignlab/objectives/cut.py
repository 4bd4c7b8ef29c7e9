"""Contrastive unlikelihood training: a judgement in words marks the bad tokens, which alone are pushed down.

For an answer y with a negative judgement j, token t is blamed where p(y_t|x,j) > threshold * p(y_t|x), both under the
model in training, without gradient. Per judged answer of N tokens, L1 = -1/N [sum over tokens not blamed of
log p(y_t|x) + sum over blamed ones of weight * p(y_t|x,j)^gamma * log(1 - p(y_t|x))]; per answer L2 = -1/N sum of
log p(y_t|x) if it has no judgement, else of log p(y_t|x,j); L = L1 + L2.

Source: Xu et al. 2023 (arXiv:2312.14591v4), sections 3.2 and 3.3. `form` release: (L1 + L2) / 2, gamma 0, both as means
over the tokens of the step, as in the authors' code. Input: completions, those that are not good with a `judgement`.
Unit: nats per token. Reduction: L1 mean over judged answers, L2 over all answers (`paper`).
Deviations: the factor p(y_t|x,j)^gamma carries no gradient (the paper does not say); p(y_t|x) is held below 1 - 1e-6 in
log(1 - p); `release` halves L2 also in a step without judged answers, which the code leaves whole.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from alignlab.core.cards import Card, Claim
from alignlab.core.masks import lengths, masked, seq_mean, seq_sum
from alignlab.core.preference import require, require_at_least_zero, require_positive
from alignlab.core.types import Groups, Term

CARD = Card(
    title="Contrastive unlikelihood training (CUT)",
    paper="arXiv:2312.14591",
    bibtex="""@inproceedings{xu2024reasons,
  title = {Reasons to Reject? Aligning Language Models with Judgments},
  author = {Xu, Weiwen and Cai, Deng and Zhang, Zhisong and Lam, Wai and Shi, Shuming},
  booktitle = {Findings of the Association for Computational Linguistics: ACL},
  year = {2024},
  eprint = {2312.14591},
  archivePrefix = {arXiv}
}""",
    brief="cut",
    status="faithful",
    summary="Push down the tokens of a bad answer that the model itself finds likelier once it reads the judgement.",
    smoke="alignlab train cut --model tiny: --dataset world:judged --limit 64 --max_steps 40"
    " --per_device_train_batch_size 8 --learning_rate 3e-4 --warmup_ratio 0.1 --save_steps 0 --output_dir {out}",
    claims=(
        Claim(metric="train/loss_first - train/loss_last", relation=">", bound=0.3),
        Claim(metric="train/blamed", relation=">", bound=0.02),
    ),
    needs=frozenset({"policy", "policy/judgement"}),
    deviations=(
        "no gradient through the factor of a blamed token",
        "probabilities held below 1 - 1e-6 where their complement is taken",
        "release: L2 is halved in every step, also in one without judged answers",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of contrastive unlikelihood training."""

    threshold: float = 1.1
    """lambda, > 0: a token is blamed if the judgement makes it likelier by more than this factor (paper: 1.1; 1.2)"""
    weight: float = 1.0
    """alpha, weight of blamed tokens, >= 0 (paper: 0.25, 0.5, 1); 0 drops them"""
    gamma: float = 1.0
    """exponent of a blamed token's probability in its weight, >= 0 (paper: 0.25 to 2); release: 0 whatever is said"""
    form: Literal["paper", "release"] = "paper"
    """L1 + L2 with means over answers (paper), or half of it with means over tokens and no gamma (released code)"""

    def __post_init__(self) -> None:
        require_positive("threshold", self.threshold)
        require_at_least_zero("weight", self.weight)
        require_at_least_zero("gamma", self.gamma)
        require(self.form in ("paper", "release"), "form", "paper or release", self.form)


def loss(batch: Groups, cfg: Config) -> tuple[Term, ...]:
    """Likelihood of good tokens, unlikelihood of blamed ones.

    Args:
        batch: views `policy` and, where an answer is judged, `policy/judgement` [N, T], the same under the context
            `judgement`; an answer is judged where its prompt has that context.
        cfg: settings.

    Returns:
        Terms `unlikelihood` (L1, over judged answers; the log `blamed` is the share of blamed tokens) and `likelihood`
        (L2, over all answers).
    """
    logp, judged = batch.views["policy"].logp, _judged(batch)
    told = batch.views["policy/judgement"].logp if bool(judged.any()) else logp
    # padding may hold anything: it must not reach exp and log
    logp, told = masked(logp, batch.mask), masked(told, batch.mask)
    marked = judged[:, None] & batch.mask & blamed(logp.detach(), told.detach(), cfg.threshold)
    gamma = 0.0 if cfg.form == "release" else cfg.gamma
    pushed = cfg.weight * torch.exp(gamma * told.detach()) * unlikelihood(logp)
    first = torch.where(marked, pushed, -logp)
    second = torch.where(judged[:, None], -told, -logp)
    share = marked.sum(1).to(logp) / batch.mask.sum(1).clamp(min=1)
    logs = {"blamed": share}
    if cfg.form == "release":
        count = lengths(batch.mask)
        one, two = seq_sum(first, batch.mask), seq_sum(second, batch.mask)
        return (
            Term(name="unlikelihood", num=torch.where(judged, one, 0.0), den=count * judged, weight=0.5, logs=logs),
            Term(name="likelihood", num=two, den=count, weight=0.5),
        )
    one, two = seq_mean(first, batch.mask), seq_mean(second, batch.mask)
    some = batch.mask.any(1)
    return (
        Term(name="unlikelihood", num=torch.where(judged, one, 0.0), den=(judged & some).float(), logs=logs),
        Term(name="likelihood", num=two, den=some.float()),
    )


def blamed(
    logp: Float[Tensor, "N T"], told: Float[Tensor, "N T"], threshold: float
) -> Bool[Tensor, "N T"]:  # fmt: skip
    """Return whether each token is likelier under the judgement by more than the factor `threshold`."""
    return told - logp > math.log(threshold)


def unlikelihood(logp: Float[Tensor, "N T"]) -> Float[Tensor, "N T"]:
    """Return -log(1 - p), with p held below 1 - 1e-6."""
    return -torch.log(-torch.expm1(logp.clamp(max=math.log1p(-1e-6))))


def _judged(batch: Groups) -> Bool[Tensor, "N"]:
    if "judgement" not in batch.contexts:
        return torch.zeros_like(batch.group, dtype=torch.bool)
    return batch.contexts["judgement"][1].any(1)[batch.group]
