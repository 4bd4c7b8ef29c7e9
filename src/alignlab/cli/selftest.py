"""`selftest`: run each card's smoke command in a fresh folder and hold its claims against the result.json it leaves."""

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from alignlab.cli import about, flags
from alignlab.core.cards import Card

BUDGET, FIELDS_BUDGET = 60.0, 180.0
"""seconds a smoke command may take on two cores"""
PATIENCE = 10
"""times the budget after which a command is stopped"""


@dataclass(frozen=True, kw_only=True)
class Selftest:
    """Flags of `selftest`."""

    family: str | None = None
    """only this family"""
    methods: tuple[str, ...] = ()
    """only these methods"""
    json: bool = False
    """print JSON for programs"""
    keep: str | None = None
    """keep the run folders in this folder"""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one claim came to."""

    method: str
    claim: str
    observed: float | None
    holds: bool
    seconds: float
    within_budget: bool
    error: str = ""


def command(card: Card, out: Path) -> list[str]:
    """Return the smoke command as words, run by this very interpreter; ValueError for one that is not ours."""
    words = shlex.split(card.smoke.replace("{out}", shlex.quote(str(out))))
    if words[:1] != ["alignlab"] or "{out}" not in card.smoke:
        raise ValueError(f"smoke command {card.smoke!r}: expected `alignlab ... --output_dir {{out}}`")
    return [sys.executable, "-m", "alignlab.cli.main", *words[1:]]


def judge(card: Card, folder: Path) -> list[tuple[str, float | None, bool, str]]:
    """Hold a card's claims against result.json: (claim, observed, holds, error) each."""
    try:
        metrics = json.loads((folder / "result.json").read_text(encoding="utf-8"))["metrics"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [(str(claim), None, False, f"no usable result.json: {error}") for claim in card.claims]
    numbers = {name: float("nan") if value is None else float(value) for name, value in metrics.items()}
    judged: list[tuple[str, float | None, bool, str]] = []
    for claim in card.claims:
        try:
            judged.append((str(claim), claim.observed(numbers), claim.holds(numbers), ""))
        except KeyError as error:
            judged.append((str(claim), None, False, str(error.args[0])))
    return judged


def prove(identifier: str, card: Card, folder: Path, budget: float) -> list[Outcome]:
    """Run one smoke command and judge it."""
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    error = "" if card.claims else "the card claims nothing"
    try:
        done = subprocess.run(
            command(card, folder), capture_output=True, text=True, timeout=PATIENCE * budget, cwd=folder,
            env=os.environ | {"PYTHONUTF8": "1"},
        )  # fmt: skip
        if done.returncode != 0:
            error = f"exit code {done.returncode}: {' '.join(done.stderr.split())[-400:]}"
    except subprocess.TimeoutExpired:
        error = f"stopped after {PATIENCE * budget:.0f} s"
    seconds = round(time.monotonic() - began, 2)
    judged = judge(card, folder) if not error else [(str(c), None, False, error) for c in card.claims]
    return [
        Outcome(method=identifier, claim=claim, observed=observed, holds=holds, seconds=seconds,
                within_budget=seconds <= budget, error=why)
        for claim, observed, holds, why in judged or [("", None, False, error)]
    ]  # fmt: skip


def selftest(argv: Sequence[str]) -> int:
    """Prove every method; exit code 1 if a claim fails."""
    groups = [flags.Group("Selection", Selftest)]
    if about.asked_for_help("selftest", groups, argv):
        return 0
    values = flags.parse("alignlab selftest", groups, argv)
    wanted = [about.locate(name)[:2] for name in values["methods"]]
    chosen = [m for m in about.cards(values["family"]) if not wanted or m[:2] in wanted]
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="alignlab-selftest-") as scratch:
        root = Path(values["keep"] or scratch).resolve()
        for number, (family, name, module) in enumerate(chosen, 1):
            print(f"[{number}/{len(chosen)}] {family}/{name}: {module.CARD.smoke}", file=sys.stderr, flush=True)
            budget = FIELDS_BUDGET if family == "fields" else BUDGET
            fresh = prove(f"{family}/{name}", module.CARD, _fresh(root / family / name), budget)
            outcomes += fresh
            if not values["json"]:
                for outcome in fresh:
                    print(line(outcome), flush=True)
    if values["json"]:
        print(json.dumps([_finite(asdict(outcome)) for outcome in outcomes], indent=2, ensure_ascii=False))
    failed = {o.method for o in outcomes if not o.holds}
    print(f"{len(chosen) - len(failed)} of {len(chosen)} methods hold what they claim", file=sys.stderr)
    return 1 if failed else 0


def _fresh(folder: Path) -> Path:
    """A kept folder of an earlier run must not pass for this one."""
    number = 2
    while folder.exists():
        folder = folder.with_name(f"{folder.name.split('.')[0]}.{number}")
        number += 1
    return folder


def _finite(record: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and v != v else v for k, v in record.items()}


def line(outcome: Outcome) -> str:
    """One line for people."""
    observed = "-" if outcome.observed is None else f"{outcome.observed:.4g}"
    slow = "" if outcome.within_budget else " (over its budget)"
    verdict = "holds" if outcome.holds else "FAILS"
    why = f"  {outcome.error}" if outcome.error else ""
    return f"{verdict}  {outcome.method:<32} {outcome.claim}: observed {observed}, {outcome.seconds:.1f} s{slow}{why}"
