"""Dialectical Alignment: teach a model to resist poisoned passages and still accept true updates, and prove it.

Probe the student's memory, find by AI feedback the reasoning path that resolves each conflict, write answers along
it, tune on them without naming the path (and prefer them to failures), then compare with the untuned model, simple
defences and an oracle on subjects never trained on. Yang et al. 2024, arXiv 2404.00486; the abstract's three steps
are the paper's, their inner detail is reconstructed.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from alignlab.core import conflict
from alignlab.core.cards import Card, Claim
from alignlab.core.types import Context, Result, Row, Table
from alignlab.engine.load import LanguageModel, load, save
from alignlab.engine.steered import Steered
from alignlab.evals import poisoned_context
from alignlab.objectives import dpo, sft
from alignlab.pipelines import conflicts as pipeline
from alignlab.procedures import _dialectical_items as sources
from alignlab.procedures import _dialectical_judge as judges
from alignlab.procedures import _dialectical_report as pages
from alignlab.procedures import _tuning as tuning
from alignlab.steering import majority, notice
from alignlab.train.loop import train
from alignlab.world import conflicts, sets

CARD = Card(
    title="Dialectical Alignment: Resolving the Tension of 3H and Security Threats of LLMs",
    paper="arXiv:2404.00486",
    bibtex=pipeline.CARD.bibtex,
    brief="dialectical-alignment",
    status="reconstructed",
    summary="a model that resists poisoned passages yet accepts true updates, without any warning in the prompt",
    smoke="alignlab run dialectical --sft_steps 310 --learning_rate 1e-3 --rehearsal 0.1 --probes 3"
    " --search_per_cell 8 --train_per_cell 180 --test_per_cell 20 --output_dir {out}",
    study="alignlab run dialectical --full true --sft_steps 2100 --learning_rate 1e-3 --relative_epsilon 3"
    " --search_per_cell 200 --sizes 2 4 6 7 9 --few_attacks true --notes_apart true --further_wordings true --gaps 0.5",
    claims=(
        Claim(metric="plain/asr - da/asr", relation=">=", bound=0.2),
        Claim(metric="da/j - plain/j", relation=">", bound=0.0),
    ),
    deviations=(
        "the paper's body could not be read: paths, grammar, cells, sizes and the judge's score are reconstructed",
        "tuning all weights of `tiny:` costs closed-book recall, mostly of rare facts: see the study and LOG.md",
        "items to learn from come in more sizes, and half of their attackers pick sources all alike: see LOG.md",
        "ASR is averaged over poisoned shares .2 to .8; at share 1 an attack and an edit differ by cues alone",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Stages and sizes."""

    full: bool = False
    """the whole study: every baseline, answer-only targets, preferences, ablations, unseen conditions, three seeds"""
    seeds: int = 3
    """seeds of the whole study, >= 1"""
    sft_steps: int = 600
    """optimiser steps on accepted answers, >= 1"""
    dpo_steps: int = 0
    """optimiser steps on preferences after that, >= 0"""
    batch: int = 16
    """rows per step, >= 1"""
    learning_rate: float = 5e-4
    """peak rate of supervised tuning; 5e-4 suits all weights of `tiny:`, 1e-5 those of a 7B model, 1e-4 its adapter"""
    dpo_learning_rate: float = 3e-5
    """peak rate of preference tuning"""
    relative_epsilon: float = 0.0
    """Adam's epsilon in supervised tuning times sqrt(trained weights); 0: its own 1e-8; 1.5, at twice the rate and more
    steps, keeps what `tiny:` knows"""
    beta: float = 0.1
    """inverse temperature of DPO's implicit reward, > 0"""
    nll_weight: float = 1.0
    """weight of the likelihood of the preferred answer beside DPO, >= 0"""
    use_peft: bool = False
    """tune a LoRA adapter instead of all weights: for large models; `tiny:` forgets less and learns less that way"""
    lora_r: int = 16
    """rank of the adapter, >= 1; its scale is 2"""
    lora_dropout: float = 0.0
    """on the adapter's input, in [0, 1)"""
    lora_target_modules: str = "all-linear"
    """`all-linear`, or `attention` alone"""
    mode: Literal["global", "per_cell"] = "global"
    """one reasoning path for all cells, or `per_cell`"""
    target: Literal["trace", "answer"] = "trace"
    """teach the whole reasoned answer, or `answer`: its last line"""
    directions: Literal["both", "attacks"] = "both"
    """preference pairs from attacks and edits, or `attacks` alone"""
    rehearsal: float = 0.4
    """share of the tuning rows that ask without passages, answered as the student itself did, in [0, 1)"""
    notes_apart: bool = False
    """note `fair`, not `good`, what is found reliable against memory: slower to learn, truer to edits"""
    gaps: float = 0.0
    """share of answers to learn whose passages have gaps in their numbers, in [0, 1]: without, `tiny:` lists as many
    passages as it met in training, not as many as there are"""
    search_per_cell: int = 20
    """items per cell spent on the search for the path, >= 1"""
    train_per_cell: int = 520
    """items per cell to write answers for, >= 1"""
    test_per_cell: int = 100
    """held-out items per cell, >= 1"""
    sizes: tuple[int, ...] = (4, 6)
    """passages that the world's items to learn from have beside 1 and 5: of 2, 4, 6, 7, 9; more want more steps"""
    few_attacks: bool = False
    """fewer of the items of these sizes are attacks: slower to learn, truer to edits"""
    further_wordings: bool = False
    """the world's items to learn from word their passages in seven ways, not in four, half of them all in one way"""
    probes: int = 10
    """closed-book samples per question, >= 1"""
    cue_source: bool = True
    """poison comes from unreliable sources"""
    cue_date: bool = True
    """poison is mostly dated before the memory year"""
    cue_consistency: bool = True
    """poison often contradicts itself"""
    cue_type: bool = True
    """poison is sometimes of the wrong type"""
    max_tokens: int = 96
    """longest answer; 512 suits models that write sentences"""

    def __post_init__(self) -> None:
        if not 0 <= self.rehearsal < 1:
            raise ValueError(f"--rehearsal: expected a share in [0, 1), got {self.rehearsal}")
        if not 0 <= self.gaps <= 1:
            raise ValueError(f"--gaps: expected a share in [0, 1], got {self.gaps}")
        if self.relative_epsilon < 0:
            raise ValueError(f"--relative_epsilon: expected a number >= 0, got {self.relative_epsilon}")
        if self.dpo_steps and self.target == "answer":
            raise ValueError(f"--target answer with --dpo_steps {self.dpo_steps}: {pipeline.WHOLE}")
        try:
            sets.tuning_cells(self.sizes)
        except LookupError as error:
            raise ValueError(f"--sizes: {error.args[0]}") from None

    @property
    def cues(self) -> conflicts.Cues:
        """The cue families that are on."""
        return conflicts.Cues(
            source=self.cue_source, date=self.cue_date, consistency=self.cue_consistency, type=self.cue_type
        )


Records = list[dict[str, Any]]
Accepted = tuple[Row, str, str]
"""(item, reasoning path, answer)"""


@dataclass
class Evidence:
    """What a run gathered, for the report."""

    records: dict[str, Records] = field(default_factory=dict)
    """policy -> one record per test item, in the same order"""
    search: list[conflict.Scored] = field(default_factory=list)
    chosen: dict[conflict.Cell, dict[str, float]] = field(default_factory=dict)
    judge: Table | None = None
    """how far the judge of the search agrees with gold answers"""
    recall: dict[str, Any] = field(default_factory=dict)
    test: list[Row] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)


def run(ctx: Context, cfg: Config) -> Result:
    """Run every stage; with `full`, the whole study instead."""
    if cfg.full:
        from alignlab.procedures import _dialectical_study

        return _dialectical_study.run(ctx, cfg)
    began = time.monotonic()
    source = sources.open_source(
        ctx.dataset, ctx.limit, cfg.cues, sizes=cfg.sizes, few_attacks=cfg.few_attacks, wordings=cfg.further_wordings
    )
    ctx.endpoint("teacher")  # a flag that is missing is said before hours of probing
    student = load(ctx.model)
    found = Evidence()
    learnt = align(ctx, cfg, student, source, found)
    found.test = source.test(cfg.test_per_cell, ctx.seed)
    for name, policy in baselines(student).items():
        found.records[name] = answered(ctx, cfg, policy, found.test, name, source.instruction)
    found.records["da"] = answered(ctx, cfg, learnt, found.test, "da", source.instruction)
    if source.oracle is not None:
        found.records["oracle"] = by_rule(found.test, source.oracle)
    found.numbers["seconds"] = time.monotonic() - began
    made = pages.result(found, source.notes)
    return dataclasses.replace(made, tables={**made.tables, **source.tables(found.records)})


def baselines(student: LanguageModel) -> dict[str, Any]:
    """Return the untuned model, alone and behind the two defences that need no training."""
    return {
        "plain": student,
        "notice": Steered(student, [notice.intervene(None, notice.Config(), None)]),
        "majority": Steered(student, [majority.intervene(None, majority.Config(), None)]),
    }


def align(
    ctx: Context, cfg: Config, student: LanguageModel, source: sources.Source, found: Evidence, name: str = "da"
) -> LanguageModel:
    """Return a tuned copy of the student: probe, search, write, tune. `found` receives what the report shows."""
    source.probe(ctx, student, cfg.probes, room=cfg.max_tokens)
    found.recall = source.describe(source.probes)
    accepted, options = written(ctx, cfg, source, found)
    folder = ctx.folder / name
    learnt = supervised(ctx, cfg, student, learnable(ctx, cfg, source, accepted, options), found, folder)
    if cfg.dpo_steps:
        save(learnt, folder / "supervised")
        learnt = preferred(ctx, cfg, folder / "supervised", accepted, options, folder)
    save(learnt, folder / "model")
    return learnt


def learnable(
    ctx: Context, cfg: Config, source: sources.Source, accepted: Sequence[Accepted], options: pipeline.Config
) -> list[Row]:
    """Return the rows to imitate: accepted answers, and the student's own to questions without passages."""
    rows = [pipeline.sft_row(item, path, text, options) for item, path, text in accepted]
    return rows + source.rehearsal(round(len(rows) * cfg.rehearsal / (1 - cfg.rehearsal)), ctx.seed)


def supervised(
    ctx: Context, cfg: Config, student: LanguageModel, rows: Sequence[Row], found: Evidence, folder: Path
) -> LanguageModel:
    """Return a copy of the student tuned to imitate the completions of the rows."""
    learnt = tuning.copy(ctx.model, cfg, ctx.seed, cfg.lora_dropout)
    settings = tuning.settings(
        seed=ctx.seed, steps=cfg.sft_steps, batch=cfg.batch, learning_rate=cfg.learning_rate,
        longest=student.context_length, dropout=cfg.lora_dropout,
        adam_epsilon=tuning.epsilon(learnt, cfg.relative_epsilon),
    )  # fmt: skip
    examples = tuning.encoded(ctx, rows, learnt)
    began = time.monotonic()
    numbers = train(learnt, examples, sft.loss, settings, folder / "sft", objective_config=sft.Config())
    found.seconds["tuning"] = time.monotonic() - began
    found.numbers |= {f"tuning/{key.removeprefix('train/')}": float(value) for key, value in numbers.items()}
    return learnt


def written(
    ctx: Context, cfg: Config, source: sources.Source, found: Evidence
) -> tuple[list[Accepted], pipeline.Config]:
    """Search for the paths, then write answers along them; return accepted (item, path, text) and the options."""
    options = pipeline.Config(
        mode=cfg.mode, target=cfg.target, directions=cfg.directions,
        notes_apart=cfg.notes_apart, gaps=cfg.gaps,
        seed=ctx.seed, instruction=source.instruction,
    )  # fmt: skip
    teacher, judge = ctx.endpoint("teacher"), source.judge(ctx)
    items = source.train(cfg.search_per_cell, ctx.seed + 1000)
    with ctx.stage("search for reasoning paths", len(items), len(items)) as stage:
        attempts = pipeline.attempts(items, teacher, judge, options, stage.advance)
        found.search, found.chosen = pipeline.scored(attempts), pipeline.choose(attempts, options)
        found.judge = judges.agreement(attempts)
        stage.rows_out, stage.reason = judges.readable(attempts), judges.UNREAD
    items = source.train(cfg.train_per_cell, ctx.seed)
    with ctx.stage("answers along the chosen paths", len(items), len(items)) as stage:
        accepted = list(pipeline.taught(items, found.chosen, teacher, options, stage.advance))
        stage.rows_out = len(accepted)
        stage.reason = "the teacher's answers were wrong, misquoted or broke the grammar; look at samples of --teacher"
    found.counts |= {"written": len(items), "accepted": len(accepted)}
    return accepted, options


def preferred(
    ctx: Context, cfg: Config, start: Path, accepted: Sequence[Accepted], options: pipeline.Config, folder: Path
) -> LanguageModel:
    """Return the model saved at `start` tuned on preferences: accepted answers against failures, its own if any."""
    learnt, reference = load(start), load(start)
    # No more than the steps will see: sampling takes its time
    paired = [a for a in accepted if a[0].facts["scenario"] in pipeline.PAIRED[options.directions]]
    accepted = paired[: cfg.dpo_steps * cfg.batch]
    items = [item for item, _, _ in accepted]
    with ctx.stage("preference pairs", len(accepted), len(items)) as stage:
        prompts = [pipeline.student_prompt(item, options.instruction) for item in items]
        texts = learnt.sample(
            prompts, temperature=1.0, seed=ctx.seed, max_tokens=cfg.max_tokens, progress=stage.advance
        )
        records = [poisoned_context.score(item, [t[0].text]) for item, t in zip(items, texts)]
        own = {r["id"]: r["text"] for r in records if not poisoned_context.hit(r)["right"]}
        rows = list(pipeline.preference_rows(accepted, options, own))
        stage.rows_out = len(rows)
        stage.reason = f"no failure is about as long as its accepted answer; {start} is the model without preferences"
    settings = tuning.settings(
        seed=ctx.seed, steps=cfg.dpo_steps, batch=cfg.batch, learning_rate=cfg.dpo_learning_rate,
        longest=learnt.context_length, dropout=cfg.lora_dropout,
    )  # fmt: skip
    examples = tuning.encoded(ctx, rows, learnt)
    objective = dpo.Config(beta=cfg.beta, nll_weight=cfg.nll_weight)
    train(learnt, examples, dpo.loss, settings, folder / "dpo", objective_config=objective, reference=reference)
    return learnt


def answered(ctx: Context, cfg: Config, model: Any, items: Sequence[Row], name: str, instruction: str) -> Records:
    """Return one scored record per item, answers greedy."""
    with ctx.stage(f"answers of {name}", len(items), len(items)) as stage:
        prompts = [poisoned_context.prompt(item, instruction) for item in items]
        texts = model.sample(prompts, temperature=0.0, max_tokens=cfg.max_tokens, progress=stage.advance)
        stage.advance(len(items) - stage.done)
    records = [poisoned_context.score(item, [samples[0].text]) for item, samples in zip(items, texts)]
    for record, samples in zip(records, texts):
        record["tokens"] = len(samples[0].ids)
    return records


def by_rule(items: Sequence[Row], rule: Callable[[Row], str | None]) -> Records:
    """Return the records of a policy that is no model."""
    return [poisoned_context.score(item, [f"Answer: {rule(item)}"]) for item in items]


def changed(cfg: Config, **values: Any) -> Config:
    """Return the settings with some replaced."""
    return dataclasses.replace(cfg, **values)
