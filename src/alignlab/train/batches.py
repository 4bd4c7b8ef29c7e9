"""From examples to the micro-batches of one optimiser step, with reference log-probabilities filled in."""

import contextlib
import dataclasses
import hashlib
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from alignlab.core.types import Groups, View
from alignlab.engine import attention, sharded
from alignlab.engine.agreement import check_again
from alignlab.engine.encode import Example, collate
from alignlab.engine.heads import scalar_head
from alignlab.engine.load import LanguageModel
from alignlab.engine.refcache import CoverageError, ReferenceCache, open_cache
from alignlab.train.distributed import everyone

KNOWN_VIEWS = ("policy", "ref")
REFERENCE_BATCH = 32
"""examples scored at once with the reference; `score` cuts them further where they are long"""


class Scorer(nn.Module):
    """The model as one module from Groups to a tensor [N, T], so that DistributedDataParallel can wrap it.

    What it scores first is scored by the plain path as well: shared prompts are checked anew in every run.
    """

    def __init__(self, model: LanguageModel, bf16: bool) -> None:
        super().__init__()
        self.module = model.module
        self._model, self._bf16 = model, bf16
        check_again(model.module)

    def forward(self, groups: Groups, at: Tensor | None = None) -> Tensor:
        """Return log-probabilities of the completions, nats, or a reward model's values; 0 where the mask is False.

        With token ids `at` [N, T, k]: [N, T, 1 + k + 1], the token, those, and all others together.
        """
        with self._autocast():
            if at is not None:
                said = self._model.score(groups, at)
                return torch.cat([said.logp[..., None], said.top_logp, said.rest[..., None]], -1)
            said = self._model.score(groups)
            return said.logp if said.value is None else said.value

    def view(self, numbers: Tensor) -> View:
        """Return what this module returned as a View: of a reward model the values, without log-probabilities."""
        if scalar_head(self._model.module) is None:
            return View(logp=numbers)
        return View(logp=torch.zeros_like(numbers), value=numbers)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._model.device.type, torch.bfloat16, enabled=self._bf16)

    def cache(self, where: str) -> ReferenceCache | None:
        """Return the cache of what this module returns with the weights it has now: `engine.refcache.open_cache`."""
        with self._autocast():
            return open_cache(where, self._model)


def moved(value: Any, device: torch.device) -> Any:
    """Return a record with its tensors on `device`."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: moved(getattr(value, f.name), device) for f in dataclasses.fields(value)}
        return dataclasses.replace(value, **fields)
    if isinstance(value, Mapping):
        return {key: moved(item, device) for key, item in value.items()}
    return value


def own(groups: Groups) -> Groups:
    """Return the batch without scored tokens in what other rows have lent."""
    lent = torch.tensor([origin == "mismatched" for origin in groups.origin], dtype=torch.bool)
    return dataclasses.replace(groups, mask=groups.mask & ~lent[:, None]) if bool(lent.any()) else groups


def with_zero_views(groups: Groups) -> Groups:
    """Return the batch as a loss sees it where only denominators are wanted."""
    zeros = torch.zeros(groups.mask.shape, device=groups.mask.device)
    names = (*KNOWN_VIEWS, *(f"policy/{name}" for name in groups.contexts))
    empty = {name: View(logp=zeros, value=zeros) for name in names}
    at = top_ids_of(groups)
    if at is not None:
        top = zeros[..., None].expand(at.shape)
        empty |= {name: View(logp=zeros, top_ids=at, top_logp=top, rest=zeros) for name in ("policy", *groups.views)}
    return dataclasses.replace(groups, views=empty)


def top_ids_of(groups: Groups) -> Tensor | None:
    """Return the ids [N, T, k] at which teachers were asked, if any were."""
    return next((view.top_ids for view in groups.views.values() if view.top_ids is not None), None)


def top_view(numbers: Tensor, at: Tensor) -> View:
    """Return what `Scorer` said with ids `at` as a View."""
    return View(logp=numbers[..., 0], top_ids=at, top_logp=numbers[..., 1:-1], rest=numbers[..., -1])


def views_read(loss: Callable[[Groups], Any], groups: Groups) -> set[str]:
    """Return the names of the views that a loss looks at.

    Raises:
        ValueError: the loss wants a view that the loop does not make.
    """
    read: set[str] = set()

    class Watched(dict[str, View]):
        def __getitem__(self, name: str) -> View:
            read.add(name)
            if name not in self:
                raise ValueError(f"the loss reads view {name!r}; this loop makes {', '.join(self)}")
            return super().__getitem__(name)

    probe = with_zero_views(groups)
    loss(dataclasses.replace(probe, views=Watched(probe.views)))
    return read


def size(example: Example) -> int:
    """Return the tokens a model reads for an example: the prompt once per completion, and the completions."""
    return sum(len(example.prompt_of(k)) + len(ids) for k, ids in enumerate(example.completions))


def _longest(example: Example) -> int:
    return max((len(example.prompt_of(k)) + len(ids) for k, ids in enumerate(example.completions)), default=0)


def _nodes(example: Example) -> int:
    """Return the tokens a model reads for an example where prompts are shared."""
    prompts = {tuple(example.prompt_of(k)) for k in range(len(example.completions))}
    return sum(map(len, prompts)) + sum(map(len, example.completions))


def micro_batches(
    items: Sequence[int], examples: Sequence[Example], per_device: int, rank: int, ranks: int, *, even: bool = False
) -> list[tuple[tuple[int, ...], bool]]:
    """Cut one step's items into this rank's micro-batches.

    They are of similar length, for the least padding; or `even`, where nothing is padded: of as many tokens each, for
    the least memory.

    Returns:
        (indices, counts) per micro-batch: as many on every rank, because ranks must meet in each backward pass. Where
        the items do not go round, `counts` is False for a repeated batch that must add nothing.
    """
    size = {i: (_nodes if even else _longest)(examples[i]) for i in items}
    chunks: list[list[int]] = [[] for _ in range(0, len(items), per_device)]
    for place, i in enumerate(sorted(items, key=lambda i: (-size[i], i))):
        # the largest first: each to where there is least yet, or in turn
        room = [chunk for chunk in chunks if len(chunk) < per_device] if even else [chunks[place // per_device]]
        min(room, key=lambda chunk: sum(map(size.get, chunk))).append(i)
    rounds = -(-len(chunks) // ranks)
    mine = [(tuple(chunks[k]), True) for k in range(rank, len(chunks), ranks)]
    return mine + [(tuple(chunks[-1][:1]), False)] * (rounds - len(mine))


Values = dict[int, Tensor]
"""index of an example -> its reference log-probabilities, one per scored token, in order"""


@torch.no_grad()
def reference_values(
    score: Callable[[Groups], Tensor],
    examples: Sequence[Example],
    wanted: Sequence[int],
    pad_id: int | None,
    accelerator: Any,
    move: Callable[[str], None],
    cache: ReferenceCache | None = None,
) -> Values:
    """Score examples once with the reference; each rank scores its share, all ranks hold all values, on the host.

    What the cache knows is not scored again; what is scored is kept there at once, chunk by chunk.

    Raises:
        CoverageError: a completion without its values, or with more or fewer than it has scored tokens.
    """
    keys = _keys(cache, examples, wanted, pad_id) if cache is not None else {}
    known = _known(cache, keys, accelerator) if cache is not None else {}
    unknown = [i for i in wanted if i not in known]
    chunks = micro_batches(unknown, examples, REFERENCE_BATCH, 0, 1) if unknown else []
    for _ in range(-(-len(wanted) // REFERENCE_BATCH) - len(chunks)):
        move("")
    parts, sizes = [], []
    for k, (indices, _) in enumerate(chunks):
        groups = collate([examples[i] for i in indices], pad_id)
        mine = k % accelerator.num_processes == accelerator.process_index
        parts.append(score(groups).cpu()[groups.mask] if mine else None)
        lengths = groups.mask.sum(1).tolist()
        if mine and cache is not None:
            cache.put(dict(zip((key for i in indices for key in keys[i]), parts[-1].split(lengths))))
        per_completion = iter(lengths)
        sizes += [(i, sum(next(per_completion) for _ in examples[i].completions)) for i in indices]
        move("")
    if isinstance(score, Scorer):
        sharded.finish(score.module)
    if not chunks:
        return known
    kinds = everyone({part.dtype for part in parts if part is not None}, accelerator.num_processes)
    (dtype,) = set().union(*kinds)  # a rank may have no share
    start, flat = 0, torch.zeros(sum(n for _, n in sizes), dtype=dtype)
    places = iter(sizes)
    for (indices, _), part in zip(chunks, parts):
        length = sum(next(places)[1] for _ in indices)
        if part is not None:
            flat[start : start + length] = part
        start += length
    if accelerator.num_processes > 1:
        flat = accelerator.reduce(flat.to(accelerator.device), "sum").cpu()
    values = known | {i: part for (i, _), part in zip(sizes, flat.split([n for _, n in sizes]))}
    missing = [i for i in wanted if i not in values]
    if missing:
        raise CoverageError(f"no reference values for {len(missing)} examples, the first being {missing[0]}")
    return values


def _keys(
    cache: ReferenceCache, examples: Sequence[Example], wanted: Sequence[int], pad_id: int | None
) -> dict[int, list[bytes]]:
    """Return the keys of each example's completions."""
    found = {}
    for i in wanted:
        groups = collate([examples[i]], pad_id)
        prompts = [ids[mask].tolist() for ids, mask in zip(groups.prompt_ids, groups.prompt_mask)]
        head = [None] * len(groups.ids) if groups.head is None else groups.head.tolist()
        rows = zip(groups.group.tolist(), groups.ids.tolist(), groups.mask.tolist(), head)
        found[i] = [cache.key(prompts[p], ids, mask, h) for p, ids, mask, h in rows]
    return found


def _known(cache: ReferenceCache, keys: Mapping[int, Sequence[bytes]], accelerator: Any) -> Values:
    """Return the values of the examples that every rank finds whole in the cache."""
    found = cache.get([key for each in keys.values() for key in each])
    whole = {i for i, each in keys.items() if all(key in found for key in each)}
    whole = set.intersection(*everyone(whole, accelerator.num_processes))
    return {i: torch.cat([found[key] for key in keys[i]]) for i in whole}


def batch_of(indices: Sequence[int], examples: Sequence[Example], reference: Values, pad_id: int | None) -> Groups:
    """Return a micro-batch on the host, with view `ref` where reference values are given."""
    groups = collate([examples[i] for i in indices], pad_id)
    if not reference:
        return groups
    values = torch.cat([reference[i] for i in indices])
    if len(values) != int(groups.mask.sum()):
        raise CoverageError(f"{len(values)} reference values for {int(groups.mask.sum())} scored tokens")
    logp = torch.zeros(groups.mask.shape, dtype=values.dtype).masked_scatter(groups.mask, values)
    return dataclasses.replace(groups, views={**groups.views, "ref": View(logp=logp)})


def fingerprint(examples: Sequence[Example]) -> str:
    """Return a digest of everything a loss can see of the data."""
    whole = hashlib.sha256()
    for example in examples:
        for ids in (example.prompt_ids, *example.completions, *example.contexts.values()):
            whole.update(len(ids).to_bytes(4, "little") + array("q", ids).tobytes())
        rest = (
            example.pairs, example.labels, sorted(example.scores.items()), sorted(example.contexts), example.origins,
            sorted(example.own_prompts.items()),
        )  # fmt: skip
        whole.update(repr(rest).encode())
        for name, told in sorted(example.views.items()):
            whole.update(name.encode() + told.top_ids.numpy().tobytes() + told.top_logp.numpy().tobytes())
    return whole.hexdigest()[:16]


def dropouts(module: nn.Module) -> list[tuple[str, nn.Module, str, float]]:
    """Return every dropout of a model that is on: name of its part, the part, the attribute and its value."""
    found = []
    for name, part in module.named_modules():
        for key, value in vars(part).items():
            named = key == "p" if isinstance(part, nn.Dropout) else "dropout" in key
            if named and isinstance(value, float) and value > 0:
                found.append((name, part, key, value))
    return found


@contextlib.contextmanager
def without_dropout(module: nn.Module) -> Iterator[None]:
    """Switch every dropout of a model off while its modules stay in training mode; afterwards all is as before.

    Raises:
        ValueError: the user asked for LoRA dropout, which would be lost in silence.
    """
    before = dropouts(module)
    for name, *_, value in before:
        if "lora_dropout" in name:
            raise ValueError(f"--lora_dropout {value}: dropout is off while training; add --no_disable_dropout")
    try:
        for _, part, key, _ in before:
            setattr(part, key, 0.0)
        yield
    finally:
        for _, part, key, value in before:
            setattr(part, key, value)


@contextlib.contextmanager
def recomputing(module: nn.Module) -> Iterator[None]:
    """Let the backward pass recompute activations instead of keeping them; afterwards the model keeps them again."""
    settings = {"use_reentrant": False, "context_fn": attention.again}
    # transformers renamed the pair within version 5
    new = hasattr(module, "activation_checkpointing_enable")
    (module.activation_checkpointing_enable if new else module.gradient_checkpointing_enable)(settings)
    try:
        yield
    finally:
        (module.activation_checkpointing_disable if new else module.gradient_checkpointing_disable)()
