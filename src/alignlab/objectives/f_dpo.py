"""f-DPO: DPO whose pull towards the reference is another f-divergence than the reverse KL.

L = -log sigma(beta * (s(a_w) - s(a_l))), a the summed log-ratio of policy to reference and s(a) = f'(e^a) up to a
constant, which cancels: a (reverse KL: DPO), log sigma(a) (Jensen-Shannon), -e^-a (forward KL),
(e^((alpha - 1) a) - 1) / (alpha - 1) (alpha-divergence; alpha -> 1 is DPO, alpha = 0 the forward KL).

Source: Wang et al. 2023 (arXiv:2309.16240). alpha counts as in TRL 1.16; the paper's is 1 - alpha.
Exponents are clamped at 80, beyond which float32 overflows: there the gradient is 0.
The label holds with probability p (`Pairs.p`, 1 for a hard one): the loss is its expectation over both ways round.
Input: pairs. Unit: nats. Reduction: mean over the pairs of the optimiser batch, weighted by the pairs' weights.
The rewards in the logs are beta * s(a).
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from alignlab.core import preference
from alignlab.core.cards import Card, Claim
from alignlab.core.types import Groups, Term

CARD = Card(
    title="Direct preference optimisation with f-divergences",
    paper="arXiv:2309.16240",
    bibtex="""@inproceedings{wang2024beyond,
  title = {Beyond Reverse {KL}: Generalizing Direct Preference Optimization with Diverse Divergence Constraints},
  author = {Wang, Chaoqi and Jiang, Yibo and Yang, Chenghao and Liu, Han and Chen, Yuxin},
  booktitle = {International Conference on Learning Representations},
  year = {2024},
  eprint = {2309.16240},
  archivePrefix = {arXiv}
}""",
    brief="baselines-dpo-ipo-kto",
    status="reconstructed",
    summary="DPO with the reverse KL to the reference replaced by another f-divergence.",
    smoke="alignlab train f_dpo --model tiny: --dataset world:pairs --limit 64 --max_steps 40"
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


LARGEST_EXPONENT = 80.0

Divergence = Literal["reverse_kl", "js_divergence", "forward_kl", "alpha_divergence"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of f-DPO."""

    beta: float = 0.1
    """strength of the pull towards the reference, > 0 (paper: 0.1)"""
    f_divergence_type: Divergence = "js_divergence"
    """which divergence from the reference is held small (TRL's default, reverse_kl, is plain DPO)"""
    f_alpha_divergence_coef: float = 0.5
    """alpha of alpha_divergence, in [0, 1]: 0 is the forward, 1 the reverse KL (TRL 1.16: 0.5)"""

    def __post_init__(self) -> None:
        preference.require_positive("beta", self.beta)
        known = ("reverse_kl", "js_divergence", "forward_kl", "alpha_divergence")
        preference.require(
            self.f_divergence_type in known, "f_divergence_type", f"one of {', '.join(known)}", self.f_divergence_type
        )
        alpha = self.f_alpha_divergence_coef
        preference.require(0 <= alpha <= 1, "f_alpha_divergence_coef", "a number in [0, 1]", alpha)


def loss(batch: Groups, cfg: Config) -> tuple[Term, ...]:
    """Preference loss over the pairs of a batch.

    Args:
        batch: views `policy` and `ref` [N, T], and `pairs` [R] into the N completions.
        cfg: settings.

    Returns:
        Term `f_dpo` over the R pairs in nats per pair, with TRL's reward and log-probability logs.

    Raises:
        ValueError: the batch has no pairs.
    """
    pairs = preference.pairs_of(batch, "f_dpo")
    policy, ratios = preference.policy_and_ratios(batch)
    rewards = cfg.beta * _score(ratios, cfg)
    per_pair = preference.expected(lambda better, worse: softplus(worse - better), rewards, pairs)
    return (preference.pair_term("f_dpo", per_pair, pairs, preference.reward_logs(policy, rewards, pairs)),)


def _score(ratios: Tensor, cfg: Config) -> Tensor:
    """f'(e^a) up to a constant."""
    power = {"forward_kl": -1.0, "alpha_divergence": cfg.f_alpha_divergence_coef - 1}.get(cfg.f_divergence_type, 0.0)
    if cfg.f_divergence_type == "js_divergence":
        return logsigmoid(ratios)
    # expm1 keeps its digits as alpha approaches 1, where the divergence becomes the reverse KL
    return (power * ratios).clamp(max=LARGEST_EXPONENT).expm1() / power if power else ratios
