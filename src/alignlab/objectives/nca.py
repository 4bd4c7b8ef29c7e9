"""Noise contrastive alignment on pairs: raise the better completion's own likelihood, not only its lead.

L = -log sigma(r_w) - 1/2 log sigma(-r_w) - 1/2 log sigma(-r_l), r = beta * log-ratio of policy to reference: the better
completion as data, both as noise. The optimum of r_w alone is log 2: the likelihood of y_w neither sinks, as it may
under DPO, nor runs away.

Source: Chen et al. 2024 (arXiv:2402.05369), NCA for K = 2 completions and a preference instead of rewards;
TRL's loss type `nca_pair`.
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
    title="Noise contrastive alignment on pairs",
    paper="arXiv:2402.05369",
    bibtex="""@inproceedings{chen2024noise,
  title = {Noise Contrastive Alignment of Language Models with Explicit Rewards},
  author = {Chen, Huayu and He, Guande and Yuan, Lifan and Cui, Ganqu and Su, Hang and Zhu, Jun},
  booktitle = {Advances in Neural Information Processing Systems},
  volume = {37},
  year = {2024},
  eprint = {2402.05369},
  archivePrefix = {arXiv}
}""",
    brief="baselines-dpo-ipo-kto",
    status="reconstructed",
    summary="Contrast each completion with noise, so that the better one's own likelihood rises.",
    smoke="alignlab train nca --model tiny: --dataset world:pairs --limit 64 --max_steps 40"
    " --per_device_train_batch_size 8 --learning_rate 1e-4 --warmup_ratio 0.1 --save_steps 0 --output_dir {out}",
    claims=(
        Claim(metric="train/loss_first - train/loss_last", relation=">", bound=0.05),
        Claim(metric="train/rewards/margins", relation=">", bound=0.1),
    ),
    needs=frozenset({"policy", "ref"}),
    training={"learning_rate": 1e-6},
    deviations=(
        "read through TRL's code, not checked against the paper's text",
        "pairs only; the paper also weighs K completions by explicit rewards",
        "Pairs.margin is ignored",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of noise contrastive alignment."""

    beta: float = 0.1
    """strength of the pull towards the reference, > 0 (TRL: 0.1)"""

    def __post_init__(self) -> None:
        preference.require_positive("beta", self.beta)


def loss(batch: Groups, cfg: Config) -> tuple[Term, ...]:
    """Contrastive loss over the pairs of a batch.

    Args:
        batch: views `policy` and `ref` [N, T], and `pairs` [R] into the N completions.
        cfg: settings.

    Returns:
        Term `nca` over the R pairs in nats per pair, with TRL's reward and log-probability logs.

    Raises:
        ValueError: the batch has no pairs.
    """
    pairs = preference.pairs_of(batch, "nca")
    policy, ratios = preference.policy_and_ratios(batch)
    rewards = cfg.beta * ratios

    def contrast(better: Tensor, worse: Tensor) -> Tensor:
        return softplus(-better) + (softplus(better) + softplus(worse)) / 2

    per_pair = preference.expected(contrast, rewards, pairs)
    return (preference.pair_term("nca", per_pair, pairs, preference.reward_logs(policy, rewards, pairs)),)
