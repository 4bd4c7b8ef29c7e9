"""Log-probabilities of a prompt's own tokens, as Inspect's `perplexity` scorers read them."""

from collections.abc import Sequence
from typing import Any

import torch
from inspect_ai.model import Logprob, Logprobs, TopLogprob

from alignlab.core.types import Groups, Message


@torch.no_grad()
def of(model: Any, messages: Sequence[Message], top: int) -> Logprobs:
    """Return what a model says of each token of a chat prompt but the first, which nothing comes before.

    Args:
        model: a model; what steers it is in force.
        messages: the prompt, rendered as for an answer.
        top: above 1, also so many of the likeliest tokens at each place.

    Raises:
        ValueError: `top` above 1 of a steered model, whose likeliest tokens are not known here.
    """
    from alignlab.engine.encode import prompt_ids
    from alignlab.engine.load import LanguageModel

    tokenizer = model.tokenizer
    (ids,) = prompt_ids(tokenizer, [getattr(model, "edited", lambda prompt: prompt)(tuple(messages))])
    if len(ids) < 2:
        return Logprobs(content=[])
    rest = torch.tensor([ids[1:]])
    groups = Groups(
        prompt_ids=torch.tensor([ids[:1]]), prompt_mask=torch.ones(1, 1, dtype=torch.bool),
        ids=rest, mask=torch.ones_like(rest, dtype=torch.bool), group=torch.zeros(1, dtype=torch.long),
    )  # fmt: skip
    if top == 1:
        logp = model.score(groups).logp[0].tolist()
        likeliest: list[list[tuple[int, float]]] = [[] for _ in logp]
    elif isinstance(model, LanguageModel):
        view = model.score(groups, top)
        assert view.top_ids is not None and view.top_logp is not None  # noqa: PT018 - narrows types
        logp = view.logp[0].tolist()
        likeliest = [list(zip(*pair)) for pair in zip(view.top_ids[0].tolist(), view.top_logp[0].tolist(), strict=True)]
    else:
        raise ValueError(f"prompt_logprobs={top}: of a steered model only 1 is served, the prompt's own tokens")

    def word(token: int) -> str:
        return str(tokenizer.decode([token]))

    return Logprobs(content=[
        Logprob(token=word(i), logprob=value,
                top_logprobs=[TopLogprob(token=word(t), logprob=p) for t, p in others] or None)
        for i, value, others in zip(ids[1:], logp, likeliest, strict=True)
    ])  # fmt: skip
