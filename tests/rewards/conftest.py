"""Makes the objectives' harness importable, and steps whose views hold values."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "objectives"))

import exactness


@pytest.fixture(scope="session")
def valued():
    """Return make(seed, **options of exactness.prompts): a step of a reward model, with a random value per token."""

    def make(seed, *, spread=1.5, **options):
        step = exactness.prompts(seed, views=("policy",), **options)
        draw = np.random.default_rng(100 + seed)
        for prompt in step:
            for one in prompt.completions:
                drawn = np.float32(draw.normal(size=len(one)) * spread).astype(np.float64)
                one.views["policy"].value = drawn.tolist()
        return step

    return make


@pytest.fixture(scope="session")
def turned():
    """Return flip(loss, trained): the loss of a model whose values have their sign turned."""

    def flip(loss, trained=()):
        def broken(batch, *rest):
            policy = batch.views["policy"]
            views = {**batch.views, "policy": dataclasses.replace(policy, value=-policy.value)}
            return loss(dataclasses.replace(batch, views=views), *rest)

        return broken

    return flip


@pytest.fixture(scope="session")
def batch_of():
    """Return a builder: values of single-token completions -> a batch whose other tokens hold NaN."""

    def build(values, pairs=(), *, labels=None, scores=None, prompts=None):
        """`prompts`: completions per prompt; default all under one."""
        given = []
        for n, value in enumerate(values):
            view = exactness.Scored(logp=[-1.0, -1.0], value=[17.0, value])
            named = {name: column[n] for name, column in (scores or {}).items()}
            given.append(exactness.Completion(views={"policy": view}, scores=named))
            given[-1].label = None if labels is None else labels[n]
        step, start = [], 0
        for count in prompts or [len(values)]:
            own = [exactness.Pair(*pair) for pair in pairs] if start == 0 else []
            step.append(exactness.Prompt(given[start : start + count], own))
            start += count
        ((batch, _),) = exactness.lay_out(step, exactness.Layout(wider=2), ("policy",))
        return batch

    return build


@pytest.fixture(scope="session")
def loss_of():
    """Return (loss, batch, cfg) -> value of the step and its gradient at the last scored token of each completion."""
    import torch

    from alignlab.core.reduce import share, totals

    def evaluate(loss, batch, cfg):
        terms = loss(batch, cfg)
        step = share(terms, {name: den for name, (_, den) in totals([terms]).items()})
        value = batch.views["policy"].value
        (gradient,) = torch.autograd.grad(step, value)
        assert (gradient[:, 0] == 0).all(), "a gradient reaches another token than the last"
        assert (gradient[:, 2:] == 0).all()
        return step.item(), gradient[:, 1].tolist()

    return evaluate
