"""Flags from dataclass fields: command line over YAML file over default, and errors that name the flag.

Spelling is settled before typing: `--learning-rate`, `--learning_rate` and `learning_rate:` in YAML are one flag,
`--bf16` and `--no_bf16` need no value, `--ratios 0 .2 .4` is a list.
jsonargparse then turns text into the fields' types.
"""

import collections.abc
import dataclasses
import datetime
import json
import re
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from alignlab.cli import recipes
from alignlab.cli.spelling import resolve

TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


@dataclasses.dataclass(frozen=True)
class Flag:
    """One flag: where it is shown, what it accepts, what it means."""

    name: str
    kind: Any
    default: Any
    doc: str
    group: str


@dataclasses.dataclass(frozen=True)
class Group:
    """A dataclass whose fields become flags under one heading, or flags that are known already."""

    title: str
    config: type | Mapping[str, Flag]
    skip: frozenset[str] = frozenset()


def documentation(config: type) -> dict[str, str]:
    """Return field name -> its docstring."""
    import docstring_parser

    parsed = docstring_parser.parse_from_object(config).params
    return {p.arg_name: " ".join((p.description or "").split()) for p in parsed}


def flags_of(groups: Sequence[Group]) -> dict[str, Flag]:
    """Collect flags by name; where two groups share a name the first one defines it and all receive its value."""
    flags: dict[str, Flag] = {}
    for group in groups:
        if isinstance(group.config, Mapping):
            flags |= {name: flag for name, flag in group.config.items() if name not in flags}
            continue
        kinds, docs = typing.get_type_hints(group.config), documentation(group.config)
        for field in dataclasses.fields(group.config):
            if field.name in group.skip or field.name in flags or not field.init:
                continue
            default = field.default
            if field.default_factory is not dataclasses.MISSING:
                default = field.default_factory()
            flags[field.name] = Flag(field.name, kinds[field.name], default, docs.get(field.name, ""), group.title)
    return flags


def with_defaults(group: Group, defaults: Mapping[str, Any]) -> Group:
    """Return the group with other defaults; KeyError for one that it has no flag for."""
    known = flags_of([group])
    changed = {name: dataclasses.replace(known[name], default=value) for name, value in defaults.items()}
    return dataclasses.replace(group, config=known | changed, skip=frozenset())


def parse(prog: str, groups: Sequence[Group], argv: Sequence[str]) -> dict[str, Any]:
    """Return flag name -> typed value.

    Args:
        prog: command for messages, e.g. `alignlab train dpo`.
        groups: dataclasses whose fields are the flags.
        argv: what follows the command; may name a YAML file with `--config`, or a recipe. Where the flags come from a
            recipe, its name is the value `recipe`.

    Raises:
        ValueError: unknown flag, wrong type, missing required flag; the message says what to do.
        OSError: the YAML file cannot be read.
    """
    flags = flags_of(groups)
    given = _from_argv(prog, argv, flags)
    path = given.pop("config", None)
    parser = _parser(prog, flags)
    texts, recipe = {}, None
    if path is not None:
        content, recipe = recipes.apart(_content(path), path, prog, flags, given)
        texts = _from_yaml(prog, path, content, flags)
        _typed(parser, texts, flags, f"{path}: ", "")
    values = _typed(parser, texts | given, flags, f"{prog}: ", "--")
    missing = [name for name, flag in flags.items() if flag.default is dataclasses.MISSING and values.get(name) is None]
    if missing:
        raise ValueError(f"{prog}: missing --{' --'.join(missing)}; see `{prog} -h`")
    return values if recipe is None else values | {"recipe": recipe}


def build(config: type, values: Mapping[str, Any]) -> Any:
    """Construct a dataclass from the flags that bear its fields' names."""
    return config(**{f.name: values[f.name] for f in dataclasses.fields(config) if f.name in values and f.init})


def show_help(prog: str, groups: Sequence[Group], description: str) -> str:
    """Return the help page of one command."""
    import argparse

    usage = f"{prog} [--config FILE.yaml | recipe:NAME] [--flag value ...]"
    parser = argparse.ArgumentParser(prog=prog, usage=usage, description=description.replace("%", "%%"), add_help=False)
    headings: dict[str, Any] = {}
    for flag in flags_of(groups).values():
        if flag.group not in headings:
            headings[flag.group] = parser.add_argument_group(flag.group)
        required = flag.default is dataclasses.MISSING
        default = "required" if required else f"default {shown(flag.default)}"
        text = f"{flag.doc} [{wanted(flag.kind)}; {default}]".replace("%", "%%")
        headings[flag.group].add_argument(f"--{flag.name}", metavar="", help=text)
    return parser.format_help()


def shown(default: Any) -> str:
    """Return a default as it would be typed."""
    if default is None or isinstance(default, bool):
        return {None: "null", True: "true", False: "false"}[default]
    if isinstance(default, (list, tuple)):
        return " ".join(map(str, default)) or "none"
    return str(default) if default != "" else "empty"


def _from_argv(prog: str, argv: Sequence[str], flags: Mapping[str, Flag]) -> dict[str, str]:
    """Return flag name -> text, spelling settled."""
    words: dict[str, list[str]] = {}
    rest = list(argv)
    while rest:
        token = rest.pop(0)
        if not token.startswith("--") or token == "--":
            raise ValueError(f"{prog}: unexpected {token!r}; flags start with two dashes, e.g. --seed 1")
        key, equals, value = token[2:].partition("=")
        values = [value] if equals else []
        while not equals and rest and not rest[0].startswith("--"):
            values.append(rest.pop(0))
        off = key.replace("-", "_").removeprefix("no_")
        if off != key.replace("-", "_") and off in flags and bool in _members(flags[off].kind):
            if values:
                raise ValueError(f"{prog}: --{key} takes no value")
            key, values = off, ["false"]
        name = resolve(prog, key, flags, values[0] if values else "")
        if name != "config" and is_list(flags[name].kind):
            words[name] = words.get(name, []) + values
        else:
            words[name] = values
    return {name: _text(prog, name, values, flags.get(name)) for name, values in words.items()}


def _text(prog: str, name: str, words: list[str], flag: Flag | None) -> str:
    if flag is not None and bool in _members(flag.kind) and not words:
        return "true"
    if not words:
        raise ValueError(f"{prog}: --{name} needs a value" + (f": {wanted(flag.kind)}" if flag else " (a YAML file)"))
    if flag is not None and is_list(flag.kind):
        return _list_text(words, flag.kind)
    if len(words) > 1:
        raise ValueError(
            f"{prog}: --{name} takes one value, got {len(words)}: {' '.join(words)}; quote it if it has spaces"
        )
    return words[0]


def _list_text(words: list[str], kind: Any) -> str:
    if len(words) == 1:
        word = words[0]
        if word.startswith("["):
            return word
        if "," in word and not re.search(r"[=:/]", word):
            words = [part.strip() for part in word.split(",")]
        elif str in _members(kind):
            return word
    element_is_text = any(str in typing.get_args(member) for member in _members(kind))
    return "[" + ", ".join(json.dumps(word) if element_is_text else word for word in words) + "]"


def _content(path: str) -> dict[str, Any]:
    """Return what a YAML file of flags holds."""
    import yaml

    try:
        content = yaml.safe_load(recipes.located(path).read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text: {error.reason} at byte {error.start}") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected lines `flag: value`, got {type(content).__name__}")
    return content


def _from_yaml(prog: str, path: str, content: Mapping[str, Any], flags: Mapping[str, Flag]) -> dict[str, str]:
    """Return flag name -> text from what a YAML file holds."""
    texts = {}
    for key, value in content.items():
        try:
            name = resolve(prog, str(key), flags, str(value))
        except ValueError as error:
            raise ValueError(f"{path}: {error}".replace("--", "")) from None
        if name == "config":
            raise ValueError(f"{path}: config: a file of flags cannot name another; give --config on the command line")
        if isinstance(value, dict):
            raise ValueError(f"{path}: {name}: expected {wanted(flags[name].kind)}, got a mapping")
        value = str(value) if isinstance(value, datetime.date) else value
        plain = isinstance(value, str) and not (is_list(flags[name].kind) and not value.startswith("["))
        texts[name] = (
            value
            if plain
            else _list_text([value], flags[name].kind)
            if isinstance(value, str)
            else json.dumps(value, default=str)
        )
    return texts


def _parser(prog: str, flags: Mapping[str, Flag]) -> Any:
    import jsonargparse

    parser = jsonargparse.ArgumentParser(prog=prog, exit_on_error=False, add_help=False)
    for flag in flags.values():
        parser.add_argument(
            f"--{flag.name}", type=flag.kind, default=None if flag.default is dataclasses.MISSING else flag.default
        )
    return parser


def _typed(parser: Any, texts: Mapping[str, str], flags: Mapping[str, Flag], where: str, dashes: str) -> dict[str, Any]:
    import jsonargparse

    texts = {name: _switch(text, flags[name].kind) for name, text in texts.items()}
    try:
        return dict(parser.parse_args([f"--{name}={text}" for name, text in texts.items()]).as_dict())
    except jsonargparse.ArgumentError as error:
        found = re.search(r'key "(\w+)', str(error))
        if not found:
            raise ValueError(f"{where}{' '.join(str(error).split())}") from None
        name = found[1]
        raise ValueError(f"{where}{dashes}{name}: expected {wanted(flags[name].kind)}, got {texts[name]!r}") from None


def _switch(text: str, kind: Any) -> str:
    """Settle how true and false are written; where a flag takes text as well, null switches it off (TRL's default)."""
    members = _members(kind)
    if bool not in members:
        return text
    off = FALSE if kind is bool or types.NoneType in members else (*FALSE, "null", "none")
    return "true" if text.lower() in TRUE else "false" if text.lower() in off else text


def _members(kind: Any) -> tuple[Any, ...]:
    return typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else (kind,)


def is_list(kind: Any) -> bool:
    """Whether a field may hold several values."""
    sequences = (list, tuple, collections.abc.Sequence, collections.abc.Iterable)
    return any(typing.get_origin(member) in sequences for member in _members(kind))


def wanted(kind: Any) -> str:
    """Say in words what a field accepts."""
    words = {int: "a whole number", float: "a number", str: "text", bool: "true or false", types.NoneType: "null"}
    parts = []
    for member in _members(kind):
        origin, arguments = typing.get_origin(member), typing.get_args(member)
        if origin is typing.Literal:
            parts.append("one of " + ", ".join(map(str, arguments)))
        elif is_list(member):
            element = next((a for a in arguments if a is not Ellipsis), str)
            parts.append(f"a list, each {wanted(element)}")
        else:
            parts.append(words.get(member, getattr(member, "__name__", str(member))))
    return " or ".join(parts)
