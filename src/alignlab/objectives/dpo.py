"""Direct preference optimisation: a classifier between two completions whose logit is the policy's own log-ratio.

z = beta * [(log p(y_w|x) - log p_ref(y_w|x)) - (log p(y_l|x) - log p_ref(y_l|x))], log-probabilities summed over the
tokens of a completion, EOS included; L = -log sigma(z), or for a label that holds with probability p,
-p log sigma(z) - (1-p) log sigma(-z). The gradient with respect to log p(y_w|x) is -beta * (p - sigma(z)).

Source: Rafailov et al. 2023 (arXiv:2305.18290), read through the authors' code and TRL; soft labels: its Bradley-Terry
likelihood in expectation. The optional term on the likelihood of y_w keeps it from sinking: Pang et al. 2024
(arXiv:2404.19733), as TRL has it.
Input: pairs. Unit: nats. Reduction: mean over the pairs of the optimiser batch, weighted by the pairs' weights, so that
weight 2 is the pair given twice. The default learning rate, TRL's, is for full tuning; 1e-5 is usual for LoRA.
Deviations: `Pairs.margin` is no part of this loss. Dropout is off in policy and reference (the loop sees to that).
"""

from dataclasses import dataclass
from typing import Literal

from torch.nn.functional import softplus

from alignlab.core import preference
from alignlab.core.cards import Card, Claim
from alignlab.core.types import Groups, Term

CARD = Card(
    title="Direct preference optimisation",
    paper="arXiv:2305.18290",
    bibtex="""@inproceedings{rafailov2023direct,
  title = {Direct Preference Optimization: Your Language Model is Secretly a Reward Model},
  author = {Rafailov, Rafael and Sharma, Archit and Mitchell, Eric and Manning, Christopher D. and Ermon, Stefano
    and Finn, Chelsea},
  booktitle = {Advances in Neural Information Processing Systems},
  volume = {36},
  year = {2023},
  eprint = {2305.18290},
  archivePrefix = {arXiv}
}""",
    brief="baselines-dpo-ipo-kto",
    status="reconstructed",
    summary="Tell the better from the worse completion by the policy's log-ratio to a frozen reference.",
    smoke="alignlab train dpo --model tiny: --dataset world:pairs --limit 64 --max_steps 40"
    " --per_device_train_batch_size 8 --learning_rate 1e-4 --warmup_ratio 0.1 --save_steps 0 --output_dir {out}",
    claims=(
        Claim(metric="train/loss_first - train/loss_last", relation=">", bound=0.05),
        Claim(metric="train/rewards/margins", relation=">", bound=0.1),
    ),
    needs=frozenset({"policy", "ref"}),
    training={"learning_rate": 1e-6},
    deviations=(
        "read through the authors' released code, not checked against the paper's text",
        "Pairs.margin is ignored",
        "AdamW instead of RMSprop",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of direct preference optimisation."""

    beta: float = 0.1
    """strength of the pull towards the reference, > 0 (paper: 0.1)"""
    nll_weight: float = 0.0
    """weight of the likelihood term on the better completion, >= 0 (paper: none; Pang et al.: 1)"""
    form: Literal["per_pair", "per_token"] = "per_pair"
    """what weighs the same in the likelihood term: pairs, each by its mean token (Pang et al.), or tokens (TRL 1.16)"""

    def __post_init__(self) -> None:
        preference.require_positive("beta", self.beta)
        preference.require_at_least_zero("nll_weight", self.nll_weight)
        preference.require(self.form in ("per_pair", "per_token"), "form", "per_pair or per_token", self.form)


def loss(batch: Groups, cfg: Config) -> tuple[Term, ...]:
    """Preference loss over the pairs of a batch.

    Args:
        batch: views `policy` and `ref` [N, T], and `pairs` [R] into the N completions.
        cfg: settings.

    Returns:
        Term `dpo` over the R pairs in nats per pair, with TRL's reward and log-probability logs; where `nll_weight` > 0
        also term `nll`, in nats per token of the better completion.

    Raises:
        ValueError: the batch has no pairs.
    """
    pairs = preference.pairs_of(batch, "dpo")
    policy, ratios = preference.policy_and_ratios(batch)
    rewards = cfg.beta * ratios
    # -log sigma(z) = softplus(-z)
    per_pair = preference.expected(lambda better, worse: softplus(worse - better), rewards, pairs)
    terms = [preference.pair_term("dpo", per_pair, pairs, preference.reward_logs(policy, rewards, pairs))]
    if cfg.nll_weight > 0:
        terms.append(preference.likelihood_term(policy, batch, pairs, cfg.nll_weight, cfg.form))
    return tuple(terms)
