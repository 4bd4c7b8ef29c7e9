"""Sequence likelihood calibration: without a reference, hold the better completion delta nats above the worse one.

L = max(0, delta - log p(y_w|x) + log p(y_l|x)) + lambda * NLL(y), log-probabilities summed over tokens. The second term
keeps the policy near what it imitates: here y_w; the paper may take the target of supervised fine-tuning instead.

Source: Zhao et al. 2023 (arXiv:2305.10425), as two released codes read it. `form` names what
they make of the NLL: summed nats per completion (`sum`, the equation), nats per token, each pair alike (`per_pair`),
or nats per token of the step (`per_token`, TRL's CPO with loss type hinge, whose delta is 1 / beta and scale beta).
The label holds with probability p (`Pairs.p`, 1 for a hard one): the loss is its expectation over both ways round.
Input: pairs. Unit: nats. Reduction: mean over the pairs of the optimiser batch, weighted by the pairs' weights.
The rewards in the logs are log p(y|x).
"""

from dataclasses import dataclass
from typing import Literal

from torch import relu

from alignlab.core import preference
from alignlab.core.cards import Card, Claim
from alignlab.core.masks import seq_sum
from alignlab.core.types import Groups, Term

CARD = Card(
    title="Sequence likelihood calibration from human feedback",
    paper="arXiv:2305.10425",
    bibtex="""@article{zhao2023slic,
  title = {{SLiC-HF}: Sequence Likelihood Calibration with Human Feedback},
  author = {Zhao, Yao and Joshi, Rishabh and Liu, Tianqi and Khalman, Misha and Saleh, Mohammad and Liu, Peter J.},
  journal = {arXiv preprint arXiv:2305.10425},
  year = {2023},
  eprint = {2305.10425},
  archivePrefix = {arXiv}
}""",
    brief="baselines-dpo-ipo-kto",
    status="reconstructed",
    summary="Hold the better completion a margin above the worse one, without a reference.",
    smoke="alignlab train slic --model tiny: --dataset world:pairs --limit 64 --max_steps 40"
    " --per_device_train_batch_size 8 --learning_rate 1e-4 --warmup_ratio 0.1 --save_steps 0 --output_dir {out}",
    claims=(
        Claim(metric="train/loss_first - train/loss_last", relation=">", bound=0.02),
        # without a reference the untuned model has a margin too: 5.6 on the first batch
        Claim(metric="train/rewards/margins", relation=">", bound=6.2),
    ),
    needs=frozenset({"policy"}),
    training={"learning_rate": 1e-6},
    deviations=(
        "the likelihood term is on the better completion; the paper may take the SFT target",
        "Pairs.margin is ignored",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of sequence likelihood calibration."""

    delta: float = 1.0
    """margin in nats of summed log-probability, > 0 (HALOs: 1)"""
    nll_weight: float = 0.1
    """lambda, weight of the likelihood term on the better completion, >= 0 (HALOs: 0.1)"""
    form: Literal["sum", "per_pair", "per_token"] = "sum"
    """unit of the likelihood term: nats per completion (the equation), per token of each pair, per token of the step"""

    def __post_init__(self) -> None:
        preference.require_positive("delta", self.delta)
        preference.require_at_least_zero("nll_weight", self.nll_weight)
        known = ("sum", "per_pair", "per_token")
        preference.require(self.form in known, "form", "sum, per_pair or per_token", self.form)


def loss(batch: Groups, cfg: Config) -> tuple[Term, ...]:
    """Calibration and likelihood over the pairs of a batch.

    Args:
        batch: view `policy` [N, T], and `pairs` [R] into the N completions.
        cfg: settings.

    Returns:
        Term `slic` over the R pairs in nats per pair, with TRL's logs; where `nll_weight` > 0 also term `nll`.

    Raises:
        ValueError: the batch has no pairs.
    """
    pairs = preference.pairs_of(batch, "slic")
    policy = seq_sum(batch.views["policy"].logp, batch.mask)
    per_pair = preference.expected(lambda better, worse: relu(cfg.delta - better + worse), policy, pairs)
    calibration = preference.pair_term("slic", per_pair, pairs, preference.reward_logs(policy, policy, pairs))
    if cfg.nll_weight == 0:
        return (calibration,)
    return (calibration, preference.likelihood_term(policy, batch, pairs, cfg.nll_weight, cfg.form))
