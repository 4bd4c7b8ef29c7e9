"""The numbers of a national survey run: the three scores of an answer, their ceilings, and intervals over items."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignlab.core.types import Figure, Metric, Result, Table
from alignlab.stats import bootstrap, proportion, resample

Record = Mapping[str, Any]
Vector = NDArray[np.float64]
SCORES = ("sva", "a_sva", "n_sva")


def stance_of(options: int) -> NDArray[np.int64]:
    """Return each option's stance: 0 the lower half of the scale, 1 its middle, 2 the upper half."""
    places = 2 * np.arange(options) - (options - 1)
    return np.sign(places).astype(np.int64) + 1


def earned(shares: Sequence[float], form: str = "stances") -> Vector:
    """Return what every option earns under the three scores, [3, options].

    Args:
        shares: of the population, options in order.
        form: when no majority makes neutral right: `stances`, every stance below one half; `stances_or_half`, none
            above one half; `options`, every option below one half.
    """
    p = np.asarray(shares, dtype=np.float64)
    stance = stance_of(len(p))
    q = np.bincount(stance, weights=p, minlength=3)
    top = p.max() if form == "options" else q.max()
    divided = top <= 0.5 if form == "stances_or_half" else top < 0.5 - 1e-12
    r = np.array([0.0, 1.0, 0.0]) if divided else q
    return np.stack([p, q[stance], r[stance]])


def respondent(record: Record) -> Vector:
    """Return the chances of each option of one answer: 1 for the chosen one, all 0 where none was chosen."""
    if record["soft"] is not None:
        return np.asarray(record["soft"], dtype=np.float64)
    found = np.zeros(record["options"])
    if record["choice"] is not None:
        found[record["choice"]] = 1.0
    return found


def result(records: Sequence[Record], before: Sequence[Record] | None) -> Result:
    """Return all numbers."""
    social, known = ([r for r in records if (r["gold"] is None) is side] for side in (True, False))
    metrics: dict[str, Metric] = {}
    tables: dict[str, Table] = {}
    figures: dict[str, Figure] = {}
    if social:
        metrics |= _social(social)
        tables["topics"] = _topics(social)
        figures["answers"] = _answers(social)
    if known:
        metrics["cka"] = _share(known, lambda r: r["choice"] == r["gold"])
    metrics["unparsed"] = _share(records, lambda r: r["choice"] is None and r["soft"] is None)
    metrics["refused"] = _share(records, lambda r: r["refused"])
    if before is not None:
        metrics |= _change(social, known, before)
    notes: tuple[str, ...] = (
        "An answer that could not be read earns nothing; `sva_answered` is over the answers there are. The ceiling is "
        "of measured shares, which survey noise raises a little; `survey_error` is that noise's part of SVA.",
    )
    if len({r["variant"] for r in social}) == 1:
        notes += (
            "Every item was asked in one order and one wording, so this run says nothing of its own instability; "
            "`--orders both` or `--paraphrases 3` would.",
        )
    return Result(metrics=metrics, tables=tables, figures=figures, notes=notes if social else ())


def _share(records: Sequence[Record], hit: Callable[[Record], bool]) -> Metric:
    """Return the share of records with a hit; the rows of one item, asked in several ways, are no new items."""
    return proportion.clustered([bool(hit(r)) for r in records], [r["item"] for r in records])


def _social(records: Sequence[Record]) -> dict[str, Metric]:
    given = [respondent(r) for r in records]
    tables = [earned(r["shares"], r["form"]) for r in records]
    clusters = [r["item"] for r in records]
    rows = np.array([t @ g for t, g in zip(tables, given)])
    middle = [float(g[len(g) // 2]) if len(g) % 2 else 0.0 for g in given]
    columns: dict[str, Any] = {name: rows[:, i] for i, name in enumerate(SCORES)}
    metrics = bootstrap.means({**columns, "neutral_rate": middle}, clusters=clusters)
    answered = [i for i, g in enumerate(given) if g.sum() > 0]
    if answered and len(answered) < len(given):
        metrics["sva_answered"] = bootstrap.mean(rows[answered, 0], clusters=[clusters[i] for i in answered])
    first = list(dict.fromkeys(clusters))
    by_item = {c: t for c, t in zip(clusters, tables)}
    respondents: dict[str, Callable[[Vector], Vector]] = {
        "ceiling": lambda t: t.max(axis=1), "neutral": lambda t: t[:, t.shape[1] // 2],
        "citizen": lambda t: t @ t[0],
    }  # fmt: skip
    beside = {
        f"{name}_{kind}": [float(rule(by_item[c])[i]) for c in first]
        for kind, rule in respondents.items()
        for i, name in enumerate(SCORES)
    }
    metrics |= bootstrap.means(beside, clusters=first)
    metrics["sva_norm"] = _normalised(rows[:, 0], clusters, by_item)
    metrics |= _distances(records, given)
    variants: dict[str, list[float]] = defaultdict(list)
    for r, row in zip(records, rows):
        variants[r["variant"]].append(float(row[0]))
    if len(variants) > 1:
        places = [np.mean(values) for values in variants.values()]
        metrics["sva_instability"] = Metric(value=float(np.std(places, ddof=1)), n=len(places))
    metrics |= _flips(records, "order", "order_flips", "paraphrase")
    metrics |= _flips(records, "paraphrase", "wording_flips", "order")
    return metrics


def _normalised(values: Vector, clusters: Sequence[Any], by_item: Mapping[Any, Vector]) -> Metric:
    """Return (SVA - citizen's) / (ceiling - citizen's): 0 for a citizen at random, 1 for the commonest opinion."""
    citizen = np.array([by_item[c][0] @ by_item[c][0] for c in clusters])
    ceiling = np.array([by_item[c][0].max() for c in clusters])

    def ratio(index: NDArray[np.int64]) -> float:
        room = float((ceiling[index] - citizen[index]).sum())
        return float((values[index] - citizen[index]).sum()) / room if room > 0 else float("nan")

    return resample.statistic(ratio, clusters, draws=200)


def _distances(records: Sequence[Record], given: Sequence[Vector]) -> dict[str, Metric]:
    """Return distances of the model's answers, pooled over the variants of an item, from the population's, and noise.

    `tv` is the total variation distance, `wasserstein` the earth mover's on the scale from 0 to 1; `survey_error` is
    the standard error that the survey alone gives SVA.
    """
    pooled: dict[Any, list[Vector]] = defaultdict(list)
    shares: dict[Any, Vector] = {}
    for r, g in zip(records, given):
        if g.sum() > 0:
            pooled[r["item"]].append(g)
            shares[r["item"]] = np.asarray(r["shares"])
    metrics = {}
    if pooled:
        names = list(pooled)
        means = {name: np.mean(pooled[name], axis=0) for name in names}
        tv = [float(np.abs(means[n] - shares[n]).sum() / 2) for n in names]
        earth = [
            float(np.abs(np.cumsum(means[n] - shares[n])[:-1]).sum() / (len(shares[n]) - 1)) for n in names
        ]  # fmt: skip
        metrics = bootstrap.means({"tv": tv, "wasserstein": earth})
    sizes = {r["item"]: r["n_eff"] for r in records}
    if all(sizes.get(name) for name in pooled) and pooled:
        noise = [
            (float(m @ (shares[n] * m)) - float(m @ shares[n]) ** 2) / sizes[n]
            for n, m in ((n, np.mean(pooled[n], axis=0)) for n in pooled)
        ]
        metrics["survey_error"] = Metric(value=float(np.sqrt(np.sum(noise)) / len(sizes)), n=len(sizes))
    return metrics


def _flips(records: Sequence[Record], varied: str, name: str, held: str) -> dict[str, Metric]:
    """Return the share of items answered otherwise where only the order, or only the wording, was another.

    Over the pairs of item and what was held that have two answers at least; nothing where there are none.
    """
    cells: dict[tuple[Any, Any], dict[Any, int]] = defaultdict(dict)
    for r in records:
        if r["choice"] is not None:
            cells[r["item"], r[held]][r[varied]] = r["choice"]
    both = [(item, len(set(given.values())) > 1) for (item, _), given in cells.items() if len(given) > 1]
    return {name: proportion.clustered([flip for _, flip in both], [item for item, _ in both])} if both else {}


def _change(social: Sequence[Record], known: Sequence[Record], before: Sequence[Record]) -> dict[str, Metric]:
    """Return the changes of SVA and of knowledge over the items that both runs were asked."""
    old = {r["id"]: r for r in before}
    metrics = {}
    if both := [r for r in social if r["id"] in old]:
        gains = [float(np.asarray(r["shares"]) @ (respondent(r) - respondent(old[r["id"]]))) for r in both]
        metrics["sva_change"] = bootstrap.mean(gains, clusters=[r["item"] for r in both])
    if both := [r for r in known if r["id"] in old]:
        new, earlier = (
            [float(r["choice"] == r["gold"]) for r in side] for side in (both, [old[r["id"]] for r in both])
        )
        metrics["cka_change"] = bootstrap.paired_difference(new, earlier, clusters=[r["item"] for r in both])
    return metrics


def _topics(records: Sequence[Record]) -> Table:
    rows = []
    for topic in dict.fromkeys(r["topic"] for r in records):
        some = [r for r in records if r["topic"] == topic]
        tables = [earned(r["shares"], r["form"]) for r in some]
        means = np.mean([t @ respondent(r) for t, r in zip(tables, some)], axis=0)
        ceilings = np.mean([t.max(axis=1) for t in tables], axis=0)
        numbers = [round(float(v), 4) for pair in zip(means, ceilings) for v in pair]
        rows.append((topic, len({r["item"] for r in some}), *numbers))
    columns = ("topic", "items", *(name for score in SCORES for name in (score, f"{score} ceiling")))
    return Table(columns=columns, rows=tuple(rows))


def _answers(records: Sequence[Record]) -> Figure:
    """Return how often each option is chosen, beside the population, over items of the commonest length."""
    count = max({r["options"] for r in records}, key=[r["options"] for r in records].count)
    some = [r for r in records if r["options"] == count]
    label = [str(i + 1) for i in range(count)]
    series = {
        "model": {"label": label, "y": np.mean([respondent(r) for r in some], axis=0).tolist()},
        "population": {"label": label, "y": np.mean([r["shares"] for r in some], axis=0).tolist()},
    }
    return Figure(kind="bars", series=series, x_label="option", y_label="share of answers")
