"""One identity per model: a digest of everything that its answers depend on."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn

from alignlab.engine import sharded

VOLATILE = {"_name_or_path", "architectures", "transformers_version", "dtype", "torch_dtype", "use_cache"}
"""config entries that saving and loading may change without changing the model"""
NAMED = {
    "r", "lora_alpha", "target_modules", "use_rslora", "use_dora", "alpha_pattern", "rank_pattern", "peft_type",
}  # fmt: skip
"""an adapter's settings that are part of its digest whatever they are"""
PASSING = {
    "base_model_name_or_path", "revision", "inference_mode", "task_type", "auto_mapping", "peft_version",
    "init_lora_weights", "init_weights",
}  # fmt: skip
"""an adapter's settings that do not enter what it computes: where it came from, what for, and its first values"""
WRAPPED = {"base_layer", "original_module", "token_adapter"}
"""what peft calls a layer or module inside the part that it put in its place"""


def digest(module: nn.Module, tokenizer: Any) -> str:
    """Return 64 hex digits that change when anything does that the model computes with.

    That is: a weight, an adapter, its settings, which adapters are on, the config, the tokenizer or the template.
    """
    adapters = {name: _settings(config) for name, config in getattr(module, "peft_config", {}).items()}
    return _digest(module.state_dict(), adapters, module.config, tokenizer, _switches(module))


def base_digest(module: nn.Module, tokenizer: Any) -> str:
    """Digest of the model under adapters, as it was before they came on."""
    inner = module.get_base_model()
    return _digest(_with_one(inner, None), {}, inner.config, tokenizer)


def adapter_digest(module: nn.Module, tokenizer: Any, adapter: str) -> str:
    """Digest of a module as it would be with this adapter alone, on, and called `default`."""
    settings = {"default": _settings(module.peft_config[adapter])}
    return _digest(_with_one(module, adapter), settings, module.config, tokenizer)


def adapter_weights(module: nn.Module) -> dict[str, Tensor]:
    """Return the weights that adapters have brought, as they are called in the module."""
    layers = _adapted(module)
    return {key: value for key, value in module.state_dict().items() if _owner(key, layers)}


def _settings(config: Any) -> dict[str, Any]:
    """Return an adapter's settings: those that were always named, and all others that are not as they come.

    So a peft that has one setting more does not change what an adapter is called.
    """
    usual = {f.name: f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
             for f in dataclasses.fields(config)}  # fmt: skip
    return {
        key: value for key, value in config.to_dict().items()
        if key in NAMED or not (key in PASSING or "dropout" in key or value == usual.get(key, dataclasses.MISSING))
    }  # fmt: skip


def _adapted(module: nn.Module) -> set[str]:
    """Return the names of the parts that adapters have wrapped."""
    return {name for name, part in module.named_modules() if hasattr(part, "adapter_layer_names")}


def _owner(key: str, layers: Collection[str]) -> tuple[str, str] | None:
    """Return the wrapped part that holds a weight and the adapter that brought it; None for one of the base's."""
    parts = key.split(".")
    for n in reversed(range(len(parts))):
        if ".".join(parts[:n]) in layers:
            # of a part, what it wraps; else the kind of weight, the adapter's name, and what follows
            return None if parts[n] in WRAPPED or n + 1 >= len(parts) else (".".join(parts[:n]), parts[n + 1])
    return None


def _with_one(module: nn.Module, adapter: str | None) -> dict[str, Tensor]:
    """Return the weights with one adapter, or none, under the names that they have where there is no other."""
    weights, layers = module.state_dict(), _adapted(module)
    owners = {key: _owner(key, layers) for key in weights}
    own = [owner[0] for owner in owners.values() if owner is not None and owner[1] == adapter]
    bare = {path for path in layers if not any(f"{inner}.".startswith(f"{path}.") for inner in own)}
    found = {}
    for key, value in weights.items():
        owner = owners[key]
        if owner is not None and owner[1] != adapter:
            continue
        parts = key.split(".")
        if owner is not None:
            parts[len(owner[0].split(".")) + 1] = "default"
        # what is wrapped for others alone is as if it were not
        kept = [part for n, part in enumerate(parts) if part not in WRAPPED or ".".join(parts[:n]) not in bare]
        found[".".join(kept)] = value
    return found


def _switches(module: nn.Module) -> dict[str, Any]:
    """Return which adapters are on, off or merged; nothing where there is one at most, and it is on everywhere."""
    names = list(getattr(module, "peft_config", {}))
    if not names:
        return {}
    found = {} if len(names) == 1 else {"": module.active_adapters}
    for path, part in module.named_modules():
        if hasattr(part, "adapter_layer_names"):
            merged = list(getattr(part, "merged_adapters", ()))
            state = [list(part.active_adapters), bool(part.disable_adapters), merged]
            if state != [names[:1], False, []]:
                found[path] = state
    return found


def _digest(
    weights: dict[str, Tensor], adapters: dict[str, Any], config: Any, tokenizer: Any, switches: Any = None
) -> str:
    whole = hashlib.sha256()
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        names = sorted(weights)
        # of a model that is spread over ranks, all gather the same weight at a time
        each = map if any(map(sharded.is_cut, weights.values())) else pool.map
        for name, part in zip(names, each(lambda key: _tensor_digest(weights[key]), names)):
            whole.update(name.encode() + b"\0" + part)
    entries = {k: v for k, v in config.to_dict().items() if k not in VOLATILE}
    about = [entries, adapters, _tokenizer_facts(tokenizer), *([switches] if switches else [])]
    whole.update(json.dumps(about, sort_keys=True, default=_plain).encode())
    return whole.hexdigest()


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, (set, frozenset)) else str(value)


def _tensor_digest(tensor: Tensor) -> bytes:
    flat = sharded.whole(tensor.detach()).cpu().contiguous()
    part = hashlib.sha256(f"{flat.dtype} {tuple(flat.shape)}".encode())
    part.update(memoryview(flat.reshape(-1).view(torch.uint8).numpy()))
    return part.digest()


def _tokenizer_facts(tokenizer: Any) -> dict[str, Any]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        vocabulary: Any = tokenizer.get_vocab()
    else:
        # truncation and padding are settings of the last call, not of the tokenizer
        vocabulary = {k: v for k, v in json.loads(backend.to_str()).items() if k not in ("truncation", "padding")}
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    return {"vocabulary": vocabulary, "special": special, "template": tokenizer.chat_template}
