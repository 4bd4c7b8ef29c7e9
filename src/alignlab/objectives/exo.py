"""Efficient exact optimisation on pairs: the reverse KL divergence from the policy's preference to the label's.

L = KL((sigma(z), sigma(-z)) || (q, 1 - q)), z as in DPO, q = 1 - eps. DPO minimises the forward divergence; this one
seeks a mode, as the aligned policy's own objective does. Its slope in z, sigma(z) sigma(-z) (z - log(q / (1 - q))),
vanishes at the target and, unlike DPO's, for pairs that are very wrong.

Source: Ji et al. 2024 (arXiv:2402.00856), for K = 2, preferences instead of rewards; TRL's `exo_pair`.
Soft labels p make q = p (1 - eps) + (1 - p) eps.
Input: pairs. Unit: nats. Reduction: mean over the pairs of the optimiser batch, weighted by the pairs' weights.
"""

from dataclasses import dataclass

from torch.nn.functional import logsigmoid

from alignlab.core import preference
from alignlab.core.cards import Card, Claim
from alignlab.core.types import Groups, Term

CARD = Card(
    title="Efficient exact optimisation on pairs",
    paper="arXiv:2402.00856",
    bibtex="""@inproceedings{ji2024towards,
  title = {Towards Efficient Exact Optimization of Language Model Alignment},
  author = {Ji, Haozhe and Lu, Cheng and Niu, Yilin and Ke, Pei and Wang, Hongning and Zhu, Jun and Tang, Jie
    and Huang, Minlie},
  booktitle = {International Conference on Machine Learning},
  year = {2024},
  eprint = {2402.00856},
  archivePrefix = {arXiv}
}""",
    brief="baselines-dpo-ipo-kto",
    status="reconstructed",
    summary="Reverse KL divergence from the policy's own preference over a pair to a smoothed label.",
    smoke="alignlab train exo --model tiny: --dataset world:pairs --limit 64 --max_steps 40"
    " --per_device_train_batch_size 8 --learning_rate 1e-4 --warmup_ratio 0.1 --save_steps 0 --output_dir {out}",
    claims=(
        Claim(metric="train/loss_first - train/loss_last", relation=">", bound=0.1),
        Claim(metric="train/rewards/margins", relation=">", bound=0.1),
    ),
    needs=frozenset({"policy", "ref"}),
    training={"learning_rate": 1e-6},
    deviations=(
        "read through TRL's code, not checked against the paper's text",
        "pairs with labels only; the paper also has K completions with rewards",
        "Pairs.margin is ignored",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of efficient exact optimisation."""

    beta: float = 0.1
    """strength of the pull towards the reference, > 0 (TRL: 0.1)"""
    label_smoothing: float = 1e-3
    """eps, probability left to the worse completion, in (0, 0.5): a certain label is infinitely far (paper: 1e-3)"""

    def __post_init__(self) -> None:
        preference.require_positive("beta", self.beta)
        holds = 0 < self.label_smoothing < 0.5
        preference.require(holds, "label_smoothing", "a number in (0, 0.5)", self.label_smoothing)


def loss(batch: Groups, cfg: Config) -> tuple[Term, ...]:
    """Divergence of the policy's preference from the labels' over the pairs of a batch.

    Args:
        batch: views `policy` and `ref` [N, T], and `pairs` [R] into the N completions.
        cfg: settings.

    Returns:
        Term `exo` over the R pairs in nats per pair, with TRL's reward and log-probability logs.

    Raises:
        ValueError: the batch has no pairs.
    """
    pairs = preference.pairs_of(batch, "exo")
    policy, ratios = preference.policy_and_ratios(batch)
    rewards = cfg.beta * ratios
    z = rewards[pairs.better] - rewards[pairs.worse]
    target = preference.flipped_with(pairs.p, cfg.label_smoothing)
    per_pair = z.sigmoid() * (logsigmoid(z) - target.log()) + (-z).sigmoid() * (logsigmoid(-z) - (1 - target).log())
    return (preference.pair_term("exo", per_pair, pairs, preference.reward_logs(policy, rewards, pairs)),)
