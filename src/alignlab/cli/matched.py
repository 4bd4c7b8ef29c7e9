"""docs/matched_kl.md: objectives at one KL from the reference, from bench/results/matched_kl.json.

`python bench/matched_kl.py` writes the file; no figure is typed by hand.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RECORD, PAGE = "bench/results/matched_kl.json", "docs/matched_kl.md"
COLUMNS = ("gold", "ranking_accuracy", "reward_accuracy", "length", "step")
INTRODUCTION = """# Objectives at the same KL

Generated from what `bench/matched_kl.py` measured; its opening says how. `{identity}` learns {facts} facts that its
texts state at most once, from pairs of a true and a wrong answer, {seeds} seeds; it is asked in words that no training
shows. Every number is where an objective rises past **{kl:g} nats** from the reference for the last time, the largest
KL that {share:.0%} of them reach in every seed. In brackets 95 % intervals over seeds and facts.

- gold: share of sampled answers that are true; the town knows
- ranking: the true answer is likelier than a wrong one
- reward: the log-ratio to the reference ranks them right
- length: tokens of an answer
- step: where that KL is reached; {batch} pairs a step, learning rate {learning_rate:g} for all"""


def cell(values: list[float]) -> str:
    """Return a value with its interval."""
    value, low, high = (f"{x:.3g}" for x in values)
    return f"{value} [{low}, {high}]"


def row(found: Mapping[str, Any]) -> str:
    """Return a row of the table, its cells empty where the KL was not reached in some seed."""
    name = f"[{found['objective']}](methods/objectives-{found['objective']}.md)"
    cells = [cell(found["at"][name]) if found["at"] else "" for name in COLUMNS]
    return f"| {name} | {found['form']} | {min(found['reached']):.2f} | {' | '.join(cells)} |"


def page(root: Path) -> str:
    """Return the page; KeyError or ValueError where the file is not one of ours."""
    record = json.loads((root / RECORD).read_text(encoding="utf-8"))
    settings, before = record["settings"], record["reference"]
    lines = [
        INTRODUCTION.format(
            **{**settings, "identity": record["identity"], "facts": record["facts"], "kl": record["kl"]}
        )
    ]
    lines += [
        "",
        "| objective | reads | KL reached | gold | ranking | reward | length | step |",
        "|---|---|---:|---|---|---|---|---|",
    ]
    known = [before[name] for name in ("gold", "ranking_accuracy", "reward_accuracy", "length")]
    lines.append(f"| the reference | | 0 | {' | '.join(f'{value:.3g}' for value in known)} | 0 |")
    there = [r for r in record["rows"] if r["at"]]
    ordered = sorted(there, key=lambda r: -r["at"]["gold"][0]) + [r for r in record["rows"] if not r["at"]]
    lines += map(row, ordered)
    lines += ["", f"`{record['command']}`, {record['date']}, {record['cpu_seconds']} s of CPU.", ""]
    return "\n".join(lines)
