"""Load, name and save language models: hub id, folder, `tiny:`, with or without a LoRA adapter."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from alignlab.core import files
from alignlab.core.types import Groups, Prompt, Sample, View
from alignlab.engine import flex, heads, routed
from alignlab.engine.encode import Example, collate
from alignlab.engine.hardware import device_named, dtype_named
from alignlab.engine.identity import base_digest, digest
from alignlab.engine.layouts import attention_projections, stores_inputs_first
from alignlab.engine.plain import context_length
from alignlab.engine.quiet import quiet
from alignlab.engine.sample import sample
from alignlab.engine.score import score

BASE_FILE = "alignlab_base.json"
"""beside an adapter: the spec and identity of the model it was trained on"""


class LoadError(ValueError):
    """A model that cannot be loaded; the message says what was tried and what to do."""


@dataclass(frozen=True, kw_only=True)
class Lora:
    """A fresh low-rank adapter: W + alpha / r * B A, with B = 0 at the start (arXiv 2106.09685, equation 3)."""

    r: int = 16
    """rank, at least 1"""
    alpha: float | int = 32
    """scale numerator"""
    dropout: float = 0.0
    """on the adapter's input, in [0, 1)"""
    target_modules: str | tuple[str, ...] = "all-linear"
    """module names; `all-linear`: all linear layers but the head; `attention`: the projections of attention alone"""
    seed: int = 0
    """of A's first values, so that a run that is started again finds the same adapter"""


@dataclass
class LanguageModel:
    """A causal language model with its tokenizer; the `Model` that methods take."""

    module: nn.Module
    tokenizer: Any
    name: str = "model"
    """short name for logs, the part of `identity` before the digest"""
    source: str = ""
    """the spec it was loaded from"""

    @property
    def digest(self) -> str:
        """64 hex digits of weights, adapters, config, tokenizer and chat template as they are now."""
        return digest(self.module, self.tokenizer)

    @property
    def identity(self) -> str:
        """`<name>@<8 hex>` of the digest."""
        return f"{self.name}@{self.digest[:8]}"

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.module.parameters()).device

    @property
    def context_length(self) -> int | None:
        """The most tokens of prompt and completion together; None where the config does not say."""
        return context_length(self.module)

    def score(self, groups: Groups, at: Tensor | int | None = None, *, context: str | None = None) -> View:
        """Log-probabilities of the completions of `groups`: `engine.score.score`."""
        return score(self.module, groups, at, context=context)

    def collate(self, examples: Sequence[Example]) -> Groups:
        """Stack examples, padded with this tokenizer's pad token: `engine.encode.collate`."""
        return collate(examples, self.tokenizer.pad_token_id)

    def sample(self, prompts: Sequence[Prompt], **options: Any) -> list[list[Sample]]:
        """Sample completions; `options` are those of `engine.sample.sample`."""
        return sample(self, prompts, **options)


def load(
    spec: str | os.PathLike[str],
    *,
    dtype: str | torch.dtype = "auto",
    device: str = "auto",
    revision: str | None = None,
    adapter: str | os.PathLike[str] | None = None,
    trust_remote_code: bool = False,
    lora: Lora | None = None,
    head: heads.Head = "tokens",
    output_heads: int | None = None,
    head_weights: Sequence[float] = (),
    attn_implementation: str | None = None,
) -> LanguageModel:
    """Load a language or reward model, its tokenizer and its adapter, if any. Weights come from safetensors only.

    Args:
        spec: hub id, local folder (of a whole model or of an adapter that `save` wrote), `tiny:` or `tiny:+ADDON`.
        dtype: "auto" keeps the checkpoint's; else "float32", "bfloat16", "float16" or a torch dtype.
        device: "auto" takes CUDA, else Apple's, else the CPU.
        revision: branch, tag or commit on the hub.
        adapter: hub id or folder of a peft adapter to put on.
        trust_remote_code: run Python files that come with the model. Off unless the user asks.
        lora: put a fresh adapter on; only it is trained, with the head of a reward model.
        head: "tokens" for a language model; "trained" for a reward model; "fresh" to give a language model a reward
            head, the same one each time (a reward model keeps its own). See `engine.heads`.
        output_heads: give a language model so many output heads, all like its own (`engine.routed`); None: as it is.
        head_weights: fold the output heads of a model that has several into one; none keeps them.
        attn_implementation: one of `flex.CHOICES`; None leaves the choice to transformers.

    Returns:
        The model in evaluation mode.

    Raises:
        LoadError: nothing there, offline, weights missing or not safetensors, an adapter of another model.
    """
    spec, base = os.fspath(spec), None
    spec = spec.removeprefix("hf:")
    name, where = _place(spec)
    folder = Path(where)
    if folder.is_dir() and not (folder / "config.json").exists() and (folder / "adapter_config.json").exists():
        if adapter is not None:
            raise LoadError(f"{spec!r} is an adapter already; give its base model with another adapter, not both")
        base, adapter = _base_of(folder, spec), folder
    elif spec.startswith("tiny:+"):
        base, adapter = "tiny:", folder
    source = base or spec
    module, tokenizer = _pretrained(source, _place(source)[1], dtype, device, revision, trust_remote_code,
        "fresh" if adapter is not None and head == "trained" else head, attn_implementation)  # fmt: skip
    routed.settle(module, output_heads, head_weights, tuned=adapter is not None or lora is not None)
    model = LanguageModel(module=module, tokenizer=tokenizer, name=name, source=source)
    if adapter is not None:
        _put_on(model, os.fspath(adapter))
    if lora is not None:
        _put_fresh(model, lora)
    model.module.eval()
    return model


def _place(spec: str) -> tuple[str, str]:
    """Return the short name of a spec and where transformers finds it."""
    if spec.startswith("tiny:"):
        addon = spec.removeprefix("tiny:").removeprefix("+")
        folder = Path(str(resources.files("alignlab.world").joinpath("weights", addon or "tiny")))
        wanted = "adapter_config.json" if addon else "config.json"
        if not (folder / wanted).exists():
            have = (
                sorted(p.name for p in folder.parent.glob("*/") if p.name != "tiny") if folder.parent.exists() else []
            )
            raise LoadError(
                f"{spec!r}: no weights in {folder}. "
                + (f"Add-ons here: {', '.join(have) or 'none'}." if addon else "Rebuild them with `alignlab run tiny`.")
            )
        return f"alignlab/tiny{'+' + addon if addon else ''}", str(folder)
    path = Path(spec).expanduser()
    if path.is_dir():
        return path.resolve().name, str(path.resolve())
    if spec.startswith((".", "/", "~")) or spec.count("/") > 1 or path.exists():
        what = "is a file, not a folder" if path.exists() else "does not exist"
        raise LoadError(f"{spec!r} {what}; expected a hub id such as Qwen/Qwen3-0.6B, a model folder, or tiny:")
    return spec, spec


def _base_of(folder: Path, spec: str) -> str:
    known = folder / BASE_FILE
    if known.exists():
        return str(json.loads(known.read_text(encoding="utf-8"))["spec"])
    base = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8")).get("base_model_name_or_path")
    if not base:
        raise LoadError(
            f"{spec!r} is an adapter that does not name its base model; load the base with adapter={spec!r}"
        )
    return str(base)


def _pretrained(spec, where, dtype, device, revision, trust_remote_code, head, attention) -> tuple[nn.Module, Any]:
    from transformers import AutoTokenizer

    kind, labels = heads.auto_model(head)
    try:
        chosen, wanted = device_named(device), dtype_named(dtype)
    except ValueError as error:
        raise LoadError(str(error)) from None
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, revision=revision, trust_remote_code=trust_remote_code)
        with quiet():
            if head == "tokens":
                kind = routed.kind_of(kind, where, revision=revision, trust_remote_code=trust_remote_code)
            module, info = kind.from_pretrained(
                where, revision=revision, trust_remote_code=trust_remote_code, dtype=wanted,
                use_safetensors=True, output_loading_info=True, **labels, **flex.chosen(attention),
                **({} if chosen.type == "cpu" else {"device_map": {"": chosen}}),
            )  # fmt: skip
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        folder = Path(spec).expanduser()
        tried = f"the folder {where}" if Path(where).is_dir() else (
            f"a folder {folder.absolute()} (not there), then {spec!r}"
            f"{f' at revision {revision!r}' if revision else ''} in the local cache and on the Hugging Face hub"
            + (" (offline: HF_HUB_OFFLINE is set)" if _offline() else "")
        )  # fmt: skip
        raise LoadError(f"cannot load {spec!r}: tried {tried}. {str(error).strip().splitlines()[0]}") from error
    made = heads.made_up(head, info["missing_keys"])
    _check_complete(spec, {**info, "missing_keys": set(info["missing_keys"]) - made}, heads.NAMES[head])
    heads.settle(module, tokenizer, head, bool(made))
    return module, tokenizer


def _check_complete(spec: str, info: dict[str, Any], what: str) -> None:
    """Weights that transformers had to make up are an error: a random head answers, but means nothing."""
    for kind in ("missing_keys", "mismatched_keys"):
        if info.get(kind):
            some = ", ".join(sorted(str(k) for k in info[kind])[:3])
            raise LoadError(f"{spec!r} is not a whole {what}: {len(info[kind])} weights {kind[:-5]} ({some}, ...)")


def _offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _put_on(model: LanguageModel, adapter: str) -> None:
    from peft import PeftModel

    folder = Path(adapter).expanduser()
    if folder.is_dir() and not (folder / "adapter_model.safetensors").exists():
        raise LoadError(f"adapter {adapter!r}: no adapter_model.safetensors in {folder}; pickled adapters are not read")
    known = folder / BASE_FILE
    if known.exists():
        wanted = json.loads(known.read_text(encoding="utf-8"))["digest"]
        found = digest(model.module, model.tokenizer)
        if wanted != found:
            raise LoadError(
                f"adapter {adapter!r} was trained on a model with digest {wanted[:8]}, but {model.source!r} has "
                f"{found[:8]}: another model, revision, dtype, tokenizer or chat template"
            )
    try:
        with quiet():
            model.module = PeftModel.from_pretrained(
                model.module, str(folder) if folder.is_dir() else adapter, is_trainable=True, use_safetensors=True
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise LoadError(f"cannot put adapter {adapter!r} on {model.source!r}: {str(error).splitlines()[0]}") from error


def _put_fresh(model: LanguageModel, lora: Lora) -> None:
    from peft import LoraConfig, PeftModel, get_peft_model

    if isinstance(model.module, PeftModel):
        raise LoadError("this model has an adapter already; merge it, or train that one by leaving `lora` out")
    wanted = attention_projections(model.module) if lora.target_modules == "attention" else lora.target_modules
    config = LoraConfig(
        task_type="CAUSAL_LM" if heads.scalar_head(model.module) is None else "SEQ_CLS",
        r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout,
        target_modules=wanted if isinstance(wanted, str) else list(wanted),
        fan_in_fan_out=stores_inputs_first(model.module),
    )  # fmt: skip
    with torch.random.fork_rng(devices=()), quiet():
        torch.manual_seed(lora.seed)
        model.module = get_peft_model(model.module, config)


def save(model: LanguageModel, folder: str | os.PathLike[str]) -> None:
    """Write weights (safetensors), config and tokenizer to `folder`, or the adapter alone where there is one.

    The folder appears whole or not at all; an older one is replaced. `load(folder)` gives the model back.
    """
    from peft import PeftModel

    with files.replacing_folder(folder) as beside, quiet():
        model.module.save_pretrained(beside)
        model.tokenizer.save_pretrained(beside)
        if isinstance(model.module, PeftModel):
            base = {"spec": _lasting(model.source), "digest": base_digest(model.module, model.tokenizer)}
            files.write_json(beside / BASE_FILE, base)


def _lasting(source: str) -> str:
    """A folder is written as an absolute path, so that the adapter can be loaded from anywhere on this machine."""
    path = Path(source).expanduser()
    return str(path.resolve()) if source and path.is_dir() else source
