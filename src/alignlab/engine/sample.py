"""Local batched sampling with the probabilities that were really used.

Every (seed, prompt, draw) has random numbers of its own, so a text does not depend on the batch it was sampled in
(floating-point ties aside). Prompts are sorted by length and padded on the left; finished rows leave the batch.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from alignlab.core.types import Prompt, Sample
from alignlab.engine.encode import end_of_turn, prompt_ids
from alignlab.engine.plain import batch_size_in_tokens, context_length, evaluating, unwrap

Processor = Callable[[Tensor, Tensor], Tensor]
"""(ids [B, S], logits [B, V]) -> logits [B, V]: a function of the prefix alone, since rows come and go"""


class GrowingLayer(DynamicLayer):
    """A layer of the key-value cache that keeps spare room, so that a step copies one token and not the whole past."""

    def __init__(self, room: int = 32):
        super().__init__()
        self.room = room
        self.store: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Append keys and values [B, heads, new, D]; return all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        past = self.get_seq_length()
        total = past + key_states.shape[2]
        if self.store is None or total > self.store[0].shape[2]:
            self.store = self._widened(key_states, self.keys, past), self._widened(value_states, self.values, past)
        for buffer, new in zip(self.store, (key_states, value_states)):
            buffer[:, :, past:total] = new
        self.keys, self.values = (buffer[:, :, :total] for buffer in self.store)
        return self.keys, self.values

    def _widened(self, new: Tensor, old: Tensor, past: int) -> Tensor:
        batch, heads, added, width = new.shape
        buffer = new.new_empty(batch, heads, past + added + max(self.room, past // 2), width)
        if past:
            buffer[:, :, :past] = old
        return buffer

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row `repeats` times in place."""
        self.batch_select_indices(torch.arange(self.keys.shape[0], device=self.keys.device).repeat_interleave(repeats))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the rows at `indices`, in that order."""
        past = self.get_seq_length()
        if past and self.store is not None:
            self.store = self.store[0].index_select(0, indices), self.store[1].index_select(0, indices)
            self.keys, self.values = (buffer[:, :, :past] for buffer in self.store)


def new_cache(module: nn.Module, room: int = 32) -> DynamicCache:
    """Return the cache the model's config asks for, its plain attention layers with spare room."""
    cache = DynamicCache(config=unwrap(module).config)
    cache.layers = [GrowingLayer(room) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    if not cache.layers:
        cache.layer_class_to_replicate = GrowingLayer
    return cache


def sample(
    model: Any,
    prompts: Sequence[Prompt],
    *,
    n: int = 1,
    seed: int = 0,
    temperature: float | int = 1.0,
    max_tokens: int = 256,
    stop: Sequence[str] = (),
    batch_tokens: int | None = None,
    processors: Sequence[Processor] = (),
    progress: Callable[[int], None] | None = None,
) -> list[list[Sample]]:
    """Sample n completions for each prompt.

    Args:
        model: a LanguageModel.
        prompts: plain text or messages.
        n: completions per prompt.
        seed: with a prompt and the number of the draw it fixes the text, whatever else is in the batch. A prompt that
            is given twice gets the draws after its first n.
        temperature: divides the logits; 0 takes the likeliest token.
        max_tokens: at most this many new tokens, fewer where the model's context ends.
        stop: the text ends before the first of these strings.
        batch_tokens: tokens per batch, about (prompt + 32) * rows; None for `batch_size_in_tokens`. Lower it when
            memory runs out.
        processors: applied to the logits after the temperature; each a function of the prefix alone (its padding,
            on the left, is the tokenizer's pad token).
        progress: called with the number of prompts just finished.

    Returns:
        For each prompt, in order, n Samples: text without special tokens, ids with the end token where there is one,
        and the log-probability (nats) of each id under the distribution it was drawn from: 0 at temperature 0.

    Raises:
        ValueError: a negative temperature, max_tokens or n below 1, an empty prompt, no chat template.
        TooLong: a prompt that leaves no room for an answer.
    """
    if temperature < 0 or max_tokens < 1 or n < 1 or "" in stop:
        raise ValueError(
            f"temperature={temperature}, max_tokens={max_tokens}, n={n}, stop={tuple(stop)!r}: expected "
            "temperature >= 0, max_tokens >= 1, n >= 1 and no empty stop string"
        )
    limit = context_length(model.module)
    encoded = prompt_ids(model.tokenizer, prompts, max_length=limit)
    run = _Run(model, seed, n, temperature, stop, tuple(processors))
    firsts = _first_draws(encoded, n)
    order = sorted(range(len(encoded)), key=lambda i: -len(encoded[i]))
    answers: list[list[Sample]] = [[] for _ in encoded]
    size = batch_size_in_tokens(model.device) if batch_tokens is None else batch_tokens
    start = 0
    with torch.no_grad(), evaluating(model.module):
        while start < len(order):
            longest = len(encoded[order[start]])
            chosen = order[start : start + max(1, size // ((longest + 32) * n))]
            rooms = [max_tokens if limit is None else min(max_tokens, limit - len(encoded[i])) for i in chosen]
            found = run.batch([encoded[i] for i in chosen], [firsts[i] for i in chosen], rooms)
            for i, samples in zip(chosen, found):
                answers[i] = samples
            start += len(chosen)
            if progress is not None:
                progress(len(chosen))
    return answers


def _first_draws(encoded: list[list[int]], n: int) -> list[int]:
    """Number of the first draw of each prompt: 0, or n times how often the same prompt came before."""
    seen: Counter[tuple[int, ...]] = Counter()
    firsts = []
    for ids in encoded:
        firsts.append(n * seen[tuple(ids)])
        seen[tuple(ids)] += 1
    return firsts


def uniforms(seed: int, ids: Sequence[int], draw: int, count: int) -> np.ndarray:
    """Return `count` numbers in [0, 1) that depend on (seed, prompt ids, draw) alone."""
    content = repr((seed, draw)).encode() + np.asarray(ids, dtype=np.int64).tobytes()
    key = int.from_bytes(hashlib.blake2b(content, digest_size=16).digest(), "little")
    return np.random.Generator(np.random.Philox(key=key)).random(count)


def draw_tokens(logits: Float[Tensor, "B V"], u: Float[Tensor, "B"]) -> tuple[Int[Tensor, "B"], Float[Tensor, "B"]]:
    """Return the tokens at the quantiles u of softmax(logits), and their log-probabilities."""
    logp = logits.log_softmax(-1)
    cumulative = logp.to(u.dtype).exp().cumsum(-1)
    # strictly above, so that a token of probability 0 is never taken
    tokens = torch.searchsorted(cumulative, (u * cumulative[:, -1])[:, None], right=True).clamp(max=logits.shape[1] - 1)
    return tokens[:, 0], logp.gather(1, tokens)[:, 0]


class _Run:
    """What stays the same over the batches of one call of `sample`."""

    def __init__(self, model, seed, n, temperature, stop, processors):
        self.module, self.tokenizer = model.module, model.tokenizer
        self.seed, self.n, self.temperature, self.stop, self.processors = seed, n, temperature, tuple(stop), processors
        self.device = next(self.module.parameters()).device
        self.ends = torch.tensor(sorted(end_ids(self.module, self.tokenizer)), device=self.device)
        # a token holds at least one byte, so this many of the last tokens hold any stop string that just ended
        self.tail = max((len(s.encode()) for s in stop), default=0) + 4

    def batch(self, prompts: list[list[int]], firsts: list[int], rooms: list[int]) -> list[list[Sample]]:
        """Sample n completions of at most `rooms` tokens for each of the prompts, longest first."""
        n, width, room = self.n, len(prompts[0]), max(rooms)
        pad = self.tokenizer.pad_token_id or 0
        ids = torch.tensor([[pad] * (width - len(p)) + p for p in prompts], device=self.device)
        lengths = torch.tensor([len(p) for p in prompts], device=self.device)
        mask = torch.arange(width, device=self.device) >= width - lengths[:, None]
        noise = None
        if self.temperature > 0:
            draws = [uniforms(self.seed, p, first + j, room) for p, first in zip(prompts, firsts) for j in range(n)]
            noise = torch.from_numpy(np.stack(draws))
            # Apple's GPUs have no float64
            noise = (noise.float() if self.device.type == "mps" else noise).to(self.device)
        tokens, logps = self._loop(ids, mask, noise, torch.tensor(rooms, device=self.device))
        rows = [self._sample(t, p, len(prompts[i // n])) for i, (t, p) in enumerate(zip(tokens, logps))]
        return [rows[i : i + n] for i in range(0, len(rows), n)]

    def _loop(self, ids: Int[Tensor, "P L"], mask: Bool[Tensor, "P L"], noise: Tensor | None, rooms: Int[Tensor, "P"]):
        """Return token ids and log-probabilities of all rows [P n], as ragged lists."""
        n, (count, width), room = self.n, ids.shape, int(rooms.max())
        cache = new_cache(self.module, min(room, 64))
        padded = not bool(mask.all())
        position, last = mask.sum(1) - 1, (context_length(self.module) or width + room) - 1
        start = (mask.cumsum(1) - 1).clamp(min=0)
        logits = self._step(ids, mask if padded else None, start if padded else None, cache)
        if n > 1:
            cache.batch_repeat_interleave(n)
            logits, mask, position, ids, rooms = (
                x.repeat_interleave(n, 0) for x in (logits, mask, position, ids, rooms)
            )
        mask = torch.cat([mask, mask.new_ones(len(mask), room)], 1)
        out = torch.zeros(count * n, room, dtype=torch.long, device=self.device)
        logp = torch.zeros(count * n, room, device=self.device)
        lengths = torch.full((count * n,), room, device=self.device)
        rows = torch.arange(count * n, device=self.device)
        done = torch.zeros(count * n, dtype=torch.bool, device=self.device)
        for step in range(room):
            token, value = self._draw(logits, None if noise is None else noise[rows, step], ids)
            out[rows, step], logp[rows, step] = token, value
            done |= self._ended(token, out, rows, step) | (rooms[rows] == step + 1)
            lengths[rows[done & (lengths[rows] == room)]] = step + 1
            finished = int(done.sum())
            if finished == len(rows) or step + 1 == room:
                break
            if self.processors:
                ids = torch.cat([ids, token[:, None]], 1)
            # Finished rows cost a step each; dropping them copies the cache: worth it once a tenth has ended
            if finished * 10 >= len(rows):
                left = (~done).nonzero()[:, 0]
                cache.batch_select_indices(left)
                rows, token, position, mask, ids, done = (x[left] for x in (rows, token, position, mask, ids, done))
                # rows that needed the padding on the left may be gone, but the others keep their places
            position = (position + 1).clamp(max=last)  # beyond it are only rows that have finished
            seen = mask[:, : width + step + 1]
            logits = self._step(token[:, None], seen if padded else None, position[:, None] if padded else None, cache)
        lengths, out, logp = lengths.tolist(), out.tolist(), logp.tolist()
        return [t[:k] for t, k in zip(out, lengths)], [p[:k] for p, k in zip(logp, lengths)]

    def _step(
        self, ids: Tensor, mask: Tensor | None, position: Tensor | None, cache: DynamicCache
    ) -> Float[Tensor, "B V"]:
        output = self.module(
            input_ids=ids, attention_mask=mask, position_ids=position, past_key_values=cache, use_cache=True,
            logits_to_keep=1,
        )  # fmt: skip
        return output.logits[:, -1].float()

    def _draw(self, logits: Tensor, u: Tensor | None, ids: Tensor) -> tuple[Tensor, Tensor]:
        if u is not None and self.temperature != 1:
            logits = logits / self.temperature
        for processor in self.processors:
            logits = processor(ids, logits)
        if u is None:
            token = logits.argmax(-1)
            return token, logits.new_zeros(len(token))
        return draw_tokens(logits, u)

    def _ended(self, token: Tensor, out: Tensor, rows: Tensor, step: int) -> Tensor:
        ended = torch.isin(token, self.ends)
        if self.stop:
            tails = out[rows, max(0, step + 1 - self.tail) : step + 1].tolist()
            texts = self.tokenizer.batch_decode(tails)
            ended = ended | torch.tensor([any(s in t for s in self.stop) for t in texts], device=ended.device)
        return ended

    def _sample(self, ids: list[int], logp: list[float], prompt_tokens: int) -> Sample:
        text, ended = words(self.tokenizer, ids, self.ends)
        cuts = [text.index(s) for s in self.stop if s in text]
        ended = ended or bool(cuts)
        if cuts:
            text = text[: min(cuts)]
        return Sample(
            text=text, ids=tuple(ids), logp=tuple(logp), stop="stop" if ended else "length", prompt_tokens=prompt_tokens
        )


def words(tokenizer: Any, ids: list[int], ends: Tensor) -> tuple[str, bool]:
    """Return the text of an answer without its end token, which may not be called special, and whether it had one."""
    ended = bool(ids) and ids[-1] in ends.tolist()
    return tokenizer.decode(ids[:-1] if ended else ids, skip_special_tokens=True), ended


def end_ids(module: nn.Module, tokenizer: Any) -> set[int]:
    """Tokens that end an answer: end of text, the chat template's end of turn, what the model's own config names."""
    known = getattr(getattr(unwrap(module), "generation_config", None), "eos_token_id", None)
    ends = {*known} if isinstance(known, (list, tuple)) else {known}
    ends |= {tokenizer.eos_token_id, end_of_turn(tokenizer)}
    return ends - {None}
