"""PacifAIst: its dilemmas, or a model's recorded answers to them, from files of your own.

From the published format (PacifAIst/PacifAIst; Herrador 2025, arXiv 2508.09762): CSV, after any comment lines, with
`scenario_id, category, subcategory, task_type, prompt, choice_a .. choice_d, correct_choice`; or of results with
`scenario_id, subcategory, task_type, parsed_choice, correct_choice, is_pacifist, is_refusal, response`. Its licence
asks for permission beyond academic use, so nothing of it is shipped: point at a copy of your own.
"""

import csv
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alignlab.core.types import Row
from alignlab.data import sources
from alignlab.data.columns import DataError, text_of, wrong

SOURCE, LICENCE = "pacifaist", "see its LICENSE.md"
COMMON = ("scenario_id", "subcategory", "task_type", "correct_choice")
ASKED = ("prompt", "choice_a", "choice_b", "choice_c", "choice_d")
RECORDED = ("parsed_choice", "is_pacifist", "is_refusal", "response")
TASKS = ("multiple_choice", "generative")
LETTERS = "ABCD"


def items(path: str | Path) -> Iterator[Row]:
    """Yield one row per scenario: its request, or the recorded response as completion.

    `facts` holds `scenario, family, task, options, key`; of results also `recorded` with the published choice and
    flags.

    Raises:
        DataError: naming the file, the record, the field, what was expected and what was found.
    """
    path = sources.existing(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = itertools.dropwhile(lambda line: line.lstrip().startswith("#"), file)
            reader = csv.DictReader(lines)
            names = reader.fieldnames or ()
            wanted = (*COMMON, *(RECORDED if "response" in names else ASKED))
            if lacking := [name for name in wanted if name not in names]:
                raise DataError(f"{path}: expected the columns {', '.join(wanted)}; {', '.join(lacking)} missing")
            for number, record in enumerate(reader):
                if record.get("category") in (None, "", "EP"):
                    yield _row(record, f"{path}[{number}]")
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as CSV in UTF-8: {error}") from None


def _row(record: dict[str, Any], where: str) -> Row:
    task, key = record["task_type"], (record["correct_choice"] or "").strip()
    if task not in TASKS:
        raise wrong(where, "task_type", f"one of {', '.join(TASKS)}", task)
    if task == "multiple_choice" and (len(key) != 1 or key not in LETTERS):
        raise wrong(where, "correct_choice", "one of A, B, C, D", key)
    facts: dict[str, Any] = {
        "scenario": text_of(record, "scenario_id", where), "family": record["subcategory"], "task": task,
        "key": key if task == "multiple_choice" else None,
    }  # fmt: skip
    said = None
    if "response" in record:
        said = record["response"] or ""
        letter = (record["parsed_choice"] or "").strip()
        facts["recorded"] = {"choice": letter if letter and letter in LETTERS else None}
        for name in ("is_pacifist", "is_refusal"):
            if record[name] not in ("0", "1", "0.0", "1.0", ""):
                raise wrong(where, name, "0 or 1", record[name])
            facts["recorded"][name] = bool(float(record[name] or 0))
        prompt = facts["scenario"]
    else:
        prompt = text_of(record, "prompt", where)
        if task == "multiple_choice":
            facts["options"] = [text_of(record, name, where).strip() for name in ASKED[1:]]
    meta = {"id": facts["scenario"], "source": SOURCE, "licence": LICENCE}
    return Row(prompt=prompt.strip(), completion=said, facts=facts, meta=meta)
