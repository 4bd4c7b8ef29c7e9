"""A method's settings read from its source, so that `VERB METHOD -h` need not import torch.

Only what can be read for certain is: builtin types, Literal, unions and tuples of them, literal defaults. Anything else
gives None, and the caller imports the module.
"""

import ast
import importlib.util
import types
import typing
from pathlib import Path
from typing import Any

from alignlab.cli.flags import Flag

KINDS = {"int": int, "float": float, "str": str, "bool": bool, "None": types.NoneType}


def settings(module: str, title: str) -> dict[str, Flag] | None:
    """Return the flags of a module's Config, or None where the source does not say them plainly."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    body = ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body
    config = next((node for node in body if isinstance(node, ast.ClassDef) and node.name == "Config"), None)
    if config is None or config.bases:
        return None
    flags = {}
    for node, after in zip(config.body, [*config.body[1:], None]):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        try:
            default = ast.literal_eval(node.value) if node.value is not None else None
            kind = _kind(node.annotation)
        except (ValueError, KeyError, TypeError):
            return None
        if node.value is None:
            return None
        name = node.target.id
        flags[name] = Flag(name, kind, default, _doc(after), title)
    return flags


def training(module: str) -> dict[str, Any]:
    """Return what a module's card says of the training loop's defaults; nothing where the source does not say it."""
    spec = importlib.util.find_spec(module)
    source = Path(spec.origin).read_text(encoding="utf-8") if spec is not None and spec.origin else ""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Card":
            given = next((word.value for word in node.keywords if word.arg == "training"), None)
            return {} if given is None else ast.literal_eval(given)
    return {}


def _doc(node: ast.stmt | None) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return " ".join(node.value.value.split())
    return ""


def _kind(node: ast.expr) -> Any:
    """Return the type an annotation names; KeyError or ValueError for one outside the small grammar."""
    if isinstance(node, ast.Name):
        return KINDS[node.id]
    if isinstance(node, ast.Constant) and node.value is None:
        return types.NoneType
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _kind(node.left) | _kind(node.right)
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
        inside = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if node.value.id == "Literal":
            return typing.Literal[tuple(ast.literal_eval(value) for value in inside)]
        if node.value.id == "tuple":
            return tuple[tuple(... if _is_dots(value) else _kind(value) for value in inside)]  # type: ignore[misc]
    raise KeyError(ast.unparse(node))


def _is_dots(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is ...
