"""Checkpoints that are whole or absent: `checkpoint-<step>/` with model, AdamW's moments, random state and step.

A checkpoint folder can be loaded as a model; `training.safetensors` and `training.json` in it let a run go on to the
same bits. Nothing is pickled. A folder named `checkpoint-*` is whole: it is written under another name, synced, then
renamed.
"""

import errno
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from alignlab.core.files import replacing_folder, write_json
from alignlab.engine.load import LanguageModel
from alignlab.engine.load import save as save_model
from alignlab.engine.sharded import cut_like, whole

TENSORS, STATE = "training.safetensors", "training.json"
MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def trained(model: LanguageModel) -> dict[str, Tensor]:
    """Return the parameters that training changes, by name."""
    return {name: value for name, value in model.module.named_parameters() if value.requires_grad}


def random_state(device: torch.device) -> dict[str, Tensor]:
    """Return torch's random state on the host and on `device`."""
    state = {"host": torch.get_rng_state()}
    if device.type == "cuda":
        state["device"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: Mapping[str, Tensor], device: torch.device) -> None:
    """Put torch's random state back."""
    torch.set_rng_state(state["host"])
    if "device" in state and device.type == "cuda":
        torch.cuda.set_rng_state(state["device"], device)


def gathered(model: LanguageModel, optimizer: torch.optim.Optimizer, *, keep: bool = True) -> dict[str, Tensor]:
    """Return the trained parameters and AdamW's moments on the host, whole; none of them without `keep`.

    Where they are spread over ranks, all ranks must call this.
    """
    found = {}
    for name, parameter in trained(model).items():
        moments = optimizer.state.get(parameter, {})
        for kind, value in (("parameter", parameter), *((key, moments[key]) for key in MOMENTS if key in moments)):
            tensor = whole(value.detach())
            if keep:
                found[f"{kind}/{name}"] = tensor.cpu().contiguous()
    return found


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the parameters among `gathered` tensors that hold NaN or infinity."""
    parameters = {name: value for name, value in tensors.items() if name.startswith("parameter/")}
    return [name.partition("/")[2] for name, value in parameters.items() if not bool(torch.isfinite(value).all())]


def save(
    folder: Path,
    model: LanguageModel,
    tensors: Mapping[str, Tensor],
    random: Mapping[str, Tensor],
    state: Mapping[str, Any],
) -> None:
    """Write a whole checkpoint, or leave nothing.

    Args:
        folder: `<output_dir>/checkpoint-<step>`.
        model: what is trained.
        tensors: as `gathered` returns them.
        random: name -> random state, e.g. `0/host` for rank 0.
        state: JSON values to go on from.

    Raises:
        OSError: with the folder, the reason and what is left, e.g. on a full disk.
    """
    tensors = {**tensors, **{f"random/{name}": value.cpu() for name, value in random.items()}}
    try:
        with replacing_folder(folder) as beside:
            save_model(model, beside)
            save_file(tensors, beside / TENSORS)
            sizes = {str(f.relative_to(beside)): f.stat().st_size for f in sorted(beside.rglob("*")) if f.is_file()}
            write_json(beside / STATE, {**state, "files": sizes})
    except (OSError, SafetensorError) as error:
        raise _unwritten(folder, error) from error


def _unwritten(folder: Path, error: Exception) -> OSError:
    full = getattr(error, "errno", None) == errno.ENOSPC or f"os error {errno.ENOSPC}" in str(error)
    code = errno.ENOSPC if full else getattr(error, "errno", None) or errno.EIO
    reason = os.strerror(code) if isinstance(error, OSError) or full else str(error)
    last = newest(folder.parent)
    kept = f"{last.name} is whole" if last else "there is no earlier checkpoint"
    advice = "free space, then give the same command again (alignlab train: with --resume_from_checkpoint)"
    return OSError(code, f"{folder} could not be written: {reason}; {kept}; {advice}")


def read_state(folder: Path) -> dict[str, Any]:
    """Return the JSON state of a whole checkpoint.

    Raises:
        ValueError: the folder is no checkpoint of ours, or files are missing or cut short; the message names them.
    """
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        wrong = [
            name
            for name, size in state["files"].items()
            if not (folder / name).is_file() or (folder / name).stat().st_size != size
        ]
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{folder} is not a checkpoint to go on from: {STATE}: {error}") from error
    if wrong:
        raise ValueError(f"{folder} is not whole: {', '.join(wrong)} missing or cut short; use another checkpoint")
    return dict(state)


def same_settings(folder: Path, state: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Raise ValueError naming the first setting that is not what it was when the checkpoint was made."""
    for name, value in json.loads(json.dumps(settings)).items():
        before = state["settings"].get(name)
        if before != value:
            raise ValueError(
                f"cannot go on from {folder}: {name} was {before!r} and is now {value!r};"
                " use the same settings, or another --output_dir"
            )


def load(folder: Path, model: LanguageModel, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Put parameters and moments of a checkpoint in place, bit for bit; return the random states by name.

    Raises:
        ValueError: the checkpoint was made of other parameters.
    """
    tensors = load_file(folder / TENSORS)
    parameters = trained(model)
    kept = {
        name.removeprefix("parameter/"): value.shape for name, value in tensors.items() if name.startswith("parameter/")
    }
    wanted = {name: value.shape for name, value in parameters.items()}
    if kept != wanted:
        odd = sorted({name for name in kept.keys() | wanted.keys() if kept.get(name) != wanted.get(name)})
        raise ValueError(
            f"{folder} was trained on other parameters than this run ({len(odd)} differ, first {odd[0]});"
            " check --model and the LoRA flags"
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(cut_like(tensors[f"parameter/{name}"], parameter))
            moments = {key: tensors[f"{key}/{name}"] for key in MOMENTS if f"{key}/{name}" in tensors}
            if moments:
                optimizer.state[parameter] = {key: cut_like(value, parameter) for key, value in moments.items()}
    return {name.removeprefix("random/"): value for name, value in tensors.items() if name.startswith("random/")}


def _step(folder: Path) -> int:
    number = folder.name.removeprefix("checkpoint-")
    return int(number) if number.isdecimal() else -1


def checkpoints(output_dir: Path) -> list[Path]:
    """Return the checkpoint folders of a run, oldest first."""
    found = [folder for folder in output_dir.glob("checkpoint-*") if folder.is_dir() and _step(folder) >= 0]
    return sorted(found, key=_step)


def newest(output_dir: Path) -> Path | None:
    """Return the newest whole checkpoint; damaged ones are passed over."""
    for folder in reversed(checkpoints(output_dir)):
        try:
            read_state(folder)
        except ValueError:
            continue
        return folder
    return None


def prune(output_dir: Path, keep: int | None) -> None:
    """Delete all but the `keep` newest checkpoints; each is renamed first, so that none is ever half there."""
    for folder in checkpoints(output_dir)[: -keep if keep else 0]:
        doomed = folder.with_name(f".{folder.name}.{os.getpid()}.{secrets.token_hex(4)}.partial")
        os.replace(folder, doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def sweep(output_dir: Path) -> None:
    """Delete what killed runs left half-written."""
    for left in (*output_dir.glob(".*checkpoint-*.partial"), *output_dir.glob(".metrics.jsonl.*.partial")):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)
