"""Self-play preference optimisation on pairs: regress each log-ratio on how far its win rate is from one half.

L = (a_w - (P - 1/2) / beta)^2 + (a_l + (P - 1/2) / beta)^2, a the summed log-ratio of policy to reference, P the
probability that y_w is the better one (`Pairs.p`; 1 for a hard label: targets +-1 / (2 beta)). Each completion is
pulled to its own target, so y_w rises by itself.

Source: Wu et al. 2024 (arXiv:2405.00675), eta = 1 / beta, with the log-partition term taken as eta / 2 as there;
TRL's loss type `sppo_hard`. The paper repeats it on its own samples; this is one round.
Input: pairs. Unit: squared nats. Reduction: mean over the pairs of the optimiser batch, weighted by the pairs' weights;
a pair counts the sum of its two squares.
The rewards in the logs are beta * a.
"""

from dataclasses import dataclass

from alignlab.core import preference
from alignlab.core.cards import Card, Claim
from alignlab.core.types import Groups, Term

CARD = Card(
    title="Self-play preference optimisation",
    paper="arXiv:2405.00675",
    bibtex="""@inproceedings{wu2025selfplay,
  title = {Self-Play Preference Optimization for Language Model Alignment},
  author = {Wu, Yue and Sun, Zhiqing and Yuan, Huizhuo and Ji, Kaixuan and Yang, Yiming and Gu, Quanquan},
  booktitle = {International Conference on Learning Representations},
  year = {2025},
  eprint = {2405.00675},
  archivePrefix = {arXiv}
}""",
    brief="baselines-dpo-ipo-kto",
    status="reconstructed",
    summary="Regress each completion's log-ratio on its win rate less one half, over beta.",
    smoke="alignlab train sppo --model tiny: --dataset world:pairs --limit 64 --max_steps 40"
    " --per_device_train_batch_size 8 --learning_rate 1e-4 --warmup_ratio 0.1 --save_steps 0 --output_dir {out}",
    claims=(
        Claim(metric="train/loss_first - train/loss_last", relation=">", bound=5.0),
        Claim(metric="train/rewards/margins", relation=">", bound=0.1),
    ),
    needs=frozenset({"policy", "ref"}),
    training={"learning_rate": 1e-6},
    deviations=(
        "read through TRL's code, not checked against the paper's text",
        "one offline round; the paper samples anew for three",
        "Pairs.margin is ignored",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of self-play preference optimisation."""

    beta: float = 0.1
    """reciprocal of the paper's step size eta, > 0: hard targets are +-1 / (2 beta) nats (TRL: 0.1)"""

    def __post_init__(self) -> None:
        preference.require_positive("beta", self.beta)


def loss(batch: Groups, cfg: Config) -> tuple[Term, ...]:
    """Squared distances of both completions of the pairs of a batch from their targets.

    Args:
        batch: views `policy` and `ref` [N, T], and `pairs` [R] into the N completions.
        cfg: settings.

    Returns:
        Term `sppo` over the R pairs in squared nats per pair, with TRL's reward and log-probability logs.

    Raises:
        ValueError: the batch has no pairs.
    """
    pairs = preference.pairs_of(batch, "sppo")
    policy, ratios = preference.policy_and_ratios(batch)
    target = (pairs.p - 0.5) / cfg.beta
    per_pair = (ratios[pairs.better] - target) ** 2 + (ratios[pairs.worse] + target) ** 2
    return (preference.pair_term("sppo", per_pair, pairs, preference.reward_logs(policy, cfg.beta * ratios, pairs)),)
