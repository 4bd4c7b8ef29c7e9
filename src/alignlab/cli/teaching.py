"""Ask the teachers of a distillation once, before it begins."""

from collections.abc import Mapping, Sequence
from typing import Any

from alignlab.cli.actions import load_model
from alignlab.cli.context import RunContext


def taught(
    ctx: RunContext, examples: Sequence[Any], specs: Mapping[str, str | None], k: int, student: Any,
    values: Mapping[str, Any],
) -> list[Any]:  # fmt: skip
    """Return tokenised rows with what the teachers say of them, at the first teacher's k likeliest tokens.

    Args:
        ctx: of the run.
        examples: tokenised rows.
        specs: name of the view -> model.
        k: tokens kept per position.
        student: the model that is trained; the teachers share its tokenizer.
        values: flags of the run; dtype and device hold for teachers too, adapters and head weights do not.

    Raises:
        ValueError: a teacher is not named, or has another tokenizer.
    """
    from alignlab.engine.teachers import annotated

    missing = next((name for name, spec in specs.items() if not spec), None)
    if missing:
        raise ValueError(f"--{missing}_model: which model? Give a hub id, a folder or `tiny:` with the same tokenizer")
    if not examples:
        return []
    plain = {**values, "use_peft": False, "adapter": None, "model_revision": None, "head_weights": ()}
    models = {name: load_model(plain, spec) for name, spec in specs.items()}
    for name, model in models.items():
        ctx.say(f"{name} {model.identity}")
    with ctx.stage("ask teachers", len(examples), len(examples)) as stage:
        found = annotated(examples, models, student, k, stage.advance)
        stage.rows_out = len(found)
    return found
