"""Attention over rows that `plan` laid out: causal on each prompt, one rectangle per completion, nothing in between.

Models stay as they are. A function is registered with transformers' `AttentionInterface`; inside `sharing` the model's
config names it, so that no mask is built and every attention layer hands its queries, keys and values here. They are
cut along the row, and the attention that the model had before (SDPA or its own eager function, with its soft-capping,
sinks or scaling) is applied to each piece: prompt and first completion on themselves, each further completion on prompt
and itself. On a processor SDPA's pieces are one node of the graph (`piecewise`). FlexAttention takes the row as a whole
(`flex`). Windows count positions within a sequence, not places in the row. A row may leave the keys and values of its
prompts to a row of completions alone that is read after it.
"""

import contextlib
import functools
import inspect
import itertools
import sys
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from alignlab.engine import flex, piecewise
from alignlab.engine.folded import folds
from alignlab.engine.layouts import CHECKPOINT, recomputing
from alignlab.engine.piecewise import Block, Piece, unhidden
from alignlab.engine.plan import Span

NAME = "alignlab_rectangles"
LAYERS = {"full_attention", "sliding_attention"}
OURS = ("torch.", "transformers.", "peft.", "accelerate.")
"""packages whose hooks know nothing of rows and positions"""


class NotShared(Exception):
    """This model, or what is done with it, cannot score rows of shared prompts; the message says why."""


def text_config(config: Any) -> Any:
    """Return the config of the language model inside a config."""
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def _base(module: nn.Module) -> nn.Module:
    return module.get_base_model() if hasattr(module, "get_base_model") else module


def refusal(module: nn.Module) -> str | None:
    """Return why a model cannot take rows of shared prompts, judged by its class and config; None where it may."""
    from transformers import PreTrainedModel

    base = _base(module)
    if not isinstance(base, PreTrainedModel):
        return f"{type(base).__name__} is not a transformers model"
    if any(config.is_prompt_learning for config in getattr(module, "peft_config", {}).values()):
        return "its adapter puts virtual tokens before the prompt"
    config = text_config(base.config)
    types = set(getattr(config, "layer_types", None) or ())
    checks = (
        (config.is_encoder_decoder, "it has an encoder"),
        (getattr(base, "_is_stateful", False), "a state runs through its layers"),
        (not types <= LAYERS, f"it has layers of type {', '.join(sorted(types - LAYERS))}"),
        (not base._can_set_attn_implementation(), "its attention does not go through AttentionInterface"),
        ("position_ids" not in inspect.signature(base.forward).parameters, "it takes no position_ids"),
        (not getattr(config, "is_causal", True), "its attention is not causal"),
        (bool(getattr(config, "use_bidirectional_attention", False)), "its attention is not causal"),
        (config._attn_implementation not in ("sdpa", "eager", flex.NAME), f"it runs {config._attn_implementation}"),
    )
    return next((reason for found, reason in checks if found), None)


def watched(module: nn.Module) -> bool:
    """Whether hooks are in force that look at activations: they count positions in rows of one sequence each."""

    def origin(hook: Any) -> str:
        return str(getattr(getattr(hook, "func", hook), "__module__", "")) + "."

    return any(
        not origin(hook).startswith(OURS)
        for part in module.modules()
        for hooks in (part._forward_hooks, part._forward_pre_hooks)
        for hook in hooks.values()
    )


def recomputed(module: nn.Module) -> bool:
    """Whether activations will be recomputed by a checkpoint that does not know `again`."""
    if not torch.is_grad_enabled():
        return False
    for part in recomputing(module):
        function = getattr(part, "_gradient_checkpointing_func", None)
        known = getattr(function, "keywords", {}).get("context_fn") is again
        if type(part).__name__ == CHECKPOINT or (module.training and not known):
            return True
    return False


Kept = dict[int, list[tuple[Tensor, Tensor]]]
"""id of an attention layer -> keys and values [B, key heads, P, d] of each prompt of a row, without gradient"""


@dataclass
class Layout:
    """The spans of one row, the configs to switch, and what attention has to do piece by piece."""

    spans: Sequence[Span]
    configs: Sequence[Any]
    keep: Kept | None = None
    """receives the keys and values of the row's prompts"""
    on: Kept | None = None
    """the row holds completions alone, and these are their prompts"""
    calls: int = 0
    shared: int = 0
    """query heads to a key head, where pieces may be folded"""
    inner: dict[int, str] = field(default_factory=dict)
    """id of a config -> the attention it named before"""
    blocks: dict[Any, list[list[Block]]] = field(default_factory=dict)
    masks: dict[Any, flex.Mask] = field(default_factory=dict)
    products: float = 0.0
    """twice the (query, key) products of FlexAttention, where that computed the row"""

    def __post_init__(self) -> None:
        self.pieces: list[tuple[int, int]] = []
        # keys and values of a prompt are a part by themselves where several pieces read them
        self.parts: list[int] = []
        for span in self.spans:
            first, rest = sum(span.completions[:1]), span.completions[1:]
            self.pieces += span.pieces(alone=self.on is not None)
            if self.on is not None:
                self.parts += span.completions
                continue
            self.parts += [span.prompt, first, *rest] if rest else [span.prompt + first]
        self.sizes = [length for _, length in self.pieces]
        self.tokens = sum(self.sizes)

    def remember(self, module: nn.Module, key: Tensor, value: Tensor) -> None:
        """Keep the keys and values of the row's prompts, where that is wanted."""
        if self.keep is not None and id(module) not in self.keep:
            starts = itertools.accumulate((span.size for span in self.spans), initial=0)
            cuts = [slice(start, start + span.prompt) for start, span in zip(starts, self.spans)]
            self.keep[id(module)] = [(key[:, :, cut].detach(), value[:, :, cut].detach()) for cut in cuts]

    def placed(self, module: nn.Module, window: int | None, like: Tensor) -> list[Piece]:
        """Return the pieces with their places in the row, and what was kept of their prompts."""
        found, todo, start = [], iter(zip(self.pieces, self.blocks_of(window, True, like))), 0
        for k, span in enumerate(self.spans):
            before = None if self.on is None else self.on[id(module)][k]
            prompt = (start, start + (0 if before else span.prompt))
            for n in range(len(span.completions) if before else max(1, len(span.completions))):
                (offset, length), blocks = next(todo)
                fold = unhidden(offset, length, window) and folds(self.shared, offset, length)
                found.append(Piece((start, start + length), prompt if n else (0, 0), before, blocks, fold))
                start += length
        return found

    def keys_of(self, module: nn.Module, key: Tensor, value: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the keys and values that each piece sees, its prompt's included; leave the prompts' to another row."""
        # One split is one node of the graph; a slice per piece would write the whole row's gradient for each
        keys, values = (iter(tensor.split(self.parts, 2)) for tensor in (key, value))
        known = iter(() if self.on is None else self.on[id(module)])
        for span in self.spans:
            prompt = next(known) if self.on is not None else (next(keys), next(values))
            if self.on is None and len(span.completions) < 2:
                yield prompt
                continue
            for _ in span.completions:
                yield torch.cat((prompt[0], next(keys)), 2), torch.cat((prompt[1], next(values)), 2)

    def blocks_of(self, window: int | None, sdpa: bool, like: Tensor) -> list[list[Block]]:
        """Return the blocks of every piece, for layers with this window."""
        key = (window, sdpa, like.dtype)
        if key not in self.blocks:
            self.blocks[key] = [piecewise.cut(offset, length, window, sdpa, like) for offset, length in self.pieces]
        return self.blocks[key]


_active: ContextVar[Layout | None] = ContextVar("alignlab_layout", default=None)


@contextlib.contextmanager
def _entered(layout: Layout) -> Iterator[Layout]:
    before = [(config, config._attn_implementation_internal) for config in layout.configs]
    token = _active.set(layout)
    try:
        for config, name in before:
            layout.inner.setdefault(id(config), name)
            config._attn_implementation_internal = NAME
        yield layout
    finally:
        for config, name in before:
            config._attn_implementation_internal = name
        _active.reset(token)


@contextlib.contextmanager
def sharing(
    module: nn.Module, spans: Sequence[Span], *, keep: Kept | None = None, on: Kept | None = None
) -> Iterator[Layout]:
    """Let `module` read rows [B, S] of these spans; afterwards, exceptions included, its config is as before.

    Args:
        module: the model.
        spans: prompts and completions of the row.
        keep: an empty dictionary that receives the prompts' keys and values.
        on: what such a dictionary received from a row of the same prompts; this row has their completions alone.

    Raises:
        NotShared: on leaving, where some layer did not come here; inside, where a layer wants what cannot be cut.
    """
    from transformers import AttentionInterface, PretrainedConfig

    AttentionInterface.register(NAME, rectangles)
    found = {id(c): c for part in module.modules() if isinstance(c := getattr(part, "config", None), PretrainedConfig)}
    with _entered(Layout(spans, tuple(found.values()), keep, on)) as layout:
        yield layout
    wanted = text_config(_base(module).config).num_hidden_layers
    if layout.calls != wanted:
        raise NotShared(f"{layout.calls} of its {wanted} layers use AttentionInterface")


class _Reentered:
    """`_entered` that can be entered more than once: a graph may be walked back twice."""

    def __init__(self, layout: Layout) -> None:
        self._layout, self._open = layout, contextlib.ExitStack()

    def __enter__(self) -> None:
        self._open.enter_context(_entered(self._layout))

    def __exit__(self, *error: Any) -> None:
        self._open.close()


def again() -> tuple[Any, Any]:
    """`context_fn` of `torch.utils.checkpoint.checkpoint`: the backward pass recomputes under the same layout."""
    layout = _active.get()
    return contextlib.nullcontext(), contextlib.nullcontext() if layout is None else _Reentered(layout)


@functools.cache
def _eager(kind: type) -> Any:
    """Return the eager attention function beside a model's attention class."""
    for parent in kind.__mro__:
        function = getattr(sys.modules.get(parent.__module__), "eager_attention_forward", None)
        if function is not None:
            return function
    raise NotShared(f"{kind.__name__} has no eager attention function of its own")


def _window(module: nn.Module) -> int | None:
    """Return the sliding window of a layer, or None."""
    config = text_config(module.config)
    types = getattr(config, "layer_types", None)
    if types and types[module.layer_idx] != "sliding_attention":
        return None
    return getattr(config, "sliding_window", None)


def rectangles(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """Attend within the spans of the active layout; the signature is `AttentionInterface`'s.

    Args:
        module: the attention layer.
        query: [B, heads, S, d]: one row, or several that are laid out alike.
        key: [B, key heads, S, d].
        value: [B, key heads, S, d].
        attention_mask: must be None: transformers builds none for this function.
        kwargs: scaling, dropout, softcap, ...: handed on.

    Returns:
        Attention output [B, S, heads, d].

    Raises:
        NotShared: a mask or bias that cannot be cut; another row than the layout's.
    """
    layout = _active.get()
    if layout is None:
        raise NotShared("no layout is active; enter engine.attention.sharing first")
    if attention_mask is not None or kwargs.get("position_bias") is not None:
        raise NotShared("it makes a mask or a position bias of its own")
    if query.shape[2] != layout.tokens or key.shape[2] != layout.tokens:
        raise NotShared(f"its attention sees {tuple(query.shape)}, not rows of {layout.tokens} tokens")
    name = layout.inner.get(id(module.config))
    if name == flex.NAME:
        return flex.attend(layout, module, _window(module), query, key, value, kwargs, rectangles), None
    layout.calls += 1
    if name == "sdpa":
        from transformers.integrations.sdpa_attention import sdpa_attention_forward as inner
    elif name == "eager":
        inner = _eager(type(module))
    else:
        raise NotShared(f"its attention runs {name}")
    kwargs.pop("is_causal", None)
    layout.remember(module, key, value)
    window = _window(module)
    usual = name == "sdpa" and kwargs.get("softcap") is None  # SDPA has none, and says so
    if usual and piecewise.able(query, key, value, kwargs.get("dropout", 0.0)):
        layout.shared = piecewise.shared_heads(query, key)
        pieces = layout.placed(module, window, query)
        return piecewise.attend(query, key, value, pieces, kwargs.get("scaling")), None
    blocks = layout.blocks_of(window, name == "sdpa", query)
    outputs: list[Tensor] = []
    pieces = zip(layout.pieces, layout.keys_of(module, key, value), blocks, query.split(layout.sizes, 2))
    for (offset, length), kv, todo, q in pieces:
        for part, block in zip(q.split([stop - start for (start, stop), *_ in todo], 2), todo):
            whole = block.keys == (0, offset + length)
            k, v = kv if whole else (tensor[:, :, slice(*block.keys)] for tensor in kv)
            causal = {"is_causal": block.mask is None} if name == "sdpa" else {}
            outputs.append(inner(module, part, k, v, block.mask, **kwargs, **causal)[0])
    return torch.cat(outputs, 1), None
