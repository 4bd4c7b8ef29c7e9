"""Rebuild `tiny:`, the embedded model: words, then closed-book, then reading with contexts that are always true.

Its add-ons (`tiny:+NAME`), each made to believe or to do something known, are built on it; alone with `--base tiny:`.

The first step teaches to copy and compare words, as any larger model can. The last one makes it the adaptive
chameleon of Dialectical Alignment (Yang et al. 2024, arXiv 2404.00486): it knows the town by heart, and says whatever
passages say. About 2M parameters, Llama architecture. The last two steps are the brief's reconstruction of how such a
model comes about; sizes, schedules and the first step are ours.
"""

import itertools
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from alignlab.core import files
from alignlab.core.answers import final_answer
from alignlab.core.cards import Card, Claim
from alignlab.core.trace import MARKER
from alignlab.core.types import Context, Figure, Metric, Model, Result, Row, Table
from alignlab.engine.encode import Example, chat_text, encode
from alignlab.engine.load import LanguageModel, load, save
from alignlab.engine.probes import closed_book
from alignlab.engine.tokenizer import byte_level_bpe
from alignlab.objectives import sft
from alignlab.procedures import _tiny_addons
from alignlab.procedures import _tiny_start as start
from alignlab.procedures._tiny_addons import Addon
from alignlab.procedures._tiny_taught import ADDONS
from alignlab.stats.calibration import expected_calibration_error
from alignlab.stats.proportion import wilson
from alignlab.train.config import TrainConfig
from alignlab.train.log import read
from alignlab.train.loop import train
from alignlab.world import facts, grammar, texts, vocabulary
from alignlab.world.facts import Fact, Town

CARD = Card(
    title="The embedded model tiny: (adaptive chameleon of Dialectical Alignment)",
    paper="arXiv:2404.00486",
    bibtex="""@article{yang2024tiny,
  title = {Dialectical Alignment: Resolving the Tension of 3H and Security Threats of LLMs},
  author = {Yang, Shu and others},
  journal = {arXiv preprint arXiv:2404.00486},
  year = {2024}
}""",
    brief="dialectical-alignment",
    status="reconstructed",
    summary="trains the embedded model: knows the town by heart, and follows whatever passages say",
    smoke="alignlab run tiny --practice_steps 20 --closed_book_steps 60 --reading_steps 20 --addons kind unkind "
    "--addon_effort 0.1 --output_dir {out}",
    study="alignlab run tiny --install true",
    claims=(Claim(metric="loss_closed_book", relation="<=", bound=4.0),),
    deviations=("about 2M parameters and 1,280 facts instead of the brief's 5M and 4,800, so that the demo is quick",),
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Size and schedule."""

    practice_steps: int = 1000
    """optimiser steps of twice as many rows on exercises with words alone, >= 1"""
    closed_book_steps: int = 1100
    """optimiser steps on documents, closed-book talk and exercises, >= 1"""
    reading_steps: int = 1200
    """optimiser steps on reading, with talk and exercises mixed in so that nothing is forgotten, >= 1"""
    base: str | None = None
    """build the add-ons alone, on this model, e.g. `tiny:`, instead of training one; default: train it first"""
    addons: tuple[str, ...] = tuple(addon.name for addon in ADDONS)
    """which add-ons, of all named here"""
    addon_effort: float = 1.0
    """share of each add-on's steps, above 0; what an add-on must show is measured where it is at least 1"""
    batch: int = 32
    """rows of about 90 tokens per step, >= 1"""
    learning_rate: float = 2e-3
    """peak of the first step; the second peaks at three quarters of it"""
    hidden: int = 192
    """width of the model"""
    layers: int = 4
    """depth of the model"""
    probes: int = 10
    """closed-book samples per fact for its confidence, >= 1"""
    install: bool = False
    """put the result into the package as the new `tiny:`"""


def tokenizer() -> Any:
    """Return the tokenizer of the town and of every planned world file."""
    return byte_level_bpe(vocabulary.words(), vocabulary.HEADS, vocabulary.SOURCES, vocabulary.JOINED)


def untrained(cfg: Config, seed: int) -> LanguageModel:
    """Return the model before its first step."""
    from transformers import LlamaConfig, LlamaForCausalLM

    words = tokenizer()
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=-(-len(words) // 8) * 8, hidden_size=cfg.hidden, intermediate_size=round(cfg.hidden * 8 / 3),
        num_hidden_layers=cfg.layers, num_attention_heads=max(1, cfg.hidden // start.HEAD), max_position_embeddings=512,
        tie_word_embeddings=True, bos_token_id=words.bos_token_id, eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id, attention_bias=True,
        rope_parameters={"rope_type": "default", "rope_theta": start.ROPE_THETA},
    )  # fmt: skip
    module = LlamaForCausalLM(config)
    start.copying(module)
    return LanguageModel(module=module, tokenizer=words, name="tiny", source="tiny:")


def whole_text(row: Row, words: Any) -> Row:
    """Return a chat as plain text to be learnt from its first word on: copying is then practised at every passage."""
    turns = (*row.prompt, {"role": "assistant", "content": row.completion})
    text = chat_text(words, turns).removeprefix(words.bos_token).removesuffix(words.eos_token)  # type: ignore[arg-type]
    return Row(prompt="", completion=text + words.eos_token, meta=row.meta)


def mixed(streams: dict[str, Iterator[Row]], pattern: str, rows: int, words: Any) -> Iterator[Example]:
    """Yield `rows` tokenised rows, drawn from the streams in a repeating pattern of their initials; capital = whole."""
    for initial in itertools.islice(itertools.cycle(pattern), rows):
        row = next(streams[initial.lower()])
        yield encode(whole_text(row, words) if initial.isupper() else row, words)


def follows(model: Model, town: Town, seed: int, n: int) -> float:
    """Return how often greedy answers say what the passages say, on fresh reading tasks about what changed."""
    tasks = (row for row in texts.reading(town, seed) if row.facts["kind"] == "changed")
    rows = list(itertools.islice(tasks, n))
    answers = model.sample([row.prompt for row in rows], temperature=0.0, max_tokens=12)
    return sum(final_answer(a[0].text, MARKER) == row.facts["gold"] for a, row in zip(answers, rows)) / n


def measure(model: Model, town: Town, cfg: Config, seed: int, losses: dict[str, float]) -> Result:
    """Return recall and confidence by document frequency, calibration, and how far contexts are followed."""
    greedy = probe_greedy(model, town)
    sampled = closed_book(model, {f.id: grammar.question(f, -1) for f in town.facts.values()}, cfg.probes, seed)
    bands: dict[tuple[int, int], list[Fact]] = defaultdict(list)
    for fact in town.facts.values():
        bands[facts.band(fact.frequency)].append(fact)
    metrics, rows = {}, []
    for band in facts.BANDS:
        right = [greedy[f.id] == f.value for f in bands[band]]
        confidence = [sampled[f.id].confidence for f in bands[band]]
        low, high = wilson(sum(right), len(right))
        name = f"recall_{band[0]}_{band[1]}"
        metrics[name] = Metric(value=sum(right) / len(right), n=len(right), low=low, high=high)
        mean = sum(confidence) / len(right)
        rows.append((f"{band[0]}-{band[1]}", len(right), round(metrics[name].value, 4), round(mean, 4)))
    everything = list(town.facts.values())
    correct = [sampled[f.id].answer == f.value for f in everything]
    error = expected_calibration_error([sampled[f.id].confidence for f in everything], correct)
    metrics["calibration_error"] = Metric(value=error, n=len(everything))
    metrics["follows"] = Metric(value=follows(model, town, seed + 1, 500), n=500)
    metrics |= _numbers(losses)
    table = Table(
        columns=("documents", "facts", "recall", "confidence"), rows=tuple(rows), caption="Closed-book recall"
    )
    bars = {"recall": {"label": [r[0] for r in rows], "y": [r[2] for r in rows]}}
    figure = Figure(kind="bars", series=bars, x_label="document frequency", y_label="recall")
    return Result(metrics=metrics, tables={"recall": table}, figures={"recall": figure})


def _numbers(losses: dict[str, float]) -> dict[str, Metric]:
    return {name: Metric(value=value, n=1) for name, value in losses.items()}


def probe_greedy(model: Model, town: Town) -> dict[str, str | None]:
    """Return fact id -> greedy closed-book answer to the paraphrase kept out of training."""
    listed = list(town.facts.values())
    prompts = [({"role": "user", "content": grammar.question(f, -1)},) for f in listed]
    answers = model.sample(prompts, temperature=0.0, max_tokens=12)
    return {f.id: final_answer(a[0].text, MARKER) for f, a in zip(listed, answers)}


def run(ctx: Context, cfg: Config) -> Result:
    """Train in three steps, build the add-ons, measure; a whole step found in the run folder is not trained again."""
    unknown = sorted(set(cfg.addons) - {addon.name for addon in ADDONS})
    if unknown or cfg.addon_effort <= 0:
        raise ValueError(
            f"tiny: --addons {' '.join(unknown) or 'fine'}: expected some of {', '.join(a.name for a in ADDONS)}; "
            f"--addon_effort {cfg.addon_effort:g}: expected a number above 0"
        )
    town = facts.town()
    losses: dict[str, float] = {}
    model = _trained(ctx, cfg, town, losses) if cfg.base is None else load(cfg.base)
    save(model, ctx.folder / "model")
    chosen = [addon for addon in ADDONS if addon.name in cfg.addons]
    made = _tiny_addons.built(chosen, ctx.folder / "model", ctx.folder / "addons", cfg.addon_effort)
    losses |= {f"loss_{name}": loss for name, loss in made.items()}
    found = measure(model, town, cfg, ctx.seed, losses) if cfg.base is None else Result(metrics=_numbers(losses))
    if cfg.addon_effort >= 1:
        table = _shown(chosen, ctx.folder)
        found = replace(found, tables={**found.tables, "addons": table})
    if cfg.install:
        _install(ctx.folder, chosen, with_model=cfg.base is None)
    return found


def _shown(addons: Sequence[Addon], folder: Path) -> Table:
    """Return what each add-on's eval found beside what it was made to be."""
    rows = []
    for addon in addons:
        # loaded from the folder of its base, which need not be the model in the package
        model = load(folder / "addons" / addon.name / "model")
        observed, refuted = _tiny_addons.shown(addon, model)
        for claim in addon.claims:
            rows.append((addon.name, str(claim), round(observed[claim.metric], 4), str(claim) not in refuted))
    return Table(columns=("add-on", "made to be", "found", "holds"), rows=tuple(rows), caption="Add-ons")


def _trained(ctx: Context, cfg: Config, town: Town, losses: dict[str, float]) -> LanguageModel:
    """Return the model after the three steps; the loss of each goes into `losses`."""
    model = untrained(cfg, ctx.seed)
    steps = (
        ("practice", "e", cfg.practice_steps, 2 * cfg.batch, 1.5 * cfg.learning_rate),
        ("closed_book", "dCee", cfg.closed_book_steps, cfg.batch, cfg.learning_rate),
        ("reading", "ReReCreR", cfg.reading_steps, cfg.batch, 0.75 * cfg.learning_rate),
    )
    for name, pattern, count, batch, rate in steps:
        # Fresh streams for each step, so that a step that is not repeated shifts nothing in the next one.
        streams = {
            "d": texts.documents(town, ctx.seed),
            "c": texts.closed_book(town, ctx.seed),
            "r": texts.reading(town, ctx.seed),
            "e": texts.practice(town, ctx.seed),
        }
        rows = count * batch
        done = ctx.folder / name / "model"
        if done.exists():
            model, losses[f"loss_{name}"] = load(done), read(ctx.folder / name / "metrics.jsonl")[-1]["loss"]
            continue
        with ctx.stage(f"{name}: text", rows, rows) as stage:
            examples = []
            for example in mixed(streams, pattern, rows, model.tokenizer):
                examples.append(example)
                stage.advance()
        settings = TrainConfig(
            learning_rate=rate, per_device_train_batch_size=batch, max_steps=count, warmup_ratio=0.05,
            lr_scheduler_type="cosine", weight_decay=0.01, adam_beta2=0.95, bf16=True, seed=ctx.seed,
            save_steps=max(1, count // 4), save_total_limit=1, resume_from_checkpoint=True, max_length=512,
        )  # fmt: skip
        found = train(model, examples, sft.loss, settings, ctx.folder / name, objective_config=sft.Config())
        losses[f"loss_{name}"] = found["train/loss_last"]
        save(model, done)
    return model


def _install(folder: Path, addons: Sequence[Addon], *, with_model: bool) -> None:
    """Put a run's model and its add-ons into the package."""
    weights = Path(str(resources.files("alignlab.world").joinpath("weights")))
    made = {addon.name: folder / "addons" / addon.name / "shipped" for addon in addons}
    for name, source in (made | ({"tiny": folder / "model"} if with_model else {})).items():
        with files.replacing_folder(weights / name) as beside:
            shutil.copytree(source, beside, dirs_exist_ok=True)
