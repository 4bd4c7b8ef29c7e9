"""The verbs: what each does, and which families its methods come from.

Imports nothing heavy: help pages must be quick.
"""

import ast
import difflib
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

from alignlab.core.find import names


@dataclass(frozen=True)
class Verb:
    """One verb of the command line."""

    summary: str
    families: tuple[str, ...] = ()
    """families whose methods it runs"""
    example: str = ""
    usual: str = ""
    """the method meant where flags follow the verb at once"""


VERBS = {
    "train": Verb(
        "train a model with an objective", ("objectives", "rewards"), "alignlab train dpo --dataset world:pairs"
    ),
    "run": Verb("run a whole procedure of several stages", ("procedures", "fields"), "alignlab run dialectical"),
    "make": Verb("make training data", ("pipelines",), "alignlab make conflicts --dataset world:"),
    "eval": Verb("measure a model's behaviour", ("evals",), "alignlab eval poisoned_context --model tiny:"),
    "steer": Verb(
        "sample from a model under a steering method", ("steering",), "alignlab steer notice --dataset FILE.jsonl"
    ),
    "attack": Verb("rewrite prompts into attacks", ("attacks",), "alignlab attack NAME --dataset FILE.jsonl"),
    "score": Verb(
        "score completions with a reward",
        ("rewards",),
        "alignlab score --model FOLDER --dataset FILE.jsonl",
        usual="bradley_terry",
    ),
    "probe": Verb("measure what is inside a model", ("probes",), "alignlab probe NAME --model tiny:"),
    "check": Verb("verify theorems on exact worlds", ("theory",), "alignlab check NAME"),
    "sample": Verb("print completions of a prompt", (), "alignlab sample --model tiny: --prompt 'Where is ...?'"),
    "chat": Verb("talk to a model", (), "alignlab chat --model tiny:"),
    "export": Verb(
        "write a model as one stock folder", (), "alignlab export --model RUN --head_weights .3 .7 --output_dir FOLDER"
    ),
    "ls": Verb("list the methods", (), "alignlab ls --json"),
    "show": Verb("print a method's card and flags", (), "alignlab show dpo"),
    "cite": Verb("print the BibTeX of methods", (), "alignlab cite dpo dialectical"),
    "selftest": Verb("run every method's own proof", (), "alignlab selftest --family objectives"),
}


def methods(verb: str) -> dict[str, tuple[str, str]]:
    """Return method name -> (family, module path) of a verb; a name found in two families belongs to the first."""
    found: dict[str, tuple[str, str]] = {}
    for family in VERBS[verb].families:
        for name, module in names(family).items():
            found.setdefault(name, (family, module))
    return found


def headline(module: str) -> str:
    """Return the first sentence of a module's docstring without importing the module."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return ""
    text = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""
    first = " ".join(text.split("\n\n")[0].split())
    return re.split(r"(?<=[.:;]) ", first)[0].rstrip(".:;")


def main_help() -> str:
    """Return the page of `alignlab -h`."""
    lines = ["usage: alignlab VERB [METHOD] [--flag value ...]", ""]
    lines += ["Align a language model with published methods, and prove what changed.", "", "verbs:"]
    lines += [f"  {name:<10}{verb.summary}" for name, verb in VERBS.items()]
    lines += ["", "more:", "  alignlab VERB -h            its methods", "  alignlab VERB METHOD -h     its flags"]
    lines += [
        "  --debug                     show the traceback of an error",
        "  --version                   print the version",
    ]
    lines += ["", "start: alignlab run dialectical --output_dir runs/demo"]
    return "\n".join(lines)


def verb_help(verb: str) -> str:
    """Return the page of `alignlab VERB -h` for a verb that takes a method."""
    lines = [
        f"usage: alignlab {verb} METHOD [--flag value ...]",
        "",
        VERBS[verb].summary.capitalize() + ".",
        "",
        "methods:",
    ]
    known = methods(verb)
    width = max(map(len, known), default=0) + 2
    lines += [f"  {name:<{width}}{headline(module)}" for name, (_, module) in known.items()] or ["  none yet"]
    if usual := VERBS[verb].usual:
        lines += ["", f"without METHOD: {usual}"]
    return "\n".join([*lines, "", f"flags: alignlab {verb} METHOD -h", f"example: {VERBS[verb].example}"])


def known(verb: str) -> Verb:
    """Return a verb, or raise LookupError naming the nearest and what a method of that name needs."""
    if verb in VERBS:
        return VERBS[verb]
    owners = [name for name in VERBS if verb.replace("-", "_") in methods(name)]
    near = difflib.get_close_matches(verb, VERBS, n=1)
    hint = f"{verb!r} is a method: alignlab {owners[0]} {verb}" if owners else ""
    hint = hint or (f"did you mean {near[0]!r}?" if near else "see `alignlab -h`")
    raise LookupError(f"no verb {verb!r}; {hint}. Verbs: {', '.join(VERBS)}")


def method(verb: str, name: str) -> tuple[str, str]:
    """Return (family, name) of a method of a verb, `-` and `_` alike, with or without its family in front.

    LookupError names the nearest method, or the verb that runs it.
    """
    family, _, short = name.replace("-", "_").rpartition("/")
    found = methods(verb)
    if short in found and family in ("", found[short][0]):
        return found[short][0], short
    others = [other for other in VERBS if short in methods(other)]
    near = difflib.get_close_matches(short, found, n=1)
    hint = f" It is run by: alignlab {others[0]} {short}." if others else f" Did you mean {near[0]!r}?" if near else ""
    raise LookupError(f"alignlab {verb}: no method {name!r}.{hint} Known: {', '.join(found) or 'none yet'}")
