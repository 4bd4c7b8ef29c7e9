"""Kahneman-Tversky optimisation: thumbs up or down, valued against what the policy gains on unrelated answers.

a = log p(y|x) - log p_ref(y|x), summed over the tokens of a completion, EOS included. The reference point is
z0 = max(0, mean of a over mismatched pairs (prompt of one row, completion of another)), over the WHOLE optimiser step,
without gradient. Per row, v = lambda_D * (1 - sigma(beta * (a - z0))) if liked, lambda_U * (1 - sigma(beta * (z0 - a)))
if not; L = mean of v.

Source: Ethayarajh et al. 2024 (arXiv:2402.01306), read through the authors' code (HALOs) and TRL, which agree.
Input: completions with labels, or pairs, which count as one liked and one disliked row; a pair of weight w is w of
each, and where its label holds with probability p, v is its expectation over both ways round. Unit: 1 (a value).
Reduction: weighted mean over the rows of the step, whichever classes are there; z0 counts every row once, and is 0 for
a step of a single row. Where lambda_D n_D / (lambda_U n_U) over the data is outside [1, 1.33], a warning says so.
Deviations: the mismatched completion is the next row's, in an order given by content, that has another prompt (the
authors take the neighbour in the micro-batch, so theirs depends on how a step is cut, and forbids shuffling).
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from alignlab.core.cards import Card, Claim
from alignlab.core.preference import policy_and_ratios, require_at_least_zero, require_positive
from alignlab.core.types import Groups, Row, Term
from alignlab.objectives._unpaired import of, proper, right_side, thumbs

CARD = Card(
    title="Kahneman-Tversky optimisation",
    paper="arXiv:2402.01306",
    bibtex="""@inproceedings{ethayarajh2024kto,
  title = {Model Alignment as Prospect Theoretic Optimization},
  author = {Ethayarajh, Kawin and Xu, Winnie and Muennighoff, Niklas and Jurafsky, Dan and Kiela, Douwe},
  booktitle = {International Conference on Machine Learning},
  year = {2024},
  eprint = {2402.01306},
  archivePrefix = {arXiv}
}""",
    brief="baselines-dpo-ipo-kto",
    status="reconstructed",
    summary="Raise liked and lower disliked completions, measured against the policy's gain on mismatched ones.",
    smoke="alignlab train kto --model tiny: --dataset world:thumbs --limit 128 --max_steps 40"
    " --per_device_train_batch_size 16 --learning_rate 1e-4 --warmup_ratio 0.1 --save_steps 0 --output_dir {out}",
    claims=(
        Claim(metric="train/loss_first - train/loss_last", relation=">", bound=0.02),
        Claim(metric="train/rewards/accuracies", relation=">", bound=0.7),
    ),
    needs=frozenset({"policy", "ref", "mismatched"}),
    training={"learning_rate": 1e-6},
    deviations=(
        "read through the authors' released code, not checked against the paper's text",
        "mismatched completions are chosen once per optimiser step, by content",
        "AdamW throughout",
        "the weight of a pair weighs its two rows, but not their mismatched completions in the reference point",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of Kahneman-Tversky optimisation."""

    beta: float = 0.1
    """strength of the pull towards the reference, > 0 (HALOs, TRL: 0.1)"""
    desirable_weight: float = 1.0
    """lambda_D, weight of liked completions, >= 0 (TRL: 1)"""
    undesirable_weight: float = 1.0
    """lambda_U, weight of disliked completions, >= 0 (TRL: 1)"""

    def __post_init__(self) -> None:
        require_positive("beta", self.beta)
        require_at_least_zero("desirable_weight", self.desirable_weight)
        require_at_least_zero("undesirable_weight", self.undesirable_weight)


BALANCE = (1.0, 1.33)
"""between which lambda_D n_D / (lambda_U n_U) should lie, by one of the two weights (printed by TRL)"""


def annotate(rows: Sequence[Row], cfg: Config) -> list[Row]:
    """Return the rows as they are; warn where thumbs up and down are out of balance, and say which weights are in."""
    up, down = (sum(row.label is side for row in rows) for side in (True, False))
    if up and down and (advice := imbalance(up, down, cfg)):
        warnings.warn(advice, stacklevel=2)
    return list(rows)


def imbalance(up: int, down: int, cfg: Config) -> str:
    """Return what to do about so many liked and disliked rows; nothing where they are in balance, or meant not to be.

    A weight of 0 leaves a class out for good.
    """
    liked, disliked = up * cfg.desirable_weight, down * cfg.undesirable_weight
    low, high = BALANCE
    if not liked or not disliked or low <= liked / disliked <= high:
        return ""
    return (
        f"kto: {up} liked and {down} disliked rows weigh {liked / disliked:.2f} : 1; expected {low:g} to {high:g} : 1:"
        f" --desirable_weight in [{low * disliked / up:.4g}, {high * disliked / up:.4g}], or --undesirable_weight"
        f" in [{liked / down / high:.4g}, {liked / down / low:.4g}]"
    )


def stats(batch: Groups, cfg: Config) -> tuple[Term, ...]:  # noqa: ARG001 - every objective's statistics take both
    """Log-ratio of the mismatched completions: term `kl`, one item per completion, in nats.

    Args:
        batch: views `policy` and `ref` [N, T]; completions of origin `mismatched` count, others do not.
        cfg: settings.
    """
    lent, (_, ratio) = ~proper(batch), policy_and_ratios(batch)
    return (Term(name="kl", num=torch.where(lent, ratio, 0.0), den=lent.float()),)


def loss(batch: Groups, cfg: Config, values: Mapping[str, float]) -> tuple[Term, ...]:
    """Value lost on each row against the reference point.

    Args:
        batch: views `policy` and `ref` [N, T], and labels [N] or pairs; mismatched completions count for nothing.
        cfg: settings.
        values: `kl`, mean log-ratio of the step's mismatched completions; 0 where absent.

    Returns:
        One term `kto` over the N completions; logs: reward, whether it lies on the right side of z0 (of a soft label:
        the share of it), and z0 itself.

    Raises:
        ValueError: no labels and no pairs, or pairs that give a completion no single verdict.
    """
    _, ratio = policy_and_ratios(batch)
    up, down = thumbs(batch, "kto", ratio)
    z0 = max(0.0, values.get("kl", 0.0))
    gain = ratio - z0
    lost = of(up, cfg.desirable_weight * torch.sigmoid(-cfg.beta * gain))
    lost = lost + of(down, cfg.undesirable_weight * torch.sigmoid(cfg.beta * gain))
    logs = {
        "rewards": cfg.beta * ratio.detach(),
        "rewards/accuracies": right_side(up, down, gain.detach()),
        "kl": torch.full_like(gain.detach(), z0),
    }
    return (Term(name="kto", num=lost, den=up + down, logs=logs),)
