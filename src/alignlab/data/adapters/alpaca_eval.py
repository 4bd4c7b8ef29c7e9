"""AlpacaEval: judged answers of a model beside the baseline's, or a baseline's answers to be beaten.

From the published formats (tatsu-lab/alpaca_eval, Apache-2.0; Dubois et al. 2024, arXiv 2404.04475):
`annotations.json`, an array of `{instruction, dataset, output_1, generator_1, output_2, generator_2, preference}` with
the baseline's answer first and a preference from 1 (the baseline's) to 2 (the model's), and `model_outputs.json`, an
array of `{instruction, dataset, output, generator}`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alignlab.core.evidence import digest
from alignlab.core.types import Row
from alignlab.data import sources
from alignlab.data.columns import text_of, wrong

SOURCE, LICENCE = "alpaca_eval", "Apache-2.0"


def items(path: str | Path) -> Iterator[Row]:
    """Yield one row per instruction, with `facts["baseline"]`; the two kinds may be mixed.

    Of annotations `completion` is the model's answer and `facts["games"]` the judge's verdict, so that neither need be
    asked; of outputs there is neither, and the answers of the file are the baseline's.

    Raises:
        DataError: naming the file, the entry, the field, what was expected and what was found.
    """
    for where, entry in sources.json_objects(path):
        judged = "preference" in entry
        said = [_answer(entry, name, where) for name in (("output_1", "output_2") if judged else ("output",))]
        facts: dict[str, Any] = {"baseline": said[0], "category": entry.get("dataset")}
        if judged:
            facts["games"] = [{"model_first": False, "grade": None, "p": _preference(entry["preference"], where)}]
        request = text_of(entry, "instruction", where)
        # The digest, not its place: files of two models may differ in order.
        meta = {"id": f"{SOURCE}-{digest(request)}", "source": SOURCE, "licence": LICENCE}
        yield Row(prompt=request, completion=said[1] if judged else None, facts=facts, meta=meta)


def _answer(entry: dict[str, Any], field: str, where: str) -> str:
    if not isinstance(entry.get(field), str):
        raise wrong(where, field, "text", entry.get(field))
    return str(entry[field])


def _preference(value: Any, where: str) -> float | None:
    """Return P(the model's answer is preferred); 0 is a draw, as in older files, null a judge who could not be read."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (value == 0 or 1 <= value <= 2):
        raise wrong(where, "preference", "a number from 1 to 2, or 0 for a draw", value)
    return float(value) - 1 if value else 0.5
