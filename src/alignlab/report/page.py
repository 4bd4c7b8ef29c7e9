"""One run as one HTML file: no request, no script, light and dark, wide and narrow; what models wrote stays text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from alignlab.core.cards import Card
from alignlab.core.types import Metric, Result, Table
from alignlab.report import figures
from alignlab.report.svg import element
from alignlab.report.text import duration, number, show, yaml_text

MOST_ROWS = 300
"""rows of a table that are shown"""
MOST_SAMPLES = 24
TILES = 8
KNOWN = frozenset({"title", "prompt", "question", "contexts", "answers", "facts"})
TONES = {"right": "good", "attack": "bad", "wrong": "bad", "stale": "warn", "unparsed": "warn"}


@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything a report says of one run."""

    result: Result
    name: str = "run"
    """e.g. `procedures/dialectical`"""
    card: Card | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    command: str = ""
    seconds: float | None = None
    version: str = ""
    commit: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    cost: Mapping[str, Any] = field(default_factory=dict)
    """what was spent: name -> number or text, e.g. "judge, tokens out" -> 12800"""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A claim held against the metrics; `observed` is NaN where a metric is missing."""

    text: str
    observed: float
    holds: bool
    seeds: int
    problem: str = ""
    """why it could not be held against this run, whose settings may be other than those it was made for"""


def verdicts(run: Run) -> tuple[Verdict, ...]:
    """Hold the card's claims against this run's metrics."""
    values = {name: metric.value for name, metric in run.result.metrics.items()}
    found = []
    for claim in run.card.claims if run.card else ():
        try:
            seen, holds, problem = claim.observed(values), claim.holds(values), ""
        except KeyError as error:
            seen, holds, problem = float("nan"), False, str(error.args[0]).partition(";")[0]
        found.append(Verdict(text=str(claim), observed=seen, holds=holds, seeds=claim.seeds, problem=problem))
    return tuple(found)


def interval(metric: Metric) -> str:
    """Return `[low, high]`, or nothing for an exact number."""
    return "" if metric.low is None or metric.high is None else f"[{number(metric.low)}, {number(metric.high)}]"


def strip(metric: Metric) -> Markup | None:
    """Return a small drawing of a share's interval on [0, 1] (or [-1, 1] below zero), None for other numbers."""
    if metric.low is None or metric.high is None or not -1 <= metric.low <= metric.value <= metric.high <= 1:
        return None
    floor = -1.0 if metric.low < 0 else 0.0
    at = [100 * (v - floor) / (1 - floor) for v in (metric.low, metric.high, metric.value)]
    rail = element("rect", class_="rail", x=0.0, y=4.0, width=100.0, height=4.0, rx=2.0)
    span = element("rect", class_="span", x=at[0], y=4.0, width=max(at[1] - at[0], 0.5), height=4.0, rx=2.0)
    point = element("rect", class_="point", x=min(at[2], 98.5), y=1.0, width=1.5, height=10.0)
    return element(
        "svg", rail, span, point, viewBox="0 0 100 12", preserveAspectRatio="none", aria_hidden="true", class_="strip"
    )


def pivot(metrics: Mapping[str, Metric]) -> tuple[list[str], dict[str, dict[str, Metric]], dict[str, Metric]]:
    """Split metrics named `row/column` into a table (columns, rows) where names repeat; return the others beside it."""
    split = {name: name.split("/") for name in metrics if name.count("/") == 1}
    rows = {row: sum(r == row for r, _ in split.values()) for row, _ in split.values()}
    columns = {column: sum(c == column for _, c in split.values()) for _, column in split.values()}
    kept = {name: parts for name, parts in split.items() if rows[parts[0]] > 1 and columns[parts[1]] > 1}
    table: dict[str, dict[str, Metric]] = {}
    for name, (row, column) in kept.items():
        table.setdefault(row, {})[column] = metrics[name]
    shown = list(dict.fromkeys(column for _, column in kept.values()))
    return shown, table, {name: metric for name, metric in metrics.items() if name not in kept}


def sample(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a sample as the page lays it out.

    Known keys: `title`; `prompt` or `question`; `contexts` (texts, or mappings with text, claim, source, date,
    poisoned); `answers` (name -> text, or a mapping with text, answer and verdict, where a verdict of right, attack,
    wrong, stale or unparsed has a colour); `facts` (name -> value). Of the other keys, long texts are laid side by
    side like answers and the rest are listed as facts.
    """
    others = {key: value for key, value in record.items() if key not in KNOWN}
    long = {key: value for key, value in others.items() if isinstance(value, str) and _long(value)}
    answers = {**(record.get("answers") or {}), **long}
    return {
        "title": show(record.get("title") or record.get("question") or record.get("id") or "", 200),
        "prompt": _prompt(record.get("prompt") or (record.get("question") if record.get("title") else "") or ""),
        "contexts": [_context(context) for context in record.get("contexts") or ()],
        "facts": {**(record.get("facts") or {}), **{k: v for k, v in others.items() if k not in long}},
        "answers": {name: _answer(answer) for name, answer in answers.items()},
    }


def _long(text: str) -> bool:
    return len(text) > 80 or "\n" in text.strip()


def _context(context: Any) -> dict[str, Any]:
    known = context if isinstance(context, Mapping) else {"text": context}
    notes = {key: known[key] for key in ("source", "date", "claim") if known.get(key) is not None}
    return {"text": known.get("text", ""), "poisoned": bool(known.get("poisoned")), "notes": notes}


def _answer(answer: Any) -> dict[str, Any]:
    known = answer if isinstance(answer, Mapping) else {"text": answer}
    verdict = known.get("verdict")
    tone = TONES.get(str(verdict), "")
    return {"text": known.get("text", ""), "answer": known.get("answer"), "verdict": verdict, "tone": tone}


def _prompt(prompt: Any) -> str:
    """Return a chat as text, one turn after another."""
    if isinstance(prompt, str):
        return prompt
    return "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in prompt)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    here = Path(__file__).parent
    found = Environment(
        loader=FileSystemLoader(here), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    found.filters |= {"show": show, "number": number, "interval": interval, "strip": strip, "duration": duration}
    found.globals |= {"css": Markup((here / "page.css").read_text(encoding="utf-8")), "most": MOST_ROWS}
    found.tests |= {"numeric": _numeric}
    found.filters["numeric_columns"] = _numeric_columns
    return found


def _numeric(value: Any) -> bool:
    return value is None or isinstance(value, (int, float))


def _numeric_columns(table: Table) -> list[bool]:
    """Return for each column whether it holds numbers alone."""
    return [all(_numeric(row[i]) for row in table.rows) for i in range(len(table.columns))]


def _highlights(run: Run, wanted: Sequence[str]) -> dict[str, Metric]:
    """Return the metrics for the tiles: those asked for, else those of the claims, else the first ones."""
    metrics = run.result.metrics
    claimed = [name for claim in (run.card.claims if run.card else ()) for name in claim.metric.split(" - ")]
    names = list(dict.fromkeys(name for name in (wanted or claimed) if name in metrics)) or list(metrics)
    return {name: metrics[name] for name in names[:TILES]}


def page(run: Run, highlights: Sequence[str] = ()) -> str:
    """Return the report as one HTML document.

    Args:
        run: what to show.
        highlights: metrics for the tiles; by default those of the card's claims.

    Raises:
        ValueError: a figure lacks a column or has columns of unequal length; the message names it.
    """
    columns, rows, others = pivot(run.result.metrics)
    drawn = [
        figures.draw(name, figure, f"figure-{index}") for index, (name, figure) in enumerate(run.result.figures.items())
    ]
    return (
        _environment()
        .get_template("page.html")
        .render(
            run=run,
            card=run.card,
            verdicts=verdicts(run),
            tiles=_highlights(run, highlights),
            columns=columns,
            rows=rows,
            others=others,
            figures=drawn,
            tables={name: _checked(name, table) for name, table in run.result.tables.items()},
            samples=[sample(record) for record in run.result.samples[:MOST_SAMPLES]],
            left_out=max(0, len(run.result.samples) - MOST_SAMPLES),
            config=yaml_text(run.config) if run.config else "",
        )
    )


def _checked(name: str, table: Table) -> Table:
    for index, row in enumerate(table.rows):
        if len(row) != len(table.columns):
            raise ValueError(f"table {name!r}, row {index}: {len(row)} cells for {len(table.columns)} columns")
    return table
