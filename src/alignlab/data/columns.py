"""One record of a file -> one Row: TRL's column sets, a mapping for everything else, errors that say where and what.

Column sets (TRL's names, plain text or lists of `{role, content}` messages): `text`; `messages`; `prompt`;
`prompt, completion[, label]`; `[prompt,] chosen, rejected`; `prompt, completions[, labels]`
(steps); and alignlab's own fields, those of `core.types.Row`.
A mapping names the source column of a field, as LLaMA-Factory's dataset_info does: `{"prompt": "instruction",
"query": "input", "response": "output", "facts.gold": "answer"}`.
"""

import contextlib
import difflib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from alignlab.core.types import Message, Prompt, Row

ROW_FIELDS = (
    "prompt", "completion", "chosen", "rejected", "completions", "scores", "label", "judgement", "second_prompt",
    "facts", "meta",
)  # fmt: skip
CONVERSATION_FIELDS = ("messages", "text")
MAPPED_FIELDS = ("system", "query", "response")
"""only through a mapping: a system message, text appended to the prompt, another name for `completion`"""
ROLES = ("system", "developer", "user", "assistant", "tool")
COLUMN_SETS = (
    "text | messages | prompt | prompt, completion[, label] | [prompt,] chosen, rejected"
    " | prompt, completions[, scores | labels]"
)
HH_TURN = "\n\nAssistant:"


class DataError(ValueError):
    """Input data that cannot be used; the message names file and line, field, what was expected and what came."""


def shown(value: Any, width: int = 60) -> str:
    """Return a short, printable form of an untrusted value for an error message: its type and its start."""
    if value is None:
        return "nothing (null)"
    text = ascii(value)
    return f"{type(value).__name__} {text if len(text) <= width else text[:width] + '...'}"


def wrong(where: str, field: str, expected: str, got: Any) -> DataError:
    """Return the error `WHERE: field 'x': expected ..., got ...`."""
    return DataError(f"{where}: field {field!r}: expected {expected}, got {shown(got)}")


def nearest(name: str, known: Sequence[str], cutoff: float = 0.8) -> str | None:
    """Return the known name that `name` is probably a slip of."""
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=cutoff)), None)


def text_of(record: Mapping[str, Any], field: str, where: str) -> str:
    """Return a field that must hold non-empty text."""
    value = record.get(field)
    if not isinstance(value, str) or not value.strip():
        raise wrong(where, field, "non-empty text", value)
    return value


def _content(value: Any, field: str, where: str) -> str:
    """Text of a message; a list of `{type: text}` parts is joined, other parts (images, calls) are refused."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(part, dict) and "text" in part for part in value):
        return "".join(str(part["text"]) for part in value)
    raise wrong(where, field, "text or a list of text parts", value)


def messages_of(value: Any, field: str, where: str) -> tuple[Message, ...]:
    """Return a checked list of chat messages."""
    if not isinstance(value, (list, tuple)) or not value:
        raise wrong(where, field, "a non-empty list of {role, content} messages", value)
    turns = []
    for number, turn in enumerate(value):
        name = f"{field}[{number}]"
        if not isinstance(turn, Mapping) or "role" not in turn or "content" not in turn:
            raise wrong(where, name, "a message with `role` and `content`", turn)
        if turn["role"] not in ROLES:
            raise wrong(where, f"{name}.role", f"one of {', '.join(ROLES)}", turn["role"])
        turns.append(Message(role=turn["role"], content=_content(turn["content"], f"{name}.content", where)))
    return tuple(turns)


def prompt_of(value: Any, field: str, where: str) -> Prompt:
    """Return a prompt: non-empty text, or messages."""
    if isinstance(value, str):
        if not value.strip():
            raise wrong(where, field, "non-empty text or messages", value)
        return value
    return messages_of(value, field, where)


def _answer(value: Any, field: str, where: str) -> tuple[tuple[Message, ...], str]:
    """Return the turns before the answer, and the answer: text, or messages that end with the assistant's."""
    if isinstance(value, str):
        return (), value
    turns = messages_of(value, field, where)
    if turns[-1]["role"] != "assistant":
        raise wrong(where, f"{field}[{len(turns) - 1}].role", "assistant, as the last message", turns[-1]["role"])
    return turns[:-1], turns[-1]["content"]


def _common_text(chosen: str, rejected: str) -> str:
    """Shared beginning of two dialogues in text; ends at the last assistant turn (Anthropic HH) or between words."""
    end = next((i for i, (a, b) in enumerate(zip(chosen, rejected)) if a != b), min(len(chosen), len(rejected)))
    turn = chosen.rfind(HH_TURN, 0, end)
    if turn >= 0:
        return chosen[: turn + len(HH_TURN)]
    while end > 0 and not (chosen[end - 1].isspace() or chosen[end:][:1].isspace()):
        end -= 1
    return chosen[:end].rstrip()


def _implicit_prompt(record: dict[str, Any], where: str) -> Prompt:
    """The prompt of a `chosen, rejected` record is what both begin with."""
    chosen, rejected = record["chosen"], record["rejected"]
    if isinstance(chosen, str) and isinstance(rejected, str):
        prompt: Prompt = _common_text(chosen, rejected)
        record["chosen"], record["rejected"] = chosen[len(prompt) :], rejected[len(prompt) :]
    else:
        prompt, record["chosen"] = _answer(chosen, "chosen", where)
        other, record["rejected"] = _answer(rejected, "rejected", where)
        if other != prompt:
            raise wrong(where, "rejected", "the same messages as `chosen` up to the last one", rejected)
    if not prompt:
        raise wrong(where, "prompt", "a `prompt`, or `chosen` and `rejected` that begin with the same prompt", None)
    return prompt


def _completion(record: Mapping[str, Any], field: str, prompt: Prompt, where: str) -> str | None:
    value = record.get(field)
    if value is None:
        return None
    before, answer = _answer(value, field, where)
    asked = prompt if isinstance(prompt, tuple) else (Message(role="user", content=prompt),)
    if before and before != asked:
        raise wrong(where, field, "text, one assistant message, or the prompt's messages and then the answer", value)
    if not answer:
        raise wrong(where, field, "a non-empty answer", value)
    return answer


def _numbers(value: Any, field: str, count: int, where: str) -> tuple[float, ...]:
    good = isinstance(value, (list, tuple)) and all(
        isinstance(x, (int, float)) and not isinstance(x, bool) and math.isfinite(x) for x in value
    )
    if not good or len(value) != count:
        raise wrong(where, field, f"{count} finite numbers, one per completion", value)
    return tuple(float(x) for x in value)


def _label(value: Any, where: str) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and value in (0, 1):
        return bool(value)
    raise wrong(where, "label", "true or false", value)


def _mapping(value: Any, field: str, where: str) -> dict[str, Any]:
    if value is None:
        return {}
    if isinstance(value, str):  # how Parquet keeps objects whose keys differ between rows
        with contextlib.suppress(ValueError):
            value = json.loads(value)
    if not isinstance(value, Mapping):
        raise wrong(where, field, "an object", value)
    return dict(value)


def check_mapping(columns: Mapping[str, str]) -> None:
    """Raise DataError where a mapping has a target that is no field."""
    known = (*ROW_FIELDS, *CONVERSATION_FIELDS, *MAPPED_FIELDS)
    for target in columns:
        if target not in known and not target.startswith(("facts.", "meta.")):
            near = nearest(target, known, 0.6)
            hint = f"; did you mean {near!r}?" if near else ""
            raise DataError(
                f"columns: no field {target!r}{hint} Fields: {', '.join(known)}, facts.<name>, meta.<name> "
                "(the mapping reads field: column)"
            )


def mapped(record: Mapping[str, Any], columns: Mapping[str, str], where: str) -> dict[str, Any]:
    """Rename a record's columns to fields; a column that the mapping does not name stays a field or goes to `facts`."""
    used, known = set(columns.values()), (*ROW_FIELDS, *CONVERSATION_FIELDS)
    rest = {name: value for name, value in record.items() if name not in used}
    out = {name: rest.pop(name) for name in known if name in rest and name not in columns}
    out |= {name: _mapping(out.get(name), name, where) for name in ("facts", "meta")}
    for target, source in columns.items():
        if source not in record:
            near = nearest(source, list(record), 0.6)
            hint = f"; did you mean {near!r}?" if near else ""
            raise DataError(
                f"{where}: field {target!r}: expected a column {source!r}{hint} The record has: {', '.join(record)}"
            )
        head, dot, name = target.partition(".")
        if dot:
            out[head][name] = record[source]
        else:
            out[target] = record[source]
    out["facts"] = rest | _mapping(out["facts"], "facts", where)
    if "query" in out:
        query = out.pop("query")
        out["prompt"] = "\n".join(part for part in (out.get("prompt"), query) if part)
    if "response" in out:
        out["completion"] = out.pop("response")
    if out.get("system"):
        prompt = prompt_of(out.get("prompt"), "prompt", where)
        turns = prompt if isinstance(prompt, tuple) else ({"role": "user", "content": prompt},)
        out["prompt"] = ({"role": "system", "content": out["system"]}, *turns)
    out.pop("system", None)
    return out


def _unknown(record: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return columns that are no field, to be kept as facts; a near miss of an absent field is an error."""
    known = (*ROW_FIELDS, *CONVERSATION_FIELDS)
    extra = {key: value for key, value in record.items() if key not in known}
    for key in extra:
        near = nearest(key, known)
        if key == "labels" and "completions" in record:  # TRL's stepwise data: one label per step
            continue
        # `raw_completion` is another column, `completoin` a slip
        if near and near not in record and near.count("_") == key.count("_"):
            raise DataError(
                f"{where}: unknown field {key!r}; did you mean {near!r}? Rename it, or map it: "
                f'columns={{"{near}": "{key}"}} (or "facts.{key}": "{key}" to keep it as it is)'
            )
    return extra


def to_row(record: Mapping[str, Any], where: str, columns: Mapping[str, str] | None = None) -> Row:
    """Turn one record into a Row.

    Args:
        record: column -> value.
        where: `FILE:LINE`, for errors.
        columns: field -> source column; without it the columns must be one of the sets in the module's docstring.

    Returns:
        The row; columns that are no field are kept in `facts`.

    Raises:
        DataError: naming the place, the field, what was expected and what was found.
    """
    data = mapped(record, columns, where) if columns else {k: v for k, v in record.items() if v is not None}
    extra = _unknown(data, where)
    prompt = _take_prompt(data, record, where)
    answers = {name: _completion(data, name, prompt, where) for name in ("completion", "chosen", "rejected")}
    completions = _completions(data, where)
    second = data.get("second_prompt")
    row = Row(
        prompt=prompt,
        **answers,
        completions=completions,
        scores=_numbers(data["scores"], "scores", len(completions), where) if data.get("scores") else (),
        label=_label(data.get("label"), where),
        judgement=None if data.get("judgement") is None else text_of(data, "judgement", where),
        second_prompt=None if second is None else prompt_of(second, "second_prompt", where),
        facts=extra | _mapping(data.get("facts"), "facts", where),
        meta=_mapping(data.get("meta"), "meta", where),
    )
    if (row.chosen is None) != (row.rejected is None):
        raise wrong(where, "chosen" if row.chosen is None else "rejected", "both `chosen` and `rejected`", None)
    if row.label is not None and row.completion is None:
        raise wrong(where, "completion", "text, since there is a `label`", None)
    return row


def _take_prompt(data: dict[str, Any], record: Mapping[str, Any], where: str) -> Prompt:
    """Return the prompt, and leave in `data` the answers as TRL's column sets mean them."""
    if "prompt" in data:
        return prompt_of(data["prompt"], "prompt", where)
    if "text" in data:
        data["completion"] = text_of(data, "text", where)
        return ""
    if "messages" in data:
        turns = messages_of(data["messages"], "messages", where)
        if len(turns) == 1 or turns[-1]["role"] != "assistant":
            return turns
        data["completion"] = turns[-1]["content"]
        return turns[:-1]
    if {"chosen", "rejected"} <= data.keys():
        return _implicit_prompt(data, where)
    raise DataError(
        f"{where}: no known column set. Columns: {', '.join(record) or 'none'}; expected one of: {COLUMN_SETS}; "
        'or a mapping such as columns={"prompt": "instruction", "completion": "output"}'
    )


def _completions(data: Mapping[str, Any], where: str) -> tuple[str, ...]:
    value = data.get("completions", ())
    if not isinstance(value, (list, tuple)) or not all(isinstance(text, str) and text for text in value):
        raise wrong(where, "completions", "a list of non-empty texts", value)
    return tuple(value)


def to_record(row: Row) -> dict[str, Any]:
    """Return the row as a JSON-ready record without its empty fields; `to_row` gives the row back."""
    record = {name: getattr(row, name) for name in ROW_FIELDS}
    kept = {name: value for name, value in record.items() if value is not None and value != () and value != {}}
    if kept.get("prompt", "") == "":
        kept.pop("prompt", None)
        kept["text"] = kept.pop("completion", "")
    for name in ("prompt", "second_prompt"):
        if isinstance(kept.get(name), tuple):
            kept[name] = [dict(turn) for turn in kept[name]]
    for name in ("completions", "scores"):
        if name in kept:
            kept[name] = list(kept[name])
    return {name: dict(value) if name in ("facts", "meta") else value for name, value in kept.items()}
