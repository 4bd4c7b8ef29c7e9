"""Pairwise comparison with a baseline: AlpacaEval 2, MT-Bench and Arena-Hard over one verdict table.

The model answers, a judge compares its answer with the baseline's in both orders, and every published aggregation is
computed from the same verdicts. A verdict that the judge did not give is a gap, not a loss: the intervals of all rates
hold whatever it had been, and a note names the numbers over the given verdicts alone.
Dubois et al. 2024, arXiv 2404.04475; Zheng et al. 2023, arXiv 2306.05685; Li et al. 2024, arXiv 2406.11939.
"""

import random
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from alignlab.core import evidence
from alignlab.core.cards import Card, Claim
from alignlab.core.evidence import identifier
from alignlab.core.types import Ask, Result, Row
from alignlab.evals import _pairwise_rates as rates
from alignlab.evals import _verdicts as verdicts
from alignlab.evals._judging import dialogue, reference
from alignlab.world import conflicts, facts, grammar, judges
from alignlab.world.sets import believed

CARD = Card(
    title="Length-Controlled AlpacaEval: A Simple Way to Debias Automatic Evaluators",
    paper="arXiv:2404.04475",
    bibtex="""@article{dubois2024length,
  title = {Length-Controlled {AlpacaEval}: A Simple Way to Debias Automatic Evaluators},
  author = {Dubois, Yann and Galambosi, Bal\\'azs and Liang, Percy and Hashimoto, Tatsunori B.},
  journal = {arXiv preprint arXiv:2404.04475},
  year = {2024}
}""",
    brief="self-benchmarks-just-eval",
    status="reconstructed",
    summary="win rates against a baseline: raw, length-controlled, tie rule, weighted, Elo; judge bias beside them",
    smoke="alignlab eval pairwise --per_form 40 --output_dir {out}",
    claims=(
        Claim(metric="win_rate", relation=">=", bound=0.5),
        Claim(metric="order_bias", relation=">", bound=0.0),
        Claim(metric="judge_missing", relation="<=", bound=0.2),
    ),
    deviations=(
        "the judge's prompts are our own wording, letters A and B; AlpacaEval 2: m and M, in `--orders one`",
        "a judge that cannot score options gives AlpacaEval's preference as 0 or 1; released: by log-probabilities",
        "Arena-Hard entries are resampled by item and intervals are 95 %; released: single entries, 90 %",
        "style control is fitted to the maximum of the likelihood; released: 50 iterations from 0.5; words are tokens",
        "style gaps are scaled, not centred: over one model's games alone, centring puts its own style back in",
        "the length-controlled fit has no penalty, since items seldom bring what the released needs beside it: rows of "
        "gamed baselines (fact `gamed`), difficulty from a fit of many models; `--length_control cross_validated` has",
        "turns before the last are the row's, the same for both answers; MT-Bench: each model's own first answer",
        "a verdict in conflict with itself is not asked again under `--conflict none`; Arena-Hard 0.1: once more",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is compared, and how the judge is asked."""

    per_form: int = 100
    """world items with short and as many with long baseline answers, >= 1"""
    protocol: verdicts.Protocol = "arena_hard"
    """`arena_hard` (five verdicts), `mt_bench` (three) or `alpaca_eval` (one of two letters)"""
    conflict: verdicts.Conflict = "last"
    """of several different verdicts in one reply: the `last` (Arena-Hard 2), or `none` of them (version 0.1)"""
    length_control: rates.LengthControl = "unpenalised"
    """the length-controlled fit: `unpenalised`, or with an L1 penalty `cross_validated`, as AlpacaEval 2 releases it"""
    orders: Literal["both", "one"] = "both"
    """`both`, or `one` order that depends on the item alone"""
    quality: float = 3.0
    """the world's judge: pull of a right answer, nats"""
    length: float = 0.5
    """the world's judge: pull of a longer answer, nats"""
    order: float = 0.5
    """the world's judge: pull of coming first, nats"""
    silent: float = 0.05
    """the world's judge: share of comparisons it does not answer, in [0, 1]"""
    seed: int = 0
    """of the items"""


PADDING = "The town keeps a record of this, and it has not changed since."


def items(cfg: Config) -> list[Row]:
    """Return questions of the town with the answer of a baseline that is right on 60 % of them."""
    cells = [conflicts.Cell("clean")]
    town = facts.town()
    drawn = conflicts.items(
        town, believed(town), cells, 2 * cfg.per_form, split="test", cues=conflicts.Cues(), seed=cfg.seed
    )
    judge = asdict(judges.Judge(quality=cfg.quality, length=cfg.length, order=cfg.order, silent=cfg.silent))
    found = []
    for number, row in enumerate(drawn):
        draw = random.Random(f"pairwise:{cfg.seed}:{number}")
        wrong = draw.choice([v for v in row.facts["answers"] if v != row.facts["gold"]])
        answer = grammar.answer(row.facts["gold"] if draw.random() < 0.6 else wrong)
        long = number % 2 == 1
        known = {
            "gold": row.facts["gold"], "baseline": f"{PADDING}\n{answer}" if long else answer,
            "category": "long" if long else "short", "judge": judge,
        }  # fmt: skip
        found.append(settled(Row(prompt=evidence.ask(row.facts["question"]), facts=known, meta=row.meta), cfg))
    return found


def settled(item: Row, cfg: Config) -> Row:
    """Return an item, the user's too, that knows how its verdicts are read and what its rates are fitted with."""
    known = {
        "protocol": cfg.protocol, "conflict": cfg.conflict, "length_control": cfg.length_control, "orders": cfg.orders
    }  # fmt: skip
    return replace(item, facts={**item.facts, "settings": known})


def sides(item: Row, orders: str) -> tuple[bool, ...]:
    """Return for each game whether the model's answer comes first; Arena-Hard's first game has it second."""
    return (False, True) if orders == "both" else (verdicts.model_first(identifier(item)),)


def play(item: Row, cfg: Config) -> Generator[Ask, str, None]:
    """Ask the model, then the judge; not where an item brings its answer, its verdicts, or a judge by rule.

    The judge sees the whole dialogue, and the item's fact `reference` where it has one.
    """
    answer = item.completion
    if answer is None:
        prompt = evidence.ask(item.prompt) if isinstance(item.prompt, str) else item.prompt
        answer = yield Ask(role="model", messages=tuple(prompt))  # type: ignore[arg-type]
    baseline = _baseline(item)
    if item.facts.get("games") or item.facts.get("judge") or answer == baseline:
        return
    request, right = dialogue(item.prompt), reference(item.facts, identifier(item))
    options = verdicts.LETTERS if cfg.protocol == "alpaca_eval" else ()
    for first in sides(item, cfg.orders):
        pair = (answer, baseline) if first else (baseline, answer)
        yield Ask(role="judge", messages=verdicts.messages(request, *pair, cfg.protocol, right), options=options)


def _baseline(item: Row) -> str:
    if not isinstance(item.facts.get("baseline"), str):
        raise ValueError(
            f"item {identifier(item)}: fact 'baseline': expected the baseline's answer as text; "
            "map it with --columns facts.baseline=YOUR_COLUMN"
        )
    return str(item.facts["baseline"])


def score(item: Row, answers: Sequence[str]) -> dict[str, Any]:
    """Return the verdicts on one item from (the model's answer where it was asked, the judge's replies).

    Facts read: `baseline`; `games`, verdicts that are known; `judge`, one by rule, with `gold`; `category`;
    `difficulty`, gamma of AlpacaEval 2; `gamed`, whether the answer is the baseline's own, told to be short or long.
    """
    replies = list(answers)
    answer = item.completion if item.completion is not None else replies.pop(0)
    baseline, known = _baseline(item), item.facts
    judge, settings = judges.of(known), dict(known.get("settings", {}))
    order = sides(item, settings.get("orders", "both"))
    if known.get("games"):
        games = [dict(game) for game in known["games"]]
    elif answer == baseline:
        games = [{"model_first": first, "grade": 0} for first in order]
    elif judge is not None:
        games = _by_rule(item, judge, answer, baseline)
    else:
        replies = replies or [""] * len(order)
        conflict = settings.get("conflict", "last")
        games = [verdicts.game(reply, first, conflict) for first, reply in zip(order, replies, strict=True)]
    return {
        "id": identifier(item), "category": known.get("category"), "answer": answer, "baseline": baseline,
        "games": games, "replies": replies, "chars": (len(answer), len(baseline)),
        "style": verdicts.style_gap(verdicts.style(answer), verdicts.style(baseline)),
        "difficulty": known.get("difficulty"), "same": answer == baseline, "gamed": bool(known.get("gamed")),
        "settings": settings,
        "right": judges.quality(answer, known["gold"]) if known.get("gold") else None,
    }  # fmt: skip


def _by_rule(item: Row, judge: judges.Judge, answer: str, baseline: str) -> list[dict[str, Any]]:
    gap = judges.quality(answer, item.facts["gold"]) - judges.quality(baseline, item.facts["gold"])
    games = []
    for first in (False, True):
        draw = random.Random(f"{identifier(item)}:{first}:{answer}")
        grade = judge.compare(gap, len(answer) - len(baseline), 1 if first else -1, draw)
        games.append({"model_first": first, "grade": grade})
    return games


def aggregate(records: Sequence[Mapping[str, Any]], before: Sequence[Mapping[str, Any]] | None = None) -> Result:
    """Return every published aggregation of the verdicts, the judge's own faults, and changes to `before`."""
    return rates.result(records, before)


def baselines(listed: Sequence[Row]) -> dict[str, list[str]]:
    """Return the answers of trivial policies: the baseline's own answer; with known truth also truth, short and long.

    Without a judge by rule only the baseline's own answer can be scored, at one half; where items bring the answers
    that were judged, none can.
    """
    if any(item.completion is not None for item in listed):
        return {}
    found = {"same": [_baseline(item) for item in listed]}
    if all(item.facts.get("judge") and item.facts.get("gold") for item in listed):
        truth = [grammar.answer(item.facts["gold"]) for item in listed]
        found |= {"truth": truth, "long_truth": [f"{PADDING}\n{text}" for text in truth], "empty": ["" for _ in listed]}
        found["refuse"] = ["I'm sorry, I cannot answer that." for _ in listed]
        found["long_nonsense"] = [" ".join([PADDING] * 4) for _ in listed]
    return found
