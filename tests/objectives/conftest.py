"""Batches whose sequence log-probabilities are chosen by hand; everything else about them is awkward on purpose."""

from collections.abc import Callable, Sequence

import pytest
import torch

from alignlab.core.types import Groups, Pairs, View


@pytest.fixture
def batch_of() -> Callable[..., Groups]:
    """Return a builder: per-token log-probabilities of ragged completions -> Groups with NaN in the padding."""

    def build(
        policy: Sequence[Sequence[float]],
        ref: Sequence[Sequence[float]] | None = None,
        pairs: Sequence[tuple[int, int, float, float]] = (),
        *,
        padding: float = float("nan"),
        wider: int = 0,
        leaf: bool = False,
    ) -> Groups:
        width = max(map(len, policy)) + wider

        def padded(rows: Sequence[Sequence[float]]) -> torch.Tensor:
            return torch.tensor([[*row, *[padding] * (width - len(row))] for row in rows], dtype=torch.float64)

        n = len(policy)
        mask = torch.tensor([[True] * len(row) + [False] * (width - len(row)) for row in policy])
        columns = list(zip(*pairs)) if pairs else None
        views = {"policy": View(logp=padded(policy).requires_grad_(leaf))}
        if ref is not None:
            views["ref"] = View(logp=padded(ref))
        return Groups(
            prompt_ids=torch.ones(1, 2, dtype=torch.long),
            prompt_mask=torch.ones(1, 2, dtype=torch.bool),
            ids=torch.ones(n, width, dtype=torch.long),
            mask=mask,
            group=torch.zeros(n, dtype=torch.long),
            views=views,
            pairs=None
            if columns is None
            else Pairs(
                better=torch.tensor(columns[0]),
                worse=torch.tensor(columns[1]),
                p=torch.tensor(columns[2], dtype=torch.float64),
                margin=torch.zeros(len(pairs), dtype=torch.float64),
                weight=torch.tensor(columns[3], dtype=torch.float64),
            ),
        )

    return build
