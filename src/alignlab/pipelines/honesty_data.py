"""Honesty data: ask a model what it knows, then write answers that admit what it does not.

Each question is answered once greedily and `samples` times at temperature 1; the share that is right is the expected
accuracy. A variant turns it into targets: a refusal below a threshold (ABSOLUTE), answers that open with a confidence
in percent or words (CONFIDENCE-NUM, -VERB), or every sample with the wrong ones refused (MULTISAMPLE).
Yang et al. 2023, arXiv 2312.07000, section 4.
"""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from alignlab.core import honesty
from alignlab.core.cards import Card, Claim
from alignlab.core.evidence import text_of
from alignlab.core.types import Endpoint, Row

Variant = Literal["absolute", "confidence_num", "confidence_verb", "multisample", "fine_tuned"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)
CARD = Card(
    title="Alignment for Honesty",
    paper="arXiv:2312.07000",
    bibtex="""@inproceedings{yang2024honesty,
  title = {Alignment for Honesty},
  author = {Yang, Yuqing and Chern, Ethan and Qiu, Xipeng and Neubig, Graham and Liu, Pengfei},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2024}
}""",
    brief="alignment-for-honesty",
    status="reconstructed",
    summary="relabels a model's own answers, so that it learns to refuse or hedge what it does not know",
    smoke="alignlab make honesty_data --dataset world:knowledge --limit 480 --variant absolute --output_dir {out}",
    # twice the questions that the world's student gets wrong, 270 in expectation over its 480 facts, +- 3 deviations
    claims=(Claim(metric="rows", relation=">=", bound=227), Claim(metric="rows", relation="<=", bound=312)),
    deviations=(
        "sentences are our own wording with the published levels and cut points",
        "rows keep gold answers out of the prompt and name the expected accuracy in their facts",
    ),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of the data."""

    variant: Variant = "absolute"
    """what is taught; `fine_tuned` is the baseline that gives the gold answer where the model does not know it"""
    form: Literal["paper", "code"] = "paper"
    """`code`: as released: greedy answers first, the threshold fixed at any of them, no tail on refusals"""
    threshold: float = 0.1
    """expected accuracy from which on `absolute` answers, in (0, 1]; form `paper` only"""
    samples: int = 10
    """answers drawn per question, >= 1"""
    temperature: float = 1.0
    """of the draws, > 0"""
    max_tokens: int = 64
    """longest answer drawn"""
    balance: bool = True
    """as many questions that the greedy answer gets right as it gets wrong"""
    size: int = 8000
    """questions kept at most, >= 1"""
    half_is_low: bool = True
    """`only about 50%`, as released; the paper leaves one half open"""
    idk: str = ""
    """the refusal that is taught; empty: what the row's fact `idk` says, else an apology of one sentence"""
    instruction: str = "permit"
    """line before each question in the training prompt; `permit` for the one that allows a refusal, empty for none"""
    seed: int = 0
    """of sampling, choice and order"""

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise ValueError(f"--variant: no {self.variant!r}; known: {', '.join(VARIANTS)}")
        if not 0 < self.threshold <= 1 or self.samples < 1 or self.size < 1:
            raise ValueError(
                f"honesty_data: --threshold {self.threshold} must lie in (0, 1], --samples {self.samples} and --size "
                f"{self.size} be at least 1"
            )


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One question with the model's own answers; `right` says which samples hold a gold answer."""

    row: Row
    greedy: str
    greedy_right: bool
    samples: tuple[str, ...]
    right: tuple[bool, ...]

    @property
    def expected(self) -> float:
        """Return the expected accuracy."""
        return sum(self.right) / len(self.right)


def golds(row: Row) -> tuple[str, ...]:
    """Return the gold answers of a row; ValueError where it has none."""
    found = honesty.golds(row.facts, row.meta.get("id"))
    if not found:
        raise ValueError(
            f"row {row.meta.get('id')}: fact 'gold' (or 'answers'): expected the right answer, got nothing; map your "
            "column with --columns facts.gold=COLUMN"
        )
    return found


def refusal(row: Row, cfg: Config) -> str:
    """Return how the model is to say that it does not know."""
    return cfg.idk or str(row.facts.get("idk") or honesty.IDK)


def judged(row: Row, greedy: str, samples: Sequence[str], cfg: Config) -> Asked:
    """Return a question with its answers held against the gold one; a refusal is never right."""
    wanted, question = golds(row), text_of(row.prompt)

    def right(text: str) -> bool:
        return honesty.read(text, wanted, question, refusal(row, cfg)).type == "correct"

    return Asked(
        row=row, greedy=greedy, greedy_right=right(greedy), samples=tuple(samples), right=tuple(map(right, samples))
    )


def collect(rows: Sequence[Row], student: Endpoint | None, cfg: Config) -> list[Asked]:
    """Ask every question once greedily and `samples` times; rows that bring answers of their own are not asked.

    A row brings them as `completion` (greedy) and `completions` (samples). ValueError where one lacks and there is no
    student to ask.
    """
    fresh = [row for row in rows if row.completion is None or not row.completions]
    if fresh and student is None:
        raise ValueError("honesty_data: rows without answers need a student; give --endpoints student=hf:FOLDER")
    found: dict[int, tuple[str, list[str]]] = {}
    if fresh and student is not None:
        for row in fresh:
            golds(row)  # what is missing is said before hours of sampling
        prompts = [row.prompt for row in fresh]
        options: dict[str, Any] = {"max_tokens": cfg.max_tokens}
        greedy = student.complete(prompts, n=1, seed=cfg.seed + 1, temperature=0.0, **options)
        drawn = student.complete(prompts, n=cfg.samples, seed=cfg.seed, temperature=cfg.temperature, **options)
        found = {
            id(row): (one[0].text, [s.text for s in some]) for row, one, some in zip(fresh, greedy, drawn, strict=True)
        }
    return [judged(row, *found.get(id(row), (row.completion or "", list(row.completions))), cfg) for row in rows]


def balanced(asked: Sequence[Asked], cfg: Config) -> list[Asked]:
    """Return at most `size` questions in random order, half of them greedily right where `balance` is on.

    With fewer of one kind than half, as many of the other are taken.
    """
    draw = random.Random(f"honesty:{cfg.seed}")
    order = draw.sample(list(asked), k=len(asked))
    if not cfg.balance:
        return order[: cfg.size]
    kinds = [[a for a in order if a.greedy_right is side] for side in (True, False)]
    half = min(cfg.size // 2, *map(len, kinds)) if all(kinds) else cfg.size
    kept = [a for kind in kinds for a in kind[:half]]
    return draw.sample(kept, k=len(kept))


def targets(asked: Asked, cfg: Config) -> list[str]:
    """Return what the model is to say to one question: one target, or one per sample (`multisample`)."""
    draw = random.Random(f"{cfg.seed}:{asked.row.meta.get('id')}:{text_of(asked.row.prompt)}")
    good = [text for text, right in zip(asked.samples, asked.right) if right]
    idk = refusal(asked.row, cfg)
    if cfg.variant == "multisample":
        return [text if right else idk for text, right in zip(asked.samples, asked.right)]
    own = draw.choice(good) if good else None
    if cfg.form == "code" or cfg.variant == "fine_tuned":
        own = asked.greedy if asked.greedy_right else next(iter(good), None)
    if cfg.variant == "fine_tuned":
        gold = golds(asked.row)[0]
        return [own if own is not None else f"{gold[:1].upper()}{gold[1:]}."]
    if cfg.variant == "absolute":
        known = own is not None if cfg.form == "code" else bool(good) and _reaches(asked, cfg.threshold)
        return [own if known and own is not None else idk]
    if not good or own is None:
        return [idk.rstrip(". ") + honesty.ANY_CONFIDENCE + "." if cfg.form == "paper" else idk]
    count, of = len(good), len(asked.samples)
    opening = (
        honesty.numbered(count, of, half_is_low=cfg.half_is_low)
        if cfg.variant == "confidence_num"
        else honesty.LEVELS[honesty.level(count, of) - 2]
    )
    return [opening + honesty.lowered(own)]


def _reaches(asked: Asked, threshold: float) -> bool:
    # counts, so that 3 of 10 reaches .3 whatever the binary digits of .3 are
    return sum(asked.right) >= threshold * len(asked.right) - 1e-9


def training_rows(asked: Iterable[Asked], cfg: Config) -> Iterator[Row]:
    """Yield one row per target, with the expected accuracy among its facts."""
    for one in asked:
        for number, text in enumerate(targets(one, cfg)):
            name = f"{one.row.meta.get('id')}-{number}" if cfg.variant == "multisample" else one.row.meta.get("id")
            idk = {"idk": refusal(one.row, cfg)}
            yield Row(
                prompt=honesty.permitted(one.row.prompt, cfg.instruction), completion=text,
                facts={**one.row.facts, **idk, "expected": one.expected, "greedy_right": one.greedy_right},
                meta={**one.row.meta, "id": name, "variant": cfg.variant},
            )  # fmt: skip


def make(rows: Iterable[Row], endpoints: Mapping[str, Endpoint], cfg: Config) -> Iterator[Row]:
    """Ask the `student` about every row, keep a balanced part, write its targets."""
    listed = list(rows)
    complete = all(row.completion is not None and row.completions for row in listed)
    asked = collect(listed, None if complete else endpoints["student"], cfg)
    yield from training_rows(balanced(asked, cfg), cfg)
