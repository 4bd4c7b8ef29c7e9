"""Several adapters of one base on one set of weights: each is a model that switches itself on while it is used."""

import contextlib
import copy
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from alignlab.core.types import Groups, Sample, View
from alignlab.engine import attention
from alignlab.engine import load as loading
from alignlab.engine.agreement import sharing_of
from alignlab.engine.identity import adapter_digest, base_digest
from alignlab.engine.load import BASE_FILE, LanguageModel, LoadError, load
from alignlab.engine.quiet import quiet
from alignlab.engine.score import score_adapters

PLAIN = None
"""the name of the base itself, with no adapter on"""


@dataclass
class Switched(LanguageModel):
    """One adapter of a module that carries several, or its base; to score and to sample, not to be trained."""

    module: Any
    adapter: str | None = PLAIN

    @property
    def digest(self) -> str:
        """64 hex digits of the model, as if it had been loaded alone."""
        if self.adapter is PLAIN:
            return base_digest(self.module, self.tokenizer)
        return adapter_digest(self.module, self.tokenizer, self.adapter)

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Switch this adapter on; afterwards, exceptions included, the one that was on before."""
        if self.adapter is PLAIN:
            with self.module.disable_adapter():
                yield
            return
        before = self.module.active_adapter
        self.module.set_adapter(self.adapter)
        try:
            yield
        finally:
            self.module.set_adapter(before)

    def score(self, groups: Groups, at: Any = None, *, context: str | None = None) -> View:
        """Log-probabilities of the completions of `groups`, under this adapter."""
        with self.active():
            return super().score(groups, at, context=context)

    def sample(self, prompts: Sequence[Any], **options: Any) -> list[list[Sample]]:
        """Sample completions under this adapter."""
        with self.active():
            return super().sample(prompts, **options)


@torch.no_grad()
def score_all(models: Sequence[Any], groups: Groups, at: Any = None) -> list[View]:
    """Score the same completions under several models: adapters of one module in one batch, others one by one.

    Args:
        models: anything with `score`.
        groups: the completions.
        at: token ids to report as well, at every position.

    Returns:
        One View per model, in order.
    """
    if _together(models):
        names = ["__base__" if model.adapter is PLAIN else model.adapter for model in models]
        return score_adapters(models[0].module, groups, names, at)
    return [model.score(groups, at) for model in models]


def _together(models: Sequence[Any]) -> bool:
    """Whether one batch can hold rows of all: plain LoRA on one module that shares prompts and that nobody watches.

    The words must be everybody's: the head runs where a token is scored, and there rows are no longer told apart.
    """
    if not all(isinstance(model, Switched) and model.module is models[0].module for model in models):
        return False
    module = models[0].module
    configs = module.peft_config.values()
    plain = all(c.peft_type == "LORA" and not c.use_dora and not c.modules_to_save for c in configs)
    words = (module.get_input_embeddings(), module.get_output_embeddings())
    plain = plain and not any(hasattr(layer, "lora_A") for layer in words)
    return plain and sharing_of(module).reason is None and not attention.watched(module)


def load_all(
    specs: Sequence[str | os.PathLike[str]], *, beside: LanguageModel | None = None, **options: Any
) -> list[LanguageModel]:
    """Load models, those that are LoRA adapters of one base on one copy of its weights, and the base with them.

    Args:
        specs: as `load` takes them.
        beside: a model that is there already; adapters of it are put on a twin that shares its weights.
        options: of `load`, the same for all.

    Returns:
        One model per spec, in order; the same spec twice is the same model. With `beside`, that model comes first: as
        it was, or as the base of its adapters.

    Raises:
        LoadError: as `load`; an adapter that was trained on another base than its neighbour says.
    """
    found: dict[str, LanguageModel] = {}
    families: dict[str, list[str]] = {}
    for spec in dict.fromkeys(map(str, specs)):
        families.setdefault(_base(spec), []).append(spec)
    first = beside
    own = None if beside is None or not _bare(beside) else loading._place(beside.source)[1]
    for base, members in families.items():
        if base == own and beside is not None and any(map(_folder, members)):
            first = _family(members, options, beside, found)
        elif len(members) > 1:
            _family(members, options, None, found)
        else:
            found[members[0]] = load(members[0], **options)
    listed = [found[str(spec)] for spec in specs]
    return listed if first is None else [first, *listed]


def _bare(model: Any) -> bool:
    """Whether this is a loaded model without an adapter, on which adapters can be put."""
    return type(model) is LanguageModel and bool(model.source) and not hasattr(model.module, "peft_config")


def _folder(spec: str) -> Path | None:
    """Return the folder of an adapter on this machine; None for anything else."""
    folder = Path(loading._place(spec.removeprefix("hf:"))[1])
    return folder if (folder / "adapter_config.json").exists() and not (folder / "config.json").exists() else None


def _base(spec: str) -> str:
    folder = _folder(spec)
    base = "tiny:" if spec.startswith("tiny:+") else spec if folder is None else loading._base_of(folder, spec)
    return loading._place(base.removeprefix("hf:"))[1]


def _family(
    members: Sequence[str], options: dict[str, Any], beside: LanguageModel | None, found: dict[str, LanguageModel]
) -> LanguageModel:
    """Add the models of one base, on one module, to `found`; return the base as one of them."""
    adapters = [(spec, folder) for spec in members if (folder := _folder(spec)) is not None]
    if not adapters:  # one base under several names
        base = load(members[0], **options)
        found |= dict.fromkeys(members, base)
        return base
    if beside is None:
        first = load(adapters[0][0], **options)
    else:
        first = LanguageModel(_twin(beside.module), beside.tokenizer, beside.name, beside.source)
        loading._put_on(first, str(adapters[0][1]))
    known = base_digest(first.module, first.tokenizer)
    for number, (spec, folder) in enumerate(adapters):
        name = "default" if number == 0 else f"adapter{number}"
        if number:
            _put_on(first, spec, folder, name, known)
        found[spec] = _switched(first, loading._place(spec.removeprefix("hf:"))[0], name)
    base = _switched(first, loading._place(first.source)[0], PLAIN)
    found |= {spec: base for spec in members if spec not in found}
    first.module.eval()
    return base


def _twin(module: nn.Module) -> nn.Module:
    """Return a copy of a module that has the same tensors, so that an adapter on one is not on the other."""
    shared = itertools.chain(module.parameters(), module.buffers())
    return copy.deepcopy(module, {id(tensor): tensor for tensor in shared})


def _switched(first: LanguageModel, name: str, adapter: str | None) -> Switched:
    return Switched(
        module=first.module, tokenizer=first.tokenizer, name=name, source=first.source, adapter=adapter
    )  # fmt: skip


def _put_on(model: LanguageModel, spec: str, folder: Path, name: str, known: str) -> None:
    """Add one more adapter under a name of its own."""
    if not (folder / "adapter_model.safetensors").exists():
        raise LoadError(f"adapter {spec!r}: no adapter_model.safetensors in {folder}; pickled adapters are not read")
    if (folder / BASE_FILE).exists():
        wanted = json.loads((folder / BASE_FILE).read_text(encoding="utf-8"))["digest"]
        if wanted != known:
            raise LoadError(
                f"adapter {spec!r} was trained on a model with digest {wanted[:8]}, but its base here has {known[:8]}: "
                "another model, revision, dtype, tokenizer or chat template"
            )
    module: Any = model.module
    with quiet():
        module.load_adapter(str(folder), adapter_name=name, is_trainable=False)
