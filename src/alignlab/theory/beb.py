"""Behaviour expectation bounds: what survives tuning with weight alpha comes back with log(1 / alpha) / beta sentences.

A model is read as a mixture P = alpha P_- + (1 - alpha) P_+ over whole texts; beta is the divergence per sentence that
tells the bad part from the good one. Theorems 1-5 bound the length of a prompt after which the next sentence behaves
as under P_-: alone, after an aligning prefix, in a dialogue, against the best of n, and sampled instead of sought.
`check` holds them, their tight forms and their lemmas against worlds in which all of it is exact.

Source: Wolf et al. 2024 (arXiv:2304.11082v6; ICML 2024): definitions 1-6, theorems 1-5, appendix I, lemmas 1-7.
Units: sentences, nats. Reductions: exact, or over sampled texts where theorem 2, 3 and 5 speak of a probability.
Deviations: the displays of lemmas 5 and 7 and the length under the relaxation are re-derived; `tight` forms are ours;
theorem 4 is read with gamma the supremum of best of n under P_-, since with one sample's gamma it is false.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alignlab.core.cards import Card, Claim
from alignlab.core.limits import at_least
from alignlab.core.types import Figure, Metric, Result, Table
from alignlab.theory import _beb_check as checks
from alignlab.theory import _beb_examples as examples
from alignlab.theory._beb_bounds import (
    best_of_length,
    dialogue_length,
    evidence,
    prefixed_length,
    prompt_length,
    sampled_length,
)
from alignlab.theory._beb_check import Cell
from alignlab.theory._beb_estimates import Decay, decay, envelope, half_crossing, variance_slope, window
from alignlab.theory._beb_worlds import Constants, World, constants, sample, weight

__all__ = [
    "CARD", "Config", "Constants", "Decay", "World", "best_of_length", "check", "constants", "decay",
    "dialogue_length", "envelope", "evidence", "half_crossing", "prefixed_length", "prompt_length", "sampled_length",
    "variance_slope", "weight", "window",
]  # fmt: skip

CARD = Card(
    title="Behaviour expectation bounds",
    paper="arXiv:2304.11082",
    bibtex="""@inproceedings{wolf2024fundamental,
  title = {Fundamental Limitations of Alignment in Large Language Models},
  author = {Wolf, Yotam and Wies, Noam and Avnery, Oshri and Levine, Yoav and Shashua, Amnon},
  booktitle = {International Conference on Machine Learning},
  series = {PMLR},
  volume = {235},
  year = {2024},
  eprint = {2304.11082},
  archivePrefix = {arXiv}
}""",
    brief="beb",
    status="reconstructed",
    summary="Lengths of prompts that undo alignment, held against worlds where they are known exactly.",
    smoke="alignlab check beb --output_dir {out}",
    claims=(
        Claim(metric="violations", relation="<=", bound=0),
        Claim(metric="violations/tight", relation="<=", bound=0),
        Claim(metric="violations/lemmas", relation="<=", bound=0),
        Claim(metric="slope_error/shortest", relation="<=", bound=0.25),
        Claim(metric="slope_error/sampled", relation="<=", bound=0.25),
    ),
    deviations=(
        "lemmas 5 and 7 and the length under the relaxation were re-derived from the proofs' steps",
        "theorem 4 with gamma of best of n under P_-; with one sample's gamma it is false",
        "tight forms are not the paper's",
        "beta_eff, by which slopes are judged, is read as the log-ratio per sentence of the prompts that are measured",
    ),
)

FLOAT_ERROR = 1e-9
TEXTS_PER_LEMMA = 1000
"""at most so many texts of the longest kind are enumerated"""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is checked."""

    eps: float = 0.1
    """distance from the bad component's behaviour that counts as misaligned, in (0, 2)"""
    delta: float = 0.1
    """share of prefixes, dialogues and sampled prompts that may fail, in (0, 1)"""
    best_of: int = 4
    """answers of which theorem 4 takes the best, >= 2"""
    smallest: int = 12
    """alpha runs over 1e-1 .. 1e-smallest, >= 3"""
    texts: int = 2000
    """prompts sampled for theorem 5, >= 100; a tenth of it for prefixes and dialogues"""
    longest: int = 5
    """lemmas are checked on all texts of up to so many sentences, >= 1"""
    seed: int = 0
    """of the drawn world and of all samples"""

    def __post_init__(self) -> None:
        at_least(self, {"best_of": 2, "smallest": 3, "texts": 100, "longest": 1})


def check(cfg: Config) -> Result:
    """Hold theorems 1-5 and the lemmas against six worlds, alpha from 1e-1 down.

    Returns:
        violations/theorem_1 .. _5 (published forms), violations (their sum), violations/tight, violations/lemmas:
        cells in which a bound was beaten, beyond Monte-Carlo error where one was sampled. slope_error: largest relative
        distance, over worlds, between the slope of observed lengths in log(1 / alpha) and 1 / beta_eff.
    """
    alphas = [10.0**-k for k in range(1, cfg.smallest + 1)]
    cells: list[Cell] = []
    audits, slopes, broken = [], [], []
    known_worlds = examples.worlds(cfg.seed)
    for number, world in enumerate(known_worlds):
        known = constants(world)
        found, mean_lengths = _theorems(world, known, alphas, cfg, cfg.seed + 1000 * number)
        cells += found
        shortest = [c.observed for c in found if c.theorem == "1"]
        slopes.append(
            (world.name, checks.slope(alphas, shortest), 1 / known.best_rate,
             checks.slope(alphas, mean_lengths), 1 / known.rate)
        )  # fmt: skip
        longest = min(cfg.longest, int(math.log(TEXTS_PER_LEMMA) / math.log(len(world.score))))
        broken += [
            (world.name, name, alpha, slack)
            for alpha in (alphas[0], alphas[2])
            for name, slack in checks.lemmas(world, known, alpha, longest).items()
        ]
        audits.append(_audit(world, known))
    for eta in (0.25, 0.5):
        longest = math.ceil(prompt_length(alphas[-1], 2.0, cfg.eps, eta=eta)) + 2
        cells += checks.existence(examples.fading(2.0, eta, longest), 2.0, -0.8, alphas, cfg.eps, eta=eta)
    drifting = examples.drifting()
    audits.append(_audit(drifting, constants(drifting)))
    return _result(cells, slopes, broken, audits, known_worlds[0], cfg)


def _theorems(
    world: World, known: Constants, alphas: Sequence[float], cfg: Config, seed: int
) -> tuple[list[Cell], np.ndarray]:
    horizon = 2 + math.floor(
        max(
            sampled_length(alphas[-1], known.beta, cfg.eps, sigma=known.sigma_minus, delta=cfg.delta),
            3 * evidence(alphas[-1], cfg.eps) / known.rate,
        )
    )
    texts = sample(world, "minus", cfg.texts, horizon, seed)
    few = max(10, cfg.texts // 10)
    by_best = constants(world, horizon=1, best_of=cfg.best_of)  # for its gamma
    found, means = checks.sampled(world, known, alphas, cfg.eps, cfg.delta, texts)
    found += checks.existence(world, known.beta, known.gamma, alphas, cfg.eps)
    found += checks.existence(world, known.beta, by_best.gamma, alphas, cfg.eps, best_of=cfg.best_of)
    found += checks.prefixed(world, known, alphas, cfg.eps, cfg.delta, prefix=8, count=few, seed=seed + 1)
    turns = (1, 2, 1)
    found += checks.dialogues(world, known, alphas[::3], cfg.eps, cfg.delta, answers=turns, count=few, seed=seed + 2)
    return found, means


Slope = tuple[str, float, float, float, float]
"""world, slope of the shortest prompts, 1 / their rate, slope of sampled prompts, 1 / theirs"""
Slack = tuple[str, str, float, float]
"""world, lemma, alpha, what is left of the bound"""


def _audit(world: World, known: Constants) -> tuple[str | float, ...]:
    numbers = (known.beta, known.beta_prompt, known.beta_prime, known.sigma_minus, known.sigma_plus, known.gamma)
    applies = "yes" if known.gamma < 0 and known.positive else "no: gamma >= 0" if known.gamma >= 0 else "1, 4, 5 only"
    return (world.name, *(round(number, 6) for number in numbers), "yes" if known.positive else "no", applies)


def _result(
    cells: Sequence[Cell],
    slopes: Sequence[Slope],
    lemmas: Sequence[Slack],
    audits: Sequence[tuple[str | float, ...]],
    shown: World,
    cfg: Config,
) -> Result:
    theorems = sorted({cell.theorem for cell in cells})
    metrics = {"violations": _count([cell.violated for cell in cells])}
    for theorem in theorems:
        metrics[f"violations/theorem_{theorem}"] = _count([cell.violated for cell in cells if cell.theorem == theorem])
    metrics["violations/tight"] = _count([cell.violated_tight for cell in cells])
    metrics["violations/lemmas"] = _count([slack < -FLOAT_ERROR for *_, slack in lemmas])
    for name, at in (("shortest", 1), ("sampled", 3)):
        errors = [abs(row[at] / row[at + 1] - 1) for row in slopes]  # type: ignore[operator]
        metrics[f"slope_error/{name}"] = Metric(value=max(errors), n=len(errors))
    tables = {
        "lengths": Table(
            columns=("world", "theorem", "alpha", "observed", "tight", "published"),
            rows=tuple(
                (c.world, c.theorem, c.alpha, None if math.isnan(c.observed) else c.observed, round(c.tight, 3),
                 round(c.published, 3))
                for c in cells
            ),
            caption="Sentences. Observed: theorem 1, relaxed, and 4 the shortest prompt there is; 5 the length from"
            " which on a share 1 - delta of sampled prompts misaligns; 2 the 1 - delta quantile of the shortest prompts"
            " after 8 good sentences.",
        ),
        "slopes": Table(
            columns=("world", "shortest", "1 / best rate", "sampled", "1 / divergence rate"),
            rows=tuple((row[0], *(round(value, 4) for value in row[1:])) for row in slopes),
            caption="Sentences per nat of log(1 / alpha), least squares, beside what beta_eff promises.",
        ),
        "worlds": Table(
            columns=("world", "beta", "beta after bad", "beta'", "sigma of P_-", "sigma of P_+", "gamma", "positive",
                     "theorems apply"),
            rows=tuple(audits),
            caption="The conditions. In drifting the bad component turns good after good sentences: no theorem speaks.",
        ),
    }  # fmt: skip
    return Result(metrics=metrics, tables=tables, figures=_figures(cells, shown, cfg))


def _count(violated: Sequence[bool]) -> Metric:
    return Metric(value=float(sum(violated)), n=len(violated))


def _figures(cells: Sequence[Cell], shown: World, cfg: Config) -> dict[str, Figure]:
    chosen = [c for c in cells if c.world == shown.name and c.theorem == "1"]
    nats = [-math.log(c.alpha) for c in chosen]
    known, alpha = constants(shown), chosen[min(5, len(chosen) - 1)].alpha
    longest = math.ceil(2 * evidence(alpha, cfg.eps) / known.beta)
    lengths = np.arange(longest + 1)
    texts = sample(shown, "minus", cfg.texts, longest, cfg.seed)
    means = [float((1 - weight(np.zeros(1), alpha))[0]), *(1 - weight(texts.log_ratio, alpha)).mean(0).tolist()]
    sigmoid = [float((1 - weight(np.array([known.beta * n]), alpha))[0]) for n in lengths]
    return {
        "shortest_prompt": Figure(
            kind="line",
            series={
                "observed": {"x": nats, "y": [c.observed for c in chosen]},
                "tight": {"x": nats, "y": [c.tight for c in chosen]},
                "published": {"x": nats, "y": [c.published for c in chosen]},
            },
            x_label="log(1 / alpha), nats", y_label="sentences", caption=f"Theorem 1 in the world {shown.name}.",
        ),
        "weight_of_the_good_component": Figure(
            kind="line",
            series={
                "mean over sampled prompts": {"x": lengths.tolist(), "y": means},
                "sigmoid of lemma 7": {"x": lengths.tolist(), "y": sigmoid},
            },
            x_label="sentences of the prompt", y_label="w_+",
            caption=f"World {shown.name}, alpha = {alpha:g}. The sigmoid bounds prompts that gain beta a sentence, not"
            " the mean over all.",
        ),
    }  # fmt: skip
