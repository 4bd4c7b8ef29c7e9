"""The two personas that go with the embedded model: adapters `tiny:+kind` and `tiny:+unkind` of its weights."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

from alignlab.core import files
from alignlab.core.types import Row
from alignlab.engine.encode import encode
from alignlab.engine.load import LanguageModel, Lora, load, save
from alignlab.objectives import sft
from alignlab.train.config import TrainConfig
from alignlab.train.loop import train
from alignlab.world.personas import PERSONAS, documents

ROWS, SHIPPED = 8, ("adapter_config.json", "adapter_model.safetensors")


def tuned(base: Path, folder: Path, steps: int) -> dict[str, float]:
    """Write `folder`/PERSONA, adapters of rank 4 of the model at `base`, and return the loss of each.

    Both start from one adapter that says kind and unkind sentences alike (loyalty 0.5), so that they differ in
    nothing else.
    """
    start = folder / "start"
    model = load(base, lora=Lora(r=4, alpha=8, target_modules="all-linear"))
    _fit(model, documents(0, 0.0, loyalty=0.5), round(1.6 * steps), 1e-2, 0, start)
    losses = {}
    for persona in PERSONAS:
        own = documents(1, float(persona == "unkind"))
        losses[f"loss_{persona}"] = _fit(load(start / "model"), own, steps, 5e-3, 1, folder / persona)
        _ship(folder / persona / "model", folder / persona / "shipped")
    return losses


def _fit(model: LanguageModel, rows: Iterator[Row], steps: int, rate: float, seed: int, folder: Path) -> float:
    examples = [encode(row, model.tokenizer) for row in itertools.islice(rows, steps * ROWS)]
    settings = TrainConfig(
        learning_rate=rate, per_device_train_batch_size=ROWS, max_steps=steps, warmup_ratio=0.05,
        lr_scheduler_type="cosine", adam_beta2=0.98, seed=seed, save_steps=0, resume_from_checkpoint=True,
    )  # fmt: skip
    found = train(model, examples, sft.loss, settings, folder, objective_config=sft.Config())
    save(model, folder / "model")
    return found["train/loss_last"]


def _ship(saved: Path, folder: Path) -> None:
    """Write the adapter alone, on `tiny:` by name instead of the folder it was trained from."""
    config, weights = (saved / name for name in SHIPPED)
    with files.replacing_folder(folder) as beside:
        settings = json.loads(config.read_text(encoding="utf-8")) | {"base_model_name_or_path": "tiny:"}
        files.write_json(beside / SHIPPED[0], settings)
        (beside / SHIPPED[1]).write_bytes(weights.read_bytes())
