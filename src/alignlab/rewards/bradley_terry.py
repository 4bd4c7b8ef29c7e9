"""Bradley-Terry reward model: the better answer gets the higher number, by the odds of winning.

P(w beats l) = sigma(r(x, y_w) - r(x, y_l) - m), with m the pair's margin, if any; L = -log P, in expectation over a
soft label. c * (r_w + r_l)^2 may be added, which holds rewards around 0: pairs alone leave them free up to c(x).

Source: Bradley and Terry 1952; as the reward model of language models Stiennon et al. 2020 (arXiv:2009.01325); margins
Touvron et al. 2023 (arXiv:2307.09288); centring Eisenstein et al. 2023 (arXiv:2312.09244).
Input: pairs, over one prompt or two. r is the linear head on the last hidden state at the last scored token, the end of
text included unless it is the padding token as well. Unit: nats. Reduction: mean over the pairs of the optimiser batch,
weighted by the pairs' weights. A usual learning rate for full tuning is 1e-5, for LoRA 1e-4.
Deviations: pairs that are too long are left out and counted, as in TRL.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch.nn.functional import softplus

from alignlab.core import preference
from alignlab.core.cards import Card, Claim
from alignlab.core.types import Groups, Row, Term
from alignlab.rewards._shared import pair_logs, score_answers, values_of

CARD = Card(
    title="Bradley-Terry reward model",
    paper="arXiv:2009.01325",
    bibtex="""@inproceedings{stiennon2020learning,
  title = {Learning to Summarize with Human Feedback},
  author = {Stiennon, Nisan and Ouyang, Long and Wu, Jeffrey and Ziegler, Daniel and Lowe, Ryan and Voss, Chelsea
    and Radford, Alec and Amodei, Dario and Christiano, Paul},
  booktitle = {Advances in Neural Information Processing Systems},
  volume = {33},
  year = {2020},
  eprint = {2009.01325},
  archivePrefix = {arXiv}
}""",
    brief="baselines-dpo-ipo-kto",
    status="reconstructed",
    summary="One number per answer, whose difference is the log-odds that the better answer wins.",
    smoke="alignlab train bradley_terry --model tiny: --dataset world:pairs --limit 64 --max_steps 40"
    " --per_device_train_batch_size 8 --learning_rate 1e-3 --warmup_ratio 0.1 --save_steps 0 --output_dir {out}",
    claims=(
        Claim(metric="train/loss_first - train/loss_last", relation=">", bound=0.1),
        Claim(metric="train/rewards/accuracies", relation=">", bound=0.8),
    ),
    needs=frozenset({"policy", "value"}),
    training={"learning_rate": 1e-4},
    deviations=("read through TRL's code, not checked against the papers' texts",),
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the Bradley-Terry reward model."""

    center_rewards_coefficient: float = 0.0
    """weight c of (r_w + r_l)^2, >= 0 (TRL's name; its advice: 0.01)"""

    def __post_init__(self) -> None:
        preference.require_at_least_zero("center_rewards_coefficient", self.center_rewards_coefficient)


def loss(batch: Groups, cfg: Config) -> tuple[Term, ...]:
    """Negative log-likelihood of the pairs of a batch.

    Args:
        batch: view `policy` with values [N, T], and `pairs` [R] into the N completions.
        cfg: settings.

    Returns:
        Term `bradley_terry` over the R pairs in nats, with TRL's reward logs; where the coefficient is above 0 also
        term `centre`, over the same pairs.

    Raises:
        ValueError: the batch has no pairs, or the model no reward head.
    """
    pairs = preference.pairs_of(batch, "bradley_terry")
    rewards = values_of(batch, "bradley_terry")
    per_pair = preference.expected(lambda better, worse: softplus(pairs.margin - (better - worse)), rewards, pairs)
    terms = [preference.pair_term("bradley_terry", per_pair, pairs, pair_logs(rewards, pairs))]
    if cfg.center_rewards_coefficient > 0:
        square = (rewards[pairs.better] + rewards[pairs.worse]) ** 2
        terms.append(preference.pair_term("centre", square, pairs, {}, weight=cfg.center_rewards_coefficient))
    return tuple(terms)


def score(model: Any, rows: Sequence[Row]) -> list[float]:
    """Return the reward of each row's completion.

    Args:
        model: a reward model, of this loss or any public one with a single label.
        rows: each with `completion`.

    Raises:
        ValueError: a row without completion or too long, a model without a reward head, a score that is not finite.
    """
    return score_answers(model, rows)
