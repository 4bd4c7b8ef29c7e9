"""Ensembles of reward models: where the members disagree, believe less.

Mean of the members; worst case: the smallest; uncertainty weighted: mean - lambda * variance over the members.

Source: Coste et al. 2023 (arXiv:2310.02743): mean, WCO and UWO, and its code. Input: rewards of whole answers, one per
member, on one scale. No reduction: one number per answer. Members are reward models trained from different seeds, given
as folders (`members`), or their rewards come with the rows (`facts.scores`).
Deviations: the variance is the population's, as in the authors' best-of-n code; their PPO takes the sample's (`form`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from alignlab.core.cards import Card, Claim
from alignlab.core.facts import finite
from alignlab.core.preference import require, require_at_least_zero
from alignlab.core.types import Row
from alignlab.engine.load import load
from alignlab.rewards._shared import score_answers

CARD = Card(
    title="Conservative reward ensembles",
    paper="arXiv:2310.02743",
    bibtex="""@inproceedings{coste2024reward,
  title = {Reward Model Ensembles Help Mitigate Overoptimization},
  author = {Coste, Thomas and Anwar, Usman and Kirk, Robert and Krueger, David},
  booktitle = {International Conference on Learning Representations},
  year = {2024},
  eprint = {2310.02743},
  archivePrefix = {arXiv}
}""",
    brief="irl-post-training",
    status="reconstructed",
    summary="One reward from several models: their mean, their worst, or their mean less their variance.",
    smoke="alignlab score ensembles --dataset world:rewarded --limit 200 --names first second --combine worst"
    " --output_dir {out}",
    claims=(
        Claim(metric="score", relation="<", bound=0.0),
        Claim(metric="score", relation=">", bound=-10.0),
    ),
    deviations=("read through the authors' released code, not checked against the paper's text",),
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Who the members are and how their rewards become one."""

    combine: Literal["mean", "worst", "uncertainty"] = "mean"
    """mean, smallest, or mean less weighted variance of the members"""
    uncertainty_weight: float = 0.5
    """lambda of the variance, >= 0 (paper's code: 0.5 for best-of-n, 0.1 for PPO)"""
    form: Literal["population", "sample"] = "population"
    """variance over the members divided by their number (best-of-n code) or by one less (PPO code)"""
    members: tuple[str, ...] = ()
    """reward models: folders or hub ids; none: rewards come with the rows"""
    names: tuple[str, ...] = ()
    """names within facts.scores that are members; none: all of them"""

    def __post_init__(self) -> None:
        known = ("mean", "worst", "uncertainty")
        require(self.combine in known, "combine", f"one of {', '.join(known)}", self.combine)
        require(self.form in ("population", "sample"), "form", "population or sample", self.form)
        require_at_least_zero("uncertainty_weight", self.uncertainty_weight)


def transform(scores: Tensor, cfg: Config) -> Tensor:
    """Return one reward per answer.

    Args:
        scores: [..., members] rewards.
        cfg: how they combine.

    Returns:
        [...], in the unit of the rewards (`uncertainty`: the variance enters in its square, as in the paper).

    Raises:
        ValueError: no members, a reward that is not finite, or a sample variance of a single member.
    """
    members = scores.shape[-1]
    if members == 0:
        raise ValueError("ensembles: expected at least one member, got none")
    if not bool(torch.isfinite(scores).all()):
        raise ValueError("ensembles: expected finite rewards; a member gave NaN or infinity")
    if cfg.combine == "worst":
        return scores.amin(-1)
    if cfg.combine == "mean":
        return scores.mean(-1)
    if cfg.form == "sample" and members == 1:
        raise ValueError("ensembles: the sample variance needs two members; give another, or --form population")
    return scores.mean(-1) - cfg.uncertainty_weight * scores.var(-1, correction=int(cfg.form == "sample"))


def score(model: None, rows: Sequence[Row], cfg: Config | None = None) -> list[float]:
    """Return the ensemble's reward of each row's completion.

    Args:
        model: none is loaded; `cfg.members` are, or the rewards come with the rows.
        rows: each with `completion` (members given), or with `facts.scores` {member: reward}.
        cfg: members and combination; default Config().

    Raises:
        ValueError: a row without the reward of a member; errors of the members' models.
    """
    del model
    cfg = cfg or Config()
    if not rows:
        return []
    if cfg.members:
        columns = [score_answers(load(spec, head="trained"), rows) for spec in cfg.members]
        table = torch.tensor(columns, dtype=torch.float64).T
    else:
        names = cfg.names or sorted(rows[0].facts.get("scores") or {})
        table = torch.tensor([_given(number, row, names) for number, row in enumerate(rows)], dtype=torch.float64)
    return [float(value) for value in transform(table, cfg)]


def _given(number: int, row: Row, names: Sequence[str]) -> list[float]:
    given: Mapping[str, Any] = row.facts.get("scores") or {}
    if not names:
        raise ValueError(f"row {number}: expected facts.scores {{member: reward}}, or --members FOLDER FOLDER ...")
    for name in names:
        value = given.get(name)
        if not finite(value):
            raise ValueError(f"row {number}: expected one finite number facts.scores.{name}, got {value!r}")
    return [float(given[name]) for name in names]
