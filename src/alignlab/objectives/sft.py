"""Supervised fine-tuning: raise the log-probability of the given completions.

L = -sum_i sum_t log p(y_it | x_i, y_i<t) / N, where N counts the completion tokens (EOS included, prompt and padding
not) of the WHOLE optimiser batch: every token weighs the same, however the batch is cut into micro-batches or ranks.

Source: Ouyang et al. 2022 (arXiv:2203.02155), the supervised step; the token mean is as in TRL 1.16.
Input: any completions. Unit: nats per token. Reduction: token mean over the optimiser batch (`token_mean`), or the mean
over completions of their own token means (`sequence_mean`).
"""

from dataclasses import dataclass
from typing import Literal

from alignlab.core.cards import Card, Claim
from alignlab.core.masks import lengths, seq_mean, seq_sum
from alignlab.core.types import Groups, Term

CARD = Card(
    title="Supervised fine-tuning",
    paper="arXiv:2203.02155",
    bibtex="""@inproceedings{ouyang2022training,
  title = {Training language models to follow instructions with human feedback},
  author = {Ouyang, Long and Wu, Jeffrey and Jiang, Xu and Almeida, Diogo and Wainwright, Carroll and Mishkin, Pamela
    and Zhang, Chong and Agarwal, Sandhini and Slama, Katarina and Ray, Alex and others},
  booktitle = {Advances in Neural Information Processing Systems},
  volume = {35},
  year = {2022},
  eprint = {2203.02155},
  archivePrefix = {arXiv}
}""",
    brief="baselines-dpo-ipo-kto",
    status="reconstructed",
    summary="Maximise the likelihood of the given completions; each token of the optimiser batch weighs the same.",
    smoke="alignlab train sft --model tiny: --dataset world:noisy --limit 640 --max_steps 40"
    " --per_device_train_batch_size 16 --learning_rate 5e-4 --warmup_ratio 0.1 --save_steps 0 --output_dir {out}",
    claims=(Claim(metric="train/loss_first - train/loss_last", relation=">", bound=0.0),),
    needs=frozenset({"policy"}),
    deviations=("read through TRL's code, not checked against the paper's text",),
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of supervised fine-tuning."""

    form: Literal["token_mean", "sequence_mean"] = "token_mean"
    """what weighs the same: every token (default, as TRL 1.16) or every completion, however long"""

    def __post_init__(self) -> None:
        if self.form not in ("token_mean", "sequence_mean"):
            raise ValueError(f"--form: expected token_mean or sequence_mean, got {self.form!r}")


def loss(batch: Groups, cfg: Config) -> tuple[Term, ...]:
    """Negative log-likelihood of the completions.

    Args:
        batch: view `policy` [N, T]; completions without a scored token count for nothing.
        cfg: settings.

    Returns:
        One term `sft` over the N completions, in nats per token (`token_mean`: summed nats over token counts).

    Raises:
        ValueError: a completion is marked as the worse of a pair or labelled False; imitating it is surely not meant.
    """
    disliked = batch.label is not None and not bool(batch.label.all())
    if disliked or (batch.pairs is not None and batch.pairs.worse.numel() > 0):
        raise ValueError(
            "sft imitates every completion, but this batch holds rejected or disliked ones; keep the good ones only:"
            " map the columns with completion=chosen, or train with an objective for preferences such as dpo"
        )
    logp = batch.views["policy"].logp
    if cfg.form == "sequence_mean":
        scored = batch.mask.any(-1).float()
        return (Term(name="sft", num=-seq_mean(logp, batch.mask), den=scored),)
    return (Term(name="sft", num=-seq_sum(logp, batch.mask), den=lengths(batch.mask)),)
