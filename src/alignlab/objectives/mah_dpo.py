"""Multi-action-head DPO: one backbone, one output head per objective, each pair seen by the head of its objective.

z = beta * [(log p_i(y_w|x) - log p_ref(y_w|x)) - (log p_i(y_l|x) - log p_ref(y_l|x))] under head i of the pair's
objective, log-probabilities summed over tokens; L = sum over heads of alpha_i * mean over that head's pairs of
-log sigma(z). The backbone learns from all objectives, a head from its own. At inference heads combine as
z = sum_i w_i z_i, which is the one head sum_i w_i W_i (`fold`): the normalised geometric mean of the heads' policies.

Source: Shen et al. 2025 (arXiv:2510.01167), part B; equations from the authors' code and a public note, as the paper's
text could not be read. Input: pairs; `head` of each completion (rows: `facts.scores.head`), 0 where none is given; the
view `policy` holds what the routed head says. Unit: nats. Reduction: mean over each head's pairs in the step, weighted,
then the sum with weights alpha; a mean of means, so rare objectives weigh as much as frequent ones.
Deviations: an objective that a step lacks is left out and its share goes to no other (the authors divide by the heads
that are present). This file is the loss and the folding; a model with several heads is not built here.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
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
    smoke="alignlab train mah_dpo --model tiny: --dataset world:pairs --limit 64 --max_steps 40"
    " --per_device_train_batch_size 8 --learning_rate 1e-4 --warmup_ratio 0.1 --save_steps 0 --output_dir {out}",
    claims=(
        Claim(metric="train/loss_first - train/loss_last", relation=">", bound=0.05),
        Claim(metric="train/rewards/margins", relation=">", bound=0.1),
    ),
    needs=frozenset({"policy", "ref"}),
    training={"learning_rate": 1e-6},
    deviations=(
        "written from the released code and a third-party note",
        "an objective that a step lacks is left out, its share is not given to the others",
        "loss and folding alone: a model has one head here, which then serves all objectives",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of multi-action-head DPO."""

    beta: float = 0.1
    """strength of the pull towards the reference, > 0 (authors: 0.1)"""
    heads: int = 1
    """number of objectives, >= 1; 1 is DPO"""
    weights: tuple[float, ...] = ()
    """alpha, one weight per objective, >= 0; empty: 1 / heads each (authors)"""

    def __post_init__(self) -> None:
        require_positive("beta", self.beta)
        require(self.heads >= 1, "heads", "a whole number >= 1", self.heads)
        good = len(self.weights) in (0, self.heads) and all(0 <= w < float("inf") for w in self.weights)
        require(good, "weights", f"{self.heads} finite numbers >= 0, or none", self.weights)


def loss(batch: Groups, cfg: Config) -> tuple[Term, ...]:
    """DPO per objective.

    Args:
        batch: views `policy`, of each completion's own head, and `ref` [N, T]; `pairs` [R]; `head` [N], or the score
            `head`, or neither.
        cfg: settings.

    Returns:
        One term `head_i` per objective over the R pairs, those of other objectives weighing nothing, with TRL's logs.

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
        terms.append(Term(name=f"head_{i}", num=weight * per_pair, den=weight, weight=alpha, logs=logs))
    return tuple(terms)


def fold(heads: Float[Tensor, "H V D"], weights: Float[Tensor, "H"]) -> Float[Tensor, "V D"]:
    """Return the one output matrix whose logits are the weighted sum of the heads'.

    Args:
        heads: an output matrix per objective; biases fold alike, as heads of D + 1.
        weights: of the objectives, >= 0, adding up to 1.

    Raises:
        ValueError: weights that are negative or do not add up to 1.
    """
    if not bool((weights >= 0).all()) or abs(float(weights.sum()) - 1) > 1e-6:
        raise ValueError(f"weights of heads: expected numbers >= 0 that add up to 1, got {weights.tolist()}")
    return torch.einsum("h,hvd->vd", weights.to(heads), heads)


def _heads(batch: Groups, cfg: Config) -> Int[Tensor, "N"]:
    head = batch.head
    if head is None:
        head = batch.scores["head"].long() if "head" in batch.scores else torch.zeros_like(batch.group)
    if bool(((head < 0) | (head >= cfg.heads)).any()):
        raise ValueError(f"--heads {cfg.heads}: the batch has pairs of head {int(head.max())}; heads count from 0")
    return head
