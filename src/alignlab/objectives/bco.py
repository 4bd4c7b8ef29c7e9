"""Binary classifier optimisation: tell liked from disliked completions by their implicit reward, around a shift.

r = beta * (log p(y|x) - log p_ref(y|x)), summed over tokens, EOS included; delta = (mean r of liked + mean r of
disliked) / 2, smoothed over steps, without gradient; L = E_liked[-log sigma(r - delta)] + E_disliked[-log sigma(delta -
r)]. For any delta this bounds the DPO loss from above; the midpoint makes the bound tightest.

Source: Jung et al. 2024 (arXiv:2404.04656v2), theorems 1, 3 and 4, equations 7 and 8. The shift is taken over the WHOLE
optimiser step. Input: completions with labels, or pairs. Unit: nats. Reduction: mean of each class, added (equation 8),
or the mean over all rows (TRL).
Prompt matching (in version 1 of the paper, and in TRL 0.9 to 1.15): disliked rows are weighted by how much likelier
their prompt is among the liked ones, w = p / (1 - p) in [0.5, 10], p from a logistic regression on the prompts.
Deviations: the smoothing rate is not given in the paper; a class that a step lacks keeps its last mean, and the shift
is 0 until both have been seen; prompt matching uses hashed word counts and cross-fitting (TRL: sentence embeddings, one
fit judging the prompts it was fitted on), and was written from TRL's code, as version 1 could not be read.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from alignlab.core.cards import Card, Claim
from alignlab.core.preference import policy_and_ratios, require, require_positive
from alignlab.core.types import Groups, Row, Term
from alignlab.objectives._unpaired import liked, proper

CARD = Card(
    title="Binary classifier optimisation",
    paper="arXiv:2404.04656",
    bibtex="""@inproceedings{jung2025binary,
  title = {Binary Classifier Optimization for Large Language Model Alignment},
  author = {Jung, Seungjae and Han, Gunsoo and Nam, Daniel Wontae and On, Kyoung-Woon},
  booktitle = {Annual Meeting of the Association for Computational Linguistics},
  year = {2025},
  eprint = {2404.04656},
  archivePrefix = {arXiv}
}""",
    brief="bco",
    status="faithful",
    summary="Classify liked against disliked completions by implicit reward, around the midpoint of the classes.",
    smoke="alignlab train bco --model tiny: --dataset world:thumbs --limit 128 --max_steps 40"
    " --per_device_train_batch_size 16 --learning_rate 1e-4 --warmup_ratio 0.1 --match_prompts"
    " --save_steps 0 --output_dir {out}",
    claims=(
        Claim(metric="train/loss_first - train/loss_last", relation=">", bound=0.05),
        Claim(metric="train/rewards/accuracies", relation=">", bound=0.7),
    ),
    needs=frozenset({"policy", "ref"}),
    training={"learning_rate": 5e-7},
    deviations=(
        "the rate of the shift's moving average is not given in the paper; 0.1 here",
        "prompt matching reconstructed from TRL's code, on word counts, cross-fitted",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of binary classifier optimisation."""

    beta: float = 0.1
    """strength of the pull towards the reference, > 0 (paper: 0.1)"""
    form: Literal["midpoint", "pooled", "none"] = "midpoint"
    """the shift: moving average of the class midpoint (paper), mean of all rewards ever seen (TRL), or 0 (plain BCE)"""
    rate: float = 0.1
    """weight of the newest step in the moving average, in (0, 1]; 1 takes each step's own midpoint"""
    reduction: Literal["classes", "rows"] = "classes"
    """what weighs the same: the two classes (paper, equation 8) or all rows (TRL)"""
    match_prompts: bool = False
    """weight disliked rows so that their prompts are distributed as those of liked rows"""
    match_folds: int = 5
    """parts of the data, each judged by a classifier fitted on the others, >= 2; 0: one fit judges all (TRL)"""

    def __post_init__(self) -> None:
        require_positive("beta", self.beta)
        require(0 < self.rate <= 1, "rate", "a number in (0, 1]", self.rate)
        require(self.form in ("midpoint", "pooled", "none"), "form", "midpoint, pooled or none", self.form)
        require(self.reduction in ("classes", "rows"), "reduction", "classes or rows", self.reduction)
        require(self.match_folds >= 2 or self.match_folds == 0, "match_folds", "0 or a number >= 2", self.match_folds)


def annotate(rows: Sequence[Row], cfg: Config) -> list[Row]:
    """Return the rows, with the score `density_ratio` of their prompt where prompts are to be matched.

    Raises:
        ValueError: rows without labels, or of one class only.
    """
    if not cfg.match_prompts:
        return list(rows)
    from alignlab.stats.density import density_ratio, word_features

    if any(row.label is None for row in rows):
        raise ValueError("--match_prompts compares the prompts of liked and disliked rows: give completion and label")
    labels = {row.label for row in rows}
    if len(labels) < 2:
        raise ValueError(
            f"--match_prompts compares the prompts of liked and disliked rows, but all {len(rows)} are"
            f" {'liked' if labels == {True} else 'disliked'}; give rows of both labels, or leave out --match_prompts"
        )
    texts = [p if isinstance(p := row.prompt, str) else "\n".join(turn["content"] for turn in p) for row in rows]
    try:
        ratios = density_ratio(word_features(texts), [bool(row.label) for row in rows], texts, folds=cfg.match_folds)
    except ValueError as error:
        raise ValueError(
            f"--match_prompts with --match_folds {cfg.match_folds}: {error}; --match_folds 0 fits on all rows at once"
        ) from error
    known = [dict(row.facts) for row in rows]
    return [
        dataclasses.replace(row, facts={**facts, "scores.density_ratio": float(ratio)})
        for row, facts, ratio in zip(rows, known, ratios)
    ]


def stats(batch: Groups, cfg: Config) -> tuple[Term, ...]:
    """Rewards of the step: terms `liked` and `disliked`, one item per completion each.

    Args:
        batch: views `policy` and `ref` [N, T], and labels [N] or pairs.
        cfg: settings.
    """
    rewards, up, counted = _rewards(batch, cfg)
    sides = {"liked": up & counted, "disliked": ~up & counted}
    return tuple(Term(name=n, num=torch.where(side, rewards, 0.0), den=side.float()) for n, side in sides.items())


def settle(
    found: Mapping[str, tuple[Tensor, Tensor]], before: Mapping[str, float], cfg: Config
) -> dict[str, float]:  # fmt: skip
    """Return the shift, and what the next step's shift is made of.

    Args:
        found: rewards of the step by class, as `stats` gives them.
        before: what this function returned at the last step; empty at the first.
        cfg: settings.
    """
    now, sums = dict(before), {name: (num.sum().item(), den.sum().item()) for name, (num, den) in found.items()}
    for name, (num, den) in sums.items():
        if den > 0:
            now[name] = now[name] + cfg.rate * (num / den - now[name]) if name in now else num / den
    now["sum"] = before.get("sum", 0.0) + sum(num for num, _ in sums.values())
    now["rows"] = before.get("rows", 0.0) + sum(den for _, den in sums.values())
    seen = {"midpoint": "liked" in now and "disliked" in now, "pooled": now["rows"] > 0, "none": False}[cfg.form]
    shift = 0.0
    if seen:
        shift = now["sum"] / now["rows"] if cfg.form == "pooled" else (now["liked"] + now["disliked"]) / 2
    return {**now, "shift": shift}


def loss(batch: Groups, cfg: Config, values: Mapping[str, float]) -> tuple[Term, ...]:
    """Cross-entropy of the classifier whose logit is the shifted reward.

    Args:
        batch: views `policy` and `ref` [N, T], labels [N] or pairs, and perhaps the score `density_ratio` [N].
        cfg: settings.
        values: `shift`, from `settle`.

    Returns:
        Terms `liked` and `disliked` (reduction `classes`; a class that the step lacks is omitted), or `bco` (`rows`),
        over the N completions, in nats; logs: reward, whether it lies on the right side of the shift, shift and weight.

    Raises:
        ValueError: no labels and no pairs, or pairs that give a completion no single verdict.
    """
    rewards, up, counted = _rewards(batch, cfg)
    shift = values["shift"]
    logit = torch.where(up, rewards - shift, shift - rewards)
    weight = batch.scores.get("density_ratio", torch.ones_like(rewards))
    weight = torch.where(up, torch.ones_like(weight), weight)
    lost = torch.where(counted, -weight * logsigmoid(logit), 0.0)
    logs = {
        "rewards": rewards.detach(),
        "rewards/accuracies": (logit.detach() > 0).to(rewards),
        "shift": torch.full_like(rewards.detach(), shift),
        "density_ratio": weight.to(rewards.dtype),
    }
    if cfg.reduction == "rows":
        return (Term(name="bco", num=lost, den=counted.float(), logs=logs),)
    sides = {"liked": up & counted, "disliked": ~up & counted}
    return tuple(
        Term(name=name, num=torch.where(side, lost, 0.0), den=side.float(), logs=logs) for name, side in sides.items()
    )


def _rewards(batch: Groups, cfg: Config) -> tuple[Tensor, Tensor, Tensor]:
    """Return reward, whether it is liked and whether it counts, per completion."""
    return cfg.beta * policy_and_ratios(batch)[1], liked(batch, "bco"), proper(batch)
