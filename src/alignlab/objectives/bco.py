"""Binary classifier optimisation: tell liked from disliked completions by their implicit reward, around a shift.

r = beta * (log p(y|x) - log p_ref(y|x)), summed over tokens, EOS included; delta = (mean r of liked + mean r of
disliked) / 2, smoothed over steps, without gradient; L = E_liked[-log sigma(r - delta)] + E_disliked[-log sigma(delta -
r)]. For any delta this bounds the DPO loss from above; the midpoint makes the bound tightest.

Source: Jung et al. 2024 (arXiv:2404.04656v2), theorems 1, 3 and 4, equations 7 and 8. The shift is taken over the WHOLE
optimiser step. Input: completions with labels, or pairs; a pair of weight w whose label holds with probability p is
p w rows of its classes and (1 - p) w rows of the opposite ones, in means and shift. Unit: nats. Reduction: mean of each
class, added (equation 8), or the mean over all rows (TRL).
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
from alignlab.objectives._unpaired import of, right_side, thumbs

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
    """Rewards of the step: terms `liked` and `disliked`, one item per completion each, weighted.

    With density ratios also the term `weight`, what each disliked completion weighs.

    Args:
        batch: views `policy` and `ref` [N, T], and labels [N] or pairs.
        cfg: settings.
    """
    rewards = cfg.beta * policy_and_ratios(batch)[1]
    up, down = thumbs(batch, "bco", rewards)
    found = Term(name="liked", num=of(up, rewards), den=up), Term(name="disliked", num=of(down, rewards), den=down)
    if "density_ratio" not in batch.scores:
        return found
    return *found, Term(name="weight", num=of(down, batch.scores["density_ratio"]), den=down)


def settle(
    found: Mapping[str, tuple[Tensor, Tensor]], before: Mapping[str, float], cfg: Config
) -> dict[str, float]:  # fmt: skip
    """Return the shift, what the next step's is made of, and what weighted rows are worth (`effective_size`).

    Args:
        found: rewards of the step by class, as `stats` gives them.
        before: what this function returned at the last step; empty at the first.
        cfg: settings.
    """
    now = {name: value for name, value in before.items() if name != "effective_size"}
    sums = {n: (found[n][0].sum().item(), found[n][1].sum().item()) for n in ("liked", "disliked") if n in found}
    for name, (num, den) in sums.items():
        if den > 0:
            now[name] = now[name] + cfg.rate * (num / den - now[name]) if name in now else num / den
    now["sum"] = before.get("sum", 0.0) + sum(num for num, _ in sums.values())
    now["rows"] = before.get("rows", 0.0) + sum(den for _, den in sums.values())
    seen = {"midpoint": "liked" in now and "disliked" in now, "pooled": now["rows"] > 0, "none": False}[cfg.form]
    shift = 0.0
    if seen:
        shift = now["sum"] / now["rows"] if cfg.form == "pooled" else (now["liked"] + now["disliked"]) / 2
    if "weight" in found and bool(found["weight"][0].any()):
        from alignlab.stats.density import effective_size

        now["effective_size"] = effective_size(found["weight"][0].cpu().numpy())
    return {**now, "shift": shift}


def loss(batch: Groups, cfg: Config, values: Mapping[str, float]) -> tuple[Term, ...]:
    """Cross-entropy of the classifier whose logit is the shifted reward.

    Args:
        batch: views `policy` and `ref` [N, T], labels [N] or pairs, and perhaps the score `density_ratio` [N].
        cfg: settings.
        values: `shift` and, with density ratios, `effective_size`, from `settle`.

    Returns:
        Terms `liked` and `disliked` (reduction `classes`; a class that the step lacks is omitted), or `bco` (`rows`),
        over the N completions, in nats; logs: reward, whether it lies on the right side of the shift, shift and weight,
        and of how many equally weighted disliked rows those of the step are worth (`effective_size`).

    Raises:
        ValueError: no labels and no pairs, or pairs that give a completion no single verdict.
    """
    rewards = cfg.beta * policy_and_ratios(batch)[1]
    up, down = thumbs(batch, "bco", rewards)
    logit = rewards - values["shift"]
    ratio = batch.scores["density_ratio"].to(rewards) if "density_ratio" in batch.scores else torch.ones_like(rewards)
    liked, disliked = of(up, -logsigmoid(logit)), of(down, -ratio * logsigmoid(-logit))
    logs = {
        "rewards": rewards.detach(),
        "rewards/accuracies": right_side(up, down, logit.detach()),
        "shift": torch.full_like(rewards.detach(), values["shift"]),
    }
    if "effective_size" in values:
        logs["effective_size"] = torch.full_like(rewards.detach(), values["effective_size"])
    # a liked row weighs 1
    logs_up, logs_down = {**logs, "density_ratio": torch.ones_like(ratio)}, {**logs, "density_ratio": ratio}
    if cfg.reduction == "rows":
        mixed = torch.where(down > 0, (up + down * ratio) / torch.where(down > 0, up + down, 1.0), 1.0)
        return (Term(name="bco", num=liked + disliked, den=up + down, logs={**logs, "density_ratio": mixed}),)
    return (
        Term(name="liked", num=liked, den=up, logs=logs_up),
        Term(name="disliked", num=disliked, den=down, logs=logs_down),
    )
