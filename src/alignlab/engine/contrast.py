"""Greedy decoding from two prompts at once: logits of one pushed away from, or towards, the logits of the other."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from alignlab.core.types import Prompt, Sample
from alignlab.engine.encode import prompt_ids
from alignlab.engine.plain import context_length, evaluating
from alignlab.engine.sample import end_ids, new_cache, words


class _Stream:
    """One prompt per row, padded on the left, with its cache."""

    def __init__(self, model: Any, ids: list[list[int]], room: int) -> None:
        self.module, device = model.module, next(model.module.parameters()).device
        width, pad = max(map(len, ids)), model.tokenizer.pad_token_id or 0
        self.ids: Int[Tensor, "B L"] = torch.tensor([[pad] * (width - len(i)) + i for i in ids], device=device)
        lengths = torch.tensor([len(i) for i in ids], device=device)
        self.mask: Bool[Tensor, "B L"] = torch.arange(width, device=device) >= width - lengths[:, None]
        self.position: Int[Tensor, B] = lengths - 1
        self.last = (context_length(self.module) or width + room) - 1
        self.cache = new_cache(self.module, room)

    def logits(self, token: Int[Tensor, "B"] | None) -> Float[Tensor, "B V"]:
        """Return the logits after the prompt (no token), or after one more token."""
        if token is None:
            ids, position = self.ids, (self.mask.cumsum(1) - 1).clamp(min=0)
        else:
            self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], 1)
            self.position = (self.position + 1).clamp(max=self.last)  # beyond it are only rows that have finished
            ids, position = token[:, None], self.position[:, None]
        output = self.module(
            input_ids=ids, attention_mask=self.mask, position_ids=position, past_key_values=self.cache, use_cache=True,
            logits_to_keep=1,
        )  # fmt: skip
        return output.logits[:, -1].float().log_softmax(-1)


def contrast(
    model: Any, prompts: Sequence[Prompt], others: Sequence[Prompt], weight: float, max_tokens: int, rows: int = 256
) -> list[Sample]:
    """Return one greedy answer per prompt under softmax((1 + weight) logits - weight other_logits).

    Args:
        model: a LanguageModel.
        prompts: the prompts to be answered.
        others: as many prompts to contrast with; both continue with the same tokens.
        weight: 0 leaves the model as it is, -1 answers the other prompt, > 0 overstates the difference.
        max_tokens: longest answer, at least 1; shorter where the model's context ends behind the longer prompt.
        rows: prompts per batch.

    Returns:
        Samples as `engine.sample.sample` gives them at temperature 0; `prompt_tokens` counts both prompts.

    Raises:
        ValueError: max_tokens below 1, not as many other prompts, an empty prompt, no chat template.
        TooLong: a prompt that leaves no room for an answer.
    """
    if max_tokens < 1 or len(prompts) != len(others):
        raise ValueError(
            f"max_tokens={max_tokens}, {len(prompts)} prompts, {len(others)} others: expected max_tokens >= 1 and one "
            "other prompt for each"
        )
    limit = context_length(model.module)
    both = [prompt_ids(model.tokenizer, texts, max_length=limit) for texts in (prompts, others)]
    ends = torch.tensor(sorted(end_ids(model.module, model.tokenizer)))
    order = sorted(range(len(prompts)), key=lambda i: -len(both[0][i]))
    answers: dict[int, Sample] = {}
    with torch.no_grad(), evaluating(model.module):
        for start in range(0, len(order), rows):
            chosen = order[start : start + rows]
            longest = [max(len(ids[i]) for ids in both) for i in chosen]
            rooms = [max_tokens if limit is None else min(max_tokens, limit - taken) for taken in longest]
            streams = [_Stream(model, [ids[i] for i in chosen], max(rooms)) for ids in both]
            out = _greedy(streams, weight, rooms, ends.to(streams[0].ids.device))
            for i, tokens in zip(chosen, out):
                text, ended = words(model.tokenizer, tokens, ends)
                answers[i] = Sample(
                    text=text, ids=tuple(tokens), logp=(0.0,) * len(tokens), stop="stop" if ended else "length",
                    prompt_tokens=len(both[0][i]) + len(both[1][i]),
                )  # fmt: skip
    return [answers[i] for i in range(len(prompts))]


def _greedy(streams: Sequence[_Stream], weight: float, rooms: Sequence[int], ends: Tensor) -> list[list[int]]:
    token, steps = None, []
    lengths = torch.tensor(rooms, device=streams[0].ids.device)
    done = torch.zeros_like(lengths, dtype=torch.bool)
    for step in range(max(rooms)):
        first, other = (stream.logits(token) for stream in streams)
        token = ((1 + weight) * first - weight * other).argmax(-1)
        steps.append(token)
        ended = torch.isin(token, ends) & ~done
        lengths[ended] = lengths[ended].clamp(max=step + 1)
        done |= ended | (lengths == step + 1)
        if bool(done.all()):
            break
    return [row[:length] for row, length in zip(torch.stack(steps, 1).tolist(), lengths.tolist())]
