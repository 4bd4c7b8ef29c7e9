"""Preference rankings: does a model make the better answer the likelier one, could it, and what would it take?

Ranking accuracy R is the share of pairs with log p(y_w) >= log p(y_l); the idealised accuracy R* is what a perfect
optimiser reaches from a reference when a share alpha of raters prefers y_w; their distance is the alignment gap. The
difficulty c = log ref(y_l) - log ref(y_w) says how small DPO's loss on a pair must become to rank it right.

Source: Chen et al. 2024 (arXiv:2405.19534): definition 2.3, proposition 2.6, theorem 3.1, corollary 3.3, theorem 4.1,
proposition A.7, equation 4 (gamma). Input: pairs; votes as `facts.p`. Log-probabilities are sums over the answer in
nats, EOS included, kept by content for later runs (engine/refcache); length-normalised forms divide by tokens.
Reduction: mean over pairs.
Deviations: corollary 3.3 in log space; the official script multiplies by a quotient of log-probabilities instead (form
`released`, for parity only).
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from alignlab.core import facts
from alignlab.core.cards import Card, Claim
from alignlab.core.types import Figure, Metric, Result, Row, Table
from alignlab.engine.load import load
from alignlab.probes._scoring import Floats, pair_logps
from alignlab.stats import bootstrap
from alignlab.stats.ranks import spearman
from alignlab.world import rows as world_rows

CARD = Card(
    title="Preference rankings: ranking accuracy and the alignment gap",
    paper="arXiv:2405.19534",
    bibtex="""@inproceedings{chen2024preference,
  title = {Preference Learning Algorithms Do Not Learn Preference Rankings},
  author = {Chen, Angelica and Malladi, Sadhika and Zhang, Lily H. and Chen, Xinyi and Zhang, Qiuyi and
    Ranganath, Rajesh and Cho, Kyunghyun},
  booktitle = {Advances in Neural Information Processing Systems},
  volume = {37},
  year = {2024},
  eprint = {2405.19534},
  archivePrefix = {arXiv}
}""",
    brief="preference-rankings",
    status="faithful",
    summary="Share of pairs a model ranks right, what its reference allows, and the loss each pair still needs.",
    smoke="alignlab probe preference_rankings --model tiny: --dataset world:pairs --limit 200 --output_dir {out}",
    claims=(
        Claim(metric="theorem_4_1/worst", relation="<=", bound=1e-6),
        Claim(metric="ranking_accuracy", relation=">", bound=0.6),
    ),
    needs=frozenset({"policy", "ref"}),
    deviations=("the official script's idealised accuracy is a form, not the default: it is not the paper's formula",),
)
BETAS = (0.01, 0.1, 1.0, 5.0, 10.0)
"""over which the paper takes the median of R*"""
Form = Literal["corollary", "released"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """What the model is held against."""

    reference: str | None = None
    """spec of the reference that the model was tuned from; default the model itself, untuned"""
    beta: float = 0.1
    """of the DPO run, > 0 (paper: 0.1)"""
    gamma: float = 1.0
    """weight of the reference in DPO-gamma, >= 0; 1 is DPO"""
    votes: float = 1.0
    """share of raters that prefer the better answer, where a row does not say (facts.p), in [0.5, 1]"""
    clip: float = 0.001
    """votes are kept this far from 0 and 1, in (0, 0.5) (paper: 0.001)"""
    form: Form = "corollary"
    """idealised accuracy by corollary 3.3, or as the official script computes it"""
    best_loss: float = 0.3
    """loss that the run is trusted to reach on a pair, > 0: what counts as flippable"""
    ref_cache: str = "auto"
    """folder of log-probabilities that later runs look up; auto: in the user's cache folder, as training; none: off"""

    def __post_init__(self) -> None:
        if not self.beta > 0 or not self.gamma >= 0 or not self.best_loss > 0:
            raise ValueError(f"expected --beta > 0, --gamma >= 0, --best_loss > 0, got {self}")
        if not 0.5 <= self.votes <= 1 or not 0 < self.clip < 0.5:
            raise ValueError(f"expected --votes in [0.5, 1] and --clip in (0, 0.5), got {self}")
        if not self.ref_cache:
            raise ValueError(f"--ref_cache: expected a folder, auto or none, got {self.ref_cache!r}")


def ranked(better: Floats, worse: Floats, votes: Floats | float = 1.0, tie: float = 0.01) -> NDArray[np.bool_]:
    """Return R per pair: log p(better) >= log p(worse); where votes are even, probabilities within `tie` (def. 2.3)."""
    even = np.broadcast_to(np.asarray(votes) == 0.5, better.shape)
    return np.where(even, np.abs(np.exp(better) - np.exp(worse)) < tie, better >= worse)


def ranked_exactly(logps: Floats, ranks: NDArray[np.integer]) -> bool:
    """Whether every answer is likelier than all of a lower rank (1 = best); equal likelihoods count as wrong."""
    values = np.asarray(logps)
    groups = [values[np.asarray(ranks) == rank] for rank in np.unique(ranks)]
    return all(upper.min() > lower.max() for upper, lower in itertools.pairwise(groups))


def idealised(
    better: Floats, worse: Floats, votes: Floats, beta: float, *, clip: float = 0.001, form: Form = "corollary"
) -> NDArray[np.bool_]:
    """Return R* per pair from the reference's log-probabilities: is pi*(better) > pi*(worse)?

    corollary: log ref(y_w) - log ref(y_l) + logit(alpha) / beta > 0, alpha in [clip, 1 - clip]. released: the official
    script's (alpha / (1 - alpha))^(1/beta) * log ref(y_w) / log ref(y_l) > 1.05, with odds 1 / clip at alpha = 1.
    """
    if form == "corollary":
        return np.asarray(better - worse + logit(np.clip(votes, clip, 1 - clip)) / beta > 0)
    with np.errstate(over="ignore"):
        return np.asarray((votes / np.maximum(1 - votes, clip)) ** (1 / beta) * better / worse > 1.05)


def difficulty(ref_better: Floats, ref_worse: Floats) -> Floats:
    """Return c = log ref(y_l) - log ref(y_w): below 0 the reference is right, far above it no run flips the pair."""
    return ref_worse - ref_better


def threshold(c: Floats | float, beta: float, gamma: float = 1.0) -> Floats:
    """Return -log sigmoid(beta gamma c): a pair is ranked right iff its loss is at most this (theorem 4.1)."""
    return np.logaddexp(0.0, -beta * gamma * np.asarray(c, dtype=np.float64))


def dpo_loss(margin: Floats, c: Floats, beta: float, gamma: float = 1.0) -> Floats:
    """Return -log sigmoid(beta (m + gamma c)) with m = log p(y_w) - log p(y_l) (equation 4)."""
    return np.logaddexp(0.0, -beta * (margin + gamma * c))


def theorem_4_1(margin: Floats, c: Floats, losses: Floats, beta: float, gamma: float = 1.0) -> float:
    """Return how far, in nats of loss, the worst pair breaks "m >= 0 iff loss <= threshold"; 0 where all keep it.

    Hold any DPO run to 1e-6: `losses` are what its objective says of each pair, m and c what was scored.
    """
    over = np.asarray(losses) - threshold(c, beta, gamma)
    return float(np.where(margin >= 0, over, -over).clip(min=0).max(initial=0.0))


def margin_of(loss: Floats | float) -> Floats:
    """Return beta times the log-ratio margin at which DPO's loss is `loss`; > 0 below log 2 (proposition 2.6)."""
    return np.asarray(-np.log(np.expm1(loss)))


def largest_flippable(loss: float, beta: float) -> float:
    """Return the largest c, nats, that a run reaching `loss` on a pair can flip."""
    return float(margin_of(loss)) / beta


def ipo_sufficient(k: float, tau: float) -> float:
    """Return the IPO loss below which a pair with k = log ref(y_w) / ref(y_l) is surely ranked right (prop. A.7).

    NaN where k < -1 / (2 tau): there zero loss means that it is ranked wrong.
    """
    return (k + 1 / (2 * tau)) ** 2 if k >= -1 / (2 * tau) else float("nan")


def around_peak(
    win_rate: Sequence[float] | Floats, accuracy: Sequence[float] | Floats, peak: int | None = None
) -> tuple[float, float]:
    """Return Spearman's correlation of win rate and ranking accuracy over checkpoints up to the peak and from it on.

    Args:
        win_rate: by checkpoint.
        accuracy: by checkpoint.
        peak: the checkpoint that both sides share; default the first with the highest win rate. One found on other
            prompts is better: on noise alone the best of these very rates makes the first side rise and the second
            fall.

    Returns:
        Both sides; NaN for one of fewer than three checkpoints, or in which either number never changes.
    """
    top = int(np.argmax(win_rate)) if peak is None else peak
    sides = (slice(None, top + 1), slice(top, None))
    return spearman(win_rate[sides[0]], accuracy[sides[0]]), spearman(win_rate[sides[1]], accuracy[sides[1]])


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Pairs as two models see them: columns are (better, worse)."""

    policy: Floats
    """[R, 2] summed log-probabilities"""
    ref: Floats
    tokens: NDArray[np.int64]
    votes: Floats
    """[R] alpha"""
    ref_tokens: NDArray[np.int64] | None = None
    """as the reference's own tokenizer counts them; None: as many"""


def measure(model: Any, rows: Sequence[Row], cfg: Config) -> Result:
    """Score pairs with the model and its reference and report rankings, their ideal and their difficulty.

    Args:
        model: the policy.
        rows: pairs; empty takes 200 of the town's.
        cfg: the reference and its strength.

    Raises:
        ValueError: rows that are no pairs, or votes outside [0, 1].
    """
    pairs = list(rows) or list(world_rows("pairs", 0, 200))
    votes = np.array([_votes(number, row, cfg) for number, row in enumerate(pairs)])
    policy, tokens = ref, ref_tokens = pair_logps(model, pairs, cfg.ref_cache)
    if cfg.reference is not None:
        # the same answers, whatever each model's tokenizer makes of them
        ref, ref_tokens = pair_logps(load(cfg.reference), pairs, cfg.ref_cache)
    return report(Scored(policy=policy, ref=ref, tokens=tokens, votes=votes, ref_tokens=ref_tokens), cfg)


def _votes(number: int, row: Row, cfg: Config) -> float:
    try:
        return facts.number(row.facts, "p", cfg.votes, 0, 1)
    except ValueError as error:
        raise ValueError(f"row {row.meta.get('id', number)}: {error}") from error


def report(found: Scored, cfg: Config) -> Result:
    """Turn scored pairs into numbers, without any model."""
    (policy_w, policy_l), (ref_w, ref_l) = found.policy.T, found.ref.T
    mean_policy = found.policy / found.tokens
    mean_ref = found.ref / (found.tokens if found.ref_tokens is None else found.ref_tokens)
    now, before = ranked(policy_w, policy_l, found.votes), ranked(ref_w, ref_l, found.votes)
    margin, c = policy_w - policy_l, difficulty(ref_w, ref_l)
    losses = dpo_loss(margin, c, cfg.beta, cfg.gamma)
    ideal = {b: idealised(ref_w, ref_l, found.votes, b, clip=cfg.clip, form=cfg.form) for b in (cfg.beta, *BETAS)}
    by_length = [
        idealised(mean_ref[:, 0], mean_ref[:, 1], found.votes, b, clip=cfg.clip).mean() for b in BETAS
    ]  # the script has this one right
    spread = np.sort([ideal[b].mean() for b in BETAS])
    per_pair = {
        "ranking_accuracy": now,
        "ranking_accuracy/length_normalised": ranked(mean_policy[:, 0], mean_policy[:, 1], found.votes),
        "ranking_accuracy/reference": before,
        "reward_accuracy": margin + c > 0,
        "idealised_accuracy": ideal[cfg.beta],
        "flipped": now & ~before,
        "flippable": c <= max(0.0, largest_flippable(cfg.best_loss, cfg.beta)),
    }
    alike = np.abs(found.tokens[:, 0] - found.tokens[:, 1]) <= 0.1 * found.tokens.max(1)
    if alike.any():
        per_pair["ranking_accuracy/length_matched"] = now[alike]
    metrics = {name: bootstrap.mean(values.astype(float)) for name, values in per_pair.items()}
    n = len(now)
    metrics |= {
        f"idealised_accuracy/{name}": Metric(value=float(value), n=n)
        for name, value in zip(("lowest", "median", "highest"), (spread[0], np.median(spread), spread[-1]))
    }
    normalised_gap = float(np.median(by_length)) - metrics["ranking_accuracy/length_normalised"].value
    metrics["alignment_gap"] = Metric(value=float(np.median(spread)) - metrics["ranking_accuracy"].value, n=n)
    metrics["alignment_gap/length_normalised"] = Metric(value=normalised_gap, n=n)
    metrics["theorem_4_1/worst"] = Metric(value=theorem_4_1(margin, c, losses, cfg.beta, cfg.gamma), n=n)
    return Result(
        metrics=metrics, tables={"flips": _flips(now, before, losses, margin)}, figures=_figures(c, losses, cfg)
    )


def _flips(now: NDArray[np.bool_], before: NDArray[np.bool_], losses: Floats, margin: Floats) -> Table:
    rows = []
    for was, name in ((True, "right"), (False, "wrong")):
        for is_, after in ((True, "right"), (False, "wrong")):
            held = (before == was) & (now == is_)
            means = (float(losses[held].mean()), float(margin[held].mean())) if held.any() else (None, None)
            rows.append((f"{name} -> {after}", int(held.sum()), float(held.mean()), *means))
    return Table(
        columns=("reference -> model", "pairs", "share", "mean DPO loss", "mean margin, nats"), rows=tuple(rows)
    )


def _figures(c: Floats, losses: Floats, cfg: Config) -> dict[str, Figure]:
    order = np.argsort(c)
    kept = order[np.linspace(0, len(order) - 1, min(len(order), 300)).astype(int)]
    line = np.linspace(c.min(), c.max(), 60) if len(c) else c
    series = {
        "pairs": {"x": c[kept].tolist(), "y": losses[kept].tolist()},
        "loss that flips": {"x": line.tolist(), "y": threshold(line, cfg.beta, cfg.gamma).tolist()},
    }
    return {
        "difficulty": Figure(
            kind="scatter", series=series, x_label="c = log ref(worse) - log ref(better), nats", y_label="DPO loss",
            caption="A pair is ranked right iff it lies on or below the line (theorem 4.1).",
        )
    }  # fmt: skip
