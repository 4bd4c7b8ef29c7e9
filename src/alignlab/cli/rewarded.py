"""`score` with a reward model: each answer of a row gets its number; pairs also say how often they are in order."""

from collections.abc import Sequence
from types import ModuleType
from typing import Any, get_type_hints

from alignlab.cli.context import RunContext
from alignlab.core.types import Metric, Result, Row


def score(module: ModuleType, cfg: Any, ctx: RunContext, model: Any, rows: Sequence[Row]) -> Result:
    """Score rows; scores.jsonl has one line per row.

    A line holds `score`; or `chosen` and `rejected`; or `scores`, one per completion. A method that reads a row's
    completions as the steps of one answer (it has an `encode` of its own) gives one score per row.
    """
    from alignlab.cli.actions import write_lines
    from alignlab.rewards._shared import answers
    from alignlab.stats.bootstrap import mean

    whole = hasattr(module, "encode")
    split = [[row] if whole else answers(row) for row in rows]
    if not all(split):
        empty = next(i for i, found in enumerate(split) if not found)
        raise ValueError(f"row {rows[empty].meta.get('id', empty)}: no answer to score; give completion, chosen and"
                         " rejected, or completions")  # fmt: skip
    flat = [one for found in split for one in found]
    given = (model, flat, cfg) if "cfg" in get_type_hints(module.score) else (model, flat)
    with ctx.stage("score", len(rows), len(rows)) as stage:
        numbers = iter([float(value) for value in module.score(*given)])
        scores = [[next(numbers) for _ in found] for found in split]
        stage.rows_out = len(scores)
    pairs = [row.chosen is not None for row in rows]
    lines = [
        {"id": row.meta.get("id", number)} | _line(found, is_pair, whole)
        for number, (row, found, is_pair) in enumerate(zip(rows, scores, pairs))
    ]
    write_lines(ctx, "scores.jsonl", lines)
    places = [number for number, found in enumerate(scores) for _ in found]
    metrics = {"score": mean([value for found in scores for value in found], clusters=places, seed=ctx.seed)}
    if not whole:
        metrics |= ordered([found for found, is_pair in zip(scores, pairs) if is_pair], ctx.seed)
    return Result(metrics=metrics)


def _line(found: Sequence[float], is_pair: bool, whole: bool) -> dict[str, Any]:
    if is_pair and not whole:
        return {"chosen": found[0], "rejected": found[1]}
    return {"score": found[0]} if len(found) == 1 else {"scores": list(found)}


def ordered(pairs: Sequence[Sequence[float]], seed: int) -> dict[str, Metric]:
    """Return `accuracy`, the share of pairs whose chosen answer has the higher score, and the mean `margin`.

    A tie counts as wrong, as in TRL. Nothing without pairs.
    """
    from alignlab.stats.bootstrap import mean
    from alignlab.stats.proportion import share

    if not pairs:
        return {}
    return {
        "accuracy": share(chosen > rejected for chosen, rejected in pairs),
        "margin": mean([chosen - rejected for chosen, rejected in pairs], seed=seed),
    }
