"""The local runner of evals: plays all items at once and answers their Asks in batches, round by round.

An eval is pure: `items(cfg)` yields items, `play(item, cfg)` is a generator that yields `Ask`s and receives answers,
`score(item, answers)` returns a record. Free text is sampled; an Ask with options is answered by the option of the
highest summed log-probability, so that an answer always exists.
"""

from collections import defaultdict
from collections.abc import Callable, Generator, Mapping, Sequence
from types import ModuleType
from typing import Any

import torch

from alignlab.core.masks import seq_sum
from alignlab.core.types import Ask, Endpoint, Groups, Model, Row, View

Answerer = Callable[[Sequence[Ask]], list[str]]
"""answers the Asks of one role, in order"""


def by_model(model: Model, *, seed: int, temperature: float = 0.0, max_tokens: int = 256, rows: int = 64) -> Answerer:
    """Answer with a language model: options by log-likelihood, free text by sampling.

    Args:
        model: what is evaluated.
        seed: of the sampling.
        temperature: 0 for the likeliest answer.
        max_tokens: bound of free answers.
        rows: questions with options per forward pass.
    """

    def answer(asks: Sequence[Ask]) -> list[str]:
        found: dict[int, str] = {}
        closed = [i for i, ask in enumerate(asks) if ask.options]
        for start in range(0, len(closed), rows):
            some = closed[start : start + rows]
            found |= dict(zip(some, choose(model, [asks[i] for i in some]), strict=True))
        free = [i for i, ask in enumerate(asks) if not ask.options]
        if free:
            prompts = [asks[i].messages for i in free]
            samples = model.sample(prompts, seed=seed, temperature=temperature, max_tokens=max_tokens)
            found |= {i: texts[0].text for i, texts in zip(free, samples, strict=True)}
        return [found[i] for i in range(len(asks))]

    return answer


def choose(model: Model, asks: Sequence[Ask]) -> list[str]:
    """Return for each Ask the option with the highest log-probability, summed over its tokens with EOS (nats)."""
    from alignlab.engine.encode import collate, encode

    rows = [Row(prompt=ask.messages, completions=ask.options, scores=(0.0,) * len(ask.options)) for ask in asks]
    pad = model.tokenizer.pad_token_id or 0
    groups: Groups = collate([encode(row, model.tokenizer) for row in rows], pad)
    with torch.no_grad():
        view: View = model.score(groups)
    totals = seq_sum(view.logp, groups.mask).tolist()
    owners = groups.group.tolist()
    scores = [[t for t, owner in zip(totals, owners, strict=True) if owner == i] for i in range(len(asks))]
    return [ask.options[max(range(len(s)), key=s.__getitem__)] for ask, s in zip(asks, scores, strict=True)]


def by_endpoint(endpoint: Endpoint, *, seed: int, temperature: float = 0.0, max_tokens: int = 256) -> Answerer:
    """Answer with an endpoint; an Ask with options gets its text, and the eval's `score` must parse it."""

    def answer(asks: Sequence[Ask]) -> list[str]:
        prompts = [ask.messages for ask in asks]
        samples = endpoint.complete(prompts, seed=seed, temperature=temperature, max_tokens=max_tokens)
        return [texts[0].text for texts in samples]

    return answer


def play(
    module: ModuleType,
    cfg: Any,
    items: Sequence[Any],
    answerer: Callable[[str], Answerer],
    advance: Callable[[int], None] | None = None,
) -> list[Mapping[str, Any]]:
    """Play every item to its end and return one record per item, in order.

    Args:
        module: the eval.
        cfg: its settings.
        items: what its `items` yielded.
        answerer: role -> who answers it.
        advance: told how many items have just ended.

    Raises:
        TypeError: the eval yields something other than an Ask.
    """
    games: dict[int, Generator[Ask, str, Any]] = {i: module.play(item, cfg) for i, item in enumerate(items)}
    answers: dict[int, list[str]] = defaultdict(list)
    waiting: dict[int, Ask] = {}
    for i in list(games):
        _step(games, waiting, i, None)
    while waiting:
        before, by_role = len(games), defaultdict(list)
        for i, ask in waiting.items():
            by_role[ask.role].append(i)
        for role, numbers in by_role.items():
            given = answerer(role)([waiting[i] for i in numbers])
            for i, text in zip(numbers, given, strict=True):
                answers[i].append(text)
                _step(games, waiting, i, text)
        if advance:
            advance(before - len(games))
    return [module.score(item, answers[i]) for i, item in enumerate(items)]


def _step(games: dict[int, Generator[Ask, str, Any]], waiting: dict[int, Ask], i: int, text: str | None) -> None:
    try:
        ask = next(games[i]) if text is None else games[i].send(text)
    except StopIteration:
        del games[i]
        waiting.pop(i, None)
        return
    if not isinstance(ask, Ask):
        raise TypeError(f"an eval's play yields Ask, got {type(ask).__name__}")
    waiting[i] = ask
