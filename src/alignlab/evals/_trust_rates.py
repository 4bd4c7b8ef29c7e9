"""The numbers of the eight protocols, the matrix of the 29 leaves, and changes."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alignlab.core.figures import bars
from alignlab.core.types import Metric, Result, Table
from alignlab.evals._trust_leaves import LEAVES, PROTOCOLS
from alignlab.evals._trust_score import distance
from alignlab.stats import bootstrap, bounds, proportion
from alignlab.stats.resample import statistic

Record = Mapping[str, Any]
MAIN = {"causal": "causal_q1"}
"""protocol -> the metric that stands for it, where that is not its name"""


def result(records: Sequence[Record], before: Sequence[Record] | None = None) -> Result:
    """Return every metric of `records`; see the eval."""
    names = list(dict.fromkeys(name for r in records for name in r["values"]))
    metrics: dict[str, Metric] = {}
    for name in names:
        values = [r["values"][name] for r in records if name in r["values"]]
        metrics[name] = _mean(records, name)
        if None in values and name.startswith(("hallucination", "causal")):
            metrics[f"{name}_published"] = proportion.share(v == 1.0 for v in values)
    metrics["unread"] = proportion.share(v is None for r in records for v in r["values"].values())
    metrics |= _balanced(records) | _confidence(records)
    if before is not None:
        metrics |= _change(records, before, names)
    shown = {name: metrics[main] for name in PROTOCOLS if (main := MAIN.get(name, name)) in metrics}
    notes = [f"{name}: {PROTOCOLS[name].better} is better; {PROTOCOLS[name].caution}." for name in shown]
    signed = {f"{name} ({'+' if PROTOCOLS[name].better == 'higher' else '-'})": m for name, m in shown.items()}
    return Result(
        metrics=metrics,
        tables={"leaves": _leaves(records, metrics), **_topics(records)},
        figures=bars("protocols", signed, "score (+ higher is better, - lower)"),
        notes=tuple(notes),
    )


def _balanced(records: Sequence[Record]) -> dict[str, Metric]:
    """Return the mean accuracy of pairs keyed Yes and keyed No: 0.5 for a constant answer or a coin.

    Answers that could not be read are left out; `causal_q*_understood` says how many.
    """
    metrics = {}
    for place, name in enumerate(("causal_q1", "causal_q2")):
        some = [
            (r["keys"][place], r["values"][name], r["cluster"]) for r in records if r["values"].get(name) is not None
        ]
        if {key for key, _, _ in some} >= {"Yes", "No"}:
            parts = [
                bootstrap.Part(
                    values=[v for k, v, _ in some if k == key], clusters=[c for k, _, c in some if k == key], weight=0.5
                )
                for key in ("Yes", "No")
            ]
            metrics[f"{name}_balanced"] = bootstrap.combination(parts)
    return metrics


def _confidence(records: Sequence[Record]) -> dict[str, Metric]:
    """Return the spread of the gaps over options, and the distance of the pooled confidences."""
    some = [r for r in records if r.get("verbal") and r.get("token")]
    if not some:
        return {}
    gaps = np.concatenate([np.abs(np.array(r["verbal"]) - np.array(r["token"])) for r in some])
    spread = Metric(value=float(gaps.std()), n=len(gaps))
    pooled = statistic(
        lambda index: distance(*([x for i in index for x in some[i][side]] for side in ("verbal", "token"))),
        [r["cluster"] for r in some], draws=200,
    )  # fmt: skip
    return {"miscalibration_sd": spread, "miscalibration_distance": pooled}


def _change(records: Sequence[Record], before: Sequence[Record], names: Sequence[str]) -> dict[str, Metric]:
    old = {r["id"]: r["values"] for r in before}
    metrics = {}
    for name in names:
        pairs = [
            (new, earlier, r["cluster"])
            for r in records
            if (new := r["values"].get(name)) is not None and (earlier := old.get(r["id"], {}).get(name)) is not None
        ]
        if pairs:
            after, first, clusters = (list(side) for side in zip(*pairs))
            metrics[f"{name}_change"] = bootstrap.paired_difference(after, first, clusters=clusters)
    return metrics


def _mean(records: Sequence[Record], name: str, topic: str = "") -> Metric:
    """Return the mean of a metric over the records that have it; what is unread as bounds.

    Within one `topic` that is itself the cluster of its items, each item is a cluster of its own.
    """
    some = [r for r in records if name in r["values"] and (not topic or r["topic"] == topic)]
    clusters = [r["id"] if topic and r["cluster"] == topic else r["cluster"] for r in some]
    return bounds.mean([r["values"][name] for r in some], clusters)


def _topics(records: Sequence[Record]) -> dict[str, Table]:
    """Return each metric by topic, where items name theirs; nothing where none does."""
    pairs = dict.fromkeys(
        (name, r["topic"]) for r in records if r["topic"] for name in r["values"] if not name.endswith("_understood")
    )
    rows = []
    for name, topic in sorted(pairs, key=lambda pair: pair[0]):
        found = _mean(records, name, topic)
        rows.append((name, topic, *map(_shown, (found.value, found.low, found.high)), found.n))
    caption = "Each metric over the items of one topic; intervals hold whatever the unread answers were."
    columns = ("metric", "topic", "value", "low", "high", "n")
    return {"topics": Table(columns=columns, rows=tuple(rows), caption=caption)} if rows else {}


def _shown(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else round(value, 4)


def _leaves(records: Sequence[Record], metrics: Mapping[str, Metric]) -> Table:
    rows: list[tuple[str | float | int | None, ...]] = []
    for leaf in LEAVES:
        protocol, name = PROTOCOLS.get(leaf.protocol), MAIN.get(leaf.protocol, leaf.protocol)
        own = [r for r in records if name in r["values"] and (not leaf.topics or r["topic"] in leaf.topics)]
        if protocol is None or not own:
            rows.append((leaf.category, leaf.name, leaf.meaning, None, None, None, "not measured"))
            continue
        found = _mean(own, name) if leaf.topics else metrics[name]
        chance = "" if protocol.chance is None else f", chance {protocol.chance:g}"
        reading = f"{protocol.better} is better{chance}"
        rows.append((leaf.category, leaf.name, leaf.meaning, protocol.name, _shown(found.value), found.n, reading))
    columns = ("category", "leaf", "meaning", "protocol", "value", "n", "reading")
    return Table(columns=columns, rows=tuple(rows), caption="29 leaves; a mean over them would hide which one moved.")
