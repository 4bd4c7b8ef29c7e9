"""Identity preference optimisation: regress the log-ratio difference of a pair on 1 / (2 tau) instead of pushing it on.

L = (a_w - a_l - 1 / (2 tau))^2, where a is the log-ratio of policy to reference of a completion: its mean per token
(`mean`, TRL's and HALOs' form, which they say the authors confirmed) or its sum (`sum`, the DPO authors' code). tau is
not comparable between the two. Unlike DPO's, the optimum stays finite under labels without noise.

Source: Azar et al. 2023 (arXiv:2310.12036), read through these codes; tau is called beta, as in TRL.
The label holds with probability p (`Pairs.p`, 1 for a hard one): the loss is its expectation over both ways round.
Input: pairs. Unit: nats. Reduction: mean over the pairs of the optimiser batch, weighted by the pairs' weights.
The rewards in the logs are beta * a.
"""

from dataclasses import dataclass
from typing import Literal

from alignlab.core import preference
from alignlab.core.cards import Card, Claim
from alignlab.core.types import Groups, Term

CARD = Card(
    title="Identity preference optimisation",
    paper="arXiv:2310.12036",
    bibtex="""@inproceedings{azar2024general,
  title = {A General Theoretical Paradigm to Understand Learning from Human Preferences},
  author = {Azar, Mohammad Gheshlaghi and Rowland, Mark and Piot, Bilal and Guo, Daniel and Calandriello, Daniele
    and Valko, Michal and Munos, R{\\'e}mi},
  booktitle = {International Conference on Artificial Intelligence and Statistics},
  year = {2024},
  eprint = {2310.12036},
  archivePrefix = {arXiv}
}""",
    brief="baselines-dpo-ipo-kto",
    status="reconstructed",
    summary="Regress the log-ratio difference of a pair on 1 / (2 tau): a finite optimum even for certain labels.",
    smoke="alignlab train ipo --model tiny: --dataset world:pairs --limit 64 --max_steps 40"
    " --per_device_train_batch_size 8 --learning_rate 1e-4 --warmup_ratio 0.1 --save_steps 0 --output_dir {out}",
    claims=(
        Claim(metric="train/loss_first - train/loss_last", relation=">", bound=2.0),
        Claim(metric="train/rewards/margins", relation=">", bound=0.02),
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
    """Settings of identity preference optimisation."""

    beta: float = 0.1
    """the paper's tau, > 0: half the reciprocal of the target difference (HALOs, TRL: 0.1)"""
    form: Literal["mean", "sum"] = "mean"
    """log-ratio of a completion per token (TRL 1.16, HALOs) or summed (the DPO authors' code)"""

    def __post_init__(self) -> None:
        preference.require_positive("beta", self.beta)
        preference.require(self.form in ("mean", "sum"), "form", "mean or sum", self.form)


def loss(batch: Groups, cfg: Config) -> tuple[Term, ...]:
    """Squared distance of the pairs of a batch from their target.

    Args:
        batch: views `policy` and `ref` [N, T], and `pairs` [R] into the N completions.
        cfg: settings.

    Returns:
        Term `ipo` over the R pairs in squared nats (`mean`: per token) per pair, with TRL's logs.

    Raises:
        ValueError: the batch has no pairs.
    """
    pairs = preference.pairs_of(batch, "ipo")
    policy, ratios = preference.policy_and_ratios(batch)
    if cfg.form == "mean":
        ratios = ratios / preference.tokens(batch, ratios)
    target = 1 / (2 * cfg.beta)
    per_pair = preference.expected(lambda better, worse: (better - worse - target) ** 2, ratios, pairs)
    return (preference.pair_term("ipo", per_pair, pairs, preference.reward_logs(policy, cfg.beta * ratios, pairs)),)
