"""Process reward model: what a solution is worth after each of its steps, read where the step ends.

Step t of n is right (r_t = 1) or not; z says whether the final answer is right. Three kinds of target:
- hindsight: V_t = r_t + gamma^(n - t) z, in [0, 2], the mean over rollouts where there are several; loss (p_t - V_t)^2,
  meaned over the steps of a solution, then over solutions. p is the head itself, without bounds.
- binary: r_t alone, or whether more than half of the judgements of a prefix are favourable; cross-entropy.
- unified: one classifier for all sources, cross-entropy on prefixes: steps by their labels; values are good above 0.85
  of the largest of their solution; of a pair, the better answer is good and the worse is not.
Cross-entropies are meaned over prefixes; a label that is a share, such as how often rollouts succeed, is their target.

Source: Shen et al. 2025 (arXiv:2510.01167), standardised process rewards (here part A of the brief), and its code.
Input: `prompt`, `completions` = the steps in order, and labels (`facts.labels`, one per step: a verdict, which is true
or false, 1 or 0, "+" or "-"; a share in [0, 1]; or a list of verdicts, of several judges or rollouts), `facts.correct`
= z where hindsight wants it (the same, or one per step), or `scores` = values per step; unified also takes pairs.
Deviations: a linear head on a model that is tuned with it (paper: two layers on a frozen one); steps are tokenised one
by one behind a separator, whose last token is read; one logit instead of two classes, which is the same function;
rollouts count as many steps as the solution they left, whatever their own length.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.nn.functional import softplus

from alignlab.core.cards import Card, Claim
from alignlab.core.preference import require
from alignlab.core.types import Groups, Row, Term
from alignlab.engine.encode import Example, TooLong, completion_ids, prompt_ids
from alignlab.rewards._shared import score_rows, values_of

CARD = Card(
    title="Process reward model",
    paper="arXiv:2510.01167",
    bibtex="""@misc{shen2025simultaneous,
  title = {Simultaneous Multi-objective Alignment Across Verifiable and Non-verifiable Rewards},
  author = {Shen, Yiran and others},
  year = {2025},
  eprint = {2510.01167},
  archivePrefix = {arXiv}
}""",
    brief="mah-dpo",
    status="reconstructed",
    summary="What a solution is worth after each step: hindsight values, step labels, or one classifier of prefixes.",
    smoke="alignlab train process --model tiny: --dataset world:steps --limit 128 --max_steps 150"
    " --per_device_train_batch_size 8 --learning_rate 3e-4 --warmup_ratio 0.1 --save_steps 0 --output_dir {out}",
    claims=(
        Claim(metric="train/loss_first - train/loss_last", relation=">", bound=0.1),
        Claim(metric="train/error", relation="<", bound=0.5),
    ),
    needs=frozenset({"policy", "value"}),
    deviations=(
        "equations read through a note on the paper and its code",
        "a linear head tuned with its model instead of two layers on a frozen one",
        "steps are tokenised one by one; the value is read at the last token of the separator",
        "rollouts from a prefix count as many steps as the solution they left",
    ),
)
TARGET = "process_target"


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the process reward model."""

    form: Literal["hindsight", "binary", "unified"] = "hindsight"
    """what the value after a step is taught to be; see the module's docstring"""
    gamma: float = 0.9
    """what final success is worth one step earlier, in [0, 1] (paper's code: 0.9)"""
    good_above: float = 0.85
    """share of a solution's largest value above which a step counts as good, in [0, 1) (paper's code: 0.85)"""

    def __post_init__(self) -> None:
        require(self.form in ("hindsight", "binary", "unified"), "form", "hindsight, binary or unified", self.form)
        require(0 <= self.gamma <= 1, "gamma", "a number in [0, 1]", self.gamma)
        require(0 <= self.good_above < 1, "good_above", "a number in [0, 1)", self.good_above)


SIGNS = {"+": 1.0, "-": 0.0}


def share(given: Any, field: str, *, verdict: bool = False) -> float:
    """Return how right something is, in [0, 1]: true or false, 1 or 0, "+" or "-" (the paper's data), or a share.

    Args:
        given: what the data say.
        field: where they say it, for the error.
        verdict: whether only right or wrong is taken, no share.

    Raises:
        ValueError: anything else, such as the text "False", NaN or nothing.
    """
    value = SIGNS.get(given) if isinstance(given, str) else given
    if not isinstance(value, int | float) or not 0 <= value <= 1 or (verdict and value not in (0, 1)):
        wanted = 'true or false, 1 or 0, "+" or "-"' + ("" if verdict else ", or a share in [0, 1]")
        raise ValueError(f"{field}: expected {wanted}; got {given!r}")
    return float(value)


def verdicts(given: Sequence[Any], field: str) -> list[float]:
    """Return what several judges or rollouts say of one step, 1 or 0 each; ValueError where none does."""
    if not given:
        raise ValueError(f"{field}: expected at least one verdict, got an empty list")
    return [share(one, field, verdict=True) for one in given]


def rollouts(given: Any, field: str) -> float:
    """Return the mean of several verdicts, or the one verdict or share that is given."""
    if not isinstance(given, list | tuple):
        return share(given, field)
    found = verdicts(given, field)
    return sum(found) / len(found)


def hindsight(right: Sequence[float], final: float | Sequence[float], gamma: float) -> list[float]:
    """Return V_t = r_t + gamma^(n - t) z for the steps t = 1 .. n of one solution; z may be another at each step.

    Both may be means over rollouts from the prefix, as V is linear in them.
    """
    ends = final if isinstance(final, Sequence) else [final] * len(right)
    return [float(r) + gamma ** (len(right) - t) * float(z) for t, (r, z) in enumerate(zip(right, ends), 1)]


def majority(judgements: Sequence[float]) -> bool:
    """Return whether more than half of the judgements of a prefix, 1 or 0 each, are favourable; a tie is not."""
    return 2 * sum(judgements) > len(judgements)


def good(values: Sequence[float], above: float) -> list[bool]:
    """Return which values of a solution exceed a share of its largest; none do where the largest is not above 0."""
    largest = max(values)
    return [largest > 0 and value / largest > above for value in values]


def targets(row: Row, cfg: Config) -> list[float]:
    """Return what the value after each step should be.

    Raises:
        ValueError: neither labels nor values of all steps, one that is no verdict and no share, or no final outcome
            where hindsight needs it.
    """
    steps, given = len(row.completions), row.facts.get("labels")
    if given is None and row.scores:
        values = list(row.scores)
        if len(values) != steps or not all(map(math.isfinite, values)):
            raise ValueError(f"scores: expected {steps} finite values, one per step; got {values}")
        return values if cfg.form == "hindsight" else [float(is_good) for is_good in good(values, cfg.good_above)]
    if not isinstance(given, list | tuple) or len(given) != steps:
        raise ValueError(f"expected {steps} labels, one per step (facts.labels), or as many scores; got {given!r}")
    fields = [f"facts.labels, step {t} of {steps}" for t in range(1, steps + 1)]
    if cfg.form != "hindsight":
        return [
            float(majority(verdicts(one, field))) if isinstance(one, list | tuple) else share(one, field)
            for one, field in zip(given, fields)
        ]
    right = [rollouts(one, field) for one, field in zip(given, fields)]
    if "correct" not in row.facts:
        raise ValueError(
            "--form hindsight: expected facts.correct, whether the final answer is right; or --form binary"
        )
    final = row.facts["correct"]
    if not isinstance(final, list | tuple):
        return hindsight(right, share(final, "facts.correct"), cfg.gamma)
    if len(final) != steps:
        raise ValueError(f"facts.correct: expected one outcome, or {steps}, one per step; got {len(final)}")
    ends = [rollouts(one, f"facts.correct, step {t} of {steps}") for t, one in enumerate(final, 1)]
    return hindsight(right, ends, cfg.gamma)


def annotate(rows: Sequence[Row], cfg: Config) -> list[Row]:
    """Return the rows with the target of each step; pairs become two answers of a single step (unified only)."""
    found = []
    for number, row in enumerate(rows):
        try:
            found += _annotated(row, cfg)
        except ValueError as error:
            raise ValueError(f"row {row.meta.get('id', number)}: {error}") from error
    return found


def _annotated(row: Row, cfg: Config) -> list[Row]:
    if row.chosen is not None and row.rejected is not None:
        if cfg.form != "unified":
            raise ValueError(f"--form {cfg.form}: expected steps (completions), got a pair; --form unified takes pairs")
        bare = dataclasses.replace(row, chosen=None, rejected=None, second_prompt=None, scores=())
        other = row.prompt if row.second_prompt is None else row.second_prompt
        sides = ((row.prompt, row.chosen, 1.0), (other, row.rejected, 0.0))
        return [
            dataclasses.replace(bare, prompt=asked, completions=(text,), facts={**row.facts, TARGET: [value]})
            for asked, text, value in sides
        ]
    if not row.completions:
        raise ValueError("expected `completions`, the steps of a solution in order")
    return [dataclasses.replace(row, facts={**row.facts, TARGET: targets(row, cfg)})]


SEPARATOR = "\n\n"


def encode(row: Row, tokenizer: Any, *, max_length: int | None = None) -> Example:
    """Tokenise a solution: one completion per step, up to and including the separator behind it.

    Each completion begins with the one before it, token for token, so the engine reads the whole solution once.

    Raises:
        ValueError: no steps, or an empty one.
        TooLong: the whole solution is longer than `max_length`.
    """
    if not row.completions:
        raise ValueError("expected `completions`, the steps of a solution in order")
    before = prompt_ids(tokenizer, [row.prompt], max_length=max_length)[0]
    whole: list[int] = []
    steps: list[list[int]] = []
    for text in row.completions:
        if not text.strip():
            raise ValueError(f"step {len(steps)} is empty; expected text")
        # the end of turn that closes an answer is no part of a step
        whole = whole + completion_ids(tokenizer, row.prompt, before, text.rstrip() + SEPARATOR)[:-1]
        steps.append(whole)
    if max_length is not None and len(before) + len(whole) > max_length:
        raise TooLong(f"prompt and {len(steps)} steps make {len(before) + len(whole)} tokens; at most {max_length} fit")
    wanted = row.facts.get(TARGET)
    return Example(
        prompt_ids=before, completions=tuple(steps),
        scores={} if wanted is None else {TARGET: tuple(wanted)}, row_id=str(row.meta.get("id", "")),
    )  # fmt: skip


def loss(batch: Groups, cfg: Config) -> tuple[Term, ...]:
    """Squared error of hindsight values, or cross-entropy of step labels.

    Args:
        batch: view `policy` with values [N, T], the score `process_target` [N]; N counts steps, P solutions.
        cfg: settings.

    Returns:
        Term `process` over the N steps; logs: hindsight: the value and its distance from the target; else the
        probability, and whether it lies on the label's side of a half.
    """
    value, wanted = values_of(batch, "process"), batch.scores.get(TARGET)
    if wanted is None:
        raise ValueError("process needs steps: give rows with completions and labels, or completions with scores")
    wanted = wanted.to(value)
    if cfg.form == "hindsight":
        steps = torch.bincount(batch.group)[batch.group]
        share, said = 1 / steps.to(value), value.detach()
        logs = {"rewards": said, "error": (said - wanted).abs()}
        return (Term(name="process", num=share * (value - wanted) ** 2, den=share, logs=logs),)
    lost = wanted * softplus(-value) + (1 - wanted) * softplus(value)
    said = value.detach().sigmoid()
    hit = torch.where(wanted > 0.5, said > 0.5, said < 0.5)
    logs = {"rewards": said, "accuracy": hit.to(said)}
    return (Term(name="process", num=lost, den=torch.ones_like(lost), logs=logs),)


def step_scores(model: Any, rows: Sequence[Row], cfg: Config | None = None) -> list[list[float]]:
    """Return the value after each step of each row: the head itself (hindsight), else a probability."""
    found = score_rows(model, rows, encode)
    if (cfg or Config()).form == "hindsight":
        return found
    return [torch.tensor(values, dtype=torch.float64).sigmoid().tolist() for values in found]


def score(model: Any, rows: Sequence[Row], cfg: Config | None = None) -> list[float]:
    """Return the value after the last step of each row, by which decoding is guided.

    Args:
        model: a process reward model.
        rows: each with `completions`, the steps so far.
        cfg: which form it was trained in.

    Raises:
        ValueError: a row without steps or too long, a model without a reward head, a value that is not finite.
    """
    return [values[-1] for values in step_scores(model, rows, cfg)]
