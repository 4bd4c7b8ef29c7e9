"""Local, adapted and steered models by plain specs, and the one name under which a model is logged and cached.

A steering method is named by text (`METHOD` or `METHOD?option=value&...`), never by an object: caches and resumed runs
compare what is written down, and two objects look alike on paper.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import parse_qsl

from alignlab.core.find import find
from alignlab.core.types import Intervention
from alignlab.data import settings
from alignlab.engine.load import load
from alignlab.engine.steered import Steered

_NAMED = re.compile(r"(?P<path>.+)@(?P<digest>[0-9a-f]{8})")


def interventions(specs: Sequence[str], tools: Callable[[str], Any]) -> list[Intervention]:
    """Return the steering methods that specs name.

    Args:
        specs: each METHOD or METHOD?option=value&option=value.
        tools: spec -> model, for methods that consult another one.

    Raises:
        ValueError: a spec that is no text, an unknown option, a method that must be fitted first.
        LookupError: no such method.
    """
    found = []
    for spec in specs:
        if not isinstance(spec, str):
            raise ValueError(f"steer: expected METHOD?option=value as text, got {type(spec).__name__}; an object has no"
                             " identity that a log or a cache could keep")  # fmt: skip
        name, _, query = spec.partition("?")
        module = find("steering", name)
        cfg = settings.build(module.Config, dict(parse_qsl(query, keep_blank_values=True)), f"--steer {name}")
        if hasattr(module, "fit"):
            raise ValueError(f"--steer {name}: it must be fitted first; use `alignlab steer {name} --fit_dataset FILE`")
        found.append(module.intervene(None, cfg, tools))
    return found


def steered(model: Any, specs: Sequence[str], tools: Callable[[str], Any]) -> Any:
    """Put steering methods on a model; without any, return it as it is."""
    found = interventions(specs, tools)
    return Steered(model, found) if found else model


def loaded(path: str, steer: Sequence[str] = (), **options: Any) -> Any:
    """Load a model and put steering methods on it.

    Args:
        path: hub id, folder, `tiny:` or `tiny:+ADDON`.
        steer: see `interventions`.
        **options: dtype, device, revision, adapter, trust_remote_code of `engine.load.load`.
    """

    def one(spec: str) -> Any:
        return load(spec, **options)

    return steered(one(path), steer, one)


def digest_of(identity: str) -> str:
    """Return the 8 hex digits of an identity: of the weights alone, or of weights and everything that steers them."""
    named = _NAMED.fullmatch(identity)
    return named["digest"] if named else hashlib.sha256(identity.encode()).hexdigest()[:8]


def parted(name: str) -> tuple[str, str | None]:
    """Return path and digest of a name `<path>@<8 hex digits>`; no digest where there is none."""
    named = _NAMED.fullmatch(name)
    return (named["path"], named["digest"]) if named else (name, None)
