"""Rows scored by a model, one number per token, as the probes want them: on the host, float64, without gradient."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alignlab.core.types import Groups, Row
from alignlab.engine.encode import Example, collate, encode
from alignlab.engine.refcache import ReferenceCache, open_cache

Floats = NDArray[np.float64]
BATCH = 32
"""rows handed over at once; the engine cuts them further where they are long"""


def pair_logps(model: Any, rows: Sequence[Row], ref_cache: str = "none") -> tuple[Floats, NDArray[np.int64]]:
    """Return summed log-probabilities and token counts of (chosen, rejected), [R, 2] each; EOS is counted.

    Args:
        model: scores; every token's value is kept in the cache where the model is nothing but its weights. What is
            steered or mixed is always scored.
        rows: pairs.
        ref_cache: "auto", "none" or a folder, as `engine.refcache.open_cache` takes it: training looks there too.

    Raises:
        ValueError: rows without `chosen` and `rejected`.
    """
    for number, row in enumerate(rows):
        if row.chosen is None or row.rejected is None:
            raise ValueError(f"row {number}: expected 'chosen' and 'rejected'; give preference pairs")
    examples = [encode(row, model.tokenizer) for row in rows]
    cache = open_cache(ref_cache, model)
    if cache is None:
        values = [value for start in range(0, len(rows), BATCH)
                  for value in _scored(model, _stacked(model, examples[start : start + BATCH]))]  # fmt: skip
    else:
        values = _looked_up(model, examples, cache)
    sums = np.array([value.double().sum().item() for value in values], dtype=np.float64)
    return sums.reshape(-1, 2), np.array([len(value) for value in values], dtype=np.int64).reshape(-1, 2)


def _stacked(model: Any, examples: Sequence[Example]) -> Groups:
    return collate(examples, model.tokenizer.pad_token_id)


@torch.no_grad()
def _scored(model: Any, groups: Groups) -> list[Tensor]:
    """Return the log-probabilities of each completion's scored tokens."""
    logp = model.score(groups).logp.cpu()
    return list(logp[groups.mask].split(groups.mask.sum(1).tolist()))


def _looked_up(model: Any, examples: Sequence[Example], cache: ReferenceCache) -> list[Tensor]:
    """Return the same, scoring only the pairs that the cache does not have whole; each batch is kept at once."""
    keys = [_keys(cache, _stacked(model, [example])) for example in examples]
    found = cache.get([key for pair in keys for key in pair])
    unknown = [i for i, pair in enumerate(keys) if any(key not in found for key in pair)]
    for start in range(0, len(unknown), BATCH):
        some = unknown[start : start + BATCH]
        scored = _scored(model, _stacked(model, [examples[i] for i in some]))
        values = dict(zip((key for i in some for key in keys[i]), scored, strict=True))
        cache.put(values)
        found |= values
    return [found[key] for pair in keys for key in pair]


def _keys(cache: ReferenceCache, groups: Groups) -> list[bytes]:
    """Return the keys of the completions, each with the prompt that it follows."""
    prompts = [ids[mask].tolist() for ids, mask in zip(groups.prompt_ids, groups.prompt_mask)]
    rows = zip(groups.group.tolist(), groups.ids.tolist(), groups.mask.tolist())
    return [cache.key(prompts[place], ids, mask) for place, ids, mask in rows]
