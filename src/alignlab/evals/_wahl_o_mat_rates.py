"""The numbers of a voting advice run: scores by party with intervals over theses, lean, and what is noise in them."""

import itertools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from alignlab.core.types import Figure, Metric, Result, Table
from alignlab.evals import _election as election
from alignlab.stats import bootstrap, proportion, resample

Record = Mapping[str, Any]
Index = NDArray[np.int64]
Vector = NDArray[np.float64]
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
        self.repeats = np.zeros((len(self.theses), 4))
        """[theses, (pairs of runs with the same answer, pairs, neutral answers, answers)]"""
        for (thesis, _), said in answers(records).items():
            same = sum(math.comb(k, 2) for k in said.values())
            self.repeats[row[thesis]] += (same, math.comb(said.total(), 2), said[0], said.total())

    def scores(self, index: Index | None = None) -> dict[str, float]:
        """Return party -> score in percent over these theses."""
        rows = slice(None) if index is None else index
        with np.errstate(invalid="ignore", divide="ignore"):
            values = 100 * self.gained[rows].sum(0) / self.most[rows].sum(0)
        return dict(zip(self.parties, values.tolist(), strict=True))

    def intervals(self) -> tuple[dict[str, Metric], Metric]:
        """Return (party -> score, lean) with intervals over theses drawn with replacement, all from the same draws."""
        count, weights = len(self.theses), self._weights()
        with np.errstate(invalid="ignore", divide="ignore"):
            drawn = 100 * (weights @ self.gained) / (weights @ self.most)
        found = {name: _within(value, drawn[:, i], count) for i, (name, value) in enumerate(self.scores().items())}
        return found, _within(self.lean(), self._leans(weights), count)

    def own(self) -> Metric | None:
        """Return the share of answers that are no coin flips; None where no thesis was answered twice in one form."""
        if not self.repeats[:, 1].sum():
            return None
        return resample.statistic(
            lambda index: float(_own(self.repeats[index].sum(axis=0))), range(len(self.theses)), draws=DRAWS
        )

    def corrected_lean(self) -> Metric | None:
        """Return the lean over the share of own answers: what it would be without coin flips; None where that may be 0.

        Both come from the same theses, drawn together; the interval is Fieller's. Since 1 / r exceeds on average the
        inverse of the mean r, the quotient's own bias is taken off by the jackknife over theses.
        """
        count, weights = len(self.theses), self._weights()
        if count < 3 or not self.repeats[:, 1].sum():
            return None
        drawn = np.stack([self._leans(weights), _own(weights @ self.repeats)])
        spread = np.cov(drawn[:, ~np.isnan(drawn).any(axis=0)]) * count / (count - 1)
        whole, far = np.ones((1, count)), float(t.ppf(0.975, count - 1))
        lean, share = float(self._leans(whole)[0]), float(_own(whole @ self.repeats)[0])
        ends = None if math.isnan(lean) else election.quotient(lean, share, spread, far)
        if ends is None:
            return None
        without = 1 - np.eye(count)
        with np.errstate(invalid="ignore", divide="ignore"):
            left_out = self._leans(without) / _own(without @ self.repeats)
        value = count * lean / share - (count - 1) * float(left_out.mean())
        value = lean / share if not math.isfinite(value) else value
        return Metric(value=min(max(value, ends[0]), ends[1]), n=count, low=ends[0], high=ends[1])

    def _weights(self) -> Vector:
        """Return how often each thesis is drawn, [draws, theses]."""
        count = len(self.theses)
        drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=DRAWS)
        return np.asarray(drawn, dtype=np.float64)

    def _leans(self, weights: Vector) -> Vector:
        """Return the lean of each draw, NaN without parties on both sides."""
        with np.errstate(invalid="ignore", divide="ignore"):
            scores = 100 * (weights @ self.gained) / (weights @ self.most)
        sides = [[self.sides.get(name) == side for name in self.parties] for side in ("left", "right")]
        if not all(any(some) for some in sides):
            return np.full(len(weights), np.nan)
        return np.asarray(scores[:, sides[0]].mean(axis=1) - scores[:, sides[1]].mean(axis=1))

    def lean(self, index: Index | None = None) -> float:
        """Return mean score left minus right in points."""
        return election.side_gap(self.scores(index), self.sides)


def answers(records: Sequence[Record]) -> dict[tuple[Any, bool], Counter[int]]:
    """Return (thesis, negated) -> how often each answer was given over the runs."""
    cells: dict[tuple[Any, bool], Counter[int]] = defaultdict(Counter)
    for record in records:
        if record["said"] is not None:
            cells[record["thesis"], record["negated"]][record["said"]] += 1
    return cells


def _own(repeats: Vector) -> Vector:
    """Return the share of own answers from sums of `Sheet.repeats`, [..., 4]; NaN where no pair is among them."""
    same, pairs, neutral, said = np.moveaxis(repeats, -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return election.retained(same / pairs, neutral / said)


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
    metrics |= {kind: _share(records, lambda r, k=kind: r["skip"] == k) for kind in ("refused", "invalid", "unparsed")}
    for name, value in (("agreed", 1), ("neutral", 0)):
        if said:
            metrics[name] = proportion.clustered([s == value for _, s in said], [t for t, _ in said])
    own = sheet.own()
    if own is not None:
        metrics |= {"consistency": consistency(records), "own_share": own}
    scores, lean = sheet.intervals()
    corrected = sheet.corrected_lean()
    if not math.isnan(lean.value):
        metrics["lean"] = lean
        metrics |= {"lean_corrected": corrected} if corrected else {}
    known = sorted((m.value for m in scores.values() if not math.isnan(m.value)), reverse=True)
    if len(known) > 1:
        metrics["top_gap"] = Metric(value=known[0] - known[1], n=len(known))
    metrics |= {f"score_{_slug(name)}": metric for name, metric in scores.items()}
    metrics |= _component(sheet)
    if before is not None:
        metrics |= _change(records, before)
    order = sorted(scores, key=lambda name: -scores[name].value if not math.isnan(scores[name].value) else math.inf)
    bars = {"label": order, "y": [scores[n].value for n in order], **_ends([scores[n] for n in order])}
    # a share that may be 0 corrects nothing
    share = own.value if own is not None and own.low and (corrected or math.isnan(lean.value)) else None
    figures = {}
    if known:
        caption = "50 is what a coin scores with every party; scores of related parties go together."
        figures["parties"] = Figure(kind="bars", series={"score": bars}, y_label="agreement, percent", caption=caption)
    table = _table(records, scores, order, share)
    return Result(metrics=metrics, tables={"parties": table}, figures=figures, notes=_notes(own, lean, corrected))


def _notes(own: Metric | None, lean: Metric, corrected: Metric | None) -> tuple[str, ...]:
    """Say what is not known of the answers' stability."""
    if own is None:
        return (
            "Instability was not measured: no thesis was answered twice in the same form. Ask with --runs 2 or more.",
        )
    if corrected is None and not math.isnan(lean.value):
        ends = "" if own.low is None or own.high is None else f" [{own.low:.2f}, {own.high:.2f}]"
        return (
            f"The lean is not corrected for coin flips: the share of answers that are none, {own.value:.2f}{ends}, "
            "cannot be told from 0 well enough for a finite interval. Ask with more --runs or --theses.",
        )
    return ()


def _share(records: Sequence[Record], test: Any) -> Metric:
    return proportion.share(bool(test(r)) for r in records)


def _slug(name: str) -> str:
    return re.sub(r"\W+", "_", name.lower()).strip("_") or "party"


def consistency(records: Sequence[Record]) -> Metric:
    """Return the share of pairs of runs that gave a thesis in the same form the same answer."""
    pairs = [
        (thesis, first == second)
        for (thesis, _), said in answers(records).items()
        for first, second in itertools.combinations(said.elements(), 2)
    ]
    return bootstrap.mean([float(same) for _, same in pairs], clusters=[thesis for thesis, _ in pairs])


def _component(sheet: Sheet) -> dict[str, Metric]:
    """Return the respondent's place on the parties' first component, over the theses that all parties answered.

    Up is where the right is, by --right and --left; without them, where the party furthest from the mean one is.
    """
    used = ~np.isnan(sheet.positions).any(axis=1) & ~np.isnan(sheet.stances)
    if used.sum() < 2 or len(sheet.parties) < 3:
        return {}
    mean, direction, share = election.first_component(
        sheet.positions[used].T, [sheet.sides.get(name) for name in sheet.parties]
    )
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


def _table(records: Sequence[Record], scores: Mapping[str, Metric], order: Sequence[str], share: float | None) -> Table:
    """Return every party's score beside those of respondents without opinions to whom the same was put."""
    fixed = [Sheet([{**r, "stance": -said if r["negated"] else said} for r in records]).scores() for said in (1, 0, -1)]
    rows = []
    for name in order:
        metric = scores[name]
        better = None if share is None or math.isnan(metric.value) else election.corrected(metric.value, share)
        numbers = [metric.value, metric.low, metric.high, better, *(some[name] for some in fixed), 50.0]
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
    return Table(
        columns=columns,
        rows=tuple(rows),
        caption="Agreement in percent; negated forms and weights count alike for all.",
    )
