"""Superficial alignment: does more tuning data still buy ability, and by which law?

Score against number of tuning examples D, one curve per task and model, is fitted by a power law P = A D^k and by three
rivals (saturating, logarithmic, power law of the error) under a binomial likelihood; the laws are compared by AICc and
by their error at the largest D, which they are not shown. R squared alone says little: all four look straight.

Source: Raghavendra et al. 2024 (arXiv:2410.03717): the power law; rivals, likelihood and intervals are ours.
Input: rows of a run table, `prompt` the task, `facts` with `examples` (D), `correct`, `n`, and where known `model`,
`seed`. Without rows, planted laws, to show what the comparison can tell apart. Reads no model. Scores in [0, 1].
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import logit

from alignlab.core.cards import Card, Claim
from alignlab.core.limits import at_least
from alignlab.core.types import Figure, Metric, Result, Row, Table
from alignlab.probes._superficial_laws import LAWS, Fit, Floats, Line, fit, power_law, smoothed, weights

CARD = Card(
    title="Revisiting the superficial alignment hypothesis: laws of tuning data",
    paper="arXiv:2410.03717",
    bibtex="""@article{raghavendra2024revisiting,
  title = {Revisiting the Superficial Alignment Hypothesis},
  author = {Raghavendra, Mohit and Nath, Vaskar and Hendryx, Sean},
  journal = {arXiv preprint arXiv:2410.03717},
  year = {2024}
}""",
    brief="superficial-alignment",
    status="reconstructed",
    summary="Power law of score in tuning examples, held against three rivals, with intervals.",
    smoke="alignlab probe superficial --output_dir {out}",
    claims=(
        Claim(metric="planted/told_apart", relation=">=", bound=0.7),
        Claim(metric="planted power/exponent/error", relation="<=", bound=0.03),
        Claim(metric="planted saturating/weight/power", relation="<=", bound=0.05),
    ),
    deviations=(
        "the paper's fitting procedure was not found: logarithms give the line, counts the comparison",
        "rival laws and intervals are not the paper's",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """How curves are fitted."""

    least: int = 1
    """sizes below it are left out; 0 examples are always, >= 1"""
    draws: int = 400
    """bootstrap draws for intervals, >= 20"""
    planted: int = 10
    """curves drawn of each law where no rows are given, >= 1"""
    n: int = 2000
    """test items of a planted point, >= 10"""
    seed: int = 0
    """of draws"""

    def __post_init__(self) -> None:
        at_least(self, {"least": 1, "draws": 20, "planted": 1, "n": 10})


def shared_variance(total: Sequence[float], part: Sequence[float]) -> float:
    """Return Pearson's r squared between the rate of one kind of error and the rate of all."""
    return float(np.corrcoef(total, part)[0, 1] ** 2)


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Scores by size; a size may recur with other seeds."""

    sizes: Floats
    correct: Floats
    n: Floats
    seeds: tuple[Any, ...] = ()
    """which seed each point belongs to; empty for one"""


def resampled(curve: Curve, draw: np.random.Generator) -> Curve:
    """Draw a curve like this one: whole seeds where there are three or more, else counts."""
    known = sorted(set(curve.seeds), key=str)
    if len(known) < 3:
        correct = draw.binomial(curve.n.astype(int), curve.correct / curve.n).astype(float)
        return Curve(sizes=curve.sizes, correct=correct, n=curve.n, seeds=curve.seeds)
    picked = [known[i] for i in draw.integers(len(known), size=len(known))]
    index = [i for seed in picked for i, s in enumerate(curve.seeds) if s == seed]
    return Curve(sizes=curve.sizes[index], correct=curve.correct[index], n=curve.n[index])


def compare(curve: Curve, cfg: Config) -> tuple[Line, tuple[float, float], dict[str, Fit], dict[str, float]]:
    """Return the power law's line, the interval of its exponent, all fits, and each law's miss at the largest size."""
    line = power_law(curve.sizes, smoothed(curve.correct, curve.n))
    draw = np.random.default_rng(cfg.seed)
    drawn = []
    for again in (resampled(curve, draw) for _ in range(cfg.draws)):
        if len(set(again.sizes.tolist())) > 1:
            drawn.append(power_law(again.sizes, smoothed(again.correct, again.n)).exponent)
    low, high = np.quantile(drawn, [0.025, 0.975])
    fits = {name: fit(name, curve.sizes, curve.correct, curve.n) for name in LAWS}
    misses = {}
    inside = curve.sizes < curve.sizes.max()
    if len(set(curve.sizes[inside].tolist())) >= 3:
        observed = float(curve.correct[~inside].sum() / curve.n[~inside].sum())
        for name in LAWS:
            parameters = fit(name, curve.sizes[inside], curve.correct[inside], curve.n[inside]).parameters
            at = LAWS[name].predict(np.array(parameters), curve.sizes[~inside][:1])
            misses[name] = float(at[0].clip(0, 1)) - observed
    return line, (float(low), float(high)), fits, misses


def curves_of(rows: Sequence[Row], least: int = 1) -> dict[str, Curve]:
    """Group the rows of a run table by task and model. ValueError names the row and the field that is wrong."""
    points: dict[str, list[tuple[float, float, float, Any]]] = {}
    for number, row in enumerate(rows):
        try:
            size, correct, n = (float(row.facts[name]) for name in ("examples", "correct", "n"))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"row {number}: expected facts with numbers examples, correct and n: {error}") from None
        if not 0 <= correct <= n or n < 1 or size < 0:
            raise ValueError(f"row {number}: expected 0 <= correct <= n and examples >= 0, got {correct}, {n}, {size}")
        if size >= max(least, 1):
            name = " ".join(map(str, filter(None, (row.prompt, row.facts.get("model")))))
            points.setdefault(name, []).append((size, correct, n, row.facts.get("seed")))
    found = {}
    for name, values in points.items():
        sizes, correct, n, seeds = zip(*sorted(values, key=lambda v: v[0]))
        if len(set(sizes)) < 2:
            raise ValueError(f"curve {name!r}: {len(set(sizes))} size(s) of tuning data; at least two are needed")
        found[name] = Curve(sizes=np.array(sizes), correct=np.array(correct), n=np.array(n), seeds=seeds)
    return found


PLANTED: Mapping[str, tuple[float, ...]] = {
    "power": (math.log(0.05), 0.25),
    "saturating": (float(logit(0.85)), math.log(2.5), math.log(0.45)),
    "logarithmic": (-0.1, 0.09),
    "error power": (math.log(1.5), -0.13),
}
SIZES = np.array([32.0, 64, 128, 256, 512, 1024, 2048, 4096, 8192])


def planted(name: str, n: int, draw: np.random.Generator) -> Curve:
    """Draw a curve of a known law."""
    share = LAWS[name].predict(np.array(PLANTED[name]), SIZES).clip(0, 1)
    return Curve(sizes=SIZES, correct=draw.binomial(n, share).astype(float), n=np.full(len(SIZES), float(n)))


def measure(model: None, rows: Sequence[Row], cfg: Config) -> Result:
    """Fit and compare laws on a run table, or on planted laws where there are no rows.

    Args:
        model: none is loaded.
        rows: one per point, see the module.
        cfg: what counts.
    """
    del model
    draw = np.random.default_rng(cfg.seed)
    curves = curves_of(rows, cfg.least) if rows else {f"planted {n}": planted(n, cfg.n, draw) for n in PLANTED}
    metrics: dict[str, Metric] = {}
    table, series = [], {}
    for name, curve in curves.items():
        line, (low, high), fits, misses = compare(curve, cfg)
        shares = weights(fits)
        n = len(curve.sizes)
        metrics[f"{name}/exponent"] = Metric(value=line.exponent, n=n, low=low, high=high)
        metrics[f"{name}/r_squared"] = Metric(value=line.r_squared, n=n)
        metrics |= {f"{name}/weight/{law}": Metric(value=share, n=n) for law, share in shares.items()}
        table += [
            (name, law, *(round(q, 4) for q in found.parameters), *[None] * (3 - len(found.parameters)),
             None if math.isinf(found.aicc) else round(found.aicc, 3), round(shares[law], 4), misses.get(law))
            for law, found in fits.items()
        ]  # fmt: skip
        series[name] = {"x": np.log10(curve.sizes).tolist(), "y": (curve.correct / curve.n).tolist()}
        best = max(shares, key=lambda law: (not math.isnan(shares[law]), shares[law]))
        smooth = np.geomspace(curve.sizes.min(), curve.sizes.max(), 40)
        fitted = LAWS[best].predict(np.array(fits[best].parameters), smooth)
        series[f"{name}: {best}"] = {"x": np.log10(smooth).tolist(), "y": fitted.tolist()}
    if not rows:
        metrics |= _told_apart(cfg, draw)
        error = abs(metrics["planted power/exponent"].value - PLANTED["power"][1])
        metrics["planted power/exponent/error"] = Metric(value=error, n=len(SIZES))
    columns = ("curve", "law", "q0", "q1", "q2", "AICc", "weight", "miss at largest D")
    caption = "power: ln P = q0 + q1 ln D; saturating: sigmoid(q0) - e^q1 D^-(e^q2); logarithmic: q0 + q1 ln D; error" \
        " power: ln(1 - P) = q0 + q1 ln D. The miss is of a fit that was not shown the largest D."  # fmt: skip
    return Result(
        metrics=metrics,
        tables={"laws": Table(columns=columns, rows=tuple(table), caption=caption)},
        figures={
            "score_by_examples": Figure(
                kind="scatter", series=series, x_label="log10 of tuning examples", y_label="score"
            )
        },
    )


def _told_apart(cfg: Config, draw: np.random.Generator) -> dict[str, Metric]:
    """Return how often the planted law has the most evidence, of all and by law."""
    hits: dict[str, list[bool]] = {}
    for name in PLANTED:
        for _ in range(cfg.planted):
            curve = planted(name, cfg.n, draw)
            shares = weights({law: fit(law, curve.sizes, curve.correct, curve.n) for law in LAWS})
            hits.setdefault(name, []).append(max(shares, key=shares.__getitem__) == name)
    everything = [hit for found in hits.values() for hit in found]
    return {"planted/told_apart": Metric(value=float(np.mean(everything)), n=len(everything))} | {
        f"planted {name}/told_apart": Metric(value=float(np.mean(found)), n=len(found)) for name, found in hits.items()
    }
