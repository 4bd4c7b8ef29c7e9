"""The result of a run, whoever ran it: the eval's own numbers, what is missing, and policies that need no model."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

from alignlab.core.types import Result, Table
from alignlab.stats.proportion import share

BASELINES = "baselines"
"""name of the table with the trivial policies"""
Records = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Played:
    """What became of one item."""

    item: Any
    problem: str = ""
    """why the model under evaluation gave no answer"""
    others: tuple[tuple[str, str], ...] = ()
    """for each answer of another role: the role, and why it did not come, empty where it did"""


def of(module: ModuleType, played: Sequence[Played], records: Records, before: Records | None = None) -> Result:
    """Aggregate records, with trivial policies beside them and a count of everything that is missing.

    `unanswered` is the share of items without the model's answer, which are left out; `missing_<role>` the share of
    another role's answers that did not come. Both are there only where something is missing.

    Args:
        module: the eval.
        played: every item of the run.
        records: of those that the model answered, in the same order.
        before: records of an earlier run; the changes to it are among the metrics, of trivial policies too.

    Raises:
        ValueError: no item was answered.
    """
    lost = Counter(one.problem for one in played if one.problem)
    if not records:
        raise ValueError(f"no item was answered; the commonest reason: {lost.most_common(1)[0][0] if lost else 'none'}")
    result: Result = aggregated(module, records, before)
    metrics, notes = dict(result.metrics), list(result.notes)
    if lost:
        metrics["unanswered"] = share(bool(one.problem) for one in played)
        notes.append(f"{lost.total()} of {len(played)} items had no answer and are left out; the commonest reason:"
                     f" {lost.most_common(1)[0][0]}")  # fmt: skip
    pairs = [pair for one in played for pair in one.others]
    for role in dict.fromkeys(role for role, problem in pairs if problem):
        missing = [problem for other, problem in pairs if other == role]
        metrics[f"missing_{role}"] = share(bool(problem) for problem in missing)
        reason = Counter(problem for problem in missing if problem).most_common(1)[0][0]
        notes.append(f"{sum(map(bool, missing))} of {len(missing)} answers of the {role} did not come: {reason}")
    tables = dict(result.tables)
    answered = [one.item for one in played if not one.problem]  # so that like is held against like
    if hasattr(module, "baselines") and (beside := baselines_of(module, answered, before)):
        tables[BASELINES] = compared(result, beside)
    return replace(result, metrics=metrics, notes=tuple(notes), tables=tables)


def aggregated(module: ModuleType, records: Records, before: Records | None) -> Result:
    """Return the numbers of records, with changes where there is a run before."""
    result: Result = module.aggregate(records) if before is None else module.aggregate(records, before=before)
    return result


def baselines_of(module: ModuleType, items: Sequence[Any], before: Records | None = None) -> dict[str, Result]:
    """Return what policies that need no model get on the same items."""
    return {
        name: aggregated(module, [module.score(item, [text]) for item, text in zip(items, texts, strict=True)], before)
        for name, texts in module.baselines(items).items()
    }


def compared(result: Result, beside: Mapping[str, Result]) -> Table:
    """Return the metrics of a result beside those of trivial policies."""
    rows = (("measured", result), *beside.items())
    columns = tuple(result.metrics)
    cells = [[found.metrics[c].value if c in found.metrics else None for c in columns] for _, found in rows]
    return Table(
        columns=("policy", *columns),
        rows=tuple((name, *values) for (name, _), values in zip(rows, cells, strict=True)),
        caption="The same items answered by policies that need no model.",
    )


def flat(result: Result) -> dict[str, float]:
    """Return a result as numbers by name, as logs keep it.

    Interval ends are `<name>_low` and `<name>_high`, what a trivial policy gets `baseline_<policy>_<name>`.
    """
    found = {}
    for name, metric in result.metrics.items():
        found[name] = float(metric.value)
        if metric.low is not None and metric.high is not None:
            found[f"{name}_low"], found[f"{name}_high"] = float(metric.low), float(metric.high)
    table = result.tables.get(BASELINES)
    if table is not None:
        for policy, *values in table.rows[1:]:
            for name, value in zip(table.columns[1:], values, strict=True):
                if isinstance(value, (int, float)):
                    found[f"baseline_{policy}_{name}"] = float(value)
    return found
