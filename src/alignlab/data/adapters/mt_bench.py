"""MT-Bench: verdicts on two models in both orders, or a model's answers to be beaten, one row per question and turn.

From the published files (lm-sys/FastChat, fastchat/llm_judge, Apache-2.0; Zheng et al. 2023, arXiv 2306.05685), which
lie in one folder: `question.jsonl` of `{question_id, category, turns}`, `model_answer/MODEL.jsonl` and
`reference_answer/MODEL.jsonl` of `{question_id, choices: [{turns}]}`, and `model_judgment/JUDGE_pair.jsonl` of
`{question_id, model_1, model_2, g1_winner, g2_winner, turn}`: model 1 is shown first in the first game, second in the
second. Name a file of verdicts, of which model 2 is the baseline, or one of answers, which are the baseline's.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from alignlab.core.types import Message, Row
from alignlab.data import sources
from alignlab.data.columns import DataError, text_of, wrong

SOURCE, LICENCE = "mt_bench", "Apache-2.0"
GRADES = {"model_1": 1, "model_2": -1, "tie": 0, "error": None}
"""winner of a game -> grade of model 1; an error is a verdict that was not given"""
Answers = Mapping[Any, tuple[str, ...]]
"""question -> answers by turn"""


def items(path: str | Path) -> Iterator[Row]:
    """Yield one row per question and turn with `facts["baseline"]`, `category`, and `reference` where there is one.

    Of verdicts `completion` is model 1's answer and `facts["games"]` holds both games, so that neither need be asked.
    The prompt of a second turn holds the first: model 1's own, or the baseline's where it is to be beaten.

    Raises:
        DataError: naming the file, the line, the field, what was expected and what to do.
    """
    path = sources.existing(path)
    folder = path.parent.parent
    asked = sources.file_records(folder / "question.jsonl")
    questions = {_number(entry, where): (where, entry) for where, entry in asked}
    references = _references(folder / "reference_answer")
    lines = list(sources.file_records(path))
    if any("g1_winner" in entry for _, entry in lines):
        model, baseline = _pair(path, lines)
        ours, theirs = (_answers(folder / "model_answer" / f"{name}.jsonl") for name in (model, baseline))
        for where, entry in lines:
            number, turn = _number(entry, where), entry.get("turn", 1)
            games = [{"model_first": first, "grade": _grade(entry, field, where)}
                     for first, field in ((True, "g1_winner"), (False, "g2_winner"))]  # fmt: skip
            yield _row(questions, ours, theirs, references, number, turn, where, games)
    else:
        theirs = _answers(path)
        for where, entry in lines:
            number = _number(entry, where)
            for turn in range(1, len(theirs[number]) + 1):
                yield _row(questions, theirs, theirs, references, number, turn, where, None)


def _row(
    questions: Mapping[Any, tuple[str, dict[str, Any]]], ours: Answers, theirs: Answers, references: Answers,
    number: Any, turn: Any, where: str, games: list[dict[str, Any]] | None,
) -> Row:  # fmt: skip
    if number not in questions:
        raise wrong(where, "question_id", "one of question.jsonl", number)
    place, question = questions[number]
    asked = question.get("turns")
    if not isinstance(asked, list) or not all(isinstance(text, str) and text.strip() for text in asked):
        raise wrong(place, "turns", "a list of texts", asked)
    if type(turn) is not int or not 1 <= turn <= len(asked):
        raise wrong(where, "turn", f"a whole number from 1 to {len(asked)}", turn)
    for answers, name in ((ours, "model"), (theirs, "baseline")):
        if len(answers.get(number, ())) < turn:
            raise DataError(f"{where}: the {name} has no answer to turn {turn} of question {number} in model_answer/")
    prompt: list[Message] = []
    for text, said in zip(asked[: turn - 1], ours[number], strict=False):
        prompt += [Message(role="user", content=text), Message(role="assistant", content=said)]
    prompt.append(Message(role="user", content=asked[turn - 1]))
    facts: dict[str, Any] = {"baseline": theirs[number][turn - 1], "category": question.get("category"), "turn": turn}
    if len(references.get(number, ())) >= turn:
        facts["reference"] = references[number][turn - 1]
    if games is not None:
        facts["games"] = games
    return Row(
        prompt=tuple(prompt), completion=None if games is None else ours[number][turn - 1], facts=facts,
        meta={"id": f"{SOURCE}-{number}-{turn}", "source": SOURCE, "licence": LICENCE},
    )  # fmt: skip


def _number(entry: dict[str, Any], where: str) -> int | str:
    number = entry.get("question_id")
    if type(number) is int or isinstance(number, str):
        return number
    raise wrong(where, "question_id", "a number or a name", number)


def _answers(path: Path) -> Answers:
    """Return question -> answers by turn, the first choice of each."""
    found = {}
    for where, entry in sources.file_records(path):
        choices = entry.get("choices")
        turns = choices[0].get("turns") if isinstance(choices, list) and choices and isinstance(choices[0], dict) else 0
        if not isinstance(turns, list) or not turns or not all(isinstance(text, str) for text in turns):
            raise wrong(where, "choices", "a list that begins with {turns: [text, ...]}", choices)
        found[_number(entry, where)] = tuple(turns)
    return found


def _references(folder: Path) -> Answers:
    """Return the reference answers: of gpt-4, as published, else of the only file; none without a folder."""
    files = sorted(folder.glob("*.jsonl")) if folder.is_dir() else []
    named = [path for path in files if path.stem == "gpt-4"] or files
    if len(named) > 1:
        raise DataError(f"{folder}: {len(named)} files of reference answers; leave one, or call it gpt-4.jsonl")
    return _answers(named[0]) if named else {}


def _pair(path: Path, lines: list[sources.Record]) -> tuple[str, str]:
    """Return the two models that all lines compare."""
    pairs = sorted({(text_of(entry, "model_1", where), text_of(entry, "model_2", where)) for where, entry in lines})
    if len(pairs) > 1:
        shown = ", ".join(" and ".join(pair) for pair in pairs[:4])
        raise DataError(
            f"{path}: verdicts on {len(pairs)} pairs of models ({shown}{', ...' if len(pairs) > 4 else ''}); copy the "
            "lines of one pair into a file beside it and name that"
        )
    for name in pairs[0]:
        if Path(name).name != name:
            raise DataError(f"{path}: a model called {name!r} cannot be a file in model_answer/")
    return pairs[0]


def _grade(entry: dict[str, Any], field: str, where: str) -> int | None:
    if entry.get(field) not in GRADES:
        raise wrong(where, field, f"one of {', '.join(GRADES)}", entry.get(field))
    return GRADES[entry[field]]
