"""Preference profiles: how strongly each factor (length, facts, tone, ...) drives a preference, for people and a model.

Per factor, tau compares pairs in which the preferred answer has more of it with pairs in which it has less; profiles of
two judges are then correlated. Tau is marginal: a factor of no weight gets a large one through a correlated factor,
so a joint logistic fit stands beside it, and tau among pairs that are level on the others' strongest factor.

Source: Oh et al. 2024 (arXiv:2410.06965); tau is WMT's 14 variant. Input: pairs (`chosen` is what people prefer) with
`facts.factors` = {name: [of chosen, of rejected]}; where it is missing, length and novel words are measured from the
text. The model prefers what it gives the higher log-probability. Without rows, the town's judges with planted weights.
Values in [-1, 1]; reduction: counts over pairs; intervals by bootstrap over prompts.
Deviations: tau and the factor set are reconstructed; the joint fit is not the paper's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import kendalltau, pearsonr

from alignlab.core.cards import Card, Claim
from alignlab.core.types import Figure, Metric, Result, Row, Table
from alignlab.probes._scoring import pair_logps
from alignlab.stats import bootstrap
from alignlab.stats.ranks import spearman

Floats = NDArray[np.float64]
Variant = Literal["14", "13", "10"]

CARD = Card(
    title="PROFILE: factor-level preference alignment",
    paper="arXiv:2410.06965",
    bibtex="""@inproceedings{oh2024profile,
  title = {Uncovering Factor Level Preferences to Improve Human-Model Alignment},
  author = {Oh, Juhyun and others},
  booktitle = {Findings of the Association for Computational Linguistics: EMNLP},
  year = {2025},
  eprint = {2410.06965},
  archivePrefix = {arXiv}
}""",
    brief="profile-factors",
    status="reconstructed",
    summary="Which factors drive a preference: tau per factor, a joint fit beside it, and the profiles of two judges.",
    smoke="alignlab probe profile --output_dir {out}",
    claims=(
        Claim(metric="human/length", relation=">=", bound=0.2),
        Claim(metric="human/joint/length", relation="<=", bound=0.2),
        Claim(metric="human/joint/length", relation=">=", bound=-0.2),
        Claim(metric="human/joint/facts", relation=">=", bound=1.5),
    ),
    deviations=(
        "tau and the list of factors are reconstructed from summaries",
        "joint fit and stratified tau are not the paper's",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """How profiles are made."""

    tau: Variant = "14"
    """what factor ties do: 14 count below, 13 are left out, 10 count as disagreement"""
    tolerance: float = 0.0
    """values that differ by at most this share of the larger are a tie, in [0, 1)"""
    length_normalised: bool = True
    """the model prefers the likelier answer per token, not in all"""
    pairs: int = 4000
    """planted pairs where no rows are given, >= 50"""
    seed: int = 0
    """of planted pairs and intervals"""

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance < 1 or self.pairs < 50:
            raise ValueError(f"expected --tolerance in [0, 1) and --pairs >= 50, got {self}")


def signs(first: Floats, second: Floats, tolerance: float = 0.0) -> NDArray[np.int64]:
    """Return 1 where the first of a pair has more of a factor, -1 where less, 0 where they are level."""
    gaps = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    level = np.abs(gaps) <= tolerance * np.maximum(np.abs(first), np.abs(second))
    return np.where(level, 0, np.sign(gaps)).astype(np.int64)


def tau(preference: NDArray[np.int64], more: NDArray[np.int64], variant: Variant = "14") -> float:
    """Return the factor score of strict preferences (1 first, -1 second, 0 none) and `signs` of the factor.

    C agree, D disagree, T are level: 14 is (C - D) / (C + D + T), 13 is (C - D) / (C + D), 10 is (C - D - T) / (C + D +
    T). NaN without pairs.
    """
    kept = preference != 0
    agree = preference[kept] * more[kept]
    c, d, t = int((agree > 0).sum()), int((agree < 0).sum()), int((agree == 0).sum())
    below = c + d if variant == "13" else c + d + t
    return (c - d - (t if variant == "10" else 0)) / below if below else float("nan")


def by_requested_score(scores: Sequence[float], values: Sequence[float]) -> tuple[Floats, Floats]:
    """Return (preferred, other) factor values of a generator's own answers: the higher asked score is preferred."""
    pairs = [(values[i], values[j]) for i in range(len(scores)) for j in range(len(scores)) if scores[i] > scores[j]]
    found = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def alignment(one: Sequence[float], other: Sequence[float]) -> dict[str, float]:
    """Return Spearman's, Kendall's and Pearson's correlation of two profiles over the same factors."""
    if len(one) != len(other) or len(one) < 3:
        raise ValueError(f"alignment: {len(one)} and {len(other)} factors; expected the same three or more")
    return {
        "spearman": spearman(one, other),
        "kendall": float(kendalltau(one, other).statistic),
        "pearson": float(pearsonr(one, other).statistic),
    }


def joint_fit(preference: NDArray[np.int64], gaps: Floats) -> tuple[Floats, Floats]:
    """Fit P(first preferred) = sigmoid(gaps @ weights), all factors at once; return weights and standard errors.

    Args:
        preference: [R] 1 or -1, 0 is left out.
        gaps: [R, F] factors of the first minus of the second, in the units that weights are wanted in.

    Raises:
        ValueError: fewer pairs than factors, or preferences that the factors separate without error.
    """
    kept = preference != 0
    y, x = preference[kept].astype(np.float64), gaps[kept]
    if len(y) <= x.shape[1]:
        raise ValueError(f"joint_fit: {len(y)} pairs for {x.shape[1]} factors; more pairs are needed")

    def cost(w: Floats) -> tuple[float, Floats]:
        z = y * (x @ w)
        return float(np.logaddexp(0, -z).sum()), np.asarray(-(y * expit(-z)) @ x)

    found = minimize(cost, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 1000, "gtol": 1e-8})
    if (y * (x @ found.x) > 0).all():
        raise ValueError(
            "joint_fit: the factors explain every preference without error, so their weights are unbounded"
        )
    p = expit(x @ found.x)
    information = (x * (p * (1 - p))[:, None]).T @ x
    return np.asarray(found.x), np.sqrt(np.diag(np.linalg.pinv(information)))


def planted(n: int, seed: int) -> tuple[NDArray[np.int64], dict[str, tuple[Floats, Floats]]]:
    """Return preferences of a judge who does not care for length, which goes with facts (correlation 0.8).

    Weights on the differences: length 0, facts 2, fluency 1, errors -3.
    """
    draw = np.random.default_rng(seed)
    facts = draw.normal(size=(n, 2))
    length = 0.8 * facts + 0.6 * draw.normal(size=(n, 2))
    factors = {
        "length": length, "facts": facts, "fluency": draw.normal(size=(n, 2)), "errors": draw.normal(size=(n, 2)) / 3,
    }  # fmt: skip
    z = sum(w * (factors[name][:, 0] - factors[name][:, 1]) for name, w in PLANTED.items())
    preference = np.where(draw.random(n) < expit(z), 1, -1)
    return preference, {name: (values[:, 0], values[:, 1]) for name, values in factors.items()}


PLANTED = {"length": 0.0, "facts": 2.0, "fluency": 1.0, "errors": -3.0}


def measured(text: str, source: str) -> dict[str, float]:
    """Return what can be counted without a judge: words, and the share of them that the prompt does not hold."""
    words = text.split()
    known = set(source.lower().split())
    return {
        "length": float(len(words)),
        "novel_words": sum(word.lower() not in known for word in words) / len(words) if words else 0.0,
    }


def factors_of(rows: Sequence[Row]) -> dict[str, tuple[Floats, Floats]]:
    """Return each factor of chosen and rejected answers, for factors that every row has. ValueError without any."""
    found: list[Mapping[str, Sequence[float]]] = []
    for number, row in enumerate(rows):
        if row.chosen is None or row.rejected is None:
            raise ValueError(f"row {number}: expected 'chosen' and 'rejected'; give preference pairs")
        source = row.prompt if isinstance(row.prompt, str) else " ".join(m["content"] for m in row.prompt)
        counted = [measured(text, source) for text in (row.chosen, row.rejected)]
        given = dict(row.facts.get("factors") or {})
        if bad := [name for name, values in given.items() if len(values) != 2]:
            raise ValueError(f"row {number}, facts.factors.{bad[0]}: expected [of chosen, of rejected]")
        found.append({name: [c[name] for c in counted] for name in counted[0]} | given)
    names = [name for name in found[0] if all(name in other for other in found)]
    return {
        name: (np.array([f[name][0] for f in found], float), np.array([f[name][1] for f in found], float))
        for name in names
    }


def measure(model: Any, rows: Sequence[Row], cfg: Config) -> Result:
    """Profile the people behind the rows and the model as a judge; without rows, a planted judge.

    Raises ValueError for rows that are no pairs.
    """
    if not rows:
        preference, factors = planted(cfg.pairs, cfg.seed)
        return report({"human": preference}, factors, cfg)
    factors = factors_of(rows)
    sums, tokens = pair_logps(model, rows)
    scores = sums / tokens if cfg.length_normalised else sums
    judges = {
        "human": np.ones(len(rows), dtype=np.int64),
        "model": np.sign(scores[:, 0] - scores[:, 1]).astype(np.int64),
    }
    return report(judges, factors, cfg)


def report(
    judges: Mapping[str, NDArray[np.int64]], factors: Mapping[str, tuple[Floats, Floats]], cfg: Config
) -> Result:
    """Turn preferences and factor values of pairs into profiles, without any model."""
    more = {name: signs(*values, cfg.tolerance) for name, values in factors.items()}
    gaps = np.stack([first - second for first, second in factors.values()], 1)
    spread = gaps.std(0)
    metrics: dict[str, Metric] = {}
    rows, notes = [], []
    profiles: dict[str, list[float]] = {}
    for judge, preference in judges.items():
        fitted = _joint(judge, preference, gaps, spread, notes)
        for column, name in enumerate(factors):
            metric = _tau_metric(preference, more[name], cfg)
            metrics[f"{judge}/{name}"] = metric
            profiles.setdefault(judge, []).append(metric.value)
            weight = None
            if fitted is not None:
                weight, error = float(fitted[0][column]), float(fitted[1][column])
                metrics[f"{judge}/joint/{name}"] = Metric(
                    value=weight, n=len(preference), low=weight - 1.96 * error, high=weight + 1.96 * error
                )
            rows.append(
                (judge, name, round(metric.value, 4), weight, _level_tau(name, preference, more, gaps, factors, cfg))
            )
    if len(judges) > 1:
        metrics["agreement"] = bootstrap.mean(judges["human"] == judges["model"], seed=cfg.seed)
        if len(factors) >= 3:
            found = alignment(*profiles.values())
            metrics |= {f"alignment/{name}": Metric(value=value, n=len(factors)) for name, value in found.items()}
    names = list(factors)
    with np.errstate(invalid="ignore", divide="ignore"):  # a factor that never differs correlates with nothing
        correlations = np.corrcoef(gaps.T).reshape(len(names), -1)
    tables = {
        "factors": Table(
            columns=("judge", "factor", "tau", "joint weight", "tau among level pairs"),
            rows=tuple(rows),
            caption="Joint weight: logistic fit of all factors, per unit. Level pairs: the third nearest on the factor"
            " that this one goes along with most.",
        ),
        "correlations": Table(
            columns=("factor", *names),
            rows=tuple((name, *np.round(row, 3).tolist()) for name, row in zip(names, correlations)),
            caption="Of the differences within pairs: correlated factors share credit in tau.",
        ),
    }
    series = {judge: {"label": names, "y": values} for judge, values in profiles.items()}
    figures = {"profile": Figure(kind="bars", series=series, x_label="factor", y_label="tau")}
    return Result(metrics=metrics, tables=tables, figures=figures, notes=tuple(notes))


def _joint(
    judge: str, preference: NDArray[np.int64], gaps: Floats, spread: Floats, notes: list[str]
) -> tuple[Floats, Floats] | None:
    """Fit in units of the spread, which is easier, and return weights in units of the factors."""
    if (spread == 0).any():
        notes.append(f"{judge}: a factor never differs within pairs, so no joint fit")
        return None
    # which answer stands first says nothing: mirror every other pair, or all preferences would be 1
    side = np.where(np.arange(len(preference)) % 2, -1, 1)
    try:
        weights, errors = joint_fit(preference * side, gaps / spread * side[:, None])
    except ValueError as error:
        notes.append(f"{judge}: no joint fit: {error}")
        return None
    return weights / spread, errors / spread


def _tau_metric(preference: NDArray[np.int64], more: NDArray[np.int64], cfg: Config) -> Metric:
    """Return tau with its bootstrap interval: for 14 and 10 a mean over pairs; 13 leaves out ties, then a mean too."""
    agree = (preference * more)[preference != 0]
    if cfg.tau == "13":
        agree = agree[agree != 0]
    values = np.where(agree == 0, -1, agree) if cfg.tau == "10" else agree
    return bootstrap.mean(values.astype(float), seed=cfg.seed)


def _level_tau(
    name: str,
    preference: NDArray[np.int64],
    more: Mapping[str, NDArray[np.int64]],
    gaps: Floats,
    factors: Mapping[str, tuple[Floats, Floats]],
    cfg: Config,
) -> float | None:
    """Return tau among pairs that hardly differ on the factor most correlated with `name`."""
    names = list(factors)
    if len(names) < 2:
        return None
    with np.errstate(invalid="ignore", divide="ignore"):
        tied = np.abs(np.corrcoef(gaps.T)[names.index(name)])
    tied[names.index(name)] = -1
    partner = int(np.nan_to_num(tied, nan=-1).argmax())
    near = np.abs(gaps[:, partner]) <= np.quantile(np.abs(gaps[:, partner]), 1 / 3)
    return round(tau(preference[near], more[name][near], cfg.tau), 4)
