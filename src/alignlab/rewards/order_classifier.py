"""Order-consistent classifier: learn which answers win, not by how much; its logit is the reward.

Winners are labelled 1, losers 0, and a plain binary classifier is fitted: L = mean over the answers of the pairs of
cross-entropy(label, sigma(r)); a label that holds with probability p counts in expectation. Only the order of r matters
downstream, and a monotone function of the true reward has it. The answers of a pair need not share a prompt.

Source: Sun et al. 2024 (arXiv:2411.04991), the classification objective (`clf`) beside Bradley and Terry's (`bt`).
Input: pairs. r is the linear head at the last scored token. Unit: nats. Reduction: mean over the two answers of every
pair of the optimiser batch, weighted by the pairs' weights.
Deviations: a head on a model that is tuned with it, where the authors fit MLPs on frozen embeddings (or boosted trees);
equations from the authors' code.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import softplus

from alignlab.core import preference
from alignlab.core.cards import Card, Claim
from alignlab.core.types import Groups, Row, Term
from alignlab.rewards._shared import pair_logs, score_answers, values_of

CARD = Card(
    title="Order-consistent classifier reward",
    paper="arXiv:2411.04991",
    bibtex="""@inproceedings{sun2025rethinking,
  title = {Rethinking Reward Modeling in Preference-based Large Language Model Alignment},
  author = {Sun, Hao and Shen, Yunyi and Ton, Jean-Francois},
  booktitle = {International Conference on Learning Representations},
  year = {2025},
  eprint = {2411.04991},
  archivePrefix = {arXiv}
}""",
    brief="irl-post-training",
    status="reconstructed",
    summary="A plain classifier of winners against losers, whose logit orders answers as the true reward does.",
    smoke="alignlab train order_classifier --model tiny: --dataset world:pairs --limit 64 --max_steps 40"
    " --per_device_train_batch_size 8 --learning_rate 1e-3 --warmup_ratio 0.1 --save_steps 0 --output_dir {out}",
    claims=(
        Claim(metric="train/loss_first - train/loss_last", relation=">", bound=0.1),
        Claim(metric="train/rewards/accuracies", relation=">", bound=0.8),
    ),
    needs=frozenset({"policy", "value"}),
    training={"learning_rate": 1e-4},
    deviations=(
        "a linear head tuned with its model; the authors fit small networks on frozen embeddings",
        "equations from the authors' code",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the order classifier."""

    label_smoothing: float = 0.0
    """probability that a label is wrong, in [0, 0.5) (paper: 0)"""

    def __post_init__(self) -> None:
        holds = 0 <= self.label_smoothing < 0.5
        preference.require(holds, "label_smoothing", "a number in [0, 0.5)", self.label_smoothing)


def loss(batch: Groups, cfg: Config) -> tuple[Term, ...]:
    """Cross-entropy of winners and losers.

    Args:
        batch: view `policy` with values [N, T], and `pairs` [R] into the N completions.
        cfg: settings.

    Returns:
        Term `order_classifier` over the 2 R answers of the pairs, in nats, with TRL's reward logs of the pair.

    Raises:
        ValueError: the batch has no pairs, or the model no reward head.
    """
    pairs = preference.pairs_of(batch, "order_classifier")
    rewards = values_of(batch, "order_classifier")
    wins = preference.flipped_with(pairs.p, cfg.label_smoothing)
    lost = torch.cat([_entropy(rewards[pairs.better], wins), _entropy(rewards[pairs.worse], 1 - wins)])
    weight = pairs.weight.repeat(2)
    logs = {name: value.repeat(2) for name, value in pair_logs(rewards, pairs).items()}
    return (Term(name="order_classifier", num=weight * lost, den=weight, logs=logs),)


def _entropy(logit: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    return p * softplus(-logit) + (1 - p) * softplus(logit)


def score(model: Any, rows: Sequence[Row]) -> list[float]:
    """Return the logit of each row's completion; see `bradley_terry.score`."""
    return score_answers(model, rows)
