"""Regularised preference optimisation: DPO and imitation of a baseline, which is pessimism about uncovered answers.

L = L_DPO(beta) + eta * beta * E[-log p(y_w|x)]: the second term falls out of a maximin over rewards that fit the data,
with the better completions as baseline policy, and keeps mass from drifting to answers that no pair speaks of.
`form` names published readings, whose eta are not comparable:
`summed`: eta * beta * NLL per completion, the paper and its main code (eta 0.005);
`averaged`: eta * mean token NLL per completion, without beta, the authors' second code (eta 0.2, beta 0.5);
`token_mean`: eta * NLL over the tokens of the step, without beta, TRL's recipe of loss types sigmoid and sft, and its
rpo_alpha from 0.10 to 0.28;
`scaled`: eta * L_DPO + NLL over the tokens of the step, TRL 0.9's rpo_alpha: the larger eta, the less pessimism.

Source: Liu et al. 2024 (arXiv:2405.16436), equation 4.8. With eta = 0 it is DPO (`scaled`: imitation).
The label holds with probability p (`Pairs.p`, 1 for a hard one): the loss is its expectation over both ways round.
Input: pairs. Unit: nats. Reduction: mean over the pairs of the optimiser batch, weighted by the pairs' weights.
Soft labels enter the preference loss only.
"""

from dataclasses import dataclass
from typing import Literal

from torch.nn.functional import softplus

from alignlab.core import preference
from alignlab.core.cards import Card, Claim
from alignlab.core.types import Groups, Term

CARD = Card(
    title="Regularised preference optimisation",
    paper="arXiv:2405.16436",
    bibtex="""@inproceedings{liu2024provably,
  title = {Provably Mitigating Overoptimization in RLHF: Your SFT Loss is Implicitly an Adversarial Regularizer},
  author = {Liu, Zhihan and Lu, Miao and Zhang, Shenao and Liu, Boyi and Guo, Hongyi and Yang, Yingxiang
    and Blanchet, Jose and Wang, Zhaoran},
  booktitle = {Advances in Neural Information Processing Systems},
  volume = {37},
  year = {2024},
  eprint = {2405.16436},
  archivePrefix = {arXiv}
}""",
    brief="rpo-overoptimization",
    status="faithful",
    summary="DPO with the likelihood of the better completions as pessimism against overoptimisation.",
    smoke="alignlab train rpo --model tiny: --dataset world:pairs --limit 64 --max_steps 40 --beta 0.1"
    " --per_device_train_batch_size 8 --learning_rate 1e-4 --warmup_ratio 0.1 --save_steps 0 --output_dir {out}",
    claims=(
        Claim(metric="train/loss_first - train/loss_last", relation=">", bound=0.05),
        Claim(metric="train/rewards/margins", relation=">", bound=0.1),
    ),
    needs=frozenset({"policy", "ref"}),
    training={"learning_rate": 1e-6},
    deviations=(
        "the baseline policy is the better completions of the batch, as in the paper's experiments",
        "Pairs.margin is ignored",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of regularised preference optimisation."""

    beta: float = 0.01
    """strength of the pull towards the reference, > 0 (paper: 0.01 and 0.05; its second code: 0.5)"""
    eta: float = 0.005
    """strength of the pessimism, >= 0, by `form` (paper: 0.005 for summed; its second code: 0.2 for averaged)"""
    form: Literal["summed", "averaged", "token_mean", "scaled"] = "summed"
    """reading of the likelihood term: the paper's, the authors' second code's, TRL's, or TRL 0.9's"""

    def __post_init__(self) -> None:
        preference.require_positive("beta", self.beta)
        preference.require_at_least_zero("eta", self.eta)
        known = ("summed", "averaged", "token_mean", "scaled")
        preference.require(self.form in known, "form", "summed, averaged, token_mean or scaled", self.form)


def loss(batch: Groups, cfg: Config) -> tuple[Term, ...]:
    """Preference loss and likelihood over the pairs of a batch.

    Args:
        batch: views `policy` and `ref` [N, T], and `pairs` [R] into the N completions.
        cfg: settings.

    Returns:
        Term `dpo` over the R pairs in nats per pair, with TRL's logs; where `eta` > 0, or `form` is
        scaled, also term `nll`.

    Raises:
        ValueError: the batch has no pairs.
    """
    pairs = preference.pairs_of(batch, "rpo")
    policy, ratios = preference.policy_and_ratios(batch)
    rewards = cfg.beta * ratios
    per_pair = preference.expected(lambda better, worse: softplus(worse - better), rewards, pairs)
    logs, scale = preference.reward_logs(policy, rewards, pairs), cfg.eta if cfg.form == "scaled" else 1.0
    compared = preference.pair_term("dpo", per_pair, pairs, logs, weight=scale)
    if cfg.form == "scaled":
        return (compared, preference.likelihood_term(policy, batch, pairs, 1.0, "per_token"))
    if cfg.eta == 0:
        return (compared,)
    if cfg.form == "summed":
        return (compared, preference.likelihood_term(policy, batch, pairs, cfg.eta * cfg.beta, "sum"))
    form: preference.LikelihoodForm = "per_pair" if cfg.form == "averaged" else "per_token"
    return (compared, preference.likelihood_term(policy, batch, pairs, cfg.eta, form))
