"""Weak-to-strong generalisation: a strong model learns from a weak one's soft labels without copying its mistakes.

p_k = softmax over a prompt's options of log p(y_k|x); q is the weak teacher's distribution over them.
`xent`: L = -sum q_k log p_k. `logconf` (two options): the target is (1 - a) q + a h, with h the student's own hard
choice, h_0 = 1 where p_0 >= tau, tau being the quantile of p_0 over the step at level mean(q_1), so that hard choices
keep the teacher's class balance; a = confidence * coefficient. `product`: the target is proportional to p^beta q^alpha.
No gradient flows through a target.

Source: the code of Burns et al. 2023 (arXiv:2312.09390), whose text was not read; the tasks of Ye et al. 2024
(arXiv:2410.12621). Input: completions as options, class 0 first, with the score `weak` (`facts.scores.weak`), a
distribution over each prompt's options; with the score `gold` accuracy is logged. Unit: nats. Reduction: mean over the
prompts of the step.
Deviations: classes are options scored as text, not a head of their own; the quantile is taken over the WHOLE optimiser
step; the coefficient rises from 0 to 1 over `rise_steps` (the code lets it rise to 0.1, then jumps to 1).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from alignlab.core.cards import Card, Claim
from alignlab.core.masks import seq_sum
from alignlab.core.preference import require, require_at_least_zero
from alignlab.core.types import Groups, Term
from alignlab.objectives._lists import per_prompt

ROUNDING = 1e-6

CARD = Card(
    title="Weak-to-strong training",
    paper="arXiv:2410.12621",
    bibtex="""@article{ye2024weaktostrong,
  title = {Weak-to-Strong Generalization beyond Accuracy: a Pilot Study in Safety, Toxicity, and Legal Reasoning},
  author = {Ye, Ruimeng and Xiao, Yang and Hui, Bo},
  journal = {arXiv preprint arXiv:2410.12621},
  year = {2024},
  eprint = {2410.12621},
  archivePrefix = {arXiv}
}""",
    brief="weak-to-strong",
    status="reconstructed",
    summary="Learn from a weak teacher's soft labels, with auxiliary confidence in the student's own choice.",
    smoke="alignlab train weak_to_strong --model tiny: --dataset world:weak --limit 128 --max_steps 40"
    " --per_device_train_batch_size 16 --learning_rate 1e-4 --warmup_ratio 0.1 --save_steps 0 --output_dir {out}",
    claims=(Claim(metric="train/accuracies", relation=">", bound=0.75),),
    needs=frozenset({"policy", "weak"}),
    training={"learning_rate": 1e-5},
    deviations=(
        "the losses are those of Burns et al., as the paper's own strategies could not be read",
        "options scored as text instead of a classification head",
        "the quantile of the hard choice is taken over the whole optimiser step",
        "the coefficient rises from 0 to 1 over rise_steps (the code: to 0.1, then at once to 1)",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of weak-to-strong training."""

    form: Literal["xent", "logconf", "product"] = "logconf"
    """target: the weak labels, these mixed with the student's hard choice, or multiplied by its probabilities"""
    confidence: float = 0.5
    """`logconf`: largest share of the student's own choice in the target, in [0, 1] (Burns et al.: 0.5)"""
    rise_steps: int = 20
    """`logconf`: steps over which that share rises from 0, >= 0"""
    alpha: float = 1.0
    """`product`: exponent of the weak labels, >= 0 (Burns et al.: 1)"""
    beta: float = 1.0
    """`product`: exponent of the student's probabilities, >= 0 (Burns et al.: 1)"""

    def __post_init__(self) -> None:
        require(self.form in ("xent", "logconf", "product"), "form", "xent, logconf or product", self.form)
        require(0 <= self.confidence <= 1, "confidence", "a number in [0, 1]", self.confidence)
        require(self.rise_steps >= 0, "rise_steps", "a whole number >= 0", self.rise_steps)
        require_at_least_zero("alpha", self.alpha)
        require_at_least_zero("beta", self.beta)


def stats(batch: Groups, cfg: Config) -> tuple[Term, ...]:
    """What the hard choice of `logconf` needs: terms `first` (p_0) and `second` (q_1) over the P prompts.

    Raises:
        ValueError: no weak labels, labels that are no distributions, or other than two options.
    """
    if cfg.form != "logconf":
        return ()
    first, second = _two(batch)
    one = torch.ones_like(batch.prompt_ids[:, 0], dtype=torch.float32)
    p, q = _log_p(batch).exp()[first], _weak(batch)[second]
    return Term(name="first", num=p, den=one), Term(name="second", num=q, den=one)


def settle(
    found: Mapping[str, tuple[Tensor, Tensor]], before: Mapping[str, float], cfg: Config
) -> dict[str, float]:  # fmt: skip
    """Return the threshold of the hard choice, and how far the confidence has risen.

    Args:
        found: `first` and `second` over the whole step; empty for the other forms.
        before: what this function returned at the last step.
        cfg: settings.
    """
    steps = before.get("steps", 0.0)
    values = {
        "steps": steps + 1,
        "coefficient": min(1.0, steps / cfg.rise_steps) if cfg.rise_steps else 1.0,
    }
    if found:
        values["threshold"] = torch.quantile(found["first"][0], found["second"][0].mean()).item()
    return values


def loss(batch: Groups, cfg: Config, values: Mapping[str, float]) -> tuple[Term, ...]:
    """Cross-entropy of the student's options against the target.

    Args:
        batch: view `policy` [N, T], score `weak` [N], and perhaps `gold` [N] (the option with the highest is right).
        cfg: settings.
        values: `threshold` and `coefficient`, from `settle`; read by `logconf` alone.

    Returns:
        One term `weak_to_strong` over the P prompts, in nats; logs: agreement of the student's choice with the
        teacher's, its confidence and, where known, accuracy.

    Raises:
        ValueError: no weak labels, labels that are no distributions, or not two options for `logconf`.
    """
    log_p, weak = _log_p(batch), _weak(batch)
    target = weak.to(log_p)
    if cfg.form == "logconf":
        first, second = _two(batch)
        # the threshold may be one of these very numbers, rounded otherwise
        chosen = (log_p.detach().exp()[first] >= values["threshold"] - ROUNDING).to(log_p)
        hard = torch.zeros_like(target).index_put((first,), chosen).index_put((second,), 1 - chosen)
        share = cfg.confidence * values["coefficient"]
        target = (1 - share) * target + share * hard
    elif cfg.form == "product":
        mixed = cfg.beta * log_p.detach() + (cfg.alpha * target.log() if cfg.alpha else 0.0)
        target = (mixed - _logsumexp(mixed, batch)[batch.group]).exp()
    # an option that the target rules out costs nothing, however impossible the student finds it
    lost = per_prompt(torch.where(target > 0, -target * log_p, 0.0), batch)
    return (Term(name="weak_to_strong", num=lost, den=torch.ones_like(lost), logs=_logs(log_p.detach(), batch)),)


def _logs(log_p: Tensor, batch: Groups) -> dict[str, Tensor]:
    chosen = log_p == _highest(log_p, batch)[batch.group]
    logs = {"confidence": _highest(log_p, batch).exp()}
    for name, score in (("agreement", "weak"), ("accuracies", "gold")):
        if score in batch.scores:
            best = batch.scores[score] == _highest(batch.scores[score], batch)[batch.group]
            logs[name] = per_prompt((chosen & best).to(log_p), batch).clamp(max=1)
    return logs


def _highest(values: Float[Tensor, "N"], batch: Groups) -> Float[Tensor, "P"]:
    start = values.new_full((batch.prompt_ids.shape[0],), -torch.inf)
    return start.scatter_reduce(0, batch.group, values, "amax")


def _logsumexp(values: Float[Tensor, "N"], batch: Groups) -> Float[Tensor, "P"]:
    highest = _highest(values.detach(), batch)
    return per_prompt((values - highest[batch.group]).exp(), batch).log() + highest


def _log_p(batch: Groups) -> Float[Tensor, "N"]:
    """Log-probability of each option among those of its prompt."""
    logp = seq_sum(batch.views["policy"].logp, batch.mask)
    return logp - _logsumexp(logp, batch)[batch.group]


def _weak(batch: Groups) -> Float[Tensor, "N"]:
    if "weak" not in batch.scores:
        raise ValueError(
            "weak_to_strong needs the weak teacher's probabilities: give completions and facts.scores.weak"
        )
    weak = batch.scores["weak"]
    total = per_prompt(weak, batch)
    if not bool((weak >= 0).all() & ((total - 1).abs() < 1e-3).all()):
        raise ValueError("weak_to_strong: facts.scores.weak must be a distribution over the completions of each row")
    return weak


def _two(batch: Groups) -> tuple[Tensor, Tensor]:
    """Return the first and the second option of each prompt, as indices into N."""
    counts = torch.bincount(batch.group, minlength=batch.prompt_ids.shape[0])
    if not bool((counts == 2).all()):
        raise ValueError("--form logconf: expected two completions per row, as its threshold is for two classes")
    order = batch.group.argsort(stable=True)
    return order[0::2], order[1::2]
