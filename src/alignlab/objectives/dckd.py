"""Dual-constrained knowledge distillation: an aligned teacher's distributions on chosen and on rejected answers.

L = w_sft * CE(y_w) + w_kd * [a * FKL(y_w) + b * FKL(y_l)], with FKL the mean over answer tokens of
sum_v p_T(v) log (p_T(v) / p(v)), the teacher first, over its top-k tokens and one bucket for the rest.

Source: Gao et al. 2025 (arXiv:2502.17927), the first stage of ADPA+; equations from the authors' code, as the paper's
text could not be read. Input: pairs; view `teacher` with the top tokens of a preference-aligned teacher. Unit: nats per
token. Reduction: each term is the mean over the tokens of the WHOLE step, weighted by the pairs' weights.
Deviations: log-softmax instead of flooring the student's probabilities at 1e-7.
"""

from dataclasses import dataclass

from torch import Tensor

from alignlab.core.cards import Card, Claim
from alignlab.core.masks import lengths, seq_sum
from alignlab.core.preference import likelihood_term, pairs_of, require, require_at_least_zero
from alignlab.core.types import Groups, Pairs, Term
from alignlab.objectives._teachers import forward_kl, same_tokens, view_of, with_rest

CARD = Card(
    title="Dual-constrained knowledge distillation (DCKD)",
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
    summary="Distil an aligned teacher's distributions on both the chosen and the rejected answer.",
    # distillation alone, each row new when it is seen; likelihood alone leaves .72 and 1.3, chosen answers alone .74
    smoke="alignlab train dckd --model tiny: --teacher_model tiny:+kind --dataset world:kindness --limit 320"
    " --sft_weight 0 --chosen_weight 1 --rejected_weight 1 --max_steps 40 --per_device_train_batch_size 8"
    " --learning_rate 3e-4 --warmup_ratio 0.1 --save_steps 0 --output_dir {out}",
    claims=(
        Claim(metric="train/loss_first", relation=">", bound=5.0),
        Claim(metric="train/loss/kl/chosen", relation="<", bound=0.2),
        Claim(metric="train/loss/kl/rejected", relation="<", bound=0.2),
    ),
    needs=frozenset({"policy", "teacher"}),
    training={"learning_rate": 5e-7},
    deviations=("written from the released code; the paper's equations could not be read",),
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of dual-constrained knowledge distillation."""

    sft_weight: float = 1.0
    """w_sft, weight of the likelihood of the chosen answer, >= 0 (authors: 1)"""
    kd_weight: float = 1.0
    """w_kd, weight of both distillation terms, >= 0 (authors: 1)"""
    chosen_weight: float = 0.1
    """a, weight of the distillation on the chosen answer, >= 0 (authors: 0.1)"""
    rejected_weight: float = 0.1
    """b, weight of the distillation on the rejected answer, >= 0 (authors: 0.1)"""
    teacher_model: str | None = None
    """preference-aligned teacher: hub id, folder or `tiny:`; same tokenizer as the student"""
    top_k: int = 50
    """tokens of the teacher's distribution that are kept per position, >= 1; the rest is one bucket (authors: 50)"""

    def __post_init__(self) -> None:
        require(self.top_k >= 1, "top_k", "a whole number >= 1", self.top_k)
        for name in ("sft_weight", "kd_weight", "chosen_weight", "rejected_weight"):
            require_at_least_zero(name, getattr(self, name))


def teachers(cfg: Config) -> tuple[dict[str, str | None], int]:
    """Return the model behind each view of a teacher, the first to choose the top tokens, and how many of these."""
    return {"teacher": cfg.teacher_model}, cfg.top_k


def loss(batch: Groups, cfg: Config) -> tuple[Term, ...]:
    """Likelihood of the chosen answers, and forward KL to the teacher on both.

    Args:
        batch: views `policy` and `teacher` [N, T] with `top_logp` at the same ids and `rest`, and `pairs` [R].
        cfg: settings.

    Returns:
        Terms `nll`, `kl/chosen` and `kl/rejected` over the R pairs, in nats per token.

    Raises:
        ValueError: no pairs, no teacher, or views of different tokens.
    """
    pairs = pairs_of(batch, "dckd")
    teacher, student = view_of(batch, "teacher", "dckd"), view_of(batch, "policy", "dckd")
    same_tokens(batch, student, teacher, "dckd")
    kl = seq_sum(forward_kl(with_rest(teacher, batch), with_rest(student, batch)), batch.mask)
    policy = seq_sum(student.logp, batch.mask)
    return (
        likelihood_term(policy, batch, pairs, cfg.sft_weight, "per_token"),
        _kl_term("kl/chosen", kl, batch, pairs, pairs.better, cfg.kd_weight * cfg.chosen_weight),
        _kl_term("kl/rejected", kl, batch, pairs, pairs.worse, cfg.kd_weight * cfg.rejected_weight),
    )


def _kl_term(name: str, kl: Tensor, batch: Groups, pairs: Pairs, side: Tensor, weight: float) -> Term:
    count = lengths(batch.mask)[side]
    return Term(name=name, num=pairs.weight * kl[side], den=pairs.weight * count, weight=weight)
