"""What a model computes, against the least that it could: tokens, scored positions and attention, and their FLOPs.

FLOPs of a forward pass over work w: 2 N w.tokens + 2 a L w.pairs + 2 d V w.heads, with N the weights of the linear maps
in the layers, a heads times their dimension, L layers, d the width, V the vocabulary. The floor of a step computes each
distinct node once: three passes (forward, input and weight gradients) over the nodes with gradient, one over those that
are only looked at. Where weights are frozen, as under LoRA, the third pass counts in proportion to the trained ones.

Counted by formula, so that attention is in it on a processor too, where PyTorch's counter does not see it. Not counted:
norms, activations, the optimiser, and the first batch's comparison of the shared with the plain path. Sparse experts
and sliding windows compute less than this says, on both sides of the ratio.
"""

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import nn

from alignlab.core.types import Groups
from alignlab.engine import attention, folded, routed
from alignlab.engine.heads import asked, pad_id_of, scalar_head
from alignlab.engine.plan import Span, attention_pairs, plan

RECOMPUTED = 0.75
"""of a forward pass through the layers that checkpointing does again: it stops before the last product of each"""
_open: ContextVar["tuple[Work, Work] | None"] = ContextVar("alignlab_work", default=None)
"""what takes passes with gradient, and what takes those without"""


@dataclass
class Work:
    """Sums over forward passes."""

    tokens: float = 0.0
    """positions that went through the layers, padding included"""
    heads: float = 0.0
    """positions at which logits were computed"""
    pairs: float = 0.0
    """twice the (query, key) products, so that a causal square of n counts n^2"""

    def add(self, other: "Work") -> None:
        """Add other work to this."""
        self.tokens += other.tokens
        self.heads += other.heads
        self.pairs += other.pairs


def note(tokens: float, heads: float, pairs: float) -> None:
    """Count a forward pass where somebody measures."""
    if (within := _open.get()) is not None:
        within[not torch.is_grad_enabled()].add(Work(tokens, heads, pairs))


@contextlib.contextmanager
def measured(looking: Work | None = None) -> Iterator[Work]:
    """Yield what is computed inside; what is measured around it does not see it, unless it is noted there.

    Passes without gradient are added to `looking` instead, where that is given.
    """
    found = Work()
    token = _open.set((found, found if looking is None else looking))
    try:
        yield found
    finally:
        _open.reset(token)


def done_for(spans: Sequence[Span], block: int, *, alone: bool = False, shared: int = 0) -> float:
    """Return the products of attention over shared spans: causal squares, then rectangles in blocks of queries.

    `alone`: completions are read on prompts that were read before. `shared`: query heads to a key head, where pieces
    may be folded, which has blocks of its own; 0 where not.
    """

    def products(offset: int, length: int) -> float:
        if folded.folds(shared, offset, length):
            return folded.pairs(offset, length)
        if not offset:
            return float(length**2)
        number = -(-length // block)
        cuts = itertools.pairwise(length * k // number for k in range(number + 1))
        return sum(2.0 * (stop - start) * (offset + stop) for start, stop in cuts)

    pairs = 0.0
    for span in spans:
        pairs += sum(products(*piece) for piece in span.pieces(alone=alone))
    return pairs


def least(module: nn.Module, batches: Sequence[Groups]) -> Work:
    """Return the work of one pass over the distinct nodes of some batches together."""
    prompts: list[list[int]] = []
    completions: list[list[int]] = []
    group: list[int] = []
    scored: list[list[int]] = []
    head: list[int] = []
    for groups in batches:
        wanted = groups if scalar_head(module) is None else asked(groups, pad_id_of(module))[0]
        group += [g + len(prompts) for g in wanted.group.tolist()]
        ids, masks = wanted.prompt_ids.tolist(), wanted.prompt_mask.tolist()
        prompts += [[i for i, m in zip(*row) if m] for row in zip(ids, masks)]
        completions += wanted.ids.tolist()
        scored += [[t for t, m in enumerate(row) if m] for row in wanted.mask.tolist()]
        head += routed.heads_of(module, groups) or [0] * len(wanted.ids)
    rows = plan(prompts, completions, group, scored, row_tokens=1 << 60, head=head)
    spans = [span for row in rows for span in row.spans]
    return Work(sum(s.size for s in spans), sum(len(r.heads) for r in rows), sum(map(attention_pairs, spans)))


@dataclass(frozen=True)
class Price:
    """FLOPs of a model by what it computes."""

    token: float
    pair: float
    head: float
    trained: float
    """share of the weights of layers and head that get a gradient"""
    recomputes: bool
    """whether the backward pass computes the layers again"""

    def forward(self, work: Work) -> float:
        """FLOPs of a forward pass."""
        return self.token * work.tokens + self.pair * work.pairs + self.head * work.heads

    def step(self, work: Work) -> float:
        """FLOPs of a forward and a backward pass, as it is done."""
        again = RECOMPUTED * (self.token * work.tokens + self.pair * work.pairs) if self.recomputes else 0.0
        return (2 + self.trained) * self.forward(work) + again

    def floor(self, with_gradient: Work, together: Work) -> float:
        """The least FLOPs of a step: nodes with gradient, and all nodes together with those only looked at."""
        return (1 + self.trained) * self.forward(with_gradient) + self.forward(together)


def price(module: nn.Module) -> Price:
    """Return what a transformers model's work costs."""
    base = module.get_base_model() if hasattr(module, "get_base_model") else module
    config = attention.text_config(base.config)
    head = None if scalar_head(module) else base.get_output_embeddings()
    outputs = None if head is None else getattr(head, "weight", None)
    inputs = base.get_input_embeddings().weight
    matrices = [
        p for n, p in base.named_parameters()
        if p.ndim == 2 and p is not inputs and p is not outputs and "embed" not in n and ".wpe." not in n
    ]  # fmt: skip
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    weights, scoring = sum(p.numel() for p in matrices), 0 if outputs is None else outputs.shape[-2:].numel()
    trained = sum(p.numel() for p in matrices if p.requires_grad)
    trained += scoring if outputs is not None and outputs.requires_grad else 0
    return Price(
        token=2.0 * weights, pair=2.0 * width * config.num_attention_heads * config.num_hidden_layers,
        head=2.0 * scoring, trained=trained / max(1, weights + scoring),
        recomputes=any(getattr(part, "gradient_checkpointing", False) for part in base.modules()),
    )  # fmt: skip
