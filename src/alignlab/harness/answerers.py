"""Who answers the Asks of an eval: a model in this process, or an endpoint.

An answer is a function of the Ask, its seed and the answerer's identity alone, whatever else is in the batch: equal
Asks with equal seeds get one answer.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch

from alignlab.core.types import Ask, Endpoint, Model, Reply
from alignlab.harness import options

ROWS = 64
"""questions with options per scoring call"""


class Answerer(Protocol):
    """Answers the Asks of one role, in order."""

    def __call__(self, asks: Sequence[Ask], seeds: Sequence[int] | None = None) -> list[Reply]:
        """Answer each Ask with its seed; without seeds, all with the answerer's own."""
        ...


@dataclass(frozen=True, kw_only=True)
class ByModel:
    """A language model in this process: see `by_model`."""

    model: Model
    seed: int
    temperature: float
    max_tokens: int
    form: options.Form
    rows: int
    stop: tuple[str, ...] = ()
    """free text ends before the first of these"""

    def identity(self) -> dict[str, Any]:
        """Return everything but Ask and seed that decides an answer: weights, adapter, steering, settings."""
        return {
            "model": self._identity, "temperature": self.temperature, "max_tokens": self.max_tokens, "form": self.form,
            **({"stop": list(self.stop)} if self.stop else {}),
        }  # fmt: skip

    @cached_property
    def _identity(self) -> str:
        # all weights are read for it; nobody trains a model while it is evaluated
        return self.model.identity

    def __call__(self, asks: Sequence[Ask], seeds: Sequence[int] | None = None) -> list[Reply]:
        """Answer the Asks; one that the model has no room for gets a Reply with a problem."""
        writes_only = getattr(self.model, "writes_only", False)

        def answer(some: Sequence[Ask], seed: int, temperature: float) -> list[Reply]:
            return _parted(
                some,
                None if writes_only else _chooser(self.model, self.form, self.rows),
                lambda a: _halving(lambda b: self._write(b, seed, temperature), a),
            )

        return _by_seed(asks, seeds, self.seed, self.temperature, answer)

    def _write(self, asks: Sequence[Ask], seed: int, temperature: float) -> list[Reply]:
        drawn_with: dict[str, Any] = {"seed": seed, "temperature": temperature, "max_tokens": self.max_tokens}
        if self.stop:
            drawn_with["stop"] = self.stop
        drawn = self.model.sample([ask.messages for ask in asks], **drawn_with)
        return [Reply(samples[0].text, sample=samples[0]) for samples in drawn]


@dataclass(frozen=True, kw_only=True)
class ByEndpoint:
    """An endpoint: see `by_endpoint`."""

    endpoint: Endpoint
    seed: int
    temperature: float
    max_tokens: int
    form: options.Form

    def identity(self) -> dict[str, Any] | None:
        """Return everything but Ask and seed that decides an answer; None where that is not known."""
        source = getattr(self.endpoint, "source", None)
        if source is None:
            return None
        scored = {"form": self.form} if self._model() is not None else {}
        return {**source.identity(), "temperature": self.temperature, "max_tokens": self.max_tokens, **scored}

    def _model(self) -> Any:
        """Return the model behind the endpoint where it is one in this process that can score options."""
        loaded = getattr(getattr(self.endpoint, "source", None), "loaded", None)
        model = None if loaded is None else loaded()
        return None if getattr(model, "writes_only", False) else model

    def __call__(self, asks: Sequence[Ask], seeds: Sequence[int] | None = None) -> list[Reply]:
        """Answer the Asks; one that failed after all attempts gets a Reply with a problem."""
        ask_all = getattr(self.endpoint, "attempt", self.endpoint.complete)
        model = self._model() if any(ask.options for ask in asks) else None

        def write(some: Sequence[Ask], seed: int, temperature: float) -> list[Reply]:
            prompts = [ask.messages for ask in some]
            drawn = ask_all(prompts, seed=seed, temperature=temperature, max_tokens=self.max_tokens)
            return [
                Reply(one.text, problem=getattr(one, "problem", ""), sample=one) for one in (some[0] for some in drawn)
            ]

        def answer(some: Sequence[Ask], seed: int, temperature: float) -> list[Reply]:
            choose = None if model is None else _chooser(model, self.form)
            return _parted(some, choose, lambda a: _halving(lambda b: write(b, seed, temperature), a))

        return _by_seed(asks, seeds, self.seed, self.temperature, answer)


def by_model(
    model: Model,
    *,
    seed: int,
    temperature: float = 0.0,
    max_tokens: int = 256,
    form: options.Form = "sum",
    rows: int = ROWS,
    stop: Sequence[str] = (),
) -> ByModel:
    """Answer with a language model: options by log-likelihood, free text by sampling.

    A model that is steered by a decoder or by logits processors writes text for options too, as an endpoint does: its
    log-probabilities would not know of the steering.

    Args:
        model: what is evaluated.
        seed: of the sampling.
        temperature: 0 for the likeliest answer.
        max_tokens: bound of free answers.
        form: what the score of an option counts (`options.scores`).
        rows: questions with options per scoring call.
        stop: free text ends before the first of these.
    """
    return ByModel(
        model=model, seed=seed, temperature=temperature, max_tokens=max_tokens, form=form, rows=rows, stop=tuple(stop)
    )


def by_endpoint(
    endpoint: Endpoint,
    *,
    seed: int,
    temperature: float = 0.0,
    max_tokens: int = 256,
    form: options.Form = "sum",
) -> ByEndpoint:
    """Answer with an endpoint.

    One that is a model in this process (`hf:`, `tiny:`) answers options by log-likelihood, as `by_model` does: so a
    judge gives its odds of two verdicts, not one of them. From others an Ask with options gets text, and the eval's
    `score` must parse it.

    Args:
        endpoint: who answers.
        seed: of the sampling.
        temperature: 0 for the likeliest answer.
        max_tokens: bound of free answers.
        form: what the score of an option counts (`options.scores`).
    """
    return ByEndpoint(endpoint=endpoint, seed=seed, temperature=temperature, max_tokens=max_tokens, form=form)


def content(ask: Ask) -> str:
    """Return an Ask as text that is equal for equal Asks alone."""
    turns = [[turn["role"], turn["content"]] for turn in ask.messages]
    own = [] if ask.temperature is None else [ask.temperature]
    return json.dumps([ask.role, turns, ask.options, *own], ensure_ascii=True)


def _by_seed(
    asks: Sequence[Ask],
    seeds: Sequence[int] | None,
    seed: int,
    temperature: float,
    answer: Callable[[Sequence[Ask], int, float], list[Reply]],
) -> list[Reply]:
    """Ask each distinct (Ask, seed) once, at its own temperature; at temperature 0 a seed changes nothing."""
    keys: list[tuple[int, float, str]] = []
    wanted: dict[tuple[int, float], dict[str, Ask]] = {}
    for ask, given in zip(asks, [seed] * len(asks) if seeds is None else seeds, strict=True):
        at = temperature if ask.temperature is None else ask.temperature
        key = (given if at else seed, at, content(ask))
        keys.append(key)
        wanted.setdefault(key[:2], {}).setdefault(key[2], ask)
    found: dict[tuple[int, float, str], Reply] = {}
    for (number, at), distinct in wanted.items():
        replies = answer(list(distinct.values()), number, at)
        found |= {(number, at, text): reply for text, reply in zip(distinct, replies, strict=True)}
    return [found[key] for key in keys]


Work = Callable[[Sequence[Ask]], list[Reply]]


def _parted(asks: Sequence[Ask], choose: Work | None, write: Work) -> list[Reply]:
    """Answer those with options by choosing, where that can be, and the others by writing; in order."""
    closed = [bool(ask.options) and choose is not None for ask in asks]
    listed = [ask for ask, is_closed in zip(asks, closed, strict=True) if is_closed]
    free = [ask for ask, is_closed in zip(asks, closed, strict=True) if not is_closed]
    chosen = iter(choose(listed) if choose is not None and listed else [])
    written = iter(write(free) if free else [])
    return [next(chosen) if is_closed else next(written) for is_closed in closed]


def _chooser(model: Model, form: options.Form, rows: int = ROWS) -> Work:
    def choose(asks: Sequence[Ask]) -> list[Reply]:
        starts = range(0, len(asks), rows)
        return [reply for start in starts for reply in options.choose(model, asks[start : start + rows], form)]

    return lambda asks: _halving(choose, asks)


def _halving(work: Work, asks: Sequence[Ask]) -> list[Reply]:
    """Do all at once; where memory runs out or a question is too long, halve until the rest goes through."""
    from alignlab.engine.encode import TooLong

    if not asks:
        return []
    try:
        return work(asks)
    except (TooLong, torch.OutOfMemoryError) as error:
        if len(asks) == 1:
            if isinstance(error, TooLong):
                return [Reply(problem=str(error))]
            raise
    middle = len(asks) // 2
    return [*_halving(work, asks[:middle]), *_halving(work, asks[middle:])]


def same_model(identities: Mapping[str, Mapping[str, Any] | None]) -> list[str]:
    """Return the roles that the model under evaluation plays besides its own: it grades or questions itself."""
    own = (identities.get("model") or {}).get("model")
    return [role for role, who in identities.items() if role != "model" and own and (who or {}).get("model") == own]
