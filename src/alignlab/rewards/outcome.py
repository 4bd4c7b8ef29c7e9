"""Outcome reward model: the probability that an answer turns out right, from answers that were checked.

L = cross-entropy(z, sigma(r)) with z = 1 for an answer that was right, 0 for one that was not, or the share of checks
that it passed.

Source: Cobbe et al. 2021 (arXiv:2110.14168), with the label at the end of the answer; binary and verifiable
outcomes as a source of rewards: Sun and van der Schaar 2025 (arXiv:2507.13158). Input: completions with labels, or with
scores in [0, 1]. r is the linear head at the last scored token. Unit: nats. Reduction: mean over the answers of the
optimiser batch, whichever classes are there, weighted where `right_weight` is not 1.
Deviations: Cobbe et al. predict at every token and add a language model's loss; here the answer's end alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from alignlab.core.cards import Card, Claim
from alignlab.core.preference import require_positive
from alignlab.core.types import Groups, Row, Term
from alignlab.rewards._shared import score_answers, values_of

CARD = Card(
    title="Outcome reward model",
    paper="arXiv:2110.14168",
    bibtex="""@misc{cobbe2021training,
  title = {Training Verifiers to Solve Math Word Problems},
  author = {Cobbe, Karl and Kosaraju, Vineet and Bavarian, Mohammad and Chen, Mark and Jun, Heewoo and Kaiser, Lukasz
    and Plappert, Matthias and Tworek, Jerry and Hilton, Jacob and Nakano, Reiichiro and Hesse, Christopher
    and Schulman, John},
  year = {2021},
  eprint = {2110.14168},
  archivePrefix = {arXiv}
}""",
    brief="irl-post-training",
    status="reconstructed",
    summary="The probability that an answer is right, learnt from checked answers.",
    smoke="alignlab train outcome --model tiny: --dataset world:thumbs --limit 128 --max_steps 40"
    " --per_device_train_batch_size 16 --learning_rate 1e-3 --warmup_ratio 0.1 --save_steps 0 --output_dir {out}",
    claims=(
        Claim(metric="train/loss_first - train/loss_last", relation=">", bound=0.1),
        Claim(metric="train/accuracy", relation=">", bound=0.75),
    ),
    needs=frozenset({"policy", "value"}),
    deviations=("the answer's end alone is judged; no language model's loss is added",),
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the outcome reward model."""

    right_weight: float = 1.0
    """what a right answer counts for, beside 1 for a wrong one, > 0; where right answers are rare: wrong / right"""

    def __post_init__(self) -> None:
        require_positive("right_weight", self.right_weight)


def loss(batch: Groups, cfg: Config) -> tuple[Term, ...]:
    """Cross-entropy of the outcomes of a batch.

    Args:
        batch: view `policy` with values [N, T]; labels [N], or the score `score` [N] in [0, 1].
        cfg: settings.

    Returns:
        Term `outcome` over the N completions, in nats; logs: reward (the probability), and whether it lies on the right
        side of a half.

    Raises:
        ValueError: neither labels nor scores, scores outside [0, 1], or a model without a reward head.
    """
    logit, right = values_of(batch, "outcome"), _targets(batch).to(batch.views["policy"].logp)
    weight = right * cfg.right_weight + (1 - right)
    lost = right * cfg.right_weight * softplus(-logit) + (1 - right) * softplus(logit)
    probability = logit.detach().sigmoid()
    # at exactly a half nothing is said, which is not right
    hit = torch.where(right > 0.5, probability > 0.5, probability < 0.5)
    logs = {"rewards": probability, "accuracy": hit.to(probability)}
    return (Term(name="outcome", num=lost, den=weight, logs=logs),)


def _targets(batch: Groups) -> Tensor:
    if batch.label is not None:
        return batch.label
    scores = batch.scores.get("score")
    if scores is None:
        raise ValueError(
            "outcome needs to know what was right: give rows with completion and label, or completions with scores in"
            " [0, 1]; for pairs there are bradley_terry and order_classifier"
        )
    if not bool(((scores >= 0) & (scores <= 1)).all()):
        raise ValueError(f"outcome needs scores in [0, 1], got {scores.tolist()}")
    return scores


def score(model: Any, rows: Sequence[Row]) -> list[float]:
    """Return the probability that each row's completion is right; errors as in `bradley_terry.score`."""
    return torch.tensor(score_answers(model, rows), dtype=torch.float64).sigmoid().tolist()
