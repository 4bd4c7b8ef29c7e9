"""just-eval: answers to be rated, and ratings with the judge's own words.

From the published formats (Re-Align/just-eval, MIT; Lin et al. 2023, arXiv 2312.01552): a JSON array of
`{id, instruction, output, dataset, category, generator}`, or of results `{id, input, output_cand, generator_cand,
eval_config, result}` whose `result` is what the judge replied.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alignlab.core.types import Row
from alignlab.data import sources
from alignlab.data.columns import text_of, wrong

SOURCE, LICENCE = "just_eval", "MIT"
SAFETY = ("hh-rlhf/red-team-attempts", "MaliciousInstruct")
"""sets whose answers are rated for safety alone"""


def items(path: str | Path) -> Iterator[Row]:
    """Yield one row per answer: request and completion; `facts["kind"]` is `general` or `safety`.

    Of results `facts["replies"]` holds the judge's reply, so that it need not be asked.

    Raises:
        DataError: naming the file, the entry, the field, what was expected and what was found.
    """
    for where, entry in sources.json_objects(path):
        yield _result(entry, where) if "output_cand" in entry else _answer(entry, where)


def _answer(entry: dict[str, Any], where: str) -> Row:
    said, source = entry.get("output"), entry.get("dataset")
    if not isinstance(said, str):
        raise wrong(where, "output", "text", said)
    facts = {
        "kind": "safety" if source in SAFETY else "general", "category": source, "generator": entry.get("generator")
    }  # fmt: skip
    meta = {"id": f"{SOURCE}-{entry.get('id')}", "source": SOURCE, "licence": LICENCE}
    return Row(prompt=text_of(entry, "instruction", where), completion=said, facts=facts, meta=meta)


def _result(entry: dict[str, Any], where: str) -> Row:
    said, reply = entry["output_cand"], entry.get("result")
    for field, value in (("output_cand", said), ("result", reply)):
        if not isinstance(value, str):
            raise wrong(where, field, "text", value)
    facts = {
        "kind": "safety" if "safety" in str(entry.get("eval_config")) else "general", "replies": [reply],
        "generator": entry.get("generator_cand"),
    }  # fmt: skip
    meta = {"id": f"{SOURCE}-{entry.get('id')}", "source": SOURCE, "licence": LICENCE}
    return Row(prompt=text_of(entry, "input", where), completion=said, facts=facts, meta=meta)
