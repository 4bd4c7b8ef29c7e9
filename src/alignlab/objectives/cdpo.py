"""Conservative DPO: preference optimisation that expects a share of the labels to be wrong.

L = -(1 - eps) log sigma(z) - eps log sigma(-z), with DPO's z = beta * (log-ratio of y_w - log-ratio of y_l): the cross
entropy to a label that is right with probability 1 - eps. Its gradient vanishes at sigma(z) = 1 - eps, where DPO's
still pushes. With eps = 0 it is DPO.

Source: Mitchell 2023, "A note on DPO with noisy preferences and relationship to IPO". TRL had it as
`label_smoothing` of the default loss until 0.28; TRL 1.16 ignores the setting there.
Soft labels p become p (1 - eps) + (1 - p) eps.
Input: pairs. Unit: nats. Reduction: mean over the pairs of the optimiser batch, weighted by the pairs' weights.
"""

from dataclasses import dataclass, replace

from torch.nn.functional import softplus

from alignlab.core import preference
from alignlab.core.cards import Card, Claim
from alignlab.core.types import Groups, Term

CARD = Card(
    title="Conservative direct preference optimisation",
    paper="https://ericmitchell.ai/cdpo.pdf",
    bibtex="""@misc{mitchell2023note,
  title = {A Note on {DPO} with Noisy Preferences and Relationship to {IPO}},
  author = {Mitchell, Eric},
  year = {2023},
  howpublished = {https://ericmitchell.ai/cdpo.pdf}
}""",
    brief="baselines-dpo-ipo-kto",
    status="reconstructed",
    summary="DPO against labels of which a share eps is taken to be wrong: it stops at sigma(z) = 1 - eps.",
    smoke="alignlab train cdpo --model tiny: --dataset world:pairs --limit 64 --max_steps 40"
    " --per_device_train_batch_size 8 --learning_rate 1e-4 --warmup_ratio 0.1 --save_steps 0 --output_dir {out}",
    claims=(
        Claim(metric="train/loss_first - train/loss_last", relation=">", bound=0.05),
        Claim(metric="train/rewards/margins", relation=">", bound=0.1),
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
    """Settings of conservative DPO."""

    beta: float = 0.1
    """strength of the pull towards the reference, > 0 (DPO's and TRL's default)"""
    label_smoothing: float = 0.1
    """share of labels that are wrong, in [0, 0.5) (the note's example: 0.1)"""

    def __post_init__(self) -> None:
        preference.require_positive("beta", self.beta)
        preference.require(
            0 <= self.label_smoothing < 0.5, "label_smoothing", "a number in [0, 0.5)", self.label_smoothing
        )


def loss(batch: Groups, cfg: Config) -> tuple[Term, ...]:
    """Cross entropy of the pairs of a batch to smoothed labels.

    Args:
        batch: views `policy` and `ref` [N, T], and `pairs` [R] into the N completions.
        cfg: settings.

    Returns:
        Term `cdpo` over the R pairs in nats per pair, with TRL's reward and log-probability logs.

    Raises:
        ValueError: the batch has no pairs.
    """
    pairs = preference.pairs_of(batch, "cdpo")
    policy, ratios = preference.policy_and_ratios(batch)
    rewards = cfg.beta * ratios
    smoothed = replace(pairs, p=preference.flipped_with(pairs.p, cfg.label_smoothing))
    per_pair = preference.expected(lambda better, worse: softplus(worse - better), rewards, smoothed)
    return (preference.pair_term("cdpo", per_pair, pairs, preference.reward_logs(policy, rewards, pairs)),)
