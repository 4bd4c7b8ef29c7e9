"""Advantage-guided distillation: raise what alignment raised in the teacher, over its whole distribution at once.

A_t(v) = log p_T(v|x, y_<t) - log p_R(v|x, y_<t), with T the aligned teacher and R the teacher before alignment, at the
prefixes of an answer y of the student; L = w_sft * CE(y_w) - gamma * mean over tokens of y of sum_v p(v) A_t(v), over
the teacher's top-k tokens and one bucket for the rest. Since - sum_v p A = KL(p || p_T) - KL(p || p_R), the student is
drawn to the aligned teacher and away from the unaligned one; its gradient on logits is - gamma p(v) (A_t(v) - sum p A).

Source: Gao et al. 2025 (arXiv:2502.17927); equations from the authors' code, as the paper's text could not be read.
`form` release: advantages clamped to [1e-8, 1 - 1e-8] and 0 in the bucket, as in that code, so that nothing the aligned
teacher lowered is lowered. Its merge floor is left out: a token outside the reference teacher's own top k gets there
the aligned teacher's smallest kept probability; here both teachers are asked at the same tokens, and none is missing.
Input: pairs, the chosen answer to imitate and an answer of the initial student as the worse one; views `teacher` and
`teacher_ref` at the same top tokens. Unit: nats. Reduction: mean over tokens of the step.
Deviations: signed, exact advantages by default, also in the bucket (the code's reading is a `form`); the optional
importance weight and sequence penalty, off in the authors' recipe, are left out.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from alignlab.core.cards import Card, Claim
from alignlab.core.masks import lengths, seq_sum
from alignlab.core.preference import likelihood_term, pairs_of, require, require_at_least_zero
from alignlab.core.types import Groups, Term
from alignlab.objectives._teachers import same_tokens, view_of, with_rest

CARD = Card(
    title="Advantage-guided distillation for preference alignment (ADPA)",
    paper="arXiv:2502.17927",
    bibtex="""@inproceedings{gao2025advantage,
  title = {Advantage-Guided Distillation for Preference Alignment in Small Language Models},
  author = {Gao, Shiping and Wan, Fanqi and Guo, Jiajian and Quan, Xiaojun and Wang, Qifan},
  booktitle = {International Conference on Learning Representations},
  year = {2025},
  eprint = {2502.17927},
  archivePrefix = {arXiv}
}""",
    brief="adpa",
    status="reconstructed",
    summary="Move the student along the log-ratio of an aligned to an unaligned teacher, over all tokens at once.",
    # each row is new when it is seen; the advantage ends at -1.3 with --gamma 0, and at -1.0 with the teachers swapped
    smoke="alignlab train adpa --model tiny: --teacher_model tiny:+kind --teacher_ref_model tiny:+unkind"
    " --dataset world:kindness --limit 320 --max_steps 40 --per_device_train_batch_size 8 --learning_rate 3e-4"
    " --warmup_ratio 0.1 --save_steps 0 --output_dir {out}",
    claims=(
        Claim(metric="train/loss_first - train/loss_last", relation=">", bound=4.0),
        Claim(metric="train/loss/advantage", relation="<", bound=-1.6),
    ),
    needs=frozenset({"policy", "teacher", "teacher_ref"}),
    training={"learning_rate": 5e-7},
    deviations=(
        "signed advantages, exact in the bucket of the rest too; the released clamp is a form",
        "no merge floor in either form: both teachers are asked at the same tokens (the released code gives a token"
        " outside the reference teacher's top k the aligned teacher's smallest kept probability)",
        "no importance weight and no sequence penalty",
        "written from the released code; the paper's equations could not be read",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of advantage-guided distillation."""

    sft_weight: float = 1.0
    """w_sft, weight of the likelihood of the chosen answer, >= 0 (authors: 1)"""
    gamma: float = 1.6
    """weight of the expected advantage, >= 0 (authors' recipe: 1.6)"""
    form: Literal["signed", "release"] = "signed"
    """advantages: as they are, or clamped to [1e-8, 1 - 1e-8] without the rest (released code)"""
    teacher_model: str | None = None
    """preference-aligned teacher: hub id, folder or `tiny:`; same tokenizer as the student"""
    teacher_ref_model: str | None = None
    """the teacher as it was before alignment (authors' text: the SFT teacher)"""
    top_k: int = 50
    """tokens of the teacher's distribution that are kept per position, >= 1; the rest is one bucket (authors: 50)"""

    def __post_init__(self) -> None:
        require(self.top_k >= 1, "top_k", "a whole number >= 1", self.top_k)
        require_at_least_zero("sft_weight", self.sft_weight)
        require_at_least_zero("gamma", self.gamma)
        require(self.form in ("signed", "release"), "form", "signed or release", self.form)


def teachers(cfg: Config) -> tuple[dict[str, str | None], int]:
    """Return the model behind each view of a teacher, the first to choose the top tokens, and how many of these."""
    return {"teacher": cfg.teacher_model, "teacher_ref": cfg.teacher_ref_model}, cfg.top_k


def loss(batch: Groups, cfg: Config) -> tuple[Term, ...]:
    """Likelihood of the chosen answers, and expected advantage at the prefixes of the student's.

    Args:
        batch: views `policy`, `teacher` and `teacher_ref` [N, T] with `top_logp` at the same ids and `rest`, and
            `pairs` [R]: better is the answer to imitate, worse the student's own.
        cfg: settings.

    Returns:
        Term `nll` over the R pairs, in nats per token, and term `advantage`, minus the expected advantage per token.

    Raises:
        ValueError: no pairs, a teacher is missing, or views of different tokens.
    """
    pairs = pairs_of(batch, "adpa")
    *told, student = (view_of(batch, name, "adpa") for name in ("teacher", "teacher_ref", "policy"))
    for view in told:
        same_tokens(batch, student, view, "adpa")
    aligned, before = (with_rest(view, batch) for view in told)
    mine = with_rest(student, batch)
    gained = seq_sum((mine.exp() * advantages(aligned, before, cfg.form)).sum(-1), batch.mask)[pairs.worse]
    count = lengths(batch.mask)[pairs.worse]
    return (
        likelihood_term(seq_sum(student.logp, batch.mask), batch, pairs, cfg.sft_weight, "per_token"),
        Term(name="advantage", num=-pairs.weight * gained, den=pairs.weight * count, weight=cfg.gamma),
    )


def advantages(
    aligned: Float[Tensor, "N T k1"], before: Float[Tensor, "N T k1"], form: Literal["signed", "release"]
) -> Float[Tensor, "N T k1"]:
    """Return the advantage of each top token and, last, of all others; 0 where neither teacher has any mass."""
    both = (aligned > -torch.inf) | (before > -torch.inf)
    signed = torch.where(both, torch.where(both, aligned, 0.0) - torch.where(both, before, 0.0), 0.0)
    if form == "signed":
        return signed
    clamped = signed.clamp(1e-8, 1 - 1e-8)
    return torch.cat([clamped[..., :-1], torch.zeros_like(clamped[..., -1:])], -1)
