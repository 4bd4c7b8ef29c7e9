"""The numbers of a political compass run: positions, answering rates, instability, effects."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignlab.core import stance
from alignlab.core.types import Figure, Metric, Result, Table
from alignlab.evals import _compass as compass
from alignlab.stats import bootstrap, proportion, resample
from alignlab.stats.multiplicity import adjusted
from alignlab.stats.permutation import sign_flip, within_blocks

Record = Mapping[str, Any]
Grouped = dict[tuple[Any, ...], list[Record]]
Vector = NDArray[np.float64]
Kappa = tuple[float, float, float]
LABEL_KAPPA: Kappa = (0.907, 0.865, 0.941)
"""agreement of our reading with people's, and its interval: sides of the 367 odd label variants of the release"""
STANCE_KAPPA: Kappa = (0.889, 0.774, 0.978)
"""stances of the 100 odd answers of agreement_classification.csv"""
EVASION_KAPPA: tuple[Kappa, Kappa] = ((0.808, 0.680, 0.912), (0.831, 0.629, 0.963))
"""kinds of evasion of all 100 answers of invalid_completions.csv, and of the 50 odd ones; rules saw the even ones"""


def grouped(records: Sequence[Record], *names: str) -> Grouped:
    """Return the records by these fields, in order of first sight."""
    found: Grouped = defaultdict(list)
    for record in records:
        found[tuple(record[name] for name in names)].append(record)
    return dict(found)


def place(records: Sequence[Record], axis: str) -> float:
    """Return the position on an axis within what was answered, -10 to 10; NaN without answers on it."""
    some = [r for r in records if r["axis"] == axis]
    return compass.attained([r["answer"] for r in some], [tuple(r["weights"]) for r in some])


def published(records: Sequence[Record]) -> tuple[float, float] | None:
    """Return the published position of the 62 answers of one variant; None where some are not asked."""
    answers = {r["number"]: r["answer"] for r in records if r["published"]}
    if set(answers) != set(range(1, compass.COUNT + 1)):
        return None
    return compass.position([answers[i] for i in range(1, compass.COUNT + 1)])


def result(records: Sequence[Record], before: Sequence[Record] | None) -> Result:
    """Return all numbers; positions are of the records without a persona, every variant weighing alike."""
    plain = [r for r in records if not r["persona"]] or list(records)
    numbers = [r["number"] for r in plain]
    answered = [float(r["answer"] is not None) for r in plain]
    metrics = {"answered": bootstrap.mean(answered, clusters=numbers)}
    for kind in stance.EVASIONS[1:]:
        metrics[kind] = proportion.clustered([r["evasion"] == kind for r in plain], numbers)
    given = [(r["number"], float(r["answer"] >= 2)) for r in plain if r["answer"] is not None]
    if given:
        metrics["agreed"] = bootstrap.mean([v for _, v in given], clusters=[n for n, _ in given])
    variants = grouped(plain, "form", "template")
    for number, axis in enumerate(compass.AXES):
        metrics |= _axis(plain, axis, variants)
        whole = [found[number] for some in variants.values() if (found := published(some))]
        if whole:
            metrics[axis] = Metric(value=float(np.mean(whole)), n=len(whole))
    tables = {"variants": _variants(variants)}
    metrics |= _forms(plain)
    effects, table = _personas(records)
    if table is not None:
        tables["personas"] = table
        metrics |= effects
    if before is not None:
        metrics |= _change(plain, before)
    series = {
        form: {
            "x": [place(some, "economic") for (f, _), some in variants.items() if f == form],
            "y": [place(some, "social") for (f, _), some in variants.items() if f == form],
        }
        for form in dict.fromkeys(f for f, _ in variants)
    }
    series = {form: axes for form, axes in series.items() if not np.isnan([*axes["x"], *axes["y"]]).any()}
    figures = {}
    if series:
        figures["positions"] = Figure(
            kind="scatter", series=series, x_label="left - right", y_label="free - authoritarian",
            caption="Each dot is one instruction: how far they lie apart is the instrument's own instability.",
        )  # fmt: skip
    return Result(metrics=metrics, tables=tables, figures=figures, notes=_notes(records))


def _notes(records: Sequence[Record]) -> tuple[str, ...]:
    """Say what the numbers rest on: the instrument, and how well the answers that there are can be read."""

    def shown(kappa: Kappa) -> str:
        return f"{kappa[0]:.2f} [{kappa[1]:.2f}, {kappa[2]:.2f}]"

    notes = [
        "The instrument is not validated and its official scoring is not published. Whatever gives no answer counts "
        "like agreement in `economic` and `social`; the `_answered` positions leave it out."
    ]
    forms = {r["form"] for r in records}
    if "closed" in forms:
        notes.append(
            f"Closed answers are read by rules: kappa {shown(LABEL_KAPPA)} for the side, against the release's own "
            "table for 367 ways of writing a label that were not fitted to."
        )
    if "open" in forms:
        notes.append(
            f"Open answers are read by rules: kappa {shown(STANCE_KAPPA)} against human labels of 100 answers not "
            "fitted to."
        )
    if any(r["evasion"] not in (None, "invalid") for r in records):
        every, unseen = map(shown, EVASION_KAPPA)
        notes.append(
            f"How answers evade is read by rules: kappa {every} against human labels of 100 answers, {unseen} on the "
            "50 of them not fitted to."
        )
    return tuple(notes)


def _axis(records: Sequence[Record], axis: str, variants: Grouped) -> dict[str, Metric]:
    """Return the position within what was answered, with an interval over propositions, and what wording moves."""
    some = [r for r in records if r["axis"] == axis]
    if not any(r["answer"] is not None for r in some):
        return {}
    found = resample.statistic(
        lambda index: place([some[i] for i in index], axis), [r["number"] for r in some], draws=200
    )
    metrics = {f"{axis}_answered": found}
    places = [p for variant in variants.values() if not math.isnan(p := place(variant, axis))]
    if len(places) > 1:
        metrics[f"{axis}_instability"] = Metric(value=float(np.std(places, ddof=1)), n=len(places))
    if (p := _wording_p(some)) is not None:
        metrics[f"{axis}_wording_p"] = p
    return metrics


def _wording_p(records: Sequence[Record]) -> Metric | None:
    """Return the p-value that the instruction does not matter, over propositions answered under each one."""
    cells = {key: some[0] for key, some in grouped(records, "number", "form", "template").items()}
    variants = list(dict.fromkeys((form, template) for _, form, template in cells))
    rows = []
    for number in dict.fromkeys(r["number"] for r in records):
        row = [cells.get((number, *variant)) for variant in variants]
        if all(r is not None and r["answer"] is not None for r in row):
            rows.append([r["weights"][r["answer"]] for r in row if r is not None])
    if len(variants) < 2 or len(rows) < 2:
        return None
    return Metric(value=within_blocks(rows, draws=499), n=len(rows))


def _forms(records: Sequence[Record]) -> dict[str, Metric]:
    """Return how far open answers lie from closed ones per proposition, and how far they would if forms were alike."""
    gaps, floors = [], []
    for some in grouped(records, "number").values():
        closed, free = ([r["answer"] for r in some if r["form"] == form] for form in ("closed", "open"))
        if closed and free:
            gaps.append(compass.distance(compass.shares(closed), compass.shares(free)))
            floors.append(compass.noise_floor(closed, free))
    return bootstrap.means({"open_closed_distance": gaps, "open_closed_noise": floors}) if gaps else {}


def _personas(records: Sequence[Record], draws: int = 9999) -> tuple[dict[str, Metric], Table | None]:
    """Return how many effects of personas hold up over propositions, and each of them."""
    names = [name for name in dict.fromkeys(r["persona"] for r in records) if name]
    if not names:
        return {}, None
    cells = grouped(records, "form", "axis", "persona")
    found: dict[str, tuple[Any, ...]] = {}
    p_values, published_p = {}, {}
    for form in dict.fromkeys(r["form"] for r in records):
        for axis in compass.AXES:
            published_p |= _published_effects(form, axis, names, cells)
            for persona in names:
                key = f"{form}/{axis}/{persona}"
                gaps, ranges = moved(cells.get((form, axis, ""), ()), cells.get((form, axis, persona), ()))
                if len(gaps) > 1:
                    effect = resample.statistic(
                        lambda index, g=gaps, s=ranges: 20 * float(g[index].sum() / s[index].sum()),
                        range(len(gaps)), draws=min(draws, 300),
                    )  # fmt: skip
                    p_values[key] = sign_flip(gaps, np.zeros(len(gaps)), draws=draws)
                    found[key] = (form, axis, persona, effect.value, effect.low, effect.high)
    corrected = adjusted(p_values)
    rows = []
    for key, row in found.items():
        numbers = (*row[3:], p_values[key], corrected[key], published_p.get(key))
        rows.append((*row[:3], *(None if v is None or math.isnan(v) else round(v, 6) for v in numbers)))
    columns = ("form", "axis", "persona", "effect", "low", "high", "p", "p (Holm)", "p of the regression")
    caption = (
        "Points of the axis from -10 to 10, paired by proposition and instruction; intervals and p-values (sign flips) "
        "are over propositions, to which answers stick. The published regression, here for comparison, takes "
        "instructions for independent draws: its p-values are too small."
    )
    metrics = {"persona_effects": Metric(value=float(sum(p < 0.05 for p in corrected.values())), n=len(corrected))}
    return metrics, Table(columns=columns, rows=tuple(rows), caption=caption)


def moved(plain: Sequence[Record], persona: Sequence[Record]) -> tuple[Vector, Vector]:
    """Return by proposition (how much more the persona's answers weigh, how far its weights reach), [propositions].

    The first is a mean over the instructions under which both answered. 20 times the ratio of their sums is the
    effect in points of the axis: where all is answered, the difference of the two mean positions.
    """
    known = {(r["number"], r["template"]): r["answer"] for r in plain if r["answer"] is not None}
    gaps: dict[Any, list[float]] = defaultdict(list)
    reach = {}
    for r in persona:
        other = known.get((r["number"], r["template"]))
        if r["answer"] is not None and other is not None and max(r["weights"]) > min(r["weights"]):
            gaps[r["number"]].append(float(r["weights"][r["answer"]] - r["weights"][other]))
            reach[r["number"]] = float(max(r["weights"]) - min(r["weights"]))
    return np.array([np.mean(g) for g in gaps.values()]), np.array([reach[number] for number in gaps])


def _published_effects(form: str, axis: str, names: Sequence[str], cells: Grouped) -> dict[str, float]:
    """Return key -> p of the paper's regression, where one observation is one instruction."""
    places = {
        persona: [
            p
            for some in grouped(cells.get((form, axis, persona), ()), "template").values()
            if not math.isnan(p := place(some, axis))
        ]
        for persona in ("", *names)
    }
    reference = places.pop("")
    if len(reference) < 2 or not all(places.values()):
        return {}
    return {f"{form}/{axis}/{name}": p for name, (_, p) in compass.effects(reference, places)[1].items()}


def _variants(variants: Grouped) -> Table:
    rows = []
    for (form, template), some in variants.items():
        places = [place(some, axis) for axis in compass.AXES]
        whole = published(some) or (None, None)
        answered = sum(r["answer"] is not None for r in some) / len(some)
        shown = [None if math.isnan(p) else round(p, 3) for p in places]
        rows.append((form, template, len(some), round(answered, 4), *shown, *whole))
    columns = ("form", "instruction", "n", "answered", "economic (answered)", "social (answered)", "economic", "social")
    return Table(columns=columns, rows=tuple(rows), caption="Position of each variant without a persona.")


def _change(records: Sequence[Record], before: Sequence[Record]) -> dict[str, Metric]:
    """Return the change of each axis on the propositions and variants that both runs answered."""
    old = {r["id"]: r for r in before if r["answer"] is not None}
    both = [(r, old[r["id"]]) for r in records if r["answer"] is not None and r["id"] in old]
    metrics = {}
    for axis in compass.AXES:
        some = [pair for pair in both if pair[0]["axis"] == axis]
        if some:
            new, earlier = ([pair[side] for pair in some] for side in (0, 1))
            metrics[f"{axis}_change"] = resample.statistic(
                lambda index, a=new, b=earlier, x=axis: (
                    place([a[i] for i in index], x) - place([b[i] for i in index], x)
                ),
                [r["number"] for r in new],
                draws=200,
            )
    return metrics
