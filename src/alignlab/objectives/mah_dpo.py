"""Multi-action-head DPO: one backbone, one output head per objective, each pair seen by the head of its objective.

z = beta * [(log p_i(y_w|x) - log p_ref(y_w|x)) - (log p_i(y_l|x) - log p_ref(y_l|x))] under head i of the pair's
objective, log-probabilities summed over tokens; L = sum over heads of alpha_i * mean over that head's pairs of
-log sigma(z). The backbone learns from all objectives, a head from its own. At inference heads combine as
z = sum_i w_i z_i, which is the one head sum_i w_i W_i (`core.heads.fold`): the normalised geometric mean of the heads'
policies. `--head_weights` of any command folds, and `alignlab export` writes the folded model as a stock one.

Source: Shen et al. 2025 (arXiv:2510.01167), part B; equations from the authors' code and a public note, as the paper's
text could not be read. Input: pairs; `head` of each completion (rows: `facts.scores.head`, which may be missing where
there is one head); the view `policy` holds what the routed head says. Unit: nats. Reduction: mean over each head's
pairs in the step, weighted, then the sum with weights alpha; a mean of means, so rare objectives weigh as much as
frequent ones.
Deviations: an objective that a step lacks is left out and its share goes to no other (the authors divide by the heads
that are present). Heads begin as exact copies of the model's own (the authors add noise of 0.001), so that every
objective's loss begins at log 2; the data tells them apart.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.functional import logsigmoid

from alignlab.core.cards import Card, Claim
from alignlab.core.preference import expected, pairs_of, policy_and_ratios, require, require_positive, reward_logs
from alignlab.core.types import Groups, Term

CARD = Card(
    title="Multi-action-head DPO (MAH-DPO)",
    paper="arXiv:2510.01167",
    bibtex="""@article{shen2025simultaneous,
  title = {Simultaneous Multi-objective Alignment Across Verifiable and Non-verifiable Rewards},
  author = {Shen, Yiran and Xia, Yu and Chang, Jonathan and Ammanabrolu, Prithviraj},
  journal = {arXiv preprint arXiv:2510.01167},
  year = {2025},
  eprint = {2510.01167},
  archivePrefix = {arXiv}
}""",
    brief="mah-dpo",
    status="reconstructed",
    summary="DPO with one output head per objective over a shared backbone; head weights are chosen at inference.",
    smoke="alignlab train mah_dpo --heads 2 --model tiny: --dataset world:goals --limit 64 --max_steps 40"
    " --per_device_train_batch_size 8 --learning_rate 1e-3 --warmup_ratio 0.1 --save_steps 0 --output_dir {out}",
    # the two heads are asked for opposite answers to the same prompts: what one head gains the other would lose
    claims=(
        Claim(metric="train/loss_first - train/loss_last", relation=">", bound=0.05),
        Claim(metric="train/rewards/margins/head_0", relation=">", bound=0.1),
        Claim(metric="train/rewards/margins/head_1", relation=">", bound=0.1),
    ),
    needs=frozenset({"policy", "ref"}),
    training={"learning_rate": 1e-6},
    deviations=(
        "written from the released code and a third-party note",
        "an objective that a step lacks is left out, its share is not given to the others",
        "heads begin as copies of the model's own head, without noise",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of multi-action-head DPO."""

    beta: float = 0.1
    """strength of the pull towards the reference, > 0 (authors: 0.1)"""
    heads: int = 1
    """number of objectives, each with an output head of its own, >= 1; 1 is DPO"""
    weights: tuple[float, ...] = ()
    """alpha, one weight per objective, >= 0; empty: 1 / heads each (authors)"""

    def __post_init__(self) -> None:
        require_positive("beta", self.beta)
        require(self.heads >= 1, "heads", "a whole number >= 1", self.heads)
        good = len(self.weights) in (0, self.heads) and all(0 <= w < float("inf") for w in self.weights)
        require(good, "weights", f"{self.heads} finite numbers >= 0, or none", self.weights)


def output_heads(cfg: Config) -> int:
    """Return how many output heads the trained model has."""
    return cfg.heads


def loss(batch: Groups, cfg: Config) -> tuple[Term, ...]:
    """DPO per objective.

    Args:
        batch: views `policy`, of each completion's own head, and `ref` [N, T]; `pairs` [R]; `head` [N], or the score
            `head`, or neither.
        cfg: settings.

    Returns:
        One term `head_i` per objective over the R pairs, those of other objectives weighing nothing, with TRL's logs
        and the objective's own margin.

    Raises:
        ValueError: no pairs, a head that `heads` does not count, or a pair across two heads.
    """
    pairs = pairs_of(batch, "mah_dpo")
    head = _heads(batch, cfg)
    own = head[pairs.better]
    if not bool((own == head[pairs.worse]).all()):
        raise ValueError("mah_dpo: a pair's two completions have different heads; a preference is of one objective")
    policy, ratios = policy_and_ratios(batch)
    rewards = cfg.beta * ratios
    per_pair = expected(lambda better, worse: -logsigmoid(better - worse), rewards, pairs)
    logs, alphas = reward_logs(policy, rewards, pairs), cfg.weights or (1 / cfg.heads,) * cfg.heads
    terms = []
    for i, alpha in enumerate(alphas):
        weight = torch.where(own == i, pairs.weight, 0.0)
        mine = {**logs, f"rewards/margins/head_{i}": logs["rewards/margins"]} if cfg.heads > 1 else logs
        terms.append(Term(name=f"head_{i}", num=weight * per_pair, den=weight, weight=alpha, logs=mine))
    return tuple(terms)


def _heads(batch: Groups, cfg: Config) -> Int[Tensor, "N"]:
    head = batch.head
    if head is None:
        head = batch.scores["head"].long() if "head" in batch.scores else torch.zeros_like(batch.group)
    if bool(((head < 0) | (head >= cfg.heads)).any()):
        raise ValueError(f"--heads {cfg.heads}: the batch has pairs of head {int(head.max())}; heads count from 0")
    return head
