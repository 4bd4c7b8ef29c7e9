"""Self-play fine-tuning: tell demonstrations from the model's own answers of the iteration before.

z = beta * [log (p/p_t)(y_real|x) - log (p/p_t)(y_generated|x)], log-probabilities summed over tokens, EOS included;
y_generated is drawn from p_t, the frozen policy of the iteration before, which is also the reference.
L = -log sigma(z), or max(0, 1 - z). The only fixed point is the distribution of the demonstrations.

Source: Chen et al. 2024 (arXiv:2401.01335), read through the authors' code, which has the hinge too; lambda is `beta`.
Input: pairs, the demonstration as the better one; `ref` is p_t. Unit: nats (hinge: 1). Reduction: mean over the pairs
of the step, weighted.
One iteration is one run: sample from the model that the last run left, put demonstrations in `chosen` and samples in
`rejected`, and train from that same model. The authors mix in the pairs of the iteration before, from the second on.
Deviations: AdamW instead of RMSprop; the margin and a soft label of a pair are ignored, as a demonstration is one for
certain.
"""

from dataclasses import dataclass
from typing import Literal

from torch.nn.functional import logsigmoid

from alignlab.core.cards import Card, Claim
from alignlab.core.preference import pair_term, pairs_of, policy_and_ratios, require, require_positive, reward_logs
from alignlab.core.types import Groups, Term

CARD = Card(
    title="Self-play fine-tuning (SPIN)",
    paper="arXiv:2401.01335",
    bibtex="""@inproceedings{chen2024selfplay,
  title = {Self-Play Fine-Tuning Converts Weak Language Models to Strong Language Models},
  author = {Chen, Zixiang and Deng, Yihe and Yuan, Huizhuo and Ji, Kaixuan and Gu, Quanquan},
  booktitle = {International Conference on Machine Learning},
  year = {2024},
  eprint = {2401.01335},
  archivePrefix = {arXiv}
}""",
    brief="irl-post-training",
    status="reconstructed",
    summary="Prefer demonstrations over the model's own earlier answers; that earlier model is the reference.",
    # every row is new when it is seen, so that the last window's figures are of rows not trained on
    smoke="alignlab train spin --model tiny:+unkind --dataset world:kindness --limit 320 --max_steps 40"
    " --per_device_train_batch_size 8 --learning_rate 2e-3 --warmup_ratio 0.1 --save_steps 0 --output_dir {out}",
    claims=(
        Claim(metric="train/loss_first - train/loss_last", relation=">", bound=0.4),
        Claim(metric="train/rewards/chosen", relation=">", bound=0.5),
        Claim(metric="train/rewards/margins", relation=">", bound=2.0),
        Claim(metric="train/rewards/accuracies", relation=">", bound=0.95),
    ),
    needs=frozenset({"policy", "ref"}),
    training={"learning_rate": 5e-7},
    deviations=(
        "read through the authors' released code, not checked against the paper's text",
        "AdamW instead of RMSprop",
        "the smoke's generated answers come from the law that its model was tuned to, not from the model",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of self-play fine-tuning."""

    beta: float = 0.1
    """the paper's lambda, > 0 (authors: 0.1 in iterations 0 to 2, 5 in iteration 3)"""
    form: Literal["logistic", "hinge"] = "logistic"
    """loss of the margin (authors' default: logistic)"""

    def __post_init__(self) -> None:
        require_positive("beta", self.beta)
        require(self.form in ("logistic", "hinge"), "form", "logistic or hinge", self.form)


def loss(batch: Groups, cfg: Config) -> tuple[Term, ...]:
    """Loss of telling demonstrations from earlier answers.

    Args:
        batch: views `policy` and `ref` [N, T], and `pairs` [R]: better is the demonstration, worse the earlier answer.
        cfg: settings.

    Returns:
        One term `spin` over the R pairs, with TRL's reward and log-probability logs.

    Raises:
        ValueError: the batch has no pairs.
    """
    pairs = pairs_of(batch, "spin")
    policy, ratio = policy_and_ratios(batch)
    z = cfg.beta * (ratio[pairs.better] - ratio[pairs.worse])
    per_pair = -logsigmoid(z) if cfg.form == "logistic" else (1 - z).clamp(min=0)
    return (pair_term("spin", per_pair, pairs, reward_logs(policy, cfg.beta * ratio, pairs)),)
