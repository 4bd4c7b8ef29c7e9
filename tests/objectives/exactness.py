"""What every objective must show: its value is the formula's, and its step does not depend on its layout.

A step is written down as plain lists (`Prompt`, `Completion`, `Scored`, `Pair`), so that a test can state the loss
again in float64 Python, completion by completion, with no code in common with the module. `check` then lays the same
step out as tensors in many ways. Use it as

    exactness.check(method.loss, method.Config(beta=0.3), formula, make=exactness.prompts)

with `formula(prompts, cfg) -> float`; for a two-phase loss also `stats=method.stats` and `statistics(prompts, cfg) ->
dict`, and `formula(prompts, cfg, values)`.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from exact_steps import FIELDS, Completion, Layout, Pair, Prompt, Scored, lay_out, ordered_pairs, prompts

from alignlab.core.reduce import share, total, totals
from alignlab.core.types import Groups, Term
from proofs import proved

__all__ = [
    "Completion",
    "Layout",
    "Pair",
    "Prompt",
    "Scored",
    "check",
    "evaluate",
    "lay_out",
    "ordered_pairs",
    "prompts",
    "run",
]


def zeroed(batch: Groups) -> Groups:
    """The batch as a loss sees it where only denominators are wanted: views that hold nothing."""
    empty = {
        name: dataclasses.replace(
            view, **{f: torch.zeros_like(getattr(view, f)) for f in FIELDS if getattr(view, f) is not None}
        )
        for name, view in batch.views.items()
    }
    return dataclasses.replace(batch, views=empty)


def statistics_of(parts: Sequence[Groups], stats: Callable, cfg: Any) -> dict[str, float]:
    """Return the batch statistics over the given micro-batches."""
    with torch.no_grad():
        sums = totals(stats(part, cfg) for part in parts)
        assert [d for _, d in totals(stats(zeroed(p), cfg) for p in parts).values()] == [d for _, d in sums.values()]
    return {name: num / den for name, (num, den) in sums.items() if den != 0.0}


def evaluate(loss: Callable, batch: Groups, cfg: Any, *values: Mapping[str, float]) -> tuple[float, torch.Tensor]:
    """Return the loss of one batch taken as a whole step, and its gradient with respect to the policy's tokens."""
    terms = loss(batch, cfg, *values)
    sums = totals([terms])
    step = share(terms, {name: den for name, (_, den) in sums.items()})
    (gradient,) = torch.autograd.grad(step, batch.views["policy"].logp)
    assert total(sums, {t.name: t.weight for t in terms}) == pytest.approx(step.item(), rel=1e-6, abs=1e-9)
    return step.item(), gradient


Gradient = dict[tuple[Any, ...], torch.Tensor]
"""(prompt, completion, view, field) -> one entry per scored token"""


def run(
    step: Sequence[Prompt], layout: Layout, loss: Callable, cfg: Any, stats: Callable | None = None, *,
    trained: Sequence[str] = ("policy",), reduction: str = "step",
) -> tuple[float, Gradient]:  # fmt: skip
    """Return value and gradient of a step as the loop computes them: statistics, denominators, then shares.

    `reduction` other than "step" does it wrong on purpose: "mean_of_means" divides inside each micro-batch,
    "own_statistics" takes each micro-batch's own batch statistics.
    """
    parts = lay_out(step, layout, trained)
    batches = [batch for batch, _ in parts]
    own = [() if stats is None else (statistics_of([batch], stats, cfg),) for batch in batches]
    if reduction != "own_statistics" and stats is not None:
        own = [(statistics_of(batches, stats, cfg),)] * len(parts)
    whole = {n: d for n, (_, d) in totals(loss(zeroed(b), cfg, *v) for b, v in zip(batches, own)).items()}
    value, gradient = 0.0, {}
    for (batch, rows), values in zip(parts, own):
        terms = loss(batch, cfg, *values)
        for term, empty in zip(terms, loss(zeroed(batch), cfg, *values), strict=True):
            assert torch.equal(term.den, empty.den), f"the denominator of {term.name} depends on a view"
            assert not term.den.requires_grad
            for name, log in term.logs.items():
                assert log.shape == term.num.shape, f"log {name}"
                assert not log.requires_grad, f"log {name} is not detached"
        alone = {name: den for name, (_, den) in totals([terms]).items()}
        mine = share(terms, alone) / len(parts) if reduction == "mean_of_means" else share(terms, whole)
        leaves = {
            (name, f): getattr(batch.views[name], f)
            for name in trained for f in FIELDS if getattr(batch.views[name], f) is not None
        }  # fmt: skip
        found = torch.autograd.grad(mine, list(leaves.values()), allow_unused=True)
        value += mine.item()
        for (name, f), leaf, g in zip(leaves, leaves.values(), found):
            g = torch.zeros_like(leaf) if g is None else g
            assert (g[~batch.mask] == 0).all(), "a gradient reaches the padding"
            for n, (i, k, place) in enumerate(rows):
                gradient[i, k, name, f] = g[n, place].double()
    return value, gradient


def assert_same(found: tuple[float, Gradient], wanted: tuple[float, Gradient], tolerance: float) -> None:
    """Value and every gradient entry agree, relative to the value and to the largest gradient entry."""
    assert found[0] == pytest.approx(wanted[0], rel=tolerance, abs=tolerance * 1e-3)
    largest = max(float(g.abs().max()) for g in wanted[1].values())
    assert largest > 0, "no gradient at all: the check would hold for anything"
    for key, gradient in wanted[1].items():
        worst = float((found[1][key] - gradient).abs().max())
        assert worst <= tolerance * largest, f"{key}: off by {worst:.3g} where the largest entry is {largest:.3g}"


def cuts(count: int) -> list[list[int]]:
    """Uneven, single and halved micro-batches."""
    return [[1] * count, [count - 1, 1], [1, count - 1], [count // 2, count - count // 2]]


def check_layouts(step, loss, cfg, stats=None, *, trained=("policy",), reduction="step", ranked=False) -> None:
    """The gradient before clipping: 1e-9 in float64, 1e-5 in float32, for any cut, order, padding and precision."""
    whole = run(step, Layout(), loss, cfg, stats, trained=trained)
    paddings = (math.nan, 1e9, -math.inf, 0.0)
    for n, cut in enumerate([[len(step)], *cuts(len(step))]):
        for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-5)):
            layout = Layout(cut, dtype, padding=paddings[n % 4], wider=n, holes=n % 2 == 1, shuffle=n, ranked=ranked)
            found = run(step, layout, loss, cfg, stats, trained=trained, reduction=reduction)
            assert_same(found, whole, tolerance)


def check_formula(step, loss, cfg, formula, stats=None, statistics=None, *, trained=("policy",), probes=10) -> None:
    """Value, statistics and gradient against the formula in plain Python; statistics carry no gradient."""
    values = () if statistics is None else (statistics(step, cfg),)
    if stats is not None:
        assert statistics_of([b for b, _ in lay_out(step, Layout(), trained)], stats, cfg) == pytest.approx(*values)
    value, gradient = run(step, Layout(), loss, cfg, stats, trained=trained)
    assert value == pytest.approx(formula(step, cfg, *values), rel=1e-9, abs=1e-12)
    largest = max(float(g.abs().max()) for g in gradient.values())
    entries = [(key, tuple(at)) for key, g in gradient.items() for at in np.ndindex(*g.shape)]
    draw, width = np.random.default_rng(0), 2e-5
    for j in draw.choice(len(entries), min(probes, len(entries)), replace=False):
        (i, k, view, f), at = entries[j]
        tokens = getattr(step[i].completions[k].views[view], f)
        holder, last = (tokens, at[0]) if len(at) == 1 else (tokens[at[0]], at[1])
        before, sides = holder[last], []
        for side in (width / 2, -width / 2):
            holder[last] = before + side
            sides.append(formula(step, cfg, *values))
        holder[last] = before
        slope = (sides[0] - sides[1]) / width
        assert gradient[i, k, view, f][at].item() == pytest.approx(slope, abs=1e-6 * largest + 1e-9), entries[j]


def negated(loss: Callable) -> Callable:
    """The loss with its sign turned."""
    return lambda *given: tuple(dataclasses.replace(t, num=-t.num) for t in loss(*given))


def flipped(loss: Callable, trained: Sequence[str] = ("policy",)) -> Callable:
    """The loss of a policy whose log-probabilities have their sign turned."""

    def broken(batch: Groups, *rest: Any) -> tuple[Term, ...]:
        views = {k: dataclasses.replace(v, logp=-v.logp) if k in trained else v for k, v in batch.views.items()}
        return loss(dataclasses.replace(batch, views=views), *rest)

    return broken


def check(
    loss: Callable, cfg: Any, formula: Callable, *, make: Callable[[int], list[Prompt]] = prompts,
    stats: Callable | None = None, statistics: Callable | None = None, trained: Sequence[str] = ("policy",),
    seeds: Sequence[int] = (0, 1), flip: Callable = flipped, ranked: bool = False,
) -> None:  # fmt: skip
    """All checks of this file, and proof that the checks can fail.

    Args:
        loss: the objective; called as `loss(batch, cfg)`, or `loss(batch, cfg, values)` where `stats` is given.
        cfg: its settings.
        formula: the loss of a step in plain float64 Python.
        make: seed -> a random step.
        stats: first phase of a two-phase objective.
        statistics: the same in plain Python, name -> value; needed with `stats`.
        trained: views that carry a gradient.
        seeds: steps to try.
        flip: how a loss is broken by a flipped sign of the policy; replace it where a loss does not read `logp`.
        ranked: the order of a prompt's completions says something, so it is kept; that of all else is not.
    """
    assert (stats is None) == (statistics is None), "give stats and statistics together"
    for seed in seeds:
        step = make(seed)
        check_formula(step, loss, cfg, formula, stats, statistics, trained=trained)
        check_layouts(step, loss, cfg, stats, trained=trained, ranked=ranked)
        if seed != seeds[0]:
            continue
        with pytest.raises(AssertionError):
            check_layouts(step, loss, cfg, stats, trained=trained, reduction="mean_of_means", ranked=ranked)
        for broken in (negated(loss), flip(loss, trained)):
            with pytest.raises(AssertionError):
                check_formula(step, broken, cfg, formula, stats, statistics, trained=trained)
        if stats is not None:
            with pytest.raises(AssertionError):
                check_layouts(step, loss, cfg, stats, trained=trained, reduction="own_statistics", ranked=ranked)
    proved(
        type(cfg).__module__.rpartition(".")[2],
        *("formula", "split", "order", "padding", "mean_of_means", "flipped_sign"),
    )
