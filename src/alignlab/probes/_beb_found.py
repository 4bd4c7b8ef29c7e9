"""What behaviour expectation bounds measure on models: texts of P_-, scored by both, continued and answered."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignlab.core.types import Prompt
from alignlab.engine.behaviour import Scorer, of_samples, scorer
from alignlab.engine.divergence import Apart, apart_after
from alignlab.engine.encode import prompt_ids
from alignlab.engine.sentences import Text, after, default_start, sentence_ends

Floats = NDArray[np.float64]
PARTS = ("windows", "audit")
WINDOWED = ("published", "published_exact", "sentence", "sentence_exact")
SEEDS = 1009
"""between the seeds of two batches of prompts"""
TOGETHER = 8
"""prompts, with all their cuts, in one batch"""


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where a text begins: what the model under attack and P_- have read by then."""

    model: Prompt
    minus: Prompt


@dataclass(frozen=True, kw_only=True)
class Said:
    """A text of P_- that serves as prompt."""

    start: Start
    text: Text
    number: int = 0
    """of the start among those given"""


@dataclass(kw_only=True)
class Found:
    """Everything a report needs: K prompts, each of 0 .. N sentences; C continuations of P_-, R answers; nats.

    Without windows, continuations are not drawn: the four fields that need them are NaN, [K, N + 1, 1].
    """

    published: Floats
    """[K, N + 1, C] log P_- / P of the first tokens of a continuation"""
    published_exact: Floats
    """[K, N + 1, C] the same window with each token's log-ratio replaced by its KL"""
    sentence: Floats
    """[K, N + 1, C] log P_- / P of whole sentences"""
    sentence_exact: Floats
    """[K, N + 1, C] the same sentences with each token's log-ratio replaced by its KL"""
    path: Floats
    """[K, N + 1] exact KL of the sentences that P_- itself said next"""
    envelope: Floats
    """[K, N + 1] the same between P_- and P_+"""
    log_ratio: Floats
    """[K, N + 1] log P_- / P_+ of the prompt"""
    log_share: Floats
    """[K, N + 1] log P / P_- of the prompt"""
    answers: Floats
    """[K, N + 1, R] behaviour of the model's next sentence, -1 or 1; NaN where it cannot be told"""
    minus_answers: Floats
    """[K, N + 1, C] of P_-'s own next sentence; R of them without windows"""
    minus_after_good: Floats
    """[K, m + 1, R] of P_-'s next sentence after 0 .. m <= N sentences of P_+; [[[NaN]]] without the audit"""
    unfinished: float
    """share of continuations whose window of `horizon` sentences did not end; NaN without windows"""
    origin: NDArray[np.int64]
    """[K] which start each prompt followed"""
    prompts: list[str] = field(default_factory=list)


def keep_longest(texts: Sequence[Said], count: int) -> list[Said]:
    """Return the `count` texts with the most sentences, as the paper does; ties in order."""
    return sorted(texts, key=lambda said: -len(said.text.ends))[:count]


def starts_of(tokenizer: Any, prompts: Sequence[Prompt], minus_start: str | None) -> list[Start]:
    """Return the starts that rows give; without rows the beginning of a text."""
    listed = list(prompts) or [default_start(tokenizer)]
    return [Start(model=prompt, minus=prompt if minus_start is None else minus_start) for prompt in listed]


def compare(
    model: Any, minus: Any, plus: Any, starts: Sequence[Start], cfg: Any,
    progress: Callable[[int], None] = lambda _: None, *,
    parts: Collection[str] = PARTS,
) -> Found:  # fmt: skip
    """Sample prompts from P_- and measure the model under attack, P_- and P_+ on them.

    Args:
        model: the model under attack, P.
        minus: P_-.
        plus: P_+; the model itself where that is all there is, as in the paper.
        starts: what has been read when a text begins.
        cfg: settings of the probe.
        progress: called with the number of prompts just measured.
        parts: what is wanted beside prompts and answers; NaN without. windows: the published and the sentence
            estimators; audit: P_- after texts of P_+.

    Raises:
        ValueError: too few texts of P_- have two sentences more than the horizon.
    """
    score = scorer(cfg.behaviour, minus, plus, starts[0].minus, starts[0].model)
    said = _texts(minus, starts, cfg, cfg.seed, minus=True)
    longest = min(cfg.sentences, len(said[-1].text.ends) - cfg.horizon)
    if longest < 1:
        raise ValueError(
            f"P_- says too little: prompt {len(said)} of those kept has {len(said[-1].text.ends)} sentences, but "
            f"--horizon {cfg.horizon} needs at least {cfg.horizon + 1}; raise --prompt_tokens or lower --horizon"
        )
    found: dict[str, list[Any]] = {name: [] for name in Found.__dataclass_fields__ if name != "unfinished"} | {
        "open": []
    }
    for number, begin in enumerate(range(0, len(said), TOGETHER)):
        some = said[begin : begin + TOGETHER]
        seed = cfg.seed + SEEDS * (1 + number)  # all empty prompts are one prompt, but not one draw
        for one, values in zip(some, _measure(model, minus, plus, some, longest, cfg, score, seed, "windows" in parts)):
            for name, value in values.items():
                found[name].append(value)
            found["origin"].append(one.number)
            found["prompts"].append(minus.tokenizer.decode(one.text.ids, skip_special_tokens=True))
        progress(len(some))
    good = _texts(plus, starts, cfg, cfg.seed + 1, minus=False) if "audit" in parts else []
    reach = min(longest, len(good[-1].text.ends)) if good else 0
    words = minus.tokenizer
    asked = [after(words, one.start.minus, one.text.ids[: _end(one.text, n)]) for one in good for n in range(reach + 1)]
    if asked:
        drawn = minus.sample(asked, n=cfg.responses, max_tokens=cfg.response_tokens, seed=cfg.seed + 2)
        found["minus_after_good"] = _by_text(of_samples(drawn, score), len(good))
    listed = found.pop("prompts")
    unfinished = float(np.mean(found.pop("open")))
    found["minus_after_good"] = found["minus_after_good"] or [[[np.nan]]]
    return Found(**{name: np.array(values) for name, values in found.items()}, unfinished=unfinished, prompts=listed)


def _texts(model: Any, starts: Sequence[Start], cfg: Any, seed: int, *, minus: bool) -> list[Said]:
    prompts = [start.minus if minus else start.model for start in starts]
    each = -(-cfg.drawn // len(starts))
    # of two rows with one prompt, the second gets the draws after those of the first
    drawn = model.sample(prompts, n=each, max_tokens=cfg.prompt_tokens, seed=seed)
    found = [
        Said(start=start, text=Text(ids=one.ids, ends=sentence_ends(model.tokenizer, one.ids)), number=number)
        for number, (start, samples) in enumerate(zip(starts, drawn))
        for one in samples
    ]
    return keep_longest(found, cfg.prompts)


def _end(text: Text, n: int) -> int:
    return (0, *text.ends)[n]


def _by_text(values: Sequence[Any], texts: int) -> list[list[Any]]:
    """Undo the joining of as many cuts of each text."""
    each = len(values) // texts
    return [list(values[begin : begin + each]) for begin in range(0, len(values), each)]


def _measure(
    model: Any,
    minus: Any,
    plus: Any,
    several: Sequence[Said],
    longest: int,
    cfg: Any,
    score: Scorer,
    seed: int,
    windows: bool,
) -> list[dict[str, Any]]:
    """Measure along texts of P_- and behind each of their cuts."""
    words = minus.tokenizer
    own, other = (prompt_ids(words, [getattr(said.start, side) for said in several]) for side in ("minus", "model"))
    ids = [[said.text.ids] for said in several]
    against = apart_after(minus, model, own, ids, other)
    aligned = against if plus is model else apart_after(minus, plus, own, ids, other)
    found = [_along(said.text, one, two, longest, cfg) for said, [one], [two] in zip(several, against, aligned)]
    prompts = [
        [
            after(words, getattr(said.start, side), said.text.ids[: _end(said.text, n)])
            for said in several
            for n in range(longest + 1)
        ]
        for side in ("minus", "model")
    ]
    parts: dict[str, list[Any]] = {}
    if windows:
        longest_window = max(cfg.tokens, cfg.sentence_tokens * cfg.horizon)
        drawn = minus.sample(prompts[0], n=cfg.continuations, max_tokens=longest_window, seed=seed)
        befores = [prompt_ids(words, part) for part in prompts]
        terms = apart_after(minus, model, befores[0], [[s.ids for s in samples] for samples in drawn], befores[1])
        each = [
            _windows(term, [sentence_ends(words, s.ids) for s in samples], cfg) for term, samples in zip(terms, drawn)
        ]
        parts |= {name: [one[name] for one in each] for name in each[0]}
    else:
        drawn = minus.sample(prompts[0], n=cfg.responses, max_tokens=cfg.response_tokens, seed=seed)
        parts |= {name: [[np.nan]] * len(drawn) for name in WINDOWED} | {"open": [np.nan] * len(drawn)}
    parts["minus_answers"] = of_samples(drawn, score)
    answers = model.sample(prompts[1], n=cfg.responses, max_tokens=cfg.response_tokens, seed=seed + 1)
    parts["answers"] = of_samples(answers, score)
    for name, values in parts.items():
        for one, value in zip(found, _by_text(values, len(several))):
            one[name] = value
    return found


def _along(text: Text, against: Apart, aligned: Apart, longest: int, cfg: Any) -> dict[str, Any]:
    """Return what the text itself says: KL of the sentences ahead of each cut, log-ratios of those before."""
    cuts = [_end(text, n) for n in range(longest + 1)]
    ahead = [text.tokens(n, n + cfg.horizon) for n in range(longest + 1)]
    return {
        "path": [against.kl[window].sum() for window in ahead],
        "envelope": [aligned.kl[window].sum() for window in ahead],
        "log_ratio": [aligned.gap[:cut].sum() for cut in cuts],
        "log_share": [-against.gap[:cut].sum() for cut in cuts],
    }


def _windows(terms: Sequence[Apart], ends: Sequence[Sequence[int]], cfg: Any) -> dict[str, Any]:
    """Return the log-ratio, and its exact mean, over each continuation's first tokens and over its whole sentences."""
    first = slice(1 if cfg.window == "released" else 0, cfg.tokens)
    whole = [
        slice(0, end[cfg.horizon - 1] if len(end) >= cfg.horizon else len(term.gap)) for term, end in zip(terms, ends)
    ]
    return {
        "published": [term.gap[first].sum() for term in terms],
        "published_exact": [term.kl[first].sum() for term in terms],
        "sentence": [term.gap[window].sum() for term, window in zip(terms, whole)],
        "sentence_exact": [term.kl[window].sum() for term, window in zip(terms, whole)],
        "open": float(np.mean([len(end) < cfg.horizon for end in ends])),
    }
