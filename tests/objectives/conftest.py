"""Makes `exactness.py` beside this file importable, and builds batches whose numbers are chosen by hand."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import exactness

from alignlab.core.types import Groups


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
        given = []
        for n, tokens in enumerate(policy):
            views = {"policy": exactness.Scored(logp=list(tokens))}
            if ref is not None:
                views["ref"] = exactness.Scored(logp=list(ref[n]))
            given.append(exactness.Completion(views=views))
        step = [exactness.Prompt(given, [exactness.Pair(*pair) for pair in pairs])]
        layout = exactness.Layout(padding=padding, wider=wider)
        ((batch, _),) = exactness.lay_out(step, layout, ("policy",) if leaf else ())
        return batch

    return build
