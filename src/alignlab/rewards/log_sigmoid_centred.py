"""Log-sigmoid of centred rewards: reward an answer for beating a reference answer, and for nothing beyond that.

u = log sigmoid(r - r_ref(x)) is the log-probability that the answer is good, where good means better than the reference
under Bradley and Terry's model; it rewards repairs and saturates above the reference. Summed over properties, each with
its own reward and reference, it is the log-probability of being good in all of them.

Source: Wang et al. 2024 (arXiv:2402.00742), ICML 2024. Input: rewards of whole answers and, per prompt and property,
rewards of base samples, or one canonical answer's. Unit: nats. No reduction: one number per answer.
Deviations: read through summaries; the 85 % quantile and the canonical answer are recalled, the normal fit is a public
re-implementation's. log sigmoid is never taken in two steps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from alignlab.core.cards import Card, Claim
from alignlab.core.types import Row
from alignlab.rewards._shared import is_reward

CARD = Card(
    title="Log-sigmoid-centred reward transformation",
    paper="arXiv:2402.00742",
    bibtex="""@inproceedings{wang2024transforming,
  title = {Transforming and Combining Rewards for Aligning Large Language Models},
  author = {Wang, Zihao and Nagpal, Chirag and Berant, Jonathan and Eisenstein, Jacob and D'Amour, Alex and
    Koyejo, Sanmi and Veitch, Victor},
  booktitle = {International Conference on Machine Learning},
  year = {2024},
  eprint = {2402.00742},
  archivePrefix = {arXiv}
}""",
    brief="reward-transformation",
    status="reconstructed",
    summary="Rewards as log-probabilities of beating a reference, which add up to being good in every property.",
    smoke="alignlab score log_sigmoid_centred --dataset world:rewarded --limit 400 --output_dir {out}",
    claims=(
        Claim(metric="score", relation="<", bound=-2 * 0.6931471805599453),
        Claim(metric="score", relation=">", bound=-20),
    ),
    deviations=(
        "equations from summaries; quantile and canonical reference recalled",
        "whether the paper interpolates its quantile was not found: linear interpolation",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which reference, and how properties are combined."""

    form: Literal["quantile", "normal"] = "quantile"
    """quantile of the base rewards (the paper's), or mean and standard deviation as of a normal law (PAR's code)"""
    quantile: float = 0.85
    """place of the reference among base rewards, in (0, 1) (recalled: 0.85)"""
    combine: Literal["all", "any"] = "all"
    """good in all properties (the sum), or in at least one (noisy or)"""
    floor: float | None = None
    """u of a property is not below this, <= 0; default none (RL may want -20)"""

    def __post_init__(self) -> None:
        if not 0 < self.quantile < 1:
            raise ValueError(f"--quantile: expected a number in (0, 1), got {self.quantile}")
        if self.floor is not None and self.floor > 0:
            raise ValueError(f"--floor: expected a number <= 0, got {self.floor}")


def reference(base: Tensor, cfg: Config) -> Tensor:
    """Return r_ref from rewards of base samples on the last axis, [..., m] -> [...]; m = 1 is a canonical answer.

    Raises ValueError without samples, or for a normal fit of a single one.
    """
    samples = base.shape[-1]
    if samples == 1:
        return base[..., 0]
    if samples == 0:
        raise ValueError("log_sigmoid_centred: no base rewards; give at least one per prompt and property")
    if cfg.form == "quantile":
        return torch.quantile(base, cfg.quantile, dim=-1)
    z = torch.special.ndtri(torch.tensor(cfg.quantile, dtype=base.dtype))
    return base.mean(-1) + z * (base.std(-1) + 1e-5)


def transform(scores: Tensor, references: Tensor, cfg: Config) -> Tensor:
    """Return u of each answer.

    Args:
        scores: [..., properties] rewards of answers.
        references: [..., properties] references of their prompts, each from the same reward model as its score.
        cfg: how properties combine.

    Returns:
        [...] nats, < 0; differentiable.
    """
    u = logsigmoid(scores - references)
    if cfg.floor is not None:
        u = u.clamp(min=cfg.floor)
    if cfg.combine == "all":
        return u.sum(-1)
    # P(any) = sum over properties of P(this one, none of those before), which never subtracts from 1
    none_before = logsigmoid(references - scores).roll(1, -1)
    none_before[..., 0] = 0.0
    return torch.logsumexp(u + none_before.cumsum(-1), -1)


def score(model: None, rows: Sequence[Row], cfg: Config | None = None) -> list[float]:
    """Return u of each row's completion.

    Args:
        model: none is loaded; rewards come with the rows.
        rows: `facts.base` {property: rewards of base samples, or one canonical answer's} and `facts.scores` {property:
            reward}; properties without base rewards do not count.
        cfg: reference and combination; default Config().

    Raises:
        ValueError: a row without base rewards, without the score of a property, or with a reward that is no finite
            number.
    """
    del model
    cfg = cfg or Config()
    return [float(_one(number, row, cfg)) for number, row in enumerate(rows)]


def _one(number: int, row: Row, cfg: Config) -> Tensor:
    base: Mapping[str, Any] = row.facts.get("base") or {}
    given: Mapping[str, Any] = row.facts.get("scores") or {}
    if not base:
        raise ValueError(f"row {number}: expected facts.base with rewards of base samples, by property")
    if bad := [name for name in base if not is_reward(given.get(name))]:
        raise ValueError(f"row {number}: expected one finite number facts.scores.{bad[0]}, got {given.get(bad[0])!r}")
    if bad := [name for name in base if not all(map(is_reward, _listed(base[name])))]:
        raise ValueError(f"row {number}: expected finite numbers facts.base.{bad[0]}, got {base[bad[0]]!r}")
    references = torch.stack(
        [reference(torch.tensor([*_listed(base[name])], dtype=torch.float64), cfg) for name in base]
    )
    return transform(torch.tensor([given[name] for name in base], dtype=torch.float64), references, cfg)


def _listed(value: Any) -> Sequence[float]:
    return value if isinstance(value, list | tuple) else (value,)
