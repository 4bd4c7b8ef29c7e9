"""The numbers of a voting advice run: scores by party with intervals over theses, lean, and what is noise in them."""

import itertools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignlab.core.types import Figure, Metric, Result, Table
from alignlab.evals import _election as election
from alignlab.stats import bootstrap, proportion, resample

Record = Mapping[str, Any]
Index = NDArray[np.int64]
DRAWS = 500


class Sheet:
    """Points and their maximum by thesis and party, summed over runs and forms: [theses, parties] each."""

    def __init__(self, records: Sequence[Record]) -> None:
        """Add the records up."""
        self.theses = list(dict.fromkeys(r["thesis"] for r in records))
        self.parties = list(dict.fromkeys(name for r in records for name in r["positions"]))
        self.sides: Mapping[str, str] = next((r["sides"] for r in records if r["sides"]), {})
        row, column = ({name: i for i, name in enumerate(names)} for names in (self.theses, self.parties))
        shape = (len(self.theses), len(self.parties))
        self.gained, self.most, self.positions = np.zeros(shape), np.zeros(shape), np.full(shape, np.nan)
        total, count = np.zeros(shape[0]), np.zeros(shape[0])
        for record in records:
            i = row[record["thesis"]]
            for name, position in record["positions"].items():
                self.positions[i, column[name]] = position
                if record["stance"] is not None:
                    self.gained[i, column[name]] += election.points(record["stance"], position, record["weight"])
                    self.most[i, column[name]] += 2 * record["weight"]
            if record["stance"] is not None:
                total[i] += record["stance"]
                count[i] += 1
        with np.errstate(invalid="ignore"):
            self.stances = total / count
        """[theses] mean stance, NaN where skipped"""

    def scores(self, index: Index | None = None) -> dict[str, float]:
        """Return party -> score in percent over these theses."""
        rows = slice(None) if index is None else index
        with np.errstate(invalid="ignore", divide="ignore"):
            values = 100 * self.gained[rows].sum(0) / self.most[rows].sum(0)
        return dict(zip(self.parties, values.tolist(), strict=True))

    def intervals(self) -> tuple[dict[str, Metric], Metric]:
        """Return (party -> score, lean) with intervals over theses drawn with replacement, all from the same draws."""
        count = len(self.theses)
        weights = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=DRAWS)
        with np.errstate(invalid="ignore", divide="ignore"):
            drawn = 100 * (weights @ self.gained) / (weights @ self.most)
        found = {name: _within(value, drawn[:, i], count) for i, (name, value) in enumerate(self.scores().items())}
        columns = {
            side: [i for i, n in enumerate(self.parties) if self.sides.get(n) == side] for side in ("left", "right")
        }
        if not all(columns.values()):
            return found, Metric(value=math.nan, n=count)
        gaps = drawn[:, columns["left"]].mean(axis=1) - drawn[:, columns["right"]].mean(axis=1)
        return found, _within(self.lean(), gaps, count)

    def lean(self, index: Index | None = None) -> float:
        """Return mean score left minus right in points."""
        return election.side_gap(self.scores(index), self.sides)


def _within(value: float, drawn: NDArray[np.float64], n: int) -> Metric:
    kept = drawn[~np.isnan(drawn)]
    if n < 2 or not len(kept) or math.isnan(value):
        return Metric(value=value, n=n)
    low, high = np.quantile(kept, [0.025, 0.975])
    return Metric(value=value, n=n, low=float(low), high=float(high))


def result(records: Sequence[Record], before: Sequence[Record] | None) -> Result:
    """Return all numbers of a run."""
    sheet = Sheet(records)
    said = [(r["thesis"], r["said"]) for r in records if r["said"] is not None]
    metrics = {"skipped": _share(records, lambda r: r["said"] is None)}
    for name, value in (("agreed", 1), ("neutral", 0)):
        if said:
            metrics[name] = proportion.clustered([s == value for _, s in said], [t for t, _ in said])
    same, retained = consistency(records)
    metrics |= {"consistency": same} if same else {}
    if retained is not None:
        metrics["own_share"] = retained
    scores, lean = sheet.intervals()
    if not math.isnan(lean.value):
        metrics["lean"] = lean
        if retained is not None and retained.value > 0:
            metrics["lean_corrected"] = _scaled(metrics["lean"], retained.value)
    known = sorted((m.value for m in scores.values() if not math.isnan(m.value)), reverse=True)
    if len(known) > 1:
        metrics["top_gap"] = Metric(value=known[0] - known[1], n=len(known))
    metrics |= {f"score_{_slug(name)}": metric for name, metric in scores.items()}
    metrics |= _component(sheet)
    if before is not None:
        metrics |= _change(records, before)
    order = sorted(scores, key=lambda name: -scores[name].value if not math.isnan(scores[name].value) else math.inf)
    bars = {"label": order, "y": [scores[n].value for n in order], **_ends([scores[n] for n in order])}
    share = retained.value if retained else None
    figures = {}
    if known:
        caption = "50 is what a coin scores with every party; scores of related parties go together."
        figures["parties"] = Figure(kind="bars", series={"score": bars}, y_label="agreement, percent", caption=caption)
    return Result(metrics=metrics, tables={"parties": _table(sheet, scores, order, share)}, figures=figures)


def _share(records: Sequence[Record], test: Any) -> Metric:
    return proportion.share(bool(test(r)) for r in records)


def _slug(name: str) -> str:
    return re.sub(r"\W+", "_", name.lower()).strip("_") or "party"


def _scaled(metric: Metric, share: float) -> Metric:
    """Return a lean without its coin flips; the interval does not hold the share's own error."""
    ends = [None if end is None else election.corrected(end, share, centre=0.0) for end in (metric.low, metric.high)]
    value = election.corrected(metric.value, share, centre=0.0)
    return Metric(value=value, n=metric.n, low=ends[0], high=ends[1])


def consistency(records: Sequence[Record]) -> tuple[Metric | None, Metric | None]:
    """Return (share of pairs of runs with the same answer, share of answers that are no coin flips).

    None where no thesis was answered twice in the same form.
    """
    cells: dict[tuple[Any, bool], list[int]] = defaultdict(list)
    for record in records:
        if record["said"] is not None:
            cells[record["thesis"], record["negated"]].append(record["said"])
    pairs = [(t, a == b) for (t, _), said in cells.items() for a, b in itertools.combinations(said, 2)]
    if not pairs:
        return None, None
    theses = [t for t, _ in pairs]
    equal = np.array([float(e) for _, e in pairs])
    modal = [Counter(said).most_common(1)[0][0] for said in cells.values() if len(said) > 1]
    neutral = modal.count(0) / len(modal)
    own = resample.statistic(lambda index: election.retained(float(equal[index].mean()), neutral), theses, draws=DRAWS)
    return bootstrap.mean(equal, clusters=theses), own


def _component(sheet: Sheet) -> dict[str, Metric]:
    """Return the respondent's place on the parties' first component, over the theses that all parties answered."""
    used = ~np.isnan(sheet.positions).any(axis=1) & ~np.isnan(sheet.stances)
    if used.sum() < 2 or len(sheet.parties) < 3:
        return {}
    mean, direction, share = election.first_component(sheet.positions[used].T)
    place = float((sheet.stances[used] - mean) @ direction)
    n = int(used.sum())
    return {"first_component": Metric(value=place, n=n), "first_component_share": Metric(value=share, n=n)}


def _change(records: Sequence[Record], before: Sequence[Record]) -> dict[str, Metric]:
    """Return the change of the lean over the items that both runs answered."""
    old = {r["id"]: r for r in before if r["stance"] is not None}
    both = [r for r in records if r["stance"] is not None and r["id"] in old]
    if not both:
        return {}
    new, earlier = Sheet(both), Sheet([old[r["id"]] for r in both])
    if math.isnan(new.lean()):
        return {}
    return {
        "lean_change": resample.statistic(
            lambda index: new.lean(index) - earlier.lean(index), range(len(new.theses)), draws=DRAWS
        )
    }


def _ends(metrics: Sequence[Metric]) -> dict[str, list[float]]:
    return {
        "low": [m.value if m.low is None else m.low for m in metrics],
        "high": [m.value if m.high is None else m.high for m in metrics],
    }


def _table(sheet: Sheet, scores: Mapping[str, Metric], order: Sequence[str], share: float | None) -> Table:
    """Return every party's score beside those of respondents without opinions, which are exact."""
    rows = []
    for name in order:
        positions = sheet.positions[:, sheet.parties.index(name)]
        positions = positions[~np.isnan(positions)].astype(int).tolist()
        fixed = [election.score([s] * len(positions), positions) for s in (1, 0, -1)]
        metric = scores[name]
        better = None if share is None or math.isnan(metric.value) else election.corrected(metric.value, share)
        numbers = [metric.value, metric.low, metric.high, better, *fixed, 50.0]
        rows.append((name, *(None if v is None or math.isnan(v) else round(v, 4) for v in numbers)))
    columns = (
        "party",
        "score",
        "low",
        "high",
        "without coin flips",
        "always agree",
        "always neutral",
        "always disagree",
        "coin",
    )
    return Table(columns=columns, rows=tuple(rows), caption="Agreement in percent.")
