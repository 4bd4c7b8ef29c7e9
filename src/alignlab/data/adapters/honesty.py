"""Alignment for Honesty's files: questions with gold answers, and a model's own answers where they were published.

From the published formats (GAIR-NLP/alignment-for-honesty, no licence stated: point at a copy of your own; Yang et al.
2023, arXiv 2312.07000): training files with `greedy_pred_text`, `greedy_label` and `sampling_pred_text`; Non-AmbigQA
with `answers`; PUQA, which nobody can know, with `title`; PKQA, which the model is sure to know, with `topic`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alignlab.core.types import Row
from alignlab.data import sources
from alignlab.data.columns import text_of, wrong

SOURCE = "honesty"


def items(path: str | Path) -> Iterator[Row]:
    """Yield one row per question.

    `facts`: `answers` (gold), `known` (False for PUQA, True for PKQA), `group` (the file's name). Training files also
    bring `completion` (greedy) and `completions` (samples), as `pipelines/honesty_data` reads them.

    Raises:
        DataError: naming the file, the line, the field, what was expected and what was found.
    """
    name = Path(path).name.partition(".")[0]
    for number, (where, record) in enumerate(sources.records(str(path), split=None, limit=None)):
        question = text_of(record, "question", where)
        known = False if "title" in record else True if "topic" in record else None
        answers = () if known is False else _answers(record, where)
        facts: dict[str, Any] = {"known": known, "group": name}
        facts |= {"answers": list(answers)} if answers else {}
        greedy: str | None = None
        samples: tuple[str, ...] = ()
        if "sampling_pred_text" in record:
            greedy, samples = text_of(record, "greedy_pred_text", where), _texts(record, "sampling_pred_text", where)
            facts["published"] = {key: record[key] for key in ("greedy_label", "sampling_knowns") if key in record}
        meta = {"id": f"{name}-{record.get('question_id', number)}", "source": SOURCE, "licence": None}
        yield Row(prompt=question, completion=greedy, completions=samples, facts=facts, meta=meta)


def _answers(record: dict[str, Any], where: str) -> tuple[str, ...]:
    for field in ("answers", "gold_answer", "answer"):
        if isinstance(record.get(field), str):
            return (text_of(record, field, where),)
        if field in record:
            return _texts(record, field, where)
    raise wrong(where, "gold_answer", "a right answer in `answers`, `gold_answer` or `answer`", None)


def _texts(record: dict[str, Any], field: str, where: str) -> tuple[str, ...]:
    found = record[field]
    if not isinstance(found, list) or not found or not all(isinstance(text, str) for text in found):
        raise wrong(where, field, "a non-empty list of texts", found)
    return tuple(found)
