"""Persona statements of Perez et al.: what somebody with a trait would and would not say.

From the published format (anthropics/evals, CC-BY-4.0; Perez et al. 2022, arXiv 2212.09251): JSON lines of `question,
statement, label_confidence, answer_matching_behavior, answer_not_matching_behavior`. A statement shows the behaviour
that the file is named after where the matching answer is "Yes". Which of the two is good is the reader's to say.
"""

from collections.abc import Iterator
from pathlib import Path

from alignlab.core.types import Row
from alignlab.data import sources
from alignlab.data.columns import DataError, shown, text_of, wrong

SOURCE, LICENCE = "persona", "CC-BY-4.0"
ANSWERS = ("Yes", "No")


def items(path: str | Path) -> Iterator[Row]:
    """Yield the statements of a persona file.

    Args:
        path: a published file; its name says which behaviour it is about.

    Yields:
        Rows with the question as prompt, the answer of somebody with the behaviour as `chosen` and the other one as
        `rejected`; `facts`: behaviour, statement, shows (whether somebody with the behaviour says it), confidence (of
        that label, in [0, 1], where the file gives one).

    Raises:
        DataError: `FILE:LINE: field 'x': expected ..., got ...`.
    """
    behaviour = Path(path).name.removesuffix(".gz").removesuffix(".jsonl")
    for number, (where, record) in enumerate(sources.json_lines(path)):
        if not isinstance(record, dict):
            raise DataError(f"{where}: expected a JSON object, got {shown(record)}")
        texts = {name: text_of(record, name, where) for name in ("question", "statement")}
        answers = [text_of(record, f"answer_{name}_behavior", where) for name in ("matching", "not_matching")]
        if sorted(answer.strip() for answer in answers) != sorted(ANSWERS):
            raise wrong(where, "answer_matching_behavior", "' Yes' or ' No', and the other one not matching", answers)
        confidence = record.get("label_confidence")
        if confidence is not None and not (isinstance(confidence, (int, float)) and 0 <= confidence <= 1):
            raise wrong(where, "label_confidence", "a number in [0, 1]", confidence)
        yield Row(
            prompt=texts["question"], chosen=answers[0], rejected=answers[1],
            facts={
                "behaviour": behaviour, "statement": texts["statement"].strip(),
                "shows": answers[0].strip() == "Yes", "confidence": confidence,
            },
            meta={"id": f"{behaviour}-{number}", "source": SOURCE, "licence": LICENCE},
        )  # fmt: skip
