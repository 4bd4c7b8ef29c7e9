"""Robust DPO: an unbiased estimate of the clean DPO loss from labels flipped at a known rate.

L = [-(1 - eps) log sigma(z) + eps log sigma(-z)] / (1 - 2 eps), with DPO's z. In expectation over labels flipped with
probability eps it equals -log sigma(z) of the clean label, so its minimiser is that of DPO on clean labels. For a
single pair it is unbounded below: with eps > 0 it rewards a large |z| on the wrong side too. With eps = 0 it is DPO.

Source: Chowdhury, Kini and Natarajan 2024 (arXiv:2403.00409).
The label holds with probability p (`Pairs.p`, 1 for a hard one): the loss is its expectation over both ways round.
Input: pairs. Unit: nats. Reduction: mean over the pairs of the optimiser batch, weighted by the pairs' weights.
"""

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import softplus

from alignlab.core import preference
from alignlab.core.cards import Card, Claim
from alignlab.core.types import Groups, Term

CARD = Card(
    title="Provably robust direct preference optimisation",
    paper="arXiv:2403.00409",
    bibtex="""@inproceedings{chowdhury2024provably,
  title = {Provably Robust {DPO}: Aligning Language Models with Noisy Feedback},
  author = {Chowdhury, Sayak Ray and Kini, Anush and Natarajan, Nagarajan},
  booktitle = {International Conference on Machine Learning},
  year = {2024},
  eprint = {2403.00409},
  archivePrefix = {arXiv}
}""",
    brief="baselines-dpo-ipo-kto",
    status="reconstructed",
    summary="DPO debiased for labels that are flipped at a known rate.",
    smoke="alignlab train robust_dpo --model tiny: --dataset world:pairs --limit 64 --max_steps 40"
    " --per_device_train_batch_size 8 --learning_rate 1e-4 --warmup_ratio 0.1 --save_steps 0 --output_dir {out}",
    claims=(
        Claim(metric="train/loss_first - train/loss_last", relation=">", bound=0.05),
        Claim(metric="train/rewards/margins", relation=">", bound=0.1),
    ),
    needs=frozenset({"policy", "ref"}),
    training={"learning_rate": 1e-6},
    deviations=(
        "read through TRL's code, not checked against the paper's text",
        "Pairs.margin is ignored",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of robust DPO."""

    beta: float = 0.1
    """strength of the pull towards the reference, > 0 (DPO's and TRL's default)"""
    label_smoothing: float = 0.1
    """rate at which labels are flipped, in [0, 0.5) (paper: 0.1)"""

    def __post_init__(self) -> None:
        preference.require_positive("beta", self.beta)
        preference.require(
            0 <= self.label_smoothing < 0.5, "label_smoothing", "a number in [0, 0.5)", self.label_smoothing
        )


def loss(batch: Groups, cfg: Config) -> tuple[Term, ...]:
    """Debiased preference loss over the pairs of a batch; it can be negative.

    Args:
        batch: views `policy` and `ref` [N, T], and `pairs` [R] into the N completions.
        cfg: settings.

    Returns:
        Term `robust_dpo` over the R pairs in nats per pair, with TRL's reward and log-probability logs.

    Raises:
        ValueError: the batch has no pairs.
    """
    pairs = preference.pairs_of(batch, "robust_dpo")
    policy, ratios = preference.policy_and_ratios(batch)
    rewards, rate = cfg.beta * ratios, cfg.label_smoothing

    def debiased(better: Tensor, worse: Tensor) -> Tensor:
        return ((1 - rate) * softplus(worse - better) - rate * softplus(better - worse)) / (1 - 2 * rate)

    per_pair = preference.expected(debiased, rewards, pairs)
    return (preference.pair_term("robust_dpo", per_pair, pairs, preference.reward_logs(policy, rewards, pairs)),)
