"""Endpoints: anything that answers chats, by a spec.

| spec | what answers |
|---|---|
| `world:<role>` | the offline town's teacher, judge, ... by rule |
| `tiny:`, `tiny:+<add-on>`, `hf:<hub id or folder>` | a local model, sampled in batches |
| `replay:<file>` | recorded answers: rows of prompt and completions |
| `openai:<model>` | any OpenAI-compatible server: `?base_url=http://127.0.0.1:8000/v1`, or OPENAI_BASE_URL |
| `<provider>/<model>`, `inspect:<provider>/<model>` | any provider of Inspect AI (`pip install alignlab[inspect]`) |

Options follow a `?`, as in a URL, or are keyword arguments. Keys come from the environment alone. Answers of local
models and services are cached by content, so that a run that was killed goes on where it was.
"""

import dataclasses
import difflib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_type_hints
from urllib.parse import parse_qsl

from alignlab.core.types import Endpoint

from .asking import Asking, EndpointError, Source, Usage
from .cache import AnswerCache, default_folder

__all__ = ["Asking", "EndpointError", "Source", "Usage", "endpoint", "of_model"]
KINDS = ("world", "tiny", "hf", "replay", "openai", "inspect")


def endpoint(
    spec: str,
    *,
    cache_dir: str | Path | bool | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Endpoint:
    """Return the endpoint that a spec names; nothing is loaded or asked before the first `complete`.

    Args:
        spec: see the module's table.
        cache_dir: folder of the answer cache; None means `$ALIGNLAB_CACHE` or the user's cache folder, False no cache.
        progress: called with the numbers of answers had and wanted as they come.
        **options: the fields of `chat_api.ChatApi` (`openai:`), `providers.Provider` (Inspect), or the arguments of
            `engine.load.load` (`hf:`, `tiny:`).

    Raises:
        EndpointError: no such kind, an unknown option, a key or a file that is missing; it says what to do.
    """
    kind, rest = _kind(spec)
    rest, _, query = rest.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True)) | options
    if kind == "world":
        from alignlab.world import endpoints as world

        try:
            return world.endpoint(rest, **options)
        except (LookupError, TypeError) as error:
            raise EndpointError(f"{spec}: {error}") from None
    if kind == "replay":
        from .local import Replay

        _no_options(spec, options)
        return Replay(rest)
    return Asking(_source(kind, rest, options, spec), _cache(cache_dir), progress)


def of_model(model: Any, *, cache_dir: str | Path | bool | None = None) -> Endpoint:
    """Return the endpoint of a model that is already loaded (`engine.load.LanguageModel`)."""
    from .local import Local

    return Asking(Local(str(model.identity), model), _cache(cache_dir))


def _kind(spec: str) -> tuple[str, str]:
    kind, colon, rest = spec.partition(":")
    if colon and kind in KINDS:
        if not rest and kind != "tiny":
            raise EndpointError(f"endpoint {spec!r}: nothing after {kind}:")
        return kind, rest
    if "/" in spec.partition("?")[0] and not Path(spec).exists() and not (colon and "/" not in kind):
        return "inspect", spec
    near = difflib.get_close_matches(kind, KINDS, n=1)
    hint = f"did you mean {near[0]}:? " if colon and near else ""
    if Path(spec).is_dir() or not colon:
        hint = f"for a local or hub model write hf:{spec}. "
    raise EndpointError(
        f"endpoint {spec!r}: {hint}Known: world:<role>, tiny:, hf:<hub id or folder>, replay:<file>, openai:<model>, "
        "<provider>/<model> of Inspect AI (anthropic/..., google/..., ...)"
    )


def _source(kind: str, rest: str, options: Mapping[str, Any], spec: str) -> Source:
    if kind == "openai":
        from .chat_api import ChatApi

        return ChatApi(model=rest, **_typed(ChatApi, options, spec))
    if kind == "inspect":
        from .providers import Provider

        return Provider(model=rest, **_typed(Provider, options, spec))
    from .local import Local

    return Local(spec.partition("?")[0], f"tiny:{rest}" if kind == "tiny" else rest, options)


def _cache(cache_dir: str | Path | bool | None) -> AnswerCache | None:
    if cache_dir is False:
        return None
    return AnswerCache(default_folder() if cache_dir in (None, True) else Path(str(cache_dir)))


def _no_options(spec: str, options: Mapping[str, Any]) -> None:
    if options:
        raise EndpointError(f"{spec}: takes no option, got {', '.join(options)}")


def _typed(source: Any, options: Mapping[str, Any], spec: str) -> dict[str, Any]:
    """Turn options, which may come as text, into the types of the source's fields."""
    hints = get_type_hints(source)
    names = [field.name for field in dataclasses.fields(source) if field.init and field.name != "model"]
    typed = {}
    for name, value in options.items():
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            if "key" in name or "token" in name:
                hint = "; keys come from the environment alone: see `api_key_env`"
            raise EndpointError(f"{spec.partition('?')[0]}: no option {name!r}{hint} Options: {', '.join(names)}")
        kinds = get_args(hints[name]) if isinstance(hints[name], UnionType) else (hints[name],)
        try:
            if kinds[0] in (int, float):
                value = kinds[0](value)
            elif isinstance(value, str) and str not in kinds:
                value = json.loads(value)
        except (TypeError, ValueError):
            raise EndpointError(f"{spec.partition('?')[0]}: option {name}={value!r}: expected {hints[name]}") from None
        typed[name] = value
    return typed
