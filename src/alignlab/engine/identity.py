"""One identity per model: a digest of everything that its answers depend on."""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn

from alignlab.engine import sharded

VOLATILE = {"_name_or_path", "architectures", "transformers_version", "dtype", "torch_dtype", "use_cache"}
"""config entries that saving and loading may change without changing the model"""


def digest(module: nn.Module, tokenizer: Any) -> str:
    """Return 64 hex digits that change when a weight, the adapter, the config, the tokenizer or the template does."""
    adapters = {}
    for name, config in getattr(module, "peft_config", {}).items():
        entries = config.to_dict()
        keep = (
            "r",
            "lora_alpha",
            "target_modules",
            "use_rslora",
            "use_dora",
            "alpha_pattern",
            "rank_pattern",
            "peft_type",
        )
        adapters[name] = {key: entries[key] for key in keep if key in entries}
    return _digest(module.state_dict(), adapters, module.config, tokenizer)


def base_digest(module: nn.Module, tokenizer: Any) -> str:
    """Digest of the model under a LoRA adapter, as it was before the adapter came on."""
    inner = module.get_base_model()
    weights = {
        key.replace(".base_layer.", ".").replace(".original_module.", "."): value
        for key, value in inner.state_dict().items()
        if ".lora_" not in key and ".modules_to_save." not in key
    }
    return _digest(weights, {}, inner.config, tokenizer)


def _digest(weights: dict[str, Tensor], adapters: dict[str, Any], config: Any, tokenizer: Any) -> str:
    whole = hashlib.sha256()
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        names = sorted(weights)
        # of a model that is spread over ranks, all gather the same weight at a time
        each = map if any(map(sharded.is_cut, weights.values())) else pool.map
        for name, part in zip(names, each(lambda key: _tensor_digest(weights[key]), names)):
            whole.update(name.encode() + b"\0" + part)
    entries = {k: v for k, v in config.to_dict().items() if k not in VOLATILE}
    about = [entries, adapters, _tokenizer_facts(tokenizer)]
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
