"""Simple preference optimisation: the mean token log-probability is the reward; no reference, and a margin to clear.

L = -log sigma(beta * (mean log p(y_w|x) - mean log p(y_l|x)) - gamma), means over the scored tokens of a completion.

Source: Meng, Xia and Chen 2024 (arXiv:2405.14734), the SimPO objective.
The label holds with probability p (`Pairs.p`, 1 for a hard one): the loss is its expectation over both ways round.
Input: pairs. Unit: nats. Reduction: mean over the pairs of the optimiser batch, weighted by the pairs' weights.
The rewards in the logs are beta * mean token log-probability.
"""

from dataclasses import dataclass

from torch.nn.functional import softplus

from alignlab.core import preference
from alignlab.core.cards import Card, Claim
from alignlab.core.masks import seq_sum
from alignlab.core.types import Groups, Term

CARD = Card(
    title="Simple preference optimisation",
    paper="arXiv:2405.14734",
    bibtex="""@inproceedings{meng2024simpo,
  title = {{SimPO}: Simple Preference Optimization with a Reference-Free Reward},
  author = {Meng, Yu and Xia, Mengzhou and Chen, Danqi},
  booktitle = {Advances in Neural Information Processing Systems},
  volume = {37},
  year = {2024},
  eprint = {2405.14734},
  archivePrefix = {arXiv}
}""",
    brief="baselines-dpo-ipo-kto",
    status="reconstructed",
    summary="Preference loss on mean token log-probabilities with a target margin, without a reference.",
    smoke="alignlab train simpo --model tiny: --dataset world:pairs --limit 64 --max_steps 40"
    " --per_device_train_batch_size 8 --learning_rate 1e-4 --warmup_ratio 0.1 --save_steps 0 --output_dir {out}",
    claims=(
        Claim(metric="train/loss_first - train/loss_last", relation=">", bound=0.05),
        # without a reference the untuned model has a margin too: 2.8 on the first batch
        Claim(metric="train/rewards/margins", relation=">", bound=3.4),
    ),
    needs=frozenset({"policy"}),
    training={"learning_rate": 1e-6},
    deviations=(
        "written from restatements, not checked against the paper's text",
        "Pairs.margin is ignored",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of simple preference optimisation."""

    beta: float = 2.0
    """scale of the rewards, > 0 (paper: 2.0 to 2.5)"""
    simpo_gamma: float = 1.0
    """gamma, margin by which the better reward should lead, >= 0 (paper: 0.3 to 1.6)"""

    def __post_init__(self) -> None:
        preference.require_positive("beta", self.beta)
        preference.require_at_least_zero("simpo_gamma", self.simpo_gamma)


def loss(batch: Groups, cfg: Config) -> tuple[Term, ...]:
    """Preference loss over the pairs of a batch.

    Args:
        batch: view `policy` [N, T], and `pairs` [R] into the N completions.
        cfg: settings.

    Returns:
        Term `simpo` over the R pairs in nats per pair, with TRL's reward and log-probability logs.

    Raises:
        ValueError: the batch has no pairs.
    """
    pairs = preference.pairs_of(batch, "simpo")
    policy = seq_sum(batch.views["policy"].logp, batch.mask)
    rewards = cfg.beta * policy / preference.tokens(batch, policy)
    margin = cfg.simpo_gamma
    per_pair = preference.expected(lambda better, worse: softplus(worse - better + margin), rewards, pairs)
    return (preference.pair_term("simpo", per_pair, pairs, preference.reward_logs(policy, rewards, pairs)),)
