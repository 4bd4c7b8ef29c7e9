"""Dialectical training data: which reasoning path to teach where, then answers to learn and pairs to prefer.

A teacher answers conflict items along every reasoning path, a judge scores the answers, the best path per cell (or
over all) is kept; its accepted answers become the targets of prompts that no longer name it (context distillation).
Yang et al. 2024, arXiv 2404.00486, stages 1-3; the abstract's three steps are the paper's, their inner detail
(paths, judge score, selection, rejected answers) is reconstructed.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from alignlab.core import conflict, trace
from alignlab.core.answers import normalise
from alignlab.core.cards import Card, Claim
from alignlab.core.types import Endpoint, Prompt, Row, Sample
from alignlab.pipelines._conflict_prompts import judge_prompt, student_prompt, teacher_prompt, verdict

CARD = Card(
    title="Dialectical Alignment: Resolving the Tension of 3H and Security Threats of LLMs",
    paper="arXiv:2404.00486",
    bibtex="""@article{yang2024dialectical,
  title = {Dialectical Alignment: Resolving the Tension of 3H and Security Threats of LLMs},
  author = {Yang, Shu and Su, Jiayuan and Jiang, Han and Li, Mengdi and Cheng, Keyuan and Ali, Muhammad Asif
            and Hu, Lijie and Wang, Di},
  journal = {arXiv preprint arXiv:2404.00486},
  year = {2024}
}""",
    brief="dialectical-alignment",
    status="reconstructed",
    summary="finds the reasoning path that resolves knowledge conflicts, and writes training data that teaches it",
    smoke="alignlab make conflicts --dataset world:conflicts --limit 260 --search_per_cell 10 --output_dir {out}",
    claims=(Claim(metric="rows", relation=">=", bound=100),),
    deviations=(
        "paths, grammar, judge weights and cells are our reconstruction: the paper's body could not be read",
        "rejected answers are templated failures and the student's own wrong answers, half and half where it has any",
    ),
)


WHOLE = (
    "target=answer and preferences exclude each other: pairs are of whole reasoned answers of like length (a failure "
    "keeps the accepted answer's path); use target=trace, or output=sft for last lines alone"
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of the data pipeline."""

    output: Literal["sft", "preferences"] = "sft"
    """answers to imitate, or pairs to prefer"""
    mode: Literal["global", "per_cell"] = "global"
    """one path for all cells, or the best of each (the student is never told the cell)"""
    target: Literal["trace", "answer"] = "trace"
    """teach the whole reasoned answer, or its last line only; preferences are between whole answers"""
    directions: Literal["both", "attacks"] = "both"
    """preference pairs from attack and edit cells, or from attack cells alone (an ablation that ruins edits)"""
    strategies: tuple[str, ...] = ()
    """reasoning paths to search, such as P3 P4; none named: all"""
    search_per_cell: int = 20
    """items of each cell spent on the search, >= 1"""
    samples: int = 1
    """teacher answers per item and path, >= 1"""
    temperature: float = 0.7
    """teacher's temperature, >= 0"""
    weights: tuple[float, float, float] = (0.7, 0.2, 0.1)
    """judge score: outcome, true quotes, process rating; each in [0, 1]"""
    gold_visible: bool = True
    """show the reference to the judge; without it the judge decides by itself"""
    instruction: str = ""
    """how to give the final answer, for students that were not taught the marker"""
    notes_apart: bool = False
    """note `fair`, not `good`, what is found reliable though memory says something else"""
    gaps: float = 0.0
    """share of answers to imitate whose passages have gaps in their numbers, as what a filter leaves has, so that a
    model reads off the prompt how many there are; in [0, 1]"""
    seed: int = 0
    """order of items, choice among paths, gaps"""

    def __post_init__(self) -> None:
        if not 0 <= self.gaps <= 1:
            raise ValueError(f"--gaps: expected a share in [0, 1], got {self.gaps}")
        if (self.output, self.target) == ("preferences", "answer"):
            raise ValueError(WHOLE)
        if unknown := [name for name in self.strategies if name not in trace.STRATEGIES]:
            raise ValueError(f"--strategies: no path {', '.join(unknown)}; known: {', '.join(trace.STRATEGIES)}")


Advance = Callable[[int], None]
PAIRED = {"both": ("pca", "ike", "mixed"), "attacks": ("pca",)}
"""directions -> scenarios that preference pairs are made of"""
PART = 128
"""prompts asked at once, so that progress shows"""
ITEM = frozenset({"scenario", "k", "ratio", "question", "contexts", "memory", "confidence", "gold", "target"})
"""facts of a conflict item"""


def read(item: Row, text: str) -> trace.Trace:
    """Return a parsed answer, letters of options in the options' words."""
    return trace.settled(trace.parse(text), item.facts.get("options", ()))


def right(item: Row, answer: trace.Trace) -> bool:
    """Whether the parsed final answer is the gold one."""
    gold = item.facts["gold"]
    return gold is not None and answer.answer is not None and normalise(answer.answer) == normalise(gold)


@dataclass(frozen=True)
class Attempt:
    """One teacher's answer to one item along one path; `score` is None when the judge could not be read."""

    item: Row
    strategy: str
    text: str
    score: float | None
    judged_right: bool | None


def _asked(
    who: Endpoint, prompts: Sequence[Prompt], advance: Advance, share: int, **options: Any
) -> list[list[Sample]]:
    """Return the answers to all prompts, a part at a time; `advance` hears of every `share` prompts answered."""
    found: list[list[Sample]] = []
    for start in range(0, len(prompts), PART):
        found += who.complete(prompts[start : start + PART], **options)
        advance(len(found) // share - start // share)
    return found


def attempts(
    items: Sequence[Row], teacher: Endpoint, judge: Endpoint | None, cfg: Config, advance: Advance = lambda _: None
) -> list[Attempt]:
    """Let the teacher answer every item along every path, and the judge score it.

    Without a judge the gold answer decides the outcome and the checker of the grammar rates the process, 1 or 0.
    `advance` is called with numbers of items as the teacher answers them.
    """
    asked = [(item, strategy) for item in items for strategy in cfg.strategies or trace.STRATEGIES]
    prompts = [teacher_prompt(item, strategy) for item, strategy in asked]
    options: dict[str, Any] = {"n": cfg.samples, "seed": cfg.seed, "temperature": cfg.temperature, "max_tokens": 512}
    answers = _asked(teacher, prompts, advance, len(cfg.strategies or trace.STRATEGIES), **options)
    flat = [(item, name, sample.text) for (item, name), samples in zip(asked, answers) for sample in samples]
    if judge is None:
        return [ruled(item, name, text, cfg) for item, name, text in flat]
    questions = [judge_prompt(item, text, gold_visible=cfg.gold_visible) for item, _, text in flat]
    verdicts = judge.complete(questions, n=1, seed=cfg.seed, temperature=0.0, max_tokens=64)
    found = []
    for (item, name, text), replies in zip(flat, verdicts):
        said, parsed = verdict(replies[0].text), read(item, text)
        score = None
        if said is not None:
            outcome = right(item, parsed) if cfg.gold_visible and item.facts["gold"] is not None else said[0]
            quotes = trace.quotes_are_true(parsed, item.facts["contexts"])
            score = sum(w * x for w, x in zip(cfg.weights, (outcome, quotes, said[1])))
        found.append(Attempt(item, name, text, score, None if said is None else said[0]))
    return found


def ruled(item: Row, strategy: str, text: str, cfg: Config) -> Attempt:
    """Return an attempt scored without a judge."""
    parsed = read(item, text)
    process = not faults(item, strategy, parsed)
    quotes = trace.quotes_are_true(parsed, item.facts["contexts"])
    score = sum(w * x for w, x in zip(cfg.weights, (right(item, parsed), quotes, process)))
    return Attempt(item, strategy, text, score, None)


def faults(item: Row, strategy: str, parsed: trace.Trace) -> tuple[str, ...]:
    """Return what is wrong with an answer along a path, in words."""
    return trace.check(
        parsed, item.facts["contexts"], memory=item.facts["memory"], confidence=item.facts["confidence"],
        segments=trace.STRATEGIES[strategy].segments,
    )  # fmt: skip


def cell_of(item: Row) -> conflict.Cell:
    """Return (scenario, amount): the ratio of an attack, the contexts of an edit, the poisoned ones of a mixture."""
    facts = item.facts
    amount = {"pca": facts["ratio"], "ike": len(facts["contexts"]), "mixed": facts["k"]}.get(facts["scenario"], 0)
    return facts["scenario"], amount


def scored(found: Iterable[Attempt]) -> list[conflict.Scored]:
    """Return the scored attempts as records of the strategy search; unread verdicts count as 0."""
    return [
        conflict.Scored(
            strategy=a.strategy,
            cell=cell_of(a.item),
            item=a.item.meta["id"],
            score=a.score or 0.0,
            tokens=len(a.text.split()),
        )
        for a in found
    ]


def choose(found: Sequence[Attempt], cfg: Config) -> dict[conflict.Cell, dict[str, float]]:
    """Return cell -> path -> share in the training data. Overlapping winners of a cell share it (`per_cell`)."""
    records = scored(found)
    if not records:
        raise ValueError("no judged answer to choose a path from; give the search at least one item per cell")
    scores = conflict.mean_scores(records)
    if cfg.mode == "global":
        best, _ = conflict.overall(scores, conflict.mean_tokens(records))
        return {cell: {best: 1.0} for cell in scores}
    standings = conflict.standings(records, seed=cfg.seed)
    return {cell: {name: s.mix for name, s in row.items() if s.mix > 0} for cell, row in standings.items()}


def taught(
    items: Iterable[Row], mix: Mapping[conflict.Cell, Mapping[str, float]], teacher: Endpoint, cfg: Config,
    advance: Advance = lambda _: None,
) -> Iterator[tuple[Row, str, str]]:  # fmt: skip
    """Yield (item, path, accepted answer): final answer right (where gold is known), quotes true, grammar kept."""
    draw = random.Random(f"paths:{cfg.seed}")
    fallback = max((share, name) for row in mix.values() for name, share in row.items())[1]
    listed = list(items)
    names = []
    for item in listed:
        row = mix.get(cell_of(item), {fallback: 1.0})
        names.append(draw.choices(list(row), list(row.values()))[0])
    prompts = [teacher_prompt(item, name) for item, name in zip(listed, names)]
    options: dict[str, Any] = {"n": cfg.samples, "seed": cfg.seed + 1, "temperature": cfg.temperature}
    answers = _asked(teacher, prompts, advance, 1, max_tokens=512, **options)
    for item, name, samples in zip(listed, names, answers):
        for sample in samples:
            parsed = read(item, sample.text)
            if not faults(item, name, parsed) and (right(item, parsed) or item.facts["gold"] is None):
                yield item, name, trace.noted_apart(sample.text) if cfg.notes_apart else sample.text
                break


def sft_row(item: Row, strategy: str, text: str, cfg: Config) -> Row:
    """Return the training row: plain prompt, and the whole trace or its answer line."""
    answer, numbers = f"{trace.MARKER} {trace.parse(text).answer}", _numbers(item, cfg)
    return Row(
        prompt=student_prompt(item, cfg.instruction, numbers),
        completion=(trace.renumbered(text, numbers) if numbers else text) if cfg.target == "trace" else answer,
        facts={key: item.facts.get(key) for key in ("scenario", "cell", "ratio", "gold", "target", "memory")},
        meta={**item.meta, "strategy": strategy},
    )


def _numbers(item: Row, cfg: Config) -> list[int]:
    """Return numbers with gaps for an item's passages, below 10 or twice as many as there are; none: 1, 2, 3."""
    count, draw = len(item.facts["contexts"]), random.Random(f"gaps:{cfg.seed}:{item.meta.get('id')}")
    if draw.random() >= cfg.gaps:
        return []
    return sorted(draw.sample(range(1, 10 if count < 10 else 2 * count), count))


def failure(item: Row, strategy: str, text: str, draw: random.Random) -> str | None:
    """Return the same trace with the decision spoiled: the attacker's answer, stale memory, or a wrong reason.

    An edit under attack (`mixed`) fails like an edit, so that pairs pull towards passages as often as towards memory.
    """
    parsed, facts = trace.parse(text), item.facts
    attacked = facts["scenario"] == "pca"
    wrong = facts["target"] if attacked else facts["memory"]
    if wrong is None or normalise(wrong) == normalise(read(item, text).answer or ""):
        return None
    if len(parsed.answer or "") == 1:  # the answer is a letter, so the failure is one too
        wrong = trace.named(wrong, facts.get("options", ()))
    reason = "majority" if attacked else "memory confidence"
    if draw.random() < 0.15 and parsed.weigh != "no reason":
        wrong, reason = parsed.answer, "no reason"
    spoiled = replace(parsed, answer=wrong, weigh=reason)
    return trace.render(spoiled, trace.STRATEGIES[strategy].segments)


def preference_rows(
    accepted: Iterable[tuple[Row, str, str]], cfg: Config, own: Mapping[str, str] | None = None
) -> Iterator[Row]:
    """Yield pairs: the accepted answer against a failure, the student's own (`own`: item id -> text) half of the time.

    A failure whose length differs by more than 30 % is not used: the student's own gives way to a templated one, and
    without either there is no pair. ValueError for `target` "answer".
    """
    if cfg.target == "answer":
        raise ValueError(WHOLE)
    draw = random.Random(f"pairs:{cfg.seed}")
    for item, strategy, text in accepted:
        if item.facts["scenario"] not in PAIRED[cfg.directions]:
            continue
        mine = (own or {}).get(item.meta["id"])
        candidates = [mine if draw.random() < 0.5 else None, failure(item, strategy, text, draw)]
        long = len(text.split())
        for rejected in [c for c in candidates if c not in (None, text) and abs(len(c.split()) / long - 1) <= 0.3][:1]:
            yield replace(
                sft_row(item, strategy, text, replace(cfg, gaps=0.0)), completion=None, chosen=text, rejected=rejected
            )


def make(rows: Iterable[Row], endpoints: Mapping[str, Endpoint], cfg: Config) -> Iterator[Row]:
    """Search on the first items of each cell, then write training rows from the others (all, if there are few).

    ValueError for a row that is no conflict item.
    """
    cells: dict[Any, list[Row]] = defaultdict(list)
    for number, row in enumerate(rows, 1):
        if lacking := sorted(ITEM - set(row.facts)) + ([] if "id" in row.meta else ["meta.id"]):
            raise ValueError(
                f"row {row.meta.get('id') or number}: not a conflict item: it lacks {', '.join(lacking)}; use "
                "world:conflicts, or write rows with these facts"
            )
        cells[cell_of(row)].append(row)
    search = [row for listed in cells.values() for row in listed[: cfg.search_per_cell]]
    rest = [row for listed in cells.values() for row in listed[cfg.search_per_cell :]] or search
    found = attempts(search, endpoints["teacher"], endpoints["judge"], cfg)
    accepted = taught(rest, choose(found, cfg), endpoints["teacher"], cfg)
    if cfg.output == "preferences":
        yield from preference_rows(accepted, cfg)
    else:
        yield from (sft_row(item, name, text, cfg) for item, name, text in accepted)
