"""Published data read by our parsers and scores: what reproduces, and how well labels of people are met.

    python bench/published.py [--elections FOLDER] [--pacifaist FOLDER] [--trustworthy FOLDER]

Of files under ALIGNLAB_DATA: stances and refusals against two annotators (Cohen's kappa, ours beside the published
patterns), choices of real transcripts. Of folders that you fetch yourself, since their licences keep them out of ours:
one election of gockelhahn/qual-o-mat-data, `results` of PacifAIst/PacifAIst, `gen_data` of kevinyaobytedance/llm_eval.
Writes bench/results/published.json; parts that are not named keep what an earlier run found.
"""

import argparse
import importlib.util
import json
import os
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from alignlab.core import stance
from alignlab.core.files import write_text
from alignlab.core.types import Metric, Row
from alignlab.data.adapters import pacifaist as dilemmas
from alignlab.data.adapters import principal_agent as transcripts
from alignlab.data.adapters import qual_o_mat
from alignlab.evals import _election as election
from alignlab.evals import pacifaist, principal_agent, trustworthy
from alignlab.harness import local
from alignlab.stats.kappa import kappa

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "bench" / "results" / "published.json"
DATA = Path(os.environ.get("ALIGNLAB_DATA") or ROOT.parent / "shared" / "data")


def shown(metric: Metric) -> dict[str, float | int | None]:
    """Return a metric as data."""
    ends = [None if end is None else round(end, 6) for end in (metric.low, metric.high)]
    return {"value": round(metric.value, 6), "low": ends[0], "high": ends[1], "n": metric.n}


def _labels() -> Any:
    """The golden test of the parsers: it knows how the files name their labels and how the release reads answers."""
    spec = importlib.util.spec_from_file_location("golden", ROOT / "tests" / "core" / "test_stance.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parsers() -> dict[str, Any]:
    """Return kappa of each reader with the label that the two annotators agreed on; rules were mended on even rows."""
    golden, found = _labels(), {}
    for part, name in (((1,), "odd rows"), ((0, 1), "all rows")):
        rows = golden.labelled(DATA / "pct" / "agreement_classification.csv", part)
        gold = [golden.gold_stance(row) for row in rows]
        found[f"stance, {name}"] = {
            "ours": shown(kappa(gold, [stance.read(row["completion"], row["pct_prompt"]).stance for row in rows])),
            "published patterns": shown(kappa(gold, [golden.published_reading(row["completion"]) for row in rows])),
            "one annotator with the other": shown(
                kappa([row["annot1_label"] for row in rows], [row["annot2_label"] for row in rows])
            ),
        }
        rows = golden.labelled(DATA / "pct" / "invalid_completions.csv", part)
        kinds = [stance.evasion(row["completion"]) for row in rows]
        ours = [next(kind for kind in stance.EVASIONS[1:] if one[kind]) for one in kinds]
        gold = [golden.gold_evasion(row) for row in rows]
        found[f"refusal, {name}"] = {
            "ours": shown(kappa(gold, ours)), "published patterns": shown(kappa(gold, ["refusal"] * len(rows)))
        }  # fmt: skip
    return found


def choices() -> dict[str, int]:
    """Return how many choices of the transcripts are read as their authors recorded them."""
    rows = list(transcripts.items(DATA / "principal_agent" / "gpt-3.5-turbo-temp-0.2.csv"))
    same = sum(principal_agent.score(row, [])["number"] == row.facts["recorded"] for row in rows)
    return {"transcripts": len(rows), "read as recorded": same}


def elections(folder: Path) -> dict[str, Any]:
    """Return each party's score for who agrees with all, is neutral to all, or tosses a three-sided coin (expected)."""
    theses = list(qual_o_mat.items(folder))
    found = {}
    for party in theses[0].facts["positions"]:
        held = [row.facts["positions"][party] for row in theses]
        constant = {a: election.score([a] * len(held), held) for a in (1, 0, -1)}
        found[party] = {
            "agree": round(constant[1], 6), "neutral": round(constant[0], 6),
            "three-way coin": round(sum(constant.values()) / 3, 6),
        }  # fmt: skip
    return {"theses": len(theses), "parties": found}


def released(folder: Path) -> dict[str, Any]:
    """Return the P-score of each released result file, by its flags and as we read the responses, and where these part.

    Two things part them: a choice that we read otherwise, and a response that we cannot read or that refuses. `p_score`
    leaves out what is unread, as a bound; `read, unread counted wrong` counts it as the release does.
    """
    found = {}
    for path in sorted(folder.rglob("*_results.csv")):
        records = [pacifaist.score(row, []) for row in dilemmas.items(path)]
        metrics = pacifaist.aggregate(records).metrics
        asked = [r for r in records if r["multiple"]]
        elsewhere = [r for r in asked if r["key"] != "A"]
        found[path.parent.name] = {
            name: shown(metrics[name])
            for name in ("recorded_p_score", "p_score", "recorded_agreement", "recorded_refusal", "refusal")
        } | {
            "read, unread counted wrong": round(sum(r["choice"] == r["key"] for r in asked) / len(asked), 6),
            "unread": sum(r["choice"] is None and not r["refused"] for r in asked),
            "refused in words": sum(r["choice"] is None and r["refused"] for r in asked),
            "read otherwise": {
                r["id"]: f"recorded {r['recorded']['choice']}, read {r['choice']}, key {r['key']}"
                for r in asked if r["recorded"]["choice"] != r["choice"]
            },
            "flag is not recorded choice = key": [
                r["id"] for r in asked if r["recorded"]["is_pacifist"] != (r["recorded"]["choice"] == r["key"])
            ],
            "recorded where the key is not A": sum(r["recorded"]["choice"] == r["key"] for r in elsewhere),
            "keys that are not A": len(elsewhere), "constant A": sum(r["key"] == "A" for r in asked),
        }  # fmt: skip
    return found


def labels(folder: Path) -> dict[str, Any]:
    """Return by model how often our reading of the two answers to a clean and a slipped sentence is the judge's label.

    The release keeps what the judge of the label said; two answers are joined by a line of four dashes, as an own row
    of the eval may have them.
    """
    rows = []
    for line in (folder / "typo.jsonl").read_text(encoding="utf-8").splitlines():
        one = json.loads(line)
        meta = {"id": str(len(rows)), "model": one["source_model"], "label": int(one["label"])}
        rows.append(Row(prompt=one["question"], completion=one["answer"], facts={"protocol": "typo"}, meta=meta))
    records = local.play(trustworthy, trustworthy.Config(), rows, _nobody)
    found: dict[str, dict[str, int]] = {}
    for row, record in zip(rows, records, strict=True):
        value = record["values"]["typo"]
        counts = found.setdefault(row.meta["model"], {"rows": 0, "same as the label": 0, "unread": 0})
        counts["rows"] += 1
        counts["unread"] += value is None
        counts["same as the label"] += value is not None and int(value) == row.meta["label"]
    return found


def _nobody(role: str) -> Any:
    raise ValueError(f"rows with answers ask nobody, but the {role} was asked")


PARTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "elections": elections, "pacifaist": released, "trustworthy": labels
}  # fmt: skip


def main() -> None:
    """Run what can be run and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in PARTS:
        parser.add_argument(f"--{name}", type=Path)
    given = vars(parser.parse_args())
    kept = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {}
    kept |= {"command": "python bench/published.py", "date": date.today().isoformat()}
    kept |= {"kappa": parsers(), "principal_agent": choices()}
    kept |= {name: part(given[name]) for name, part in PARTS.items() if given[name]}
    write_text(OUT, json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    print(json.dumps(kept, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
