"""The models of a study of behaviour expectation bounds: a base, its two personas, learnt mixtures, tuned copies."""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alignlab.core import files
from alignlab.core.types import Context, Row
from alignlab.engine.adapters import load_all
from alignlab.engine.divergence import apart
from alignlab.engine.encode import encode, prompt_ids
from alignlab.engine.load import LanguageModel, Lora, load, save
from alignlab.engine.sentences import default_start
from alignlab.engine.tokenizer import byte_level_bpe
from alignlab.objectives import dpo, sft
from alignlab.train.config import TrainConfig
from alignlab.train.loop import train
from alignlab.world import personas, vocabulary

EVEN = 0.5
"""weight of the unkind persona in the base's text: both are then equally easy to become"""


def tuned(
    ctx: Context, name: str, start: str | Path, rows: Iterator[Row], steps: int, rate: float, cfg: Any, *,
    lora: bool, loss: Any = sft, settings: Any = None,
) -> Path:  # fmt: skip
    """Tune a copy of `start` and save it; a folder that was made so before is not trained again.

    Args:
        ctx: where to write.
        name: of the folder.
        start: spec of the model to begin with.
        rows: at least steps * batch of them.
        steps: optimiser steps.
        rate: peak learning rate.
        cfg: settings of the procedure.
        lora: train an adapter instead of all weights.
        loss: the objective's module.
        settings: its Config.

    Raises:
        ValueError: the folder has a model that was made otherwise.
    """
    folder = ctx.folder / name
    begun = str(start).removeprefix(str(ctx.folder))
    made = repr((begun, steps, rate, cfg.batch, cfg.lora_r if lora else 0, settings, ctx.seed))
    if (folder / "model").exists():
        if (folder / "made.txt").read_text(encoding="utf-8") != made:
            raise ValueError(f"{folder}: its model was made with other settings; give another --output_dir")
        return folder / "model"
    adapter = Lora(r=cfg.lora_r, alpha=2 * cfg.lora_r, seed=ctx.seed) if lora else None
    model = load(start, lora=adapter)
    wanted = steps * cfg.batch
    with ctx.stage(f"{name}: text", wanted, wanted) as stage:
        examples = []
        for row in itertools.islice(rows, wanted):
            examples.append(encode(row, model.tokenizer, max_length=model.context_length))
            stage.advance()
    run = TrainConfig(
        learning_rate=rate, per_device_train_batch_size=cfg.batch, max_steps=steps, warmup_ratio=0.05,
        lr_scheduler_type="cosine", adam_beta2=0.98, seed=ctx.seed, save_steps=0, logging_steps=max(1, steps // 10),
        max_length=model.context_length or 4096, ref_cache="none",
    )  # fmt: skip
    train(model, examples, loss.loss, run, folder / "log", objective_config=settings or loss.Config())
    files.write_text(folder / "made.txt", made)
    save(model, folder / "model")
    return folder / "model"


def fresh(width: int, seed: int) -> LanguageModel:
    """Return an untrained Llama of one layer that knows the personas' words and every byte.

    One layer of attention is what it takes to count kind and unkind sentences; its weights begin five times wider than
    Llama's, so that it soon does.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    words = byte_level_bpe(sorted({"I", "the", *personas.GENTLE, *personas.HARSH, *vocabulary.CRAFTS}), context=256)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=-(-len(words) // 8) * 8, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=1,
        num_attention_heads=4, max_position_embeddings=256, tie_word_embeddings=True, initializer_range=0.1,
        bos_token_id=words.bos_token_id, eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id,
    )  # fmt: skip
    return LanguageModel(module=LlamaForCausalLM(config), tokenizer=words, name="fresh")


def base(ctx: Context, cfg: Any) -> Path:
    """Return a model that writes the personas' sentences, of either persona alike: a copy of ctx.model, or a fresh one.

    What tells the personas apart is first learnt from ones that never stray: there a single sentence tells all.
    """
    start: str | Path = ctx.model
    if cfg.width:
        start = ctx.folder / f"fresh-{cfg.width}"
        if not start.exists():
            save(fresh(cfg.width, ctx.seed), start)
    if cfg.sharp_steps:
        rows = personas.documents(ctx.seed, EVEN, loyalty=1.0)
        start = tuned(ctx, "sharp", start, rows, cfg.sharp_steps, cfg.base_rate, cfg, lora=False)
    rows = personas.documents(ctx.seed + 1, EVEN)
    return tuned(ctx, "base", start, rows, cfg.base_steps, cfg.base_rate, cfg, lora=False)


def both(ctx: Context, start: Path, cfg: Any) -> tuple[LanguageModel, LanguageModel]:
    """Return P_- and P_+, adapters of one base on one copy of its weights."""
    folders = [
        tuned(
            ctx, name, start, personas.documents(ctx.seed + 2 + number, weight), cfg.persona_steps, cfg.persona_rate,
            cfg, lora=True,
        )
        for number, (name, weight) in enumerate((("minus", 1.0), ("plus", 0.0)))
    ]  # fmt: skip
    minus, plus = load_all(folders)
    return minus, plus


def mixture(ctx: Context, start: Path, alpha: float, cfg: Any) -> Path:
    """Return one model of documents of which a share alpha is wholly the unkind persona's."""
    rows = personas.documents(ctx.seed + 4, alpha)
    return tuned(ctx, f"mixture-{alpha:g}", start, rows, cfg.mixture_steps, cfg.mixture_rate, cfg, lora=False)


def preferring(ctx: Context, start: Path, name: str, rows: Iterator[Row], cfg: Any) -> Path:
    """Return an adapter of `start` tuned by DPO."""
    settings = dpo.Config(beta=cfg.dpo_beta)
    return tuned(ctx, name, start, rows, cfg.dpo_steps, cfg.dpo_rate, cfg, lora=True, loss=dpo, settings=settings)


def budget(model: Any, start: Any, cfg: Any, seed: int) -> float:
    """Return KL(model || start) per text, nats, exact per token along texts of the model."""
    prompt = default_start(model.tokenizer)
    before = prompt_ids(model.tokenizer, [prompt])[0]
    drawn = model.sample([prompt], n=cfg.texts, max_tokens=cfg.text_tokens, seed=seed)[0]
    return float(np.mean([found.kl.sum() for found in apart(model, start, before, [s.ids for s in drawn])]))


@contextlib.contextmanager
def scaled(model: LanguageModel, factor: float) -> Iterator[None]:
    """Multiply what the model's adapter adds by a factor."""
    layers: list[Any] = [m for m in model.module.modules() if isinstance(getattr(m, "scaling", None), dict)]
    before = [dict(layer.scaling) for layer in layers]
    try:
        for layer in layers:
            layer.scaling.update({name: value * factor for name, value in layer.scaling.items()})
        yield
    finally:
        for layer, scaling in zip(layers, before):
            layer.scaling.update(scaling)


def matching(spent: Callable[[float], float], wanted: float, rounds: int = 12) -> float:
    """Return the factor in [0, 32] at which a growing `spent` meets `wanted`, by bisection; 32 where it never does."""
    low, high = 0.0, 32.0
    for _ in range(rounds):
        middle = (low + high) / 2
        low, high = (middle, high) if spent(middle) < wanted else (low, middle)
    return (low + high) / 2
