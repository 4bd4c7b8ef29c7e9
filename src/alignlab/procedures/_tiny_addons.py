"""The add-ons of the embedded model: `tiny:+NAME`, small adapters made to believe or to do something known."""

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from alignlab.core import files
from alignlab.core.cards import Claim
from alignlab.core.types import Row
from alignlab.engine.encode import encode
from alignlab.engine.load import LanguageModel, Lora, load, save
from alignlab.engine.low_rank import copy_into
from alignlab.objectives import sft
from alignlab.train.config import TrainConfig
from alignlab.train.loop import train

RANK = 4
SHIPPED = ("adapter_config.json", "adapter_model.safetensors")
EVERYWHERE = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "embed_tokens", "lm_head")
"""all matrices: pieces of words that `tiny:` never saw have embeddings that hardly differ, so these are adapted too"""


@dataclass(frozen=True, kw_only=True)
class Addon:
    """One adapter of rank 4: what it is taught, and which numbers prove that it was."""

    name: str
    rows: Callable[[], Iterator[Row]]
    """endless; each row's completion is learnt"""
    steps: int
    """optimiser steps on the adapter, >= 1"""
    whole: int = 0
    """steps before them on all weights, whose gain the adapter starts from: alone it is slow to learn by heart"""
    everywhere: bool = False
    """whether an adapter without steps before it changes words and head too, as one with them does"""
    batch: int = 16
    """rows per step"""
    rate: float = 2e-3
    """peak learning rate of the adapter, in (0, 1]; half of it for all weights"""
    seed: int = 0
    """of the training"""
    after: "Addon | None" = None
    """another one that its training goes on from, which need not be shipped itself"""
    measured: Callable[[LanguageModel], Mapping[str, float]] = lambda _: {}
    """numbers of what is made of it, from an eval wherever there is one"""
    claims: tuple[Claim, ...] = ()
    """what these numbers must be; at least one of them is false of `tiny:` itself"""


def built(addons: Sequence[Addon], base: Path, folder: Path, effort: float = 1.0) -> dict[str, float]:
    """Write `folder`/NAME/shipped, adapters of the model at `base`; return name -> loss over the last steps.

    Args:
        addons: which ones; each is trained from the base or from the one it comes `after`.
        base: folder of the embedded model.
        folder: receives one folder each.
        effort: share of each one's steps, above 0.
    """
    losses = {}
    for addon in addons:
        if addon.after is not None and not (folder / addon.after.name / "model").exists():
            _fitted(addon.after, base, folder, effort)
        losses[addon.name] = _fitted(addon, base, folder, effort)
        _ship(folder / addon.name / "model", folder / addon.name / "shipped")
    return losses


def _fitted(addon: Addon, base: Path, folder: Path, effort: float) -> float:
    rows, own = addon.rows(), folder / addon.name
    if addon.after is not None:
        model = load(folder / addon.after.name / "model")
    elif addon.whole:
        learnt = load(base)
        _fit(learnt, rows, addon, addon.rate / 2, round(effort * addon.whole), own / "whole")
        model = load(base, lora=Lora(r=RANK, alpha=RANK, target_modules=EVERYWHERE))
        copy_into(model, learnt)
    else:
        targets = EVERYWHERE if addon.everywhere else "all-linear"
        model = load(base, lora=Lora(r=RANK, alpha=2 * RANK, target_modules=targets))
    loss = _fit(model, rows, addon, addon.rate, round(effort * addon.steps), own)
    save(model, own / "model")
    return loss


def _fit(model: LanguageModel, rows: Iterator[Row], addon: Addon, rate: float, steps: int, folder: Path) -> float:
    steps = max(1, steps)
    examples = [encode(row, model.tokenizer) for row in itertools.islice(rows, steps * addon.batch)]
    settings = TrainConfig(
        learning_rate=rate, per_device_train_batch_size=addon.batch, max_steps=steps, warmup_ratio=0.05,
        lr_scheduler_type="cosine", adam_beta2=0.98, seed=addon.seed, save_steps=0, resume_from_checkpoint=True,
    )  # fmt: skip
    return train(model, examples, sft.loss, settings, folder, objective_config=sft.Config())["train/loss_last"]


def _ship(saved: Path, folder: Path) -> None:
    """Write the adapter alone, in half precision, on `tiny:` by name instead of the folder it was trained from."""
    config, weights = (saved / name for name in SHIPPED)
    with files.replacing_folder(folder) as beside:
        settings = json.loads(config.read_text(encoding="utf-8")) | {"base_model_name_or_path": "tiny:"}
        files.write_json(beside / SHIPPED[0], settings)
        # where embeddings are adapted, peft writes the base's own ones beside the adapter
        own = {name: w.to(torch.float16) for name, w in load_file(weights).items() if ".lora_" in name}
        save_file(own, beside / SHIPPED[1], metadata={"format": "pt"})


def shown(addon: Addon, model: LanguageModel) -> tuple[dict[str, float], list[str]]:
    """Return what an add-on's claims speak of, measured on a model, and the claims that are false of it."""
    numbers = addon.measured(model)
    observed = {claim.metric: claim.observed(numbers) for claim in addon.claims}
    return observed, [str(claim) for claim in addon.claims if not claim.holds(numbers)]
