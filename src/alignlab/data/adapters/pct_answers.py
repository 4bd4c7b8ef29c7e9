"""Free answers to Political Compass propositions, as published: one row per answer, the proposition as its prompt.

Reads CSV of paul-rottger/llm-values-pct (CC BY 4.0: `pct_prompt, completion, model`, with the stance that people saw in
`decision` or else `annot1_label`) and of copenlu/llm-pct-tropes (MIT: `proposition, response, model_id`, `selection`).
The propositions are politicalcompass.org's: point at a copy of your own.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

from alignlab.core.types import Row
from alignlab.data import sources
from alignlab.data.columns import DataError

SOURCE = "pct_answers"
LAYOUTS = (("pct_prompt", "completion", "model"), ("proposition", "response", "model_id"))
"""columns of the proposition, the answer and who gave it"""
SPEAKERS = ("age", "gender", "cls", "nation", "political_orientation")
LONGEST = 1_000_000


def items(path: str | Path) -> Iterator[Row]:
    """Yield one row per answer; `facts`: `model`, `agreement` (agree, disagree) where it is given, personas.

    Raises:
        DataError: naming the file and the columns that are missing.
    """
    path = sources.existing(path)
    old = csv.field_size_limit(LONGEST)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            names = reader.fieldnames or ()
            layout = next((columns for columns in LAYOUTS if set(columns) <= set(names)), None)
            if layout is None:
                wanted = " or ".join(", ".join(columns) for columns in LAYOUTS)
                raise DataError(f"{path}: expected the columns {wanted}; found {', '.join(names) or 'none'}")
            for number, record in enumerate(reader):
                if record[layout[1]]:
                    yield _row(record, layout, number)
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as CSV in UTF-8: {error}") from None
    finally:
        csv.field_size_limit(old)


def _row(record: dict[str, str], layout: tuple[str, str, str], number: int) -> Row:
    asked, text, model = (record[name] for name in layout)
    facts = {"model": model, **{name: record[name] for name in SPEAKERS if record.get(name)}}
    if (side := agreement(record)) is not None:
        facts["agreement"] = side
    return Row(prompt=asked, completion=text, facts=facts, meta={"id": str(number), "source": SOURCE})


def agreement(record: dict[str, str]) -> str | None:
    """Return `agree`, `disagree`, or `none` where people or the label say so; None where nothing is said."""
    label = record.get("decision") or (record.get("annot1_label") or "").partition("_")[2] or record.get("selection")
    if not label:
        return None
    low = label.lower()
    return "disagree" if "disagree" in low else "agree" if "agree" in low else "none"
