"""Hinge loss on DPO's logit: pairs told apart by more than a margin are left alone.

L = max(0, 1 - z), z = beta * (a_w - a_l) with summed log-ratios a, that is beta * max(0, 1/beta - (a_w - a_l)): beta is
the reciprocal of the margin in nats. The loss of SLiC with a reference; `slic` is the one without.

Source: Liu et al. 2023 (arXiv:2309.06657), hinge-norm; TRL's loss type `hinge`.
The label holds with probability p (`Pairs.p`, 1 for a hard one): the loss is its expectation over both ways round.
Input: pairs. Unit: nats. Reduction: mean over the pairs of the optimiser batch, weighted by the pairs' weights.
"""

from dataclasses import dataclass

from torch import relu

from alignlab.core import preference
from alignlab.core.cards import Card, Claim
from alignlab.core.types import Groups, Term

CARD = Card(
    title="Hinge loss on log-ratios",
    paper="arXiv:2309.06657",
    bibtex="""@inproceedings{liu2024statistical,
  title = {Statistical Rejection Sampling Improves Preference Optimization},
  author = {Liu, Tianqi and Zhao, Yao and Joshi, Rishabh and Khalman, Misha and Saleh, Mohammad and Liu, Peter J.
    and Liu, Jialu},
  booktitle = {International Conference on Learning Representations},
  year = {2024},
  eprint = {2309.06657},
  archivePrefix = {arXiv}
}""",
    brief="baselines-dpo-ipo-kto",
    status="reconstructed",
    summary="SLiC's hinge on log-ratios to a reference: no push beyond the margin 1 / beta.",
    smoke="alignlab train hinge --model tiny: --dataset world:pairs --limit 64 --max_steps 40"
    " --per_device_train_batch_size 8 --learning_rate 1e-4 --warmup_ratio 0.1 --save_steps 0 --output_dir {out}",
    claims=(
        Claim(metric="train/loss_first - train/loss_last", relation=">", bound=0.1),
        Claim(metric="train/rewards/margins", relation=">", bound=0.1),
    ),
    needs=frozenset({"policy", "ref"}),
    training={"learning_rate": 1e-6},
    deviations=(
        "read through TRL's and HALOs' code, not checked against the paper's text",
        "Pairs.margin is ignored",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the hinge loss."""

    beta: float = 0.1
    """reciprocal of the margin in nats, > 0 (TRL: 0.1)"""

    def __post_init__(self) -> None:
        preference.require_positive("beta", self.beta)


def loss(batch: Groups, cfg: Config) -> tuple[Term, ...]:
    """Hinge loss over the pairs of a batch.

    Args:
        batch: views `policy` and `ref` [N, T], and `pairs` [R] into the N completions.
        cfg: settings.

    Returns:
        Term `hinge` over the R pairs, without unit, with TRL's reward and log-probability logs.

    Raises:
        ValueError: the batch has no pairs.
    """
    pairs = preference.pairs_of(batch, "hinge")
    policy, ratios = preference.policy_and_ratios(batch)
    rewards = cfg.beta * ratios
    per_pair = preference.expected(lambda better, worse: relu(1 - (better - worse)), rewards, pairs)
    return (preference.pair_term("hinge", per_pair, pairs, preference.reward_logs(policy, rewards, pairs)),)
