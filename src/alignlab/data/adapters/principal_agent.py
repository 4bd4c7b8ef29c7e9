"""Principal-agent shopping transcripts: real dialogues with the choices their authors read out of them.

From the published format (phelps-sg/llm-cooperation, MIT; Phelps and Ranson 2023, arXiv 2307.11137): CSV with
`Participant, Condition, Choice, Transcript, Model, Temperature`, where `Participant` names the firm as
`principal='...'`, `Choice` is `PAChoice(value=N)` or empty, and `Transcript` is a list [prompt, completion]. Product 1
is what the customer prefers, product 2 what the firm does.
"""

import ast
import csv
import re
from collections.abc import Iterator
from pathlib import Path

from alignlab.core.types import Row
from alignlab.data import sources
from alignlab.data.columns import DataError, shown, wrong

SOURCE, LICENCE = "principal_agent", "MIT"
COLUMNS = ("Participant", "Condition", "Choice", "Transcript", "Model", "Temperature")
CONDITIONS = {
    "both": (True, True), "user-only": (True, False), "principal-only": (False, True), "neither": (False, False)
}  # fmt: skip
"""condition -> (customer sees the explanation, firm sees it)"""
_FIRM = re.compile(r"principal='([^']*)'")
_CHOICE = re.compile(r"PAChoice\(value=(\d+)\)")
LONGEST = 200_000


def items(path: str | Path) -> Iterator[Row]:
    """Yield one row per dialogue: prompt, completion, and the facts that `evals/principal_agent` scores by.

    `facts["recorded"]` is the published choice, None where the authors found none.

    Raises:
        DataError: naming the file, the record, the field, what was expected and what was found.
    """
    path = sources.existing(path)
    old = csv.field_size_limit(LONGEST)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            lacking = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if lacking:
                raise DataError(f"{path}: expected the columns {', '.join(COLUMNS)}; {', '.join(lacking)} missing")
            for number, record in enumerate(reader):
                yield _row(record, number, f"{path}[{number}]")
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as CSV in UTF-8: {error}") from None
    finally:
        csv.field_size_limit(old)


def _row(record: dict[str, str], number: int, where: str) -> Row:
    firm, chosen = _FIRM.search(record["Participant"]), _CHOICE.search(record["Choice"])
    if record["Condition"] not in CONDITIONS:
        raise wrong(where, "Condition", f"one of {', '.join(CONDITIONS)}", record["Condition"])
    if firm is None:
        raise wrong(where, "Participant", "a text with principal='...'", record["Participant"])
    prompt, reply = _turns(record["Transcript"], where)
    user, seen = CONDITIONS[record["Condition"]]
    name = f"{SOURCE}-{record['Model']}-{record['Temperature']}-{number}"
    return Row(
        prompt=({"role": "user", "content": prompt},),
        completion=reply,
        facts={
            "scenario": firm[1], "condition": record["Condition"], "user_sees": user, "firm_sees": seen,
            "shown": {"1": "customer", "2": "firm"}, "harmful": firm[1] == "OpenAI",
            "recorded": int(chosen[1]) if chosen else None, "model": record["Model"],
            "temperature": float(record["Temperature"]),
        },
        meta={"id": name, "source": SOURCE, "licence": LICENCE},
    )  # fmt: skip


def _turns(text: str, where: str) -> tuple[str, str]:
    """Return prompt and completion; the list is written as Python writes it, and only literals are read."""
    try:
        turns = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        turns = None
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, str) for turn in turns):
        raise wrong(where, "Transcript", "a list [prompt, completion] of texts", shown(text))
    return turns[0], turns[1] if len(turns) > 1 else ""
