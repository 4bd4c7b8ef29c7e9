"""Token distribution shift: where, token by token, does a tuned model depart from its base?

The tuned model answers greedily; base and tuned model then score every token of that answer, and each position is
unshifted (the token is the base's first choice), marginal (second or third) or shifted. KL is over the whole
vocabulary. Both models see the same token ids of the answer; what the base sees before them is a setting.

Source: Lin et al. 2023 (arXiv:2312.01552), section 2. Input: prompts (and `completion`, to follow given ones).
Unit: nats; ranks count from 1. Reduction: over all positions, with intervals by answer; also the mean over answers.
Deviations: tokens by id, not by text; the generated ids, not a re-tokenised answer; the released code's truncated
lists stand in a table of their own.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from alignlab.core.cards import Card, Claim
from alignlab.core.types import Figure, Groups, Metric, Prompt, Result, Row, Table
from alignlab.engine.encode import completion_ids, prompt_ids
from alignlab.engine.load import load
from alignlab.stats import bootstrap
from alignlab.world import rows as world_rows

Floats = NDArray[np.float64]
Context = Literal["same", "plain", "skeleton"]
CLASSES = ("unshifted", "marginal", "shifted")
SKELETON = "# Query:\n{}\n\n# Answer:\n"

CARD = Card(
    title="Token distribution shift (URIAL)",
    paper="arXiv:2312.01552",
    bibtex="""@inproceedings{lin2024unlocking,
  title = {The Unlocking Spell on Base LLMs: Rethinking Alignment via In-Context Learning},
  author = {Lin, Bill Yuchen and Ravichander, Abhilasha and Lu, Ximing and Dziri, Nouha and Sclar, Melanie and
    Chandu, Khyathi and Bhagavatula, Chandra and Choi, Yejin},
  booktitle = {International Conference on Learning Representations},
  year = {2024},
  eprint = {2312.01552},
  archivePrefix = {arXiv}
}""",
    brief="urial",
    status="faithful",
    summary="Unshifted, marginal and shifted positions of a tuned model's answers against its base.",
    smoke="alignlab probe token_shift --model tiny: --dataset world:questions --limit 20 --context plain"
    " --output_dir {out}",
    claims=(
        Claim(metric="control/unshifted", relation=">=", bound=1),
        Claim(metric="control/kl", relation="<=", bound=1e-6),
        Claim(metric="kl", relation=">", bound=0.1),
    ),
    needs=frozenset({"a base model of the same tokenizer"}),
    deviations=("matches token ids where the released code matches decoded text", "KL over the whole vocabulary"),
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """What the tuned model is compared with, and how."""

    base: str | None = None
    """spec of the base model; default the model itself, to see what its context alone does"""
    context: Context = "same"
    """what the base sees before the answer: the tuned model's own prompt, the bare question, or a skeleton round it"""
    answers: Literal["own", "given"] = "own"
    """along which answers: the tuned model's own greedy ones (paper), or the rows' completions"""
    max_tokens: int = 64
    """longest answer, in tokens, >= 1"""
    top: int = 30
    """length of the released code's lists, >= 1 (paper: 30)"""
    seed: int = 0
    """of intervals"""

    def __post_init__(self) -> None:
        if self.max_tokens < 1 or self.top < 1:
            raise ValueError(f"expected --max_tokens >= 1 and --top >= 1, got {self.max_tokens} and {self.top}")


def ranks(base: Floats, ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the base's rank of each token, 1 = top, from log-probabilities [T, V] and token ids [T]."""
    own = np.take_along_axis(base, ids[:, None], 1)
    return 1 + (base > own).sum(1)


def shift_class(rank: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return 0 unshifted (rank 1), 1 marginal (2 or 3), 2 shifted."""
    return np.digitize(rank, [2, 4])


def divergence(one: Floats, other: Floats) -> Floats:
    """Return KL(one || other) per position from log-probabilities [T, V], nats; where `one` is 0 it adds nothing."""
    with np.errstate(invalid="ignore"):
        return np.where(one > -np.inf, np.exp(one) * (one - other), 0.0).sum(1)


@dataclass(frozen=True, kw_only=True)
class Lists:
    """The released code's comparison of two top-k lists, probabilities renormalised within each list."""

    top_rank: int
    """place, from 0, of the tuned model's first choice in the base's list; k if absent"""
    top_probability: float
    """the base's probability of it"""
    kl: float
    """sum over the intersection of base ln(base / tuned): no divergence, it may be negative"""
    jaccard: float
    ndcg: float
    """of the base's order, gains 1 / log2(place in the tuned list + 2)"""


def lists(base: Floats, tuned: Floats, k: int) -> Lists:
    """Compare two distributions [V] of log-probabilities by their k likeliest tokens."""

    def top(logp: Floats) -> dict[int, float]:
        ids = np.argsort(-logp, kind="stable")[:k]
        mass = np.exp(logp[ids])
        return dict(zip(ids.tolist(), (mass / mass.sum()).tolist()))

    b, a = top(base), top(tuned)
    first, order = next(iter(a)), list(b)
    shared = b.keys() & a.keys()
    gain = {token: 1 / np.log2(place + 2) for place, token in enumerate(a)}
    dcg = sum(gain.get(token, 0.0) / np.log2(place + 2) for place, token in enumerate(order))
    ideal = sum(g / np.log2(place + 2) for place, g in enumerate(gain.values()))
    return Lists(
        top_rank=order.index(first) if first in b else k,
        top_probability=b.get(first, 0.0),
        kl=float(sum(b[token] * np.log(b[token] / a[token]) for token in shared)),
        jaccard=len(shared) / len(b.keys() | a.keys()),
        ndcg=float(dcg / ideal),
    )


@dataclass(frozen=True, kw_only=True)
class Shift:
    """One answer, position by position."""

    ids: NDArray[np.int64]
    rank: NDArray[np.int64]
    kl: Floats
    """KL(tuned || base)"""
    reverse: Floats
    """KL(base || tuned)"""
    base_logp: Floats
    released: tuple[Lists, ...]


def compared(base: Floats, tuned: Floats, ids: NDArray[np.int64], top: int) -> Shift:
    """Compare log-probabilities [T, V] of two models along one answer [T]."""
    return Shift(
        ids=ids,
        rank=ranks(base, ids),
        kl=divergence(tuned, base),
        reverse=divergence(base, tuned),
        base_logp=np.take_along_axis(base, ids[:, None], 1)[:, 0],
        released=tuple(lists(b, a, top) for b, a in zip(base, tuned)),
    )


@torch.no_grad()
def whole(model: Any, before: list[int], ids: Sequence[int], vocabulary: int) -> Floats:
    """Return log-probabilities [T, V] along an answer, from one forward pass."""
    at = torch.arange(vocabulary).expand(1, len(ids), vocabulary)
    groups = Groups(
        prompt_ids=torch.tensor([before]), prompt_mask=torch.ones(1, len(before), dtype=torch.bool),
        ids=torch.tensor([list(ids)]), mask=torch.ones(1, len(ids), dtype=torch.bool),
        group=torch.zeros(1, dtype=torch.long),
    )  # fmt: skip
    return model.score(groups, at).top_logp[0].double().cpu().numpy()


def base_prompt(prompt: Prompt, context: Context) -> Prompt:
    """Return what the base sees before the answer."""
    if context == "same":
        return prompt
    text = prompt if isinstance(prompt, str) else prompt[-1]["content"]
    return text if context == "plain" else SKELETON.format(text)


def measure(model: Any, rows: Sequence[Row], cfg: Config) -> Result:
    """Compare a tuned model with its base along its own greedy answers, or along the rows' completions.

    Args:
        model: the tuned model.
        rows: prompts; empty takes 50 questions of the town.
        cfg: the base.

    Raises:
        ValueError: the two models' vocabularies differ, or no answer has a token.
    """
    rows = list(rows) or list(world_rows("questions", 0, 50))
    base = model if cfg.base is None else load(cfg.base)
    size = len(model.tokenizer)
    if model.tokenizer.get_vocab() != base.tokenizer.get_vocab():
        raise ValueError(
            f"--base {cfg.base}: its vocabulary differs from the model's; ranks of tokens mean nothing then"
        )
    answers = _answers(model, rows, cfg)
    shifts, control = [], []
    for row, ids in zip(rows, answers):
        if not ids:
            continue
        own, other = (
            prompt_ids(m.tokenizer, [p])[0]
            for m, p in ((model, row.prompt), (base, base_prompt(row.prompt, cfg.context)))
        )
        tuned = whole(model, own, ids, size)
        shifts.append(compared(whole(base, other, ids, size), tuned, np.array(ids), cfg.top))
        if cfg.base is None:
            control.append(compared(whole(base, own, ids, size), tuned, np.array(ids), 1))
    if not shifts:
        raise ValueError("no answer has a token; raise --max_tokens or give other prompts")
    return report(shifts, control, model.tokenizer, cfg)


def _answers(model: Any, rows: Sequence[Row], cfg: Config) -> list[list[int]]:
    if cfg.answers == "given":
        if missing := [number for number, row in enumerate(rows) if not row.completion]:
            raise ValueError(f"--answers given: row {missing[0]} has no completion; use --answers own")
        before = prompt_ids(model.tokenizer, [row.prompt for row in rows])
        return [
            completion_ids(model.tokenizer, r.prompt, b, str(r.completion))[: cfg.max_tokens]
            for r, b in zip(rows, before)
        ]
    drawn = model.sample([row.prompt for row in rows], temperature=0.0, max_tokens=cfg.max_tokens)
    return [list(samples[0].ids) for samples in drawn]


def report(shifts: Sequence[Shift], control: Sequence[Shift], tokenizer: Any, cfg: Config) -> Result:
    """Turn compared answers into numbers, without any model."""
    clusters = [number for number, shift in enumerate(shifts) for _ in shift.ids]
    classes = np.concatenate([shift_class(s.rank) for s in shifts])

    def pooled(values: NDArray[Any]) -> Metric:
        return bootstrap.mean(values.astype(float), clusters=clusters, seed=cfg.seed)

    metrics = {name: pooled(classes == number) for number, name in enumerate(CLASSES)}
    metrics["in_top_3"] = pooled(classes < 2)
    metrics["kl"] = pooled(np.concatenate([s.kl for s in shifts]))
    metrics["kl/reverse"] = pooled(np.concatenate([s.reverse for s in shifts]))
    metrics["base_probability"] = pooled(np.exp(np.concatenate([s.base_logp for s in shifts])))
    metrics["shifted/mean_of_answers"] = bootstrap.mean(
        [(shift_class(s.rank) == 2).mean() for s in shifts], seed=cfg.seed
    )
    texts = [[tokenizer.decode([i]) for i in s.ids.tolist()] for s in shifts]
    starts = np.array([place == 0 or text[:1].isspace() for line in texts for place, text in enumerate(line)])
    metrics["shifted/word_starts"] = bootstrap.mean((classes[starts] == 2).astype(float), seed=cfg.seed)
    if control:
        rank = np.concatenate([s.rank for s in control])
        metrics["control/unshifted"] = Metric(value=float((rank == 1).mean()), n=len(rank))
        metrics["control/kl"] = Metric(value=float(np.concatenate([s.kl for s in control]).max()), n=len(rank))
    flat = [token for line in texts for token in line]
    shifted, count = Counter(t for t, c in zip(flat, classes) if c == 2), Counter(flat)
    released = [one for s in shifts for one in s.released]
    tables = {
        "most shifted tokens": Table(
            columns=("token", "shifted", "seen", "share"),
            rows=tuple((token, times, count[token], times / count[token]) for token, times in shifted.most_common(20)),
        ),
        "released code": Table(
            columns=("measure", "mean"),
            rows=tuple(
                (name, float(np.mean([getattr(one, name) for one in released])))
                for name in ("top_rank", "top_probability", "kl", "jaccard", "ndcg")
            ),
            caption=f"From lists of {cfg.top} tokens, renormalised; the KL is over what they share.",
        ),
    }
    return Result(metrics=metrics, tables=tables, figures=_by_position(shifts))


def _by_position(shifts: Sequence[Shift]) -> dict[str, Figure]:
    longest = max(len(s.ids) for s in shifts)
    at = [[s for s in shifts if len(s.ids) > t] for t in range(longest)]
    x = list(range(1, longest + 1))
    kl = [float(np.mean([s.kl[t] for s in here])) for t, here in enumerate(at)]
    share = [float(np.mean([shift_class(s.rank[t : t + 1])[0] == 2 for s in here])) for t, here in enumerate(at)]
    return {
        "kl_by_position": Figure(kind="line", series={"KL(tuned || base)": {"x": x, "y": kl}},
                                 x_label="token of the answer", y_label="nats"),
        "shifted_by_position": Figure(kind="line", series={"shifted": {"x": x, "y": share}},
                                      x_label="token of the answer", y_label="share of answers"),
    }  # fmt: skip
