"""Size trend: does what an eval measures change with a model's size, or only from family to family?

About a dozen models, several of one family, sizes going along with date and recipe: a correlation over all of them says
little. So the slope per factor of ten in parameters is taken inside families, with an intercept of its own for each,
and tested by exchanging sizes within them; the slope over all models stands beside it. Exler et al. 2025,
arXiv 2505.04393, find larger models further left; of a lean take `lean_corrected` too, since a model that tosses fewer
coins leans more without being of another mind. Reads finished runs (`--dataset runs:FILE`), no model. Without rows:
made-up runs whose families hide the trend. Slopes are in units of the metric per factor of ten.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from alignlab.core.cards import Card, Claim
from alignlab.core.types import Figure, Metric, Result, Row, Table
from alignlab.stats import ranks, trend

TRUE = 3.0
"""slope inside each family of the made-up runs"""
CARD = Card(
    title="Large Means Left: Political Bias in Large Language Models Increases with Their Number of Parameters",
    paper="arXiv:2505.04393",
    bibtex="""@article{exler2025trend,
  title = {Large Means Left: Political Bias in Large Language Models Increases with Their Number of Parameters},
  author = {Exler, David and Schutera, Mark and Reischl, Markus and Rettenberger, Luca},
  journal = {arXiv preprint arXiv:2505.04393},
  year = {2025}
}""",
    brief="wahl-o-mat",
    status="reconstructed",
    summary="whether a metric of finished runs grows with model size inside families, beside the trend over all",
    smoke="alignlab probe size_trend --output_dir {out}",
    claims=(
        Claim(metric="slope", relation=">=", bound=TRUE - 1),
        Claim(metric="slope", relation="<=", bound=TRUE + 1),
        Claim(metric="slope_p", relation="<=", bound=0.05),
        Claim(metric="slope_over_all", relation="<=", bound=0.0),
    ),
    needs=frozenset({"rows of finished runs, or none for made-up ones"}),
    deviations=(
        "the paper's statistic could not be read: slopes inside families and their test are the specification's",
        "each run counts once, whatever its own interval; the figure shows those",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is held against size."""

    metric: str = "lean"
    """name of the metric, as the runs' result.json has it"""
    seed: int = 0
    """of the test, and of the made-up runs"""


def measure(model: None, rows: Sequence[Row], cfg: Config) -> Result:
    """Return slopes inside families and over all, with their tests; ValueError names the run and what is missing."""
    del model
    runs = list(rows) or made_up(cfg.seed)
    values = [_value(row, cfg.metric) for row in runs]
    methods = sorted({str(row.facts.get("method")) for row in runs})
    if len(methods) > 1:
        raise ValueError(f"size_trend: runs of {', '.join(methods)}; hold runs of one eval against each other")
    sizes = [math.log10(float(row.facts["size"])) for row in runs]
    families = [str(row.facts["family"]) for row in runs]
    inside, over_all = trend.within(sizes, values, families), trend.within(sizes, values)
    metrics = {"slope": inside, "slope_over_all": over_all}
    for name, groups in (("slope_p", families), ("slope_over_all_p", None)):
        metrics[name] = Metric(value=trend.exchanged(sizes, values, groups, seed=cfg.seed), n=len(runs))
    metrics["spearman_over_all"] = Metric(value=ranks.spearman(sizes, values), n=len(runs))
    by = {name: [i for i, other in enumerate(families) if other == name] for name in dict.fromkeys(families)}
    metrics["families_with_two_sizes"] = Metric(
        value=float(sum(len({sizes[i] for i in places}) > 1 for places in by.values())), n=len(by)
    )
    notes = []
    if math.isnan(inside.value):
        notes.append("No family has models of two sizes, so that a trend cannot be told from a difference of families.")
    elif inside.low is None:
        notes.append("With so few runs the slope inside families has no interval: add runs of a further size.")
    return Result(
        metrics=metrics,
        tables={"families": _table(by, sizes, values)},
        figures={"by_size": _figure(by, runs, values, cfg.metric)},
        notes=tuple(notes),
    )


def made_up(seed: int = 0) -> list[Row]:
    """Return runs of four families, each leaning the more the larger, of which those of larger models lean less."""
    draw = random.Random(f"size_trend:{seed}")
    found = []
    for number, family in enumerate(("mill", "river", "hill", "bell")):
        for size in (1e8, 1e9, 1e10):
            scaled = size * 10 ** (number - 1.5)
            value = 20 - 8 * number + TRUE * math.log10(size / 1e9) + draw.gauss(0, 1.0)
            facts = {"family": family, "size": scaled, "metrics": {"lean": value}, "intervals": {}}
            found.append(Row(prompt=f"{family} {scaled:.0e}", facts=facts))
    return found


def _value(row: Row, metric: str) -> float:
    held = row.facts.get("metrics")
    if not isinstance(held, dict) or not row.facts.get("family") or not row.facts.get("size"):
        raise ValueError(
            f"{row.prompt}: facts 'metrics', 'family', 'size': expected a finished run; read runs with --dataset "
            "runs:FILE"
        )
    value = held.get(metric)
    if not isinstance(value, (int, float)):
        raise ValueError(f"{row.prompt}: no number called {metric!r} in it; it has {', '.join(sorted(held))}")
    return float(value)


def _table(by: dict[str, list[int]], sizes: Sequence[float], values: Sequence[float]) -> Table:
    lines = []
    for name, places in by.items():
        slope = trend.within([sizes[i] for i in places], [values[i] for i in places]).value
        span = [10 ** bound(sizes[i] for i in places) for bound in (min, max)]
        lines.append((name, len(places), *span, None if math.isnan(slope) else slope))
    return Table(columns=("family", "runs", "smallest", "largest", "slope"), rows=tuple(lines))


def _figure(by: dict[str, list[int]], runs: Sequence[Row], values: Sequence[float], metric: str) -> Figure:
    series = {}
    for name, places in by.items():
        order = sorted(places, key=lambda i: float(runs[i].facts["size"]))
        ends = [(runs[i].facts.get("intervals") or {}).get(metric) or (values[i], values[i]) for i in order]
        series[name] = {
            "x": [math.log10(float(runs[i].facts["size"])) for i in order], "y": [values[i] for i in order],
            "low": [low for low, _ in ends], "high": [high for _, high in ends],
        }  # fmt: skip
    return Figure(kind="line", series=series, x_label="log10 of parameters", y_label=metric)
