"""A method's Config from plain values: `-T per_cell=40` of Inspect, `METHOD?option=value` of a steering spec."""

import dataclasses
import difflib
import json
import typing
from collections.abc import Mapping
from typing import Any


def build(config: type, given: Mapping[str, Any], where: str) -> Any:
    """Construct a frozen dataclass from values that are typed already or still text.

    Args:
        config: the dataclass.
        given: field -> value; what is not named keeps its default.
        where: for messages, e.g. `alignlab/pct`.

    Raises:
        ValueError: an unknown field, with the nearest; a value of another type; what the dataclass itself refuses.
    """
    import jsonargparse

    fields = {field.name: field for field in dataclasses.fields(config) if field.init}
    for name in given:
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{where}: no setting {name!r}{hint} Settings: {', '.join(fields) or 'none'}")
    hints = typing.get_type_hints(config)
    parser = jsonargparse.ArgumentParser(exit_on_error=False, add_help=False)
    for name in given:
        parser.add_argument(f"--{name}", type=hints[name])
    words = [f"--{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in given.items()]
    try:
        typed = parser.parse_args(words).as_dict()
    except jsonargparse.ArgumentError as error:
        raise ValueError(f"{where}: {' '.join(str(error).split())}") from None
    return config(**typed)
