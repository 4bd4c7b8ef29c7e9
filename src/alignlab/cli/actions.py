"""One action per verb: reads rows, loads models, calls the method's function, returns its Result."""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from types import ModuleType, NoneType
from typing import Any, get_type_hints

from alignlab.cli.context import RunContext
from alignlab.core import files
from alignlab.core.types import Endpoint, Metric, Prompt, Result, Row

Values = dict[str, Any]


class ByRole(Mapping[str, Endpoint]):
    """Role -> endpoint of a run, made when it is first asked for."""

    def __init__(self, ctx: RunContext) -> None:
        """Look endpoints up in `ctx`."""
        self.ctx = ctx

    def __getitem__(self, role: str) -> Endpoint:
        endpoint: Endpoint = self.ctx.endpoint(role)
        return endpoint

    def __iter__(self) -> Iterator[str]:
        return iter(self.ctx.specs)

    def __len__(self) -> int:
        return len(self.ctx.specs)


def columns_of(entries: Sequence[str]) -> dict[str, str] | None:
    """Return field -> column from `--columns prompt=instruction,completion=output`; ValueError for anything else."""
    mapping = {}
    for entry in (part for text in entries for part in text.split(",") if part):
        ours, equals, theirs = entry.partition("=")
        if not (ours and equals and theirs):
            raise ValueError(f"--columns: expected OUR_COLUMN=YOUR_COLUMN, e.g. prompt=instruction, got {entry!r}")
        mapping[ours.strip()] = theirs.strip()
    return mapping or None


def read_rows(ctx: RunContext, values: Values, spec: str | None = None, flag: str = "--dataset") -> list[Row]:
    """Read the rows of a run; ValueError when no data set is named or nothing comes out of it."""
    spec, part = spec or ctx.dataset, "test" if flag == "--eval_dataset" else "train"
    own = f"dataset_{part}_split"
    if spec is None:
        raise ValueError(f"{flag}: which rows? Give a JSONL or Parquet file, a hub id, or world:NAME")
    if spec.startswith("world:"):
        from alignlab import world

        found: Iterator[Row] = world.rows(spec.removeprefix("world:"), ctx.seed, ctx.limit)
    else:
        from alignlab.data.rows import read

        found = read(
            spec, columns=columns_of(values.get("columns", ())), limit=ctx.limit, split=values.get(own), hub_split=part,
            # another data set names a config of its own: org/name:config
            config=values.get("dataset_config") if spec == ctx.dataset else None,
        )  # fmt: skip
    try:
        rows = list(itertools.islice(found, ctx.limit))
    except ValueError as error:
        if own in values and f"split {part!r}" in str(error):
            raise ValueError(f"{flag} {spec}: {error}; --{own} names another split") from error
        raise
    if not rows:
        raise ValueError(f"{flag} {spec}: no rows in it")
    ctx.say(f"{spec}: {len(rows):,} rows")
    return rows


def load_model(
    values: Values, spec: str | None = None, head: str = "tokens", output_heads: int | None = None
) -> Any:  # fmt: skip
    """Load the model that the flags name, with a fresh LoRA adapter where asked; the rest as `engine.load` takes it."""
    from alignlab.engine.load import Lora, load

    lora = None
    if values.get("use_peft"):
        lora = Lora(
            r=values["lora_r"],
            alpha=values["lora_alpha"],
            dropout=values["lora_dropout"],
            target_modules=values["lora_target_modules"],
        )
    return load(
        spec or values["model"],
        dtype=values["dtype"],
        device="cpu" if values.get("use_cpu") else values["device"],
        revision=values["model_revision"],
        adapter=values["adapter"],
        trust_remote_code=values["trust_remote_code"],
        lora=lora,
        head=head,
        output_heads=output_heads,
        head_weights=values["head_weights"],
        attn_implementation=values["attn_implementation"],
    )


def train(module: ModuleType, cfg: Any, ctx: RunContext, values: Values) -> Result:
    """Train with an objective; the model, its metrics and checkpoints land in the run folder."""
    from alignlab.cli.training import train as run_training

    return run_training(module, cfg, ctx, values)


def run(module: ModuleType, cfg: Any, ctx: RunContext, _: Values) -> Result:
    """Run a procedure or a field."""
    result: Result = module.run(ctx, cfg)
    return result


def check(module: ModuleType, cfg: Any, _ctx: RunContext, _values: Values) -> Result:
    """Verify theorems."""
    result: Result = module.check(cfg)
    return result


def make(module: ModuleType, cfg: Any, ctx: RunContext, values: Values) -> Result:
    """Run a pipeline; its rows land in rows.jsonl."""
    rows = read_rows(ctx, values)
    return _write_rows(module, ctx, rows, module.make(iter(rows), ByRole(ctx), cfg))


def attack(module: ModuleType, cfg: Any, ctx: RunContext, values: Values) -> Result:
    """Rewrite prompts; the attacked rows land in rows.jsonl. An attack may have `outcome(facts of its rows, cfg)`."""
    rows, facts = read_rows(ctx, values), []

    def seen() -> Iterator[Row]:
        for row in module.attack(load_model(values), iter(rows), cfg):
            facts.append(row.facts)
            yield row

    result = _write_rows(module, ctx, rows, seen())
    if not hasattr(module, "outcome"):
        return result
    return dataclasses.replace(result, metrics={**result.metrics, **module.outcome(facts, cfg)})


def _write_rows(module: ModuleType, ctx: RunContext, rows: Sequence[Row], made: Iterator[Row]) -> Result:
    from alignlab.data.rows import write

    kept: list[Row] = []
    with ctx.stage(module.__name__.rpartition(".")[2], len(rows)) as stage:

        def counted() -> Iterator[Row]:
            for row in made:
                stage.advance()
                if len(kept) < 20:
                    kept.append(row)
                yield row

        stage.rows_out = write(ctx.folder / "rows.jsonl", counted())
    metrics = {
        "rows_in": Metric(value=float(len(rows)), n=len(rows)),
        "rows": Metric(value=float(stage.rows_out), n=len(rows)),
    }
    samples = tuple({"prompt": text_of(row.prompt), "answer": row.chosen or row.completion or ""} for row in kept)
    return Result(metrics=metrics, samples=samples)


def text_of(prompt: Prompt) -> str:
    """Return a prompt as text for people."""
    return prompt if isinstance(prompt, str) else "\n".join(f"{m['role']}: {m['content']}" for m in prompt)


def score(module: ModuleType, cfg: Any, ctx: RunContext, values: Values) -> Result:
    """Score completions with a reward; scores.jsonl has one line per row. `model: None` loads none, as for probes."""
    from alignlab.stats.bootstrap import mean

    rows = read_rows(ctx, values)
    hints, valued = get_type_hints(module.score), "value" in module.CARD.needs
    model = None if hints.get("model") is NoneType else load_model(values, head="trained" if valued else "tokens")
    if valued:
        from alignlab.cli import rewarded

        return rewarded.score(module, cfg, ctx, model, rows)
    found = module.score(model, rows, cfg) if "cfg" in hints else module.score(model, rows)
    numbers = [float(value) for value in found]
    records = [
        {"id": row.meta.get("id", i), "score": value} for i, (row, value) in enumerate(zip(rows, numbers, strict=True))
    ]
    write_lines(ctx, "scores.jsonl", records)
    return Result(metrics={"score": mean(numbers, seed=ctx.seed)})


def probe(module: ModuleType, cfg: Any, ctx: RunContext, values: Values) -> Result:
    """Measure what is inside a model; a probe that says `model: None` reads rows alone, so none is loaded."""
    rows = read_rows(ctx, values) if ctx.dataset else []
    wanted = get_type_hints(module.measure).get("model")
    result: Result = module.measure(None if wanted is NoneType else load_model(values), rows, cfg)
    return result


def eval(module: ModuleType, cfg: Any, ctx: RunContext, values: Values) -> Result:  # noqa: A001 - the verb's name
    """Play an eval with a model or an endpoint."""
    from alignlab.engine.endpoints import endpoint
    from alignlab.harness import before, local, log
    from alignlab.harness.dialogue import roles
    from alignlab.harness.journal import Journal

    began, name = datetime.now(UTC), module.__name__.rpartition(".")[2]
    items = read_rows(ctx, values) if ctx.dataset else list(itertools.islice(module.items(cfg), ctx.limit))
    earlier = None
    if values["before"]:
        earlier = before.read(values["before"], name, items, ctx.folder, values)
    options_ = {"seed": ctx.seed, "temperature": values["temperature"], "max_tokens": values["max_tokens"]}
    found: dict[str, local.Answerer] = {}
    if values["target"]:
        found["model"] = local.by_endpoint(
            endpoint(values["target"], cache_dir=ctx.answers), **options_, form=values["option_score"]
        )
    else:
        model = steered(load_model(values), values)
        found["model"] = local.by_model(model, **options_, form=values["option_score"])

    def answerer(role: str) -> local.Answerer:
        if role not in found:
            found[role] = local.by_endpoint(ctx.endpoint(role), **options_)
        return found[role]

    for role in roles(module, cfg, items[:50]):
        answerer(role)  # a judge that is missing shows before the model has answered everything
    journal = Journal(ctx.folder, {"eval": name, "model": found["model"].identity()})
    with ctx.stage(name, len(items), len(items)) as stage:
        dialogues = local.played(module, cfg, items, answerer, seed=ctx.seed, journal=journal, advance=stage.advance)
        ctx.samples = local.records_of(module, dialogues)
        stage.rows_out = len(ctx.samples)
        stage.reason = next((d.problem for d in dialogues if d.problem), "")
    identities = {role: who.identity() for role, who in found.items()}
    result = local.result_of(module, dialogues, ctx.samples, identities, earlier)
    before.keep(ctx.folder, name, dialogues, ctx.samples)
    if earlier is not None:
        said = before.note(values["before"], earlier, items)
        result = dataclasses.replace(result, notes=(*result.notes, said))
    if values["inspect_log"] and log.available():
        path = ctx.folder / "logs" / f"{journal.path.stem.replace('journal', name)}.eval"
        log.write(
            path, module, dialogues, ctx.samples, result, settings=dataclasses.asdict(cfg), identities=identities,
            seed=ctx.seed, began=began,
        )  # fmt: skip
        ctx.say(f"{path}: for `inspect view`")
    return result


def steered(model: Any, values: Values) -> Any:
    """Put the methods of `--steer` on a model: METHOD or METHOD?option=value&option=value."""
    from alignlab.harness import models

    return models.steered(model, values["steer"], lambda other: load_model(values, other))


def steer(module: ModuleType, cfg: Any, ctx: RunContext, values: Values) -> Result:
    """Sample under an intervention, beside the same model without it."""
    from alignlab.engine.steered import Steered

    model = load_model(values)
    if values["prompt"] is not None:
        rows = [Row(prompt=chat_or_text(model, values["prompt"]))]
    else:
        rows = read_rows(ctx, values)
    artifact = None
    if hasattr(module, "fit"):
        artifact = module.fit(model, read_rows(ctx, values, values["fit_dataset"], "--fit_dataset"), cfg)
    intervention = module.intervene(artifact, cfg, lambda spec: load_model(values, spec))
    drawn = {name: values[name] for name in ("n", "temperature", "max_tokens")} | {"seed": ctx.seed}
    prompts = [row.prompt for row in rows]
    with ctx.stage("plain", len(rows), len(rows)) as stage:
        plain = model.sample(prompts, **drawn, progress=stage.advance)
        stage.rows_out = len(plain)
    with ctx.stage("steered", len(rows), len(rows)) as stage:
        steered = Steered(model, [intervention]).sample(prompts, **drawn)
        stage.rows_out = len(steered)
    samples = [
        {"prompt": text_of(prompt), "plain": before.text, "steered": after.text}
        for prompt, befores, afters in zip(prompts, plain, steered, strict=True)
        for before, after in zip(befores, afters, strict=True)
    ]
    ctx.samples = samples
    changed = sum(s["plain"] != s["steered"] for s in samples) / len(samples)
    return Result(metrics={"changed": Metric(value=changed, n=len(samples))}, samples=tuple(samples[:20]))


def chat_or_text(model: Any, text: str) -> Prompt:
    """Return a prompt as a chat turn where the tokenizer has a template, else as plain text."""
    return ({"role": "user", "content": text},) if getattr(model.tokenizer, "chat_template", None) else text


def write_lines(ctx: RunContext, name: str, records: Sequence[Any]) -> None:
    """Write a JSONL file of the run folder, whole or not at all."""
    import json

    text = "".join(json.dumps(record, ensure_ascii=False, default=str) + "\n" for record in records)
    files.write_text(ctx.folder / name, text)
