"""Length-normalised DPO: the logit compares log-ratios per token, so that length alone gains nothing.

L = -log sigma(beta * (a_w / |y_w| - a_l / |y_l|)), a the log-ratio of policy to reference summed over the |y| scored
tokens of a completion, EOS included. beta is on the scale of one token, hence far above DPO's.

Source: Lambert et al. 2024 (arXiv:2411.15124), length-normalised DPO; TRL's loss type `sigmoid_norm`.
The label holds with probability p (`Pairs.p`, 1 for a hard one): the loss is its expectation over both ways round.
Input: pairs. Unit: nats. Reduction: mean over the pairs of the optimiser batch, weighted by the pairs' weights.
The rewards in the logs are beta * a / |y|.
"""

from dataclasses import dataclass

from torch.nn.functional import softplus

from alignlab.core import preference
from alignlab.core.cards import Card, Claim
from alignlab.core.types import Groups, Term

CARD = Card(
    title="Length-normalised direct preference optimisation",
    paper="arXiv:2411.15124",
    bibtex="""@article{lambert2024tulu,
  title = {Tulu 3: Pushing Frontiers in Open Language Model Post-Training},
  author = {Lambert, Nathan and Morrison, Jacob and Pyatkin, Valentina and Huang, Shengyi and Ivison, Hamish
    and Brahman, Faeze and Miranda, Lester James V. and Liu, Alisa and Dziri, Nouha and Lyu, Shane and others},
  journal = {arXiv preprint arXiv:2411.15124},
  year = {2024},
  eprint = {2411.15124},
  archivePrefix = {arXiv}
}""",
    brief="baselines-dpo-ipo-kto",
    status="reconstructed",
    summary="DPO on log-ratios per token, against its taste for length.",
    smoke="alignlab train sigmoid_norm --model tiny: --dataset world:pairs --limit 64 --max_steps 40"
    " --per_device_train_batch_size 8 --learning_rate 1e-4 --warmup_ratio 0.1 --save_steps 0 --output_dir {out}",
    claims=(
        Claim(metric="train/loss_first - train/loss_last", relation=">", bound=0.1),
        Claim(metric="train/rewards/margins", relation=">", bound=1.0),
    ),
    needs=frozenset({"policy", "ref"}),
    training={"learning_rate": 1e-6},
    deviations=(
        "read through TRL's code, not checked against the paper's text",
        "Pairs.margin is ignored",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of length-normalised DPO."""

    beta: float = 5.0
    """strength of the pull towards the reference per token, > 0 (paper: 5; TRL's default is DPO's 0.1)"""

    def __post_init__(self) -> None:
        preference.require_positive("beta", self.beta)


def loss(batch: Groups, cfg: Config) -> tuple[Term, ...]:
    """Preference loss over the pairs of a batch.

    Args:
        batch: views `policy` and `ref` [N, T], and `pairs` [R] into the N completions.
        cfg: settings.

    Returns:
        Term `sigmoid_norm` over the R pairs in nats per pair, with TRL's reward and log-probability logs.

    Raises:
        ValueError: the batch has no pairs.
    """
    pairs = preference.pairs_of(batch, "sigmoid_norm")
    policy, ratios = preference.policy_and_ratios(batch)
    rewards = cfg.beta * ratios / preference.tokens(batch, ratios)
    per_pair = preference.expected(lambda better, worse: softplus(worse - better), rewards, pairs)
    return (preference.pair_term("sigmoid_norm", per_pair, pairs, preference.reward_logs(policy, rewards, pairs)),)
