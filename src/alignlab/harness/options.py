"""Options scored by log-probability: every option of a question in one pass that reads the question once.

What a score counts is the `form`. Zhao et al. 2021 (arXiv 2102.09690) and Holtzman et al. 2021 (arXiv 2104.08315) show
why it matters: a long or rare option loses under `sum` for reasons that have nothing to do with the question.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import torch

from alignlab.core.types import Ask, Groups, Message, Model, Reply, Row, View

Form = Literal["sum", "open", "token", "character", "byte", "pmi"]
NEUTRAL: tuple[Message, ...] = (Message(role="user", content="Answer:"),)
"""what `pmi` takes an option's own probability under"""


def scores(model: Model, asks: Sequence[Ask], form: Form = "sum") -> list[tuple[float, ...]]:
    """Return for each Ask one score per option, the higher the likelier (nats).

    Args:
        model: what is asked; edits of the prompt by a steering method are in force.
        asks: questions with at least one option each.
        form: `sum` of the log-probabilities of the option's tokens and of the end of the answer; `open` without the
            end; `token`, `character` and `byte`: `open` per token, character and UTF-8 byte of the option;
            `pmi`: `open` minus the same after the bare prompt `Answer:`.

    Raises:
        ValueError: an unknown form, an Ask without options, an empty option.
        TooLong: a question that leaves no room for one of its options.
    """
    if form not in get_args(Form):
        raise ValueError(f"option form {form!r}; expected one of {', '.join(get_args(Form))}")
    prompts = [ask.messages for ask in asks]
    listed = [ask.options for ask in asks]
    found = _sums(model, prompts, listed)
    if form == "sum":
        return [tuple(whole for whole, _, _ in options) for options in found]
    if form == "pmi":
        alone = dict.fromkeys(option for options in listed for option in options)
        prior = dict(zip(alone, (free for _, free, _ in _sums(model, [NEUTRAL], [tuple(alone)])[0]), strict=True))
        return [
            tuple(free - prior[option] for option, (_, free, _) in zip(options, sums, strict=True))
            for options, sums in zip(listed, found, strict=True)
        ]
    return [
        tuple(free / _length(option, tokens, form) for option, (_, free, tokens) in zip(options, sums, strict=True))
        for options, sums in zip(listed, found, strict=True)
    ]


def choose(model: Model, asks: Sequence[Ask], form: Form = "sum") -> list[Reply]:
    """Return for each Ask the option with the highest score, with all scores; of equal ones the first."""
    return [
        Reply(ask.options[max(range(len(found)), key=found.__getitem__)], logp=found)
        for ask, found in zip(asks, scores(model, asks, form), strict=True)
    ]


def _length(option: str, tokens: int, form: Form) -> int:
    return {"open": 1, "token": tokens, "character": len(option), "byte": len(option.encode())}[form]


def _sums(
    model: Model, prompts: Sequence[tuple[Message, ...]], listed: Sequence[tuple[str, ...]]
) -> list[list[tuple[float, float, int]]]:
    """Return for each option (log-probability with the end, without it, tokens without it)."""
    from alignlab.engine.encode import collate, encode

    edited = getattr(model, "edited", lambda prompt: prompt)
    limit = getattr(model, "context_length", None)
    examples = []
    for prompt, options in zip(prompts, listed, strict=True):
        if not options:
            raise ValueError("an Ask without options cannot be scored; ask for free text")
        examples.append(encode(Row(prompt=edited(prompt), completions=options), model.tokenizer, max_length=limit))
    groups: Groups = collate(examples, model.tokenizer.pad_token_id)
    with torch.no_grad():
        view: View = model.score(groups)
    rows = iter(view.logp.double().tolist())
    found = []
    for example in examples:
        sums = []
        for ids in example.completions:
            logp = next(rows)[: len(ids)]  # the last of them is the end of the answer
            sums.append((sum(logp), sum(logp[:-1]), max(1, len(ids) - 1)))
        found.append(sums)
    return found
