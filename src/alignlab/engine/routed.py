"""Several output heads on one backbone: each scored token is computed by its completion's head, and by no other.

A model with H heads is a stock causal LM whose output embedding is a `RoutedHead`: matrices [H, V, D] that begin as
copies of the model's own head, untied from the input embedding. Which completion is of which head is `Groups.head`;
`score` hands the head the places of each head together, so that no logits are computed twice or for nothing. Without
that there is no answer: to sample from such a model, or to use it anywhere else, `fold` its heads by weights into one,
which makes it a stock model.

On disk the matrices are one tensor of three axes under the name that the model's own head has, and config.json says
`alignlab_heads`. A stock transformers loader stops at the shape; it cannot read one head, or none, by mistake.
"""

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear

from alignlab.core import heads
from alignlab.core.types import Groups

ENTRY = "alignlab_heads"
"""in config.json: the number of output heads"""
_counts: ContextVar[tuple[int, ...] | None] = ContextVar("alignlab_counts", default=None)
"""how many of the places at which logits are wanted are of each head, while `routing`"""


class RoutedHead(nn.Module):
    """H output heads; inside `routing`, the places that it is given are each computed by one of them."""

    def __init__(self, weight: Float[Tensor, "H V D"], bias: Float[Tensor, "H V"] | None = None) -> None:
        super().__init__()
        # one parameter, so that it has a gradient on every rank, whichever heads a micro-batch is of
        self.weight = nn.Parameter(weight)
        self.bias = None if bias is None else nn.Parameter(bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return logits [1, M, V] of M places [1, M, D], those of the first head first.

        Raises:
            ValueError: outside `routing`, or for other places than were announced there.
        """
        counts = _counts.get()
        if counts is None:
            raise ValueError(unrouted(len(self.weight)))
        if hidden.shape[-2] != sum(counts):
            raise ValueError(f"{sum(counts)} places are routed to {len(counts)} output heads, not {hidden.shape[-2]}")
        biases = [None] * len(counts) if self.bias is None else self.bias.unbind()
        each = zip(hidden.split(list(counts), -2), self.weight.unbind(), biases)
        # a head without a place costs nothing; without any place at all the result is empty, with a gradient of 0
        found = [linear(*given) for given in each if given[0].shape[-2] or not any(counts)]
        return found[0] if len(found) == 1 else torch.cat(found, -2)


def unrouted(count: int) -> str:
    """Return what is said of a model with several heads that is used like a model with one."""
    even = " ".join([f"{1 / count:g}"] * count)
    return (
        f"this model has {count} output heads, and it is not said which one is meant: fold them into one with"
        f" --head_weights, e.g. --head_weights {even} (`alignlab export` writes that as a stock model; in Python:"
        " load(..., head_weights=...)), or give every row facts.scores.head, counted from 0"
    )


@contextlib.contextmanager
def routing(counts: Sequence[int] | None) -> Iterator[None]:
    """Announce how many of the next places are of each head; None for a model with one."""
    token = _counts.set(None if counts is None else tuple(counts))
    try:
        yield
    finally:
        _counts.reset(token)


def routed_head(module: nn.Module) -> RoutedHead | None:
    """Return the output heads of a model, possibly under peft; None for a model with one head, or none."""
    base = module.get_base_model() if hasattr(module, "get_base_model") else module
    found = base.get_output_embeddings() if hasattr(base, "get_output_embeddings") else None
    return found if isinstance(found, RoutedHead) else None


def heads_of(module: nn.Module, groups: Groups) -> list[int] | None:
    """Return the output head of each completion; None where the model has one head, whatever `groups` say.

    Raises:
        ValueError: a model with several heads, and completions without, or of one that it does not have.
    """
    found = routed_head(module)
    if found is None:
        return None
    count = len(found.weight)
    if groups.head is None:
        raise ValueError(unrouted(count))
    wanted: list[int] = groups.head.tolist()
    if bad := [h for h in wanted if not 0 <= h < count]:
        raise ValueError(f"a completion is of output head {bad[0]}, but the model has {count}, counted from 0")
    return wanted


def counts_of(module: nn.Module, heads_of_places: Sequence[int]) -> list[int] | None:
    """Return how many of some places are of each head of the model; None for a model with one head."""
    found = routed_head(module)
    return None if found is None else [list(heads_of_places).count(h) for h in range(len(found.weight))]


def grow(module: nn.Module, count: int) -> None:
    """Give a stock causal LM `count` output heads in place, each a copy of its own; one that has as many is left alone.

    Raises:
        ValueError: the model has another number of heads already, or a head that is no linear map.
    """
    known, head = routed_head(module), module.get_output_embeddings()
    if known is not None and len(known.weight) != count:
        raise ValueError(
            f"the model has {len(known.weight)} output heads, but {count} are wanted: train as many, or fold them into"
            " one first with --head_weights"
        )
    if known is not None or count == 1:
        return
    if not isinstance(head, nn.Linear):
        raise ValueError(f"{type(module).__name__}: output heads are copies of a linear map, not of {type(head)}")
    parts = (head.weight, head.bias)
    copies = [None if p is None else p.detach().repeat(count, *[1] * p.ndim) for p in parts]
    _put(module, RoutedHead(*copies), count)


def fold(module: nn.Module, weights: Sequence[float]) -> None:
    """Make a model with several output heads a stock model with one, in place: z = sum_i w_i z_i.

    z_i is what head i hands to the model: where a model caps its logits (Gemma 2), that is done to the sum.

    Raises:
        ValueError: a model with one head; weights that are not one per head, >= 0 and adding up to 1.
    """
    several = routed_head(module)
    if several is None:
        raise ValueError(f"--head_weights {' '.join(map(str, weights))}: this model has one output head; leave it out")
    w = torch.tensor(weights, dtype=torch.float64)
    if len(w) != len(several.weight):
        raise ValueError(
            f"--head_weights: expected {len(several.weight)}, one per output head of the model, got {len(w)}"
        )
    with torch.no_grad():
        matrix, bias = (
            None if p is None else heads.fold(p.to(torch.promote_types(p.dtype, torch.float32)), w).to(p.dtype)
            for p in (several.weight, several.bias)
        )
    one = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False, device="meta")
    one.weight, one.bias = nn.Parameter(matrix), None if bias is None else nn.Parameter(bias)
    _put(module, one, None)


def _put(module: nn.Module, head: nn.Module, count: int | None) -> None:
    config = module.config
    module.set_output_embeddings(head.train(module.training))
    # what it was tied to is another matrix from now on
    config.tie_word_embeddings = config.get_text_config().tie_word_embeddings = False
    module.all_tied_weights_keys = module.get_expanded_tied_weights_keys(all_submodels=True)
    if count is not None:
        setattr(config, ENTRY, count)
    elif hasattr(config, ENTRY):
        delattr(config, ENTRY)


def kind_of(kind: Any, where: str, **options: Any) -> Any:
    """Return what loads a model: `kind` itself, or the model's class with as many heads as its config says.

    Raises:
        ValueError: several heads on a model that transformers has no class of its own for.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    config = AutoConfig.from_pretrained(where, **options)
    if getattr(config, ENTRY, None) is None:
        return kind
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ValueError(f"{ENTRY} of {type(config).__name__}: transformers has no causal language model of this kind")
    stock = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]

    def start(self: Any, config: Any, *given: Any, **named: Any) -> None:
        stock.__init__(self, config, *given, **named)
        grow(self, getattr(config, ENTRY, 1))

    return type(stock.__name__, (stock,), {"__init__": start, "__module__": stock.__module__})


def settle(module: nn.Module, count: int | None, weights: Sequence[float], *, tuned: bool) -> None:
    """Fold a loaded model by `weights`, where there are any; then give it `count` heads, where that is asked.

    Raises:
        ValueError: as `fold` and `grow`; several heads beside a LoRA adapter (`tuned`).
    """
    if weights:
        fold(module, weights)
    if count is not None:
        grow(module, count)
    if tuned and routed_head(module) is not None:
        raise ValueError(
            "a LoRA adapter leaves output heads as they are, so several of them would never differ: train all weights"
            " (leave --use_peft and --adapter out), or fold the heads into one with --head_weights"
        )
