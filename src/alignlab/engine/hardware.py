"""What there is to compute with: devices and formats by name, what a processor is good at, what its memory costs."""

import contextlib
import ctypes
import functools
import gc
import os
import sys
from collections.abc import Iterator

import torch

MMAP_MAX, TOP_PAD, TRIM_THRESHOLD = -4, -2, -1
"""numbers of glibc's mallopt"""
DECIDED = (
    "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES",
    "LD_PRELOAD",
)  # fmt: skip
"""what a user sets in the environment to decide it, the last one to have another allocator"""


def device_named(device: str) -> torch.device:
    """Return a device; `auto` is CUDA, else Apple's, else the CPU. Raises ValueError for one that is not there."""
    if device == "auto":
        if torch.cuda.is_available():
            # of several processes on a machine each has its own, which nobody has made the current one yet
            own = int(os.environ.get("LOCAL_RANK", torch.cuda.current_device()))
            return torch.device("cuda", own % torch.cuda.device_count())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:  # an unknown word, a torch built without it, no such card
        why = str(error).strip().splitlines()[0]
        raise ValueError(
            f"device {device!r} cannot be used here: {why}. Expected auto, cpu, cuda, cuda:1 or mps"
        ) from None
    if found.type == "meta":
        raise ValueError("device 'meta' holds no numbers; expected auto, cpu, cuda, cuda:1 or mps")
    return found


def dtype_named(dtype: str | torch.dtype) -> str | torch.dtype:
    """Return a format of numbers; `auto` and torch's own stay as they are. Raises ValueError for another name."""
    if isinstance(dtype, torch.dtype) or dtype == "auto":
        return dtype
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
    if dtype not in known:
        raise ValueError(f"dtype {dtype!r}; expected auto, {', '.join(known)}")
    return known[dtype]


def fast_bfloat16() -> bool:
    """Whether bfloat16 matrix products are faster than float32 here; without the instructions they are emulated."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    capability = torch.backends.cpu.get_cpu_capability()
    flags = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return "AVX512" in capability and any(getattr(torch.cpu, flag, bool)() for flag in flags)


@contextlib.contextmanager
def collecting_what_is_new() -> Iterator[None]:
    """Inside, Python's garbage collector passes over what was there before, and with it all that imports have left.

    One pass over that takes .1 s, and a few thousand new tuples set it off. Where somebody else has frozen objects
    (`gc.freeze`), nothing is changed.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@functools.cache
def keep_freed_memory() -> bool:
    """Have glibc keep what large tensors free instead of giving it back; return whether it does.

    It gives blocks of 32 MiB and more back at once, and the next batch pays for each page again: 8 to 39 % of a DPO
    step's time on a virtual machine's CPU (see LOG.md). It holds for the whole process, whose heap stays as large as it
    once had to be. Where the user has set one of `DECIDED`, that holds instead.
    """
    if not sys.platform.startswith("linux") or any(os.environ.get(name) for name in DECIDED):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    limits = ((MMAP_MAX, 0), (TRIM_THRESHOLD, 2**31 - 1), (TOP_PAD, 64 * 2**20))
    return all([mallopt(name, value) for name, value in limits])
