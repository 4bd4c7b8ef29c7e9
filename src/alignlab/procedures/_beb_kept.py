"""What a study has measured, kept beside its models: a run that is started again measures nothing twice."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from alignlab.core import files
from alignlab.probes._beb_found import Found


def kept(folder: Path, key: Any, make: Callable[[], Found]) -> Found:
    """Return what `make` finds, from `folder` if it was found before under the same key.

    Args:
        folder: of the run.
        key: everything that the measurement depends on, told apart by its repr.
        make: measures.
    """
    name = hashlib.sha256(repr(key).encode()).hexdigest()[:16]
    path = folder / "measured" / f"{name}.npz"
    if path.exists():
        with np.load(path, allow_pickle=False) as held:
            values = {field: held[field] for field in held.files}
        lists = {"unfinished": float(values.pop("unfinished")), "prompts": values.pop("prompts").tolist()}
        return Found(**values, **lists)
    found = make()
    with files.replacing(path) as beside, beside.open("wb") as stream:
        np.savez(stream, **vars(found))
    return found
