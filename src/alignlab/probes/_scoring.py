"""Rows scored by a model, one number per token, as the probes want them: on the host, float64, without gradient."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from alignlab.core.types import Row
from alignlab.engine.encode import collate, encode

Floats = NDArray[np.float64]
BATCH = 32
"""rows handed over at once; the engine cuts them further where they are long"""


@torch.no_grad()
def pair_logps(model: Any, rows: Sequence[Row]) -> tuple[Floats, NDArray[np.int64]]:
    """Return summed log-probabilities and token counts of (chosen, rejected), [R, 2] each; EOS is counted.

    Raises ValueError for rows without `chosen` and `rejected`.
    """
    sums, counts = [], []
    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        for number, row in enumerate(part, start):
            if row.chosen is None or row.rejected is None:
                raise ValueError(f"row {number}: expected 'chosen' and 'rejected'; give preference pairs")
        groups = collate([encode(row, model.tokenizer) for row in part], model.tokenizer.pad_token_id)
        logp = model.score(groups).logp.double().cpu()
        sums.append(torch.where(groups.mask, logp, 0.0).sum(1).reshape(-1, 2).numpy())
        counts.append(groups.mask.sum(1).reshape(-1, 2).numpy())
    return np.concatenate(sums), np.concatenate(counts)
