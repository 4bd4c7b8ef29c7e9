"""`train`: rows to tokens, tokens to a tuned model in the run folder."""

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from alignlab.cli import flags
from alignlab.cli.actions import load_model, read_rows
from alignlab.cli.context import RunContext, is_first_rank
from alignlab.cli.teaching import taught
from alignlab.core.types import Metric, Result, Row
from alignlab.train.config import TrainConfig


def train(module: ModuleType, cfg: Any, ctx: RunContext, values: Mapping[str, Any]) -> Result:
    """Train with an objective; checkpoints, metrics.jsonl and the model land in the run folder."""
    from alignlab.train import distributed, loop

    settings: TrainConfig = flags.build(TrainConfig, values)
    settings, where = distributed.loading(settings, values["device"])
    if not hasattr(module, "loss"):
        raise ValueError(f"{module.__name__.rpartition('.')[2]} has nothing to train; see `alignlab score -h`")
    rows = read_rows(ctx, dict(values))
    held_out = read_rows(ctx, dict(values), values["eval_dataset"], "--eval_dataset") if values["eval_dataset"] else []
    if hasattr(module, "annotate"):
        rows, held_out = module.annotate(rows, cfg), annotated(module, held_out, cfg)
    # a method may ask for a model with several output heads; any other trains the model as it is
    several = module.output_heads(cfg) if hasattr(module, "output_heads") else None
    model = load_model(
        {**values, "device": where}, head="fresh" if "value" in module.CARD.needs else "tokens", output_heads=several
    )
    ctx.say(f"model {model.identity}")
    own = getattr(module, "encode", None)
    examples = encoded(ctx, "tokenise", rows, model, settings.max_length, own)
    held = encoded(ctx, "tokenise evaluation rows", held_out, model, settings.max_length, own) if held_out else []
    if hasattr(module, "recut"):
        examples, held = ([module.recut(example, cfg) for example in part] for part in (examples, held))
    if hasattr(module, "teachers"):
        examples, held = (taught(ctx, part, *module.teachers(cfg), model, values) for part in (examples, held))
    numbers = loop.train(
        model,
        examples,
        module.loss,
        settings,
        ctx.folder,
        objective_config=cfg,
        stats=getattr(module, "stats", None),
        settle=getattr(module, "settle", None),
        needs=module.CARD.needs,
        eval_examples=held,
    )
    if is_first_rank():
        save(model, ctx.folder)
    room = room_of(model, settings.max_length)
    notes = left_out("rows", rows, examples, room) + left_out("evaluation rows", held_out, held, room)
    notes += one_class(examples)
    if several is not None and several > 1:
        notes += (
            f"the model has {several} output heads: `--model {ctx.folder} --head_weights W1 W2 ...` uses a mixture of"
            " them in any command, `alignlab export` writes one as a stock model",
        )
    return Result(metrics=metrics_of(numbers, len(examples), len(held)), notes=notes)


def annotated(module: ModuleType, held_out: Sequence[Row], cfg: Any) -> Sequence[Row]:
    """Return evaluation rows as `annotate` of a method leaves them; ValueError names the flag that gave them."""
    try:
        return module.annotate(held_out, cfg) if held_out else held_out
    except ValueError as error:
        raise ValueError(f"--eval_dataset: {error}") from error


def metrics_of(numbers: Mapping[str, float], trained: int, held: int) -> dict[str, Metric]:
    """Return what the loop says: figures of evaluation rows count those, and have the interval that goes with them."""
    ends = {f"{name}/{end}" for name in numbers for end in ("low", "high")}
    return {
        name: Metric(
            value=float(value), n=held if name.startswith("eval/") else trained,
            low=numbers.get(f"{name}/low"), high=numbers.get(f"{name}/high"),
        )
        for name, value in numbers.items() if name not in ends
    }  # fmt: skip


def left_out(what: str, rows: Sequence[Row], examples: Sequence[Any], room: int) -> tuple[str, ...]:
    """Say how many rows were too long, if any."""
    missing = len(rows) - len(examples)
    return (f"{missing} of {len(rows)} {what} are longer than {room} tokens (--max_length); left out",) * bool(missing)


def one_class(examples: Sequence[Any]) -> tuple[str, ...]:
    """Say that thumbs all point one way, which trains but contrasts nothing."""
    thumbs = {label for example in examples for label in example.labels}
    if len(thumbs) != 1:
        return ()
    said, other = ("true", "false") if thumbs == {True} else ("false", "true")
    return (
        f"every row has the label {said}: nothing tells it apart from {other}; give rows of both, if you have them",
    )


def room_of(model: Any, max_length: int) -> int:
    """Return how many tokens a row may have: --max_length, or the model's context where that is shorter."""
    return min(max_length, model.context_length or max_length)


def encoded(
    ctx: RunContext, name: str, rows: Sequence[Row], model: Any, max_length: int, own: Any = None
) -> list[Any]:  # fmt: skip
    """Tokenise rows; those that are too long are counted and left out. ValueError names the row that cannot be used.

    `own`: a method's way to do so, in place of `engine.encode.encode`.
    """
    from alignlab.engine.encode import TooLong, encode

    encode = own or encode
    room = room_of(model, max_length)
    examples, longest = [], ""
    with ctx.stage(name, len(rows), len(rows)) as stage:
        for number, row in enumerate(rows, 1):
            try:
                example = encode(row, model.tokenizer, max_length=room)
                # rows may be left out, so that the place among what is left does not tell which row it is
                examples.append(example if example.row_id else dataclasses.replace(example, row_id=str(number)))
            except TooLong as error:
                longest = str(error)
            except ValueError as error:
                raise ValueError(f"row {row.meta.get('id') or number}: {error}") from error
            stage.advance()
        stage.rows_out = len(examples)
        stage.reason = f"every row is too long for --max_length {room}: {longest}"
    return examples


def save(model: Any, folder: Path) -> None:
    """Put the model's files into the run folder, each whole, weights last: a folder with weights is a loadable one."""
    from alignlab.engine.heads import merged, scalar_head
    from alignlab.engine.load import save as save_model

    if scalar_head(model.module) is not None:
        # one stock model that any tool opens, also where an adapter was trained
        model.module = merged(model.module)

    scratch = Path(tempfile.mkdtemp(prefix=".model.", suffix=".partial", dir=folder))
    try:
        save_model(model, scratch / "model")
        found = sorted((scratch / "model").iterdir(), key=lambda path: path.name.endswith(".safetensors"))
        for path in found:
            if path.name != "README.md":  # peft writes an empty one; the run's own is the model card
                os.replace(path, folder / path.name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
