"""Judge calibration: how far a judge's yes or no can be trusted, and the share that is true in spite of it.

Of items that a judge has judged, some have been checked by people (or have a known truth), drawn from all at random.
On these: accuracy, kappa, sensitivity and specificity, and where verdicts are probabilities their calibration. For all:
the judge's own share, and the corrected one, w mean(verdict) + mean(truth - w verdict) over those checked, whose
interval covers however bad the judge is (prediction-powered inference, Angelopoulos et al. 2023, arXiv 2301.09633; the
weight w is that of least variance, arXiv 2311.01453). A verdict that was not given counts one half in both, which
corrects itself. `worth_per_checked` says how many checked items without a judge tell as much as one with it. Reads rows
(`facts.verdict`, `facts.truth` where it is known), no model; without rows: the world's judge, whose errors are known.
Shares are in [0, 1].
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alignlab.core.cards import Card, Claim
from alignlab.core.figures import bars
from alignlab.core.types import Figure, Metric, Result, Row, Table
from alignlab.stats import bootstrap, calibration, judge, proportion
from alignlab.stats.kappa import kappa
from alignlab.world.judges import Labeller

SHARE = 0.4
"""true share of the world's items"""
CARD = Card(
    title="Prediction-powered inference",
    paper="arXiv:2301.09633",
    bibtex="""@article{angelopoulos2023prediction,
  title = {Prediction-powered inference},
  author = {Angelopoulos, Anastasios N. and Bates, Stephen and Fannjiang, Clara and Jordan, Michael I. and
            Zrnic, Tijana},
  journal = {Science},
  volume = {382},
  pages = {669--674},
  year = {2023}
}""",
    brief="self-benchmarks-just-eval",
    status="faithful",
    summary="a judge against truth: errors, calibration, and the share corrected for both",
    smoke="alignlab probe judge_calibration --output_dir {out}",
    claims=(
        Claim(metric="judged", relation=">=", bound=SHARE + 0.05),
        Claim(metric="corrected", relation=">=", bound=SHARE - 0.08),
        Claim(metric="corrected", relation="<=", bound=SHARE + 0.08),
        Claim(metric="worth_per_checked", relation=">=", bound=1.2),
    ),
    needs=frozenset({"rows with verdicts, or none for the world's judge"}),
    deviations=(
        "the interval is from a bootstrap, not from the paper's normal approximation",
        "the judge's weight is that of a later paper (arXiv 2311.01453), estimated from the same items",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """The world's items, where no rows are given."""

    count: int = 2000
    """items that are judged, >= 4"""
    checked: int = 300
    """of them, those with known truth, >= 2"""
    sensitivity: float = 0.85
    """P(yes | true), in [0, 1]"""
    specificity: float = 0.75
    """P(no | false), in [0, 1]"""
    silent: float = 0.05
    """share of verdicts that are not given, in [0, 1]"""
    seed: int = 0
    """of the items, and of the bootstrap"""


def measure(model: None, rows: Sequence[Row], cfg: Config) -> Result:
    """Return the judge's errors and the corrected share; ValueError names the row, the fact and what to do."""
    del model
    listed = list(rows) or judged(cfg)
    given = [_number(row, "verdict") for row in listed]
    truth = [_number(row, "truth") for row in listed]
    filled = np.array([0.5 if v is None else v for v in given])
    known = np.array([t is not None for t in truth])
    if known.sum() < 2 or not any(v is not None for v in given):
        raise ValueError(
            f"judge_calibration: {int(known.sum())} of {len(listed)} rows have a fact 'truth'; at least two must, "
            "drawn at random, and one a verdict"
        )
    right = np.array([t for t in truth if t is not None])
    metrics = {
        "judged": bootstrap.mean(filled.tolist(), seed=cfg.seed),
        "silent": proportion.share(v is None for v in given),
        "checked": Metric(value=float(known.mean()), n=len(listed)),
    }
    alone, weight = bootstrap.mean(right.tolist(), seed=cfg.seed), 0.0
    corrected = alone
    if (~known).sum() >= 2:
        parts = filled[~known].tolist(), filled[known].tolist(), right.tolist()
        weight = judge.power(*parts)
        corrected = judge.with_truth(*parts, weight=weight, seed=cfg.seed)
    metrics |= {"corrected": corrected, "checked_alone": alone, "weight": Metric(value=weight, n=len(listed))}
    metrics["worth_per_checked"] = Metric(value=_worth(alone, corrected), n=len(right))
    both = [(v, t) for v, t in zip(given, truth, strict=True) if v is not None and t is not None]
    table = Table(columns=("truth", "judge says yes", "judge says no", "no verdict"), rows=_counts(given, truth))
    shown = {name: metrics[name] for name in ("judged", "corrected", "checked_alone")}
    figures = bars("shares", shown, "share that is true")
    if both and all(t in (0, 1) for _, t in both):
        said, true = [v >= 0.5 for v, _ in both], [t == 1 for _, t in both]
        metrics |= {
            "accuracy": proportion.share(s == t for s, t in zip(said, true, strict=True)),
            "kappa": kappa(said, true, seed=cfg.seed),
            "sensitivity": proportion.share(s for s, t in zip(said, true, strict=True) if t),
            "specificity": proportion.share(not s for s, t in zip(said, true, strict=True) if not t),
        }
        if any(v not in (0, 1) for v, _ in both):
            soft = [v for v, _ in both]
            metrics["calibration_error"] = Metric(value=calibration.expected_calibration_error(soft, true), n=len(both))
            metrics["brier"] = Metric(value=calibration.brier(soft, true), n=len(both))
            bins = calibration.reliability(soft, true)
            series = {"x": [b.confidence for b in bins], "y": [b.accuracy for b in bins]}
            figures["reliability"] = Figure(
                kind="line", series={"judge": series}, x_label="verdict", y_label="share that is true"
            )
    notes = ["The corrected share holds where the checked items are drawn from all at random."]
    if weight == 0:
        notes.append("The judge adds nothing here: its verdicts do not go along with the truth, or all were checked.")
    return Result(metrics=metrics, tables={"checked": table}, figures=figures, notes=tuple(notes))


def judged(cfg: Config) -> list[Row]:
    """Return the world's items, `SHARE` of them true, as its judge of known errors sees them."""
    if cfg.count < 4 or not 2 <= cfg.checked <= cfg.count:
        raise ValueError(f"--count {cfg.count} must be at least 4 and --checked {cfg.checked} from 2 to that")
    faults = Labeller(sensitivity=cfg.sensitivity, specificity=cfg.specificity, silent=cfg.silent)
    draw, found = random.Random(f"judged:{cfg.seed}"), []
    for number in range(cfg.count):
        true = draw.random() < SHARE
        facts = {"verdict": faults.label(true, draw), "truth": true if number < cfg.checked else None}
        found.append(Row(prompt=f"item {number}", facts=facts))
    return found


def _number(row: Row, fact: str) -> float | None:
    value = row.facts.get(fact)
    if value is None:
        return None
    if not isinstance(value, (bool, int, float)) or not 0 <= value <= 1:
        raise ValueError(
            f"{row.meta.get('id') or str(row.prompt)[:60]}: fact {fact!r}: expected true, false, a number in [0, 1] or "
            f"nothing, got {value!r}; map it with --columns facts.{fact}=YOUR_COLUMN"
        )
    return float(value)


def _worth(alone: Metric, corrected: Metric) -> float:
    """Return how many times as many items without a judge would tell as much; NaN where one of them does not vary."""
    widths = [m.high - m.low for m in (alone, corrected) if m.low is not None and m.high is not None]
    return (widths[0] / widths[1]) ** 2 if len(widths) == 2 and min(widths) > 0 else math.nan


def _counts(given: Sequence[float | None], truth: Sequence[float | None]) -> tuple[tuple[str, int, int, int], ...]:
    lines = []
    for name, holds in (("true", 1.0), ("false", 0.0), ("not checked", None)):
        some = [v for v, t in zip(given, truth, strict=True) if t == holds]
        known = [v for v in some if v is not None]
        lines.append((name, sum(v >= 0.5 for v in known), sum(v < 0.5 for v in known), len(some) - len(known)))
    return tuple(lines)
