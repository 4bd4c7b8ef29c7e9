"""Anchored preference optimisation: say which way each completion's likelihood goes, not only that they part.

r = beta * log-ratio of policy to reference. `zero`: L = 1 - sigma(r_w) + sigma(r_l), the better one goes up and the
worse one down, for data better than the policy. `down`: L = sigma(r_w) + 1 - sigma(r_w - r_l), both go down, the worse
one more, for data worse than the policy.

Source: D'Oosterlinck et al. 2024 (arXiv:2408.06266), APO-zero and APO-down; TRL's loss types `apo_zero` and `apo_down`.
The label holds with probability p (`Pairs.p`, 1 for a hard one): the loss is its expectation over both ways round.
Input: pairs. Unit: nats. Reduction: mean over the pairs of the optimiser batch, weighted by the pairs' weights.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from alignlab.core import preference
from alignlab.core.cards import Card, Claim
from alignlab.core.types import Groups, Term

CARD = Card(
    title="Anchored preference optimisation",
    paper="arXiv:2408.06266",
    bibtex="""@article{doosterlinck2025anchored,
  title = {Anchored Preference Optimization and Contrastive Revisions: Addressing Underspecification in Alignment},
  author = {D'Oosterlinck, Karel and Xu, Winnie and Develder, Chris and Demeester, Thomas and Singh, Amanpreet
    and Potts, Christopher and Kiela, Douwe and Mehri, Shikib},
  journal = {Transactions of the Association for Computational Linguistics},
  volume = {13},
  year = {2025},
  eprint = {2408.06266},
  archivePrefix = {arXiv}
}""",
    brief="baselines-dpo-ipo-kto",
    status="reconstructed",
    summary="Raise the better completion and lower the worse one, or lower both, whichever the data deserve.",
    smoke="alignlab train apo --model tiny: --dataset world:pairs --limit 64 --max_steps 40"
    " --per_device_train_batch_size 8 --learning_rate 1e-4 --warmup_ratio 0.1 --save_steps 0 --output_dir {out}",
    claims=(
        Claim(metric="train/loss_first - train/loss_last", relation=">", bound=0.02),
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
    """Settings of anchored preference optimisation."""

    beta: float = 0.1
    """scale of the rewards, > 0 (paper: 0.1)"""
    variant: Literal["zero", "down"] = "zero"
    """the better completion goes up (`zero`, for data better than the policy) or down (`down`, for worse data)"""

    def __post_init__(self) -> None:
        preference.require_positive("beta", self.beta)
        preference.require(self.variant in ("zero", "down"), "variant", "zero or down", self.variant)


def loss(batch: Groups, cfg: Config) -> tuple[Term, ...]:
    """Anchored loss over the pairs of a batch.

    Args:
        batch: views `policy` and `ref` [N, T], and `pairs` [R] into the N completions.
        cfg: settings.

    Returns:
        Term `apo` over the R pairs, without unit, in [0, 2], with TRL's reward and log-probability logs.

    Raises:
        ValueError: the batch has no pairs.
    """
    pairs = preference.pairs_of(batch, "apo")
    policy, ratios = preference.policy_and_ratios(batch)
    rewards = cfg.beta * ratios
    per_pair = preference.expected(_zero if cfg.variant == "zero" else _down, rewards, pairs)
    return (preference.pair_term("apo", per_pair, pairs, preference.reward_logs(policy, rewards, pairs)),)


# 1 - sigma(x) is written sigma(-x), which keeps its digits where sigma(x) is near 1
def _zero(better: Tensor, worse: Tensor) -> Tensor:
    return (-better).sigmoid() + worse.sigmoid()


def _down(better: Tensor, worse: Tensor) -> Tensor:
    return better.sigmoid() + (worse - better).sigmoid()
