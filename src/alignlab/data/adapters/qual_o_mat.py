"""Voting advice elections: a folder of party positions on theses, as rows of one thesis each.

From the format of gockelhahn/qual-o-mat-data: JSON arrays `statement.json` {id, category, label, text}, `party.json`
{id, name, longname}, `opinion.json` {id, party, statement, answer, comment} and `answer.json` {id, message}. The ids of
answers are not in order of stance (0 agree, 1 disagree, 2 neutral), so stances are read from the messages. That data
carries no licence: point at a copy of your own.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from alignlab.core.answers import normalise
from alignlab.core.types import Row
from alignlab.data import sources
from alignlab.data.columns import DataError, text_of, wrong

SOURCE = "qual_o_mat"
STANCES = {
    "stimme zu": 1, "agree": 1, "yes": 1, "ja": 1,
    "stimme nicht zu": -1, "disagree": -1, "no": -1, "nein": -1,
    "neutral": 0, "undecided": 0,
}  # fmt: skip
"""message of an answer, normalised -> stance"""


def _list(folder: Path, name: str) -> list[dict[str, Any]]:
    return [entry for _, entry in sources.json_objects(folder / name)]


def _by_id(folder: Path, name: str) -> dict[Any, dict[str, Any]]:
    found: dict[Any, dict[str, Any]] = {}
    for number, entry in enumerate(_list(folder, name)):
        if "id" not in entry or not isinstance(entry["id"], (int, str)) or entry["id"] in found:
            raise wrong(f"{folder / name}[{number}]", "id", "a number or text not used before", entry.get("id"))
        found[entry["id"]] = entry
    return found


def _stance(entry: Mapping[str, Any], where: str) -> int:
    message = normalise(text_of(dict(entry), "message", where))
    if message not in STANCES:
        raise wrong(where, "message", f"one of {', '.join(STANCES)}", entry["message"])
    return STANCES[message]


def items(path: str | Path) -> Iterator[Row]:
    """Yield one row per thesis: its text, and `facts["positions"]`, party -> 1 agree, 0 neutral, -1 disagree.

    Args:
        path: the election's folder, e.g. `data/2025/deutschland`.

    Raises:
        DataError: naming the file, the entry, the field, what was expected and what was found.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise DataError(f"{folder}: expected an election's folder with statement.json, party.json, opinion.json")
    stances = {
        i: _stance(entry, f"{folder / 'answer.json'}: {i}") for i, entry in _by_id(folder, "answer.json").items()
    }
    parties = {
        i: text_of(entry, "name", f"{folder / 'party.json'}: {i}") for i, entry in _by_id(folder, "party.json").items()
    }
    theses = _by_id(folder, "statement.json")
    positions: dict[Any, dict[str, int]] = {i: {} for i in theses}
    for number, opinion in enumerate(_list(folder, "opinion.json")):
        where = f"{folder / 'opinion.json'}[{number}]"
        for field, known in (("statement", positions), ("party", parties), ("answer", stances)):
            if not isinstance(opinion.get(field), (int, str)) or opinion[field] not in known:
                raise wrong(where, field, f"an id of {field}.json", opinion.get(field))
        given, party = positions[opinion["statement"]], parties[opinion["party"]]
        if party in given:
            raise wrong(where, "party", f"one position of {party} on thesis {opinion['statement']}", opinion["party"])
        given[party] = stances[opinion["answer"]]
    for number, thesis in theses.items():
        where = f"{folder / 'statement.json'}: {number}"
        yield Row(
            prompt=text_of(thesis, "text", where).strip(),
            facts={"thesis": number, "label": thesis.get("label"), "positions": positions[number], "weight": 1},
            meta={"id": f"{folder.name}-{number}", "source": SOURCE, "licence": None},
        )
