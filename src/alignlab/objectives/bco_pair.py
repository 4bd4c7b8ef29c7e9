"""Binary classifier optimisation on pairs: tell good from bad completions one by one, around a shifted zero.

L = -log sigma(r_w - delta) - log sigma(-(r_l - delta)), r = beta * log-ratio of policy to reference. For any delta the
loss bounds DPO's from above; the bound is tightest where delta is the midpoint of the two rewards. delta is the
midpoint of the mean rewards of both classes over the whole optimiser step and carries no gradient (`midpoint`), or 0
(`unshifted`, which is what TRL 1.16 calls `bco_pair`).

Source: Jung et al. 2024 (arXiv:2404.04656), theorems 1 and 3, equations 7 and 8.
Deviation: the paper smooths delta over steps by a moving average of unstated rate; here each step has its own, exact
however the step is cut.
The label holds with probability p (`Pairs.p`, 1 for a hard one): the loss is its expectation over both ways round.
Input: pairs. Unit: nats. Reduction: mean over the pairs of the optimiser batch, weighted by the pairs' weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch.nn.functional import softplus

from alignlab.core import preference
from alignlab.core.cards import Card, Claim
from alignlab.core.types import Groups, Term

CARD = Card(
    title="Binary classifier optimisation on pairs",
    paper="arXiv:2404.04656",
    bibtex="""@inproceedings{jung2025binary,
  title = {Binary Classifier Optimization for Large Language Model Alignment},
  author = {Jung, Seungjae and Han, Gunsoo and Nam, Daniel Wontae and On, Kyoung-Woon},
  booktitle = {Proceedings of the 63rd Annual Meeting of the Association for Computational Linguistics},
  year = {2025},
  eprint = {2404.04656},
  archivePrefix = {arXiv}
}""",
    brief="bco",
    status="faithful",
    summary="Classify completions as good or bad around the midpoint of both classes' rewards.",
    smoke="alignlab train bco_pair --model tiny: --dataset world:pairs --limit 64 --max_steps 40"
    " --per_device_train_batch_size 8 --learning_rate 1e-4 --warmup_ratio 0.1 --save_steps 0 --output_dir {out}",
    claims=(
        Claim(metric="train/loss_first - train/loss_last", relation=">", bound=0.05),
        Claim(metric="train/rewards/margins", relation=">", bound=0.1),
    ),
    needs=frozenset({"policy", "ref"}),
    training={"learning_rate": 1e-6},
    deviations=(
        "delta of each step, not a moving average over steps",
        "Pairs.margin is ignored",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of binary classifier optimisation on pairs."""

    beta: float = 0.1
    """strength of the pull towards the reference, > 0 (paper: 0.1)"""
    form: Literal["midpoint", "unshifted"] = "midpoint"
    """zero of the classifier: midpoint of the classes' mean rewards over the step (paper), or 0 (TRL 1.16)"""

    def __post_init__(self) -> None:
        preference.require_positive("beta", self.beta)
        preference.require(self.form in ("midpoint", "unshifted"), "form", "midpoint or unshifted", self.form)


def stats(batch: Groups, cfg: Config) -> tuple[Term, ...]:
    """Return the term `shift` over the R pairs, whose ratio over the step is delta; none where `form` needs none."""
    pairs = preference.pairs_of(batch, "bco_pair")
    if cfg.form == "unshifted":
        return ()
    rewards = cfg.beta * preference.policy_and_ratios(batch)[1]
    midpoint = (rewards[pairs.better] + rewards[pairs.worse]) / 2
    return (preference.pair_term("shift", midpoint, pairs, {}),)


def loss(batch: Groups, cfg: Config, values: Mapping[str, float]) -> tuple[Term, ...]:
    """Classifier loss over the pairs of a batch.

    Args:
        batch: views `policy` and `ref` [N, T], and `pairs` [R] into the N completions.
        cfg: settings.
        values: `shift`, delta over the whole step; absent where no pair counts or `form` needs none.

    Returns:
        Term `bco_pair` over the R pairs in nats per pair, with TRL's reward and log-probability logs.

    Raises:
        ValueError: the batch has no pairs.
    """
    pairs = preference.pairs_of(batch, "bco_pair")
    policy, ratios = preference.policy_and_ratios(batch)
    rewards, shift = cfg.beta * ratios, values.get("shift", 0.0)
    per_pair = preference.expected(
        lambda better, worse: softplus(shift - better) + softplus(worse - shift), rewards, pairs
    )
    return (preference.pair_term("bco_pair", per_pair, pairs, preference.reward_logs(policy, rewards, pairs)),)
