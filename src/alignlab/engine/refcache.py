"""Reference log-probabilities on disk, per token, found by content: over beta, loss, seed, epoch and run.

A key is the digest of everything that a value depends on: weights, token ids of prompt and completion, mask, dtype of
computation, output head where there are several. Two models cannot share a key, whatever their files are called.

One file per model and dtype, to which records are appended:

    magic 8 bytes | count u32 | bytes per value u32 | key 32 bytes | count little-endian floats | digest 16 bytes

The digest covers the rest of the record. What a killed process left half-written, or a disk got wrong, has no valid
digest: readers skip to the next magic, and what was lost is computed again. Appends are single writes to a file opened
for appending, under a lock where the system has one, so that processes may share a file.
"""

import contextlib
import hashlib
import mmap
import os
import struct
import warnings
from array import array
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from alignlab.core import files
from alignlab.engine.agreement import computes_in
from alignlab.engine.endpoints.cache import default_folder
from alignlab.engine.identity import adapter_weights, base_digest
from alignlab.engine.load import LanguageModel
from alignlab.engine.routed import routed_head
from alignlab.engine.sharded import whole

try:
    import fcntl
except ImportError:  # not on Windows: an append there is one write all the same
    fcntl = None

MAGIC = b"\x93refLP1\n"
HEADER = struct.Struct("<8sII32s")
CHECK = 16
DTYPES = {4: torch.float32, 8: torch.float64}
FACTORS = ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B")
"""of W + alpha / r * B A, as peft calls them"""


class CoverageError(RuntimeError):
    """Reference values are missing, or have another length than their completion: never go on with those."""


def weights_identity(model: LanguageModel) -> str:
    """Return 64 hex digits that stand for what a model computes; an untrained LoRA adapter changes nothing of it."""
    if hasattr(model.module, "peft_config") and _adds_nothing(model.module):
        return base_digest(model.module, model.tokenizer)
    return model.digest


def _adds_nothing(module: nn.Module) -> bool:
    """Whether all that adapters have brought are the two factors of LoRA, and every product B A is still zero."""
    if any(str(getattr(c.peft_type, "value", c.peft_type)) != "LORA" for c in module.peft_config.values()):
        return False
    brought = adapter_weights(module)
    # of words the factor that starts at zero is called A
    zeros = [value for key, value in brought.items() if ".lora_B." in key or ".lora_embedding_A." in key]
    others = [key for key in brought if not any(f".{kind}." in key for kind in FACTORS)]
    return bool(zeros) and not others and not any(bool(whole(value).any()) for value in zeros)


class ReferenceCache:
    """The reference values of one model, computed in one dtype."""

    def __init__(self, folder: str | os.PathLike[str], identity: str, dtype: str, *, routed: bool = False) -> None:
        """Open the cache; nothing is written before the first `put`.

        Args:
            folder: of the cache; made when needed.
            identity: of the weights, as `weights_identity` gives it.
            dtype: of computation, such as "float32".
            routed: whether the model has several output heads, so that a value depends on the head that is asked.
        """
        self._identity, self._dtype, self._routed = identity, dtype, routed
        self.path = Path(folder) / f"{identity[:32]}-{dtype}.logp"
        self._broken = False

    def key(
        self, prompt: Sequence[int], completion: Sequence[int], mask: Sequence[bool], head: int | None = None
    ) -> bytes:
        """Return the key of a completion: 32 bytes. What follows its last scored token does not matter.

        `head` does where the model has several, and there alone.
        """
        end = max((t + 1 for t, scored in enumerate(mask) if scored), default=0)
        whole = hashlib.sha256(f"1 {self._identity} {self._dtype} {len(prompt)} {end}\n".encode())
        if self._routed:
            whole.update(f"head {head}\n".encode())
        whole.update(array("q", prompt).tobytes() + array("q", completion[:end]).tobytes())
        whole.update(bytes(map(bool, mask[:end])))
        return whole.digest()

    def get(self, keys: Collection[bytes]) -> dict[bytes, Tensor]:
        """Return the values that are known, one per scored token, in order; damaged ones count as unknown."""
        found: dict[bytes, Tensor] = {}
        with self._guarded("read"), self._locked(), contextlib.suppress(FileNotFoundError):
            damaged = self._read(frozenset(keys), found)
            if damaged:
                warnings.warn(
                    f"{self.path}: {damaged} bytes hold no whole record (a killed run, or the disk); they are dropped,"
                    " and what they held is computed again",
                    stacklevel=3,
                )
        return found

    def put(self, values: Mapping[bytes, Tensor]) -> None:
        """Append values, one per scored token; a key may come twice."""
        if self._broken or not values:
            return
        whole = b"".join(_record(key, tensor) for key, tensor in values.items())
        with self._guarded("write"), self._locked():
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                while whole:
                    whole = whole[os.write(descriptor, whole) :]
            finally:
                os.close(descriptor)

    def _read(self, wanted: frozenset[bytes], found: dict[bytes, Tensor]) -> int:
        """Fill `found`; where bytes are damaged, leave whole records only in the file, and return how many went."""
        with open(self.path, "rb") as file:
            if not os.fstat(file.fileno()).st_size:
                return 0
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                places = list(_records(data))
                for start, end in places:
                    _, _, width, key = HEADER.unpack_from(data, start)
                    if key in wanted:
                        values = bytearray(data[start + HEADER.size : end - CHECK])
                        empty = torch.zeros(0, dtype=DTYPES[width])
                        found[key] = torch.frombuffer(values, dtype=DTYPES[width]) if values else empty
                damaged = len(data) - sum(end - start for start, end in places)
                if damaged:
                    with files.replacing(self.path) as beside, open(beside, "wb") as whole:
                        os.fchmod(whole.fileno(), 0o600)
                        for start, end in places:
                            whole.write(data[start:end])
        return damaged

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes out; the lock goes with its process, however that ends."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path.with_suffix(".lock"), "a") as lock:
            if fcntl is not None:
                with contextlib.suppress(OSError):  # some network file systems have no locks
                    fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def _guarded(self, what: str) -> Iterator[None]:
        """A cache that cannot be used costs time, not the run: one warning."""
        try:
            yield
        except OSError as error:
            if not self._broken:
                warnings.warn(
                    f"cannot {what} the reference cache {self.path}: {error.strerror or error}; going on without it"
                    " (--ref_cache DIR moves it, --ref_cache none switches it off)",
                    stacklevel=4,
                )
            self._broken = True


def _record(key: bytes, values: Tensor) -> bytes:
    values = values.detach().cpu().contiguous()
    if values.dtype not in DTYPES.values() or values.ndim != 1:
        raise ValueError(f"reference values are one row of float32 or float64, not {values.dtype} {values.shape}")
    body = HEADER.pack(MAGIC, len(values), values.element_size(), key) + values.numpy().tobytes()
    return body + hashlib.blake2b(body, digest_size=CHECK).digest()


def _records(data: Any) -> Iterator[tuple[int, int]]:
    """Yield start and end of every whole record."""
    start = data.find(MAGIC)
    while start >= 0:
        end = start
        if start + HEADER.size <= len(data):
            _, count, width, _ = HEADER.unpack_from(data, start)
            end = start + HEADER.size + count * width + CHECK
        if start < end <= len(data) and width in DTYPES:
            body = data[start : end - CHECK]
            if hashlib.blake2b(body, digest_size=CHECK).digest() == data[end - CHECK : end]:
                yield start, end
                start = data.find(MAGIC, end)
                continue
        start = data.find(MAGIC, start + 1)


def open_cache(where: str, model: Any) -> ReferenceCache | None:
    """Return the cache of a model with the weights and adapters it has now, in the dtype that it computes in now.

    Args:
        where: "auto" for `references` in the user's cache folder, "none" for no cache, else a folder.
        model: the reference; one whose weights do not say all about it (steered, mixed) has no cache.
    """
    if where == "none" or not isinstance(model, LanguageModel):
        return None
    folder = default_folder() / "references" if where == "auto" else Path(where).expanduser()
    several = routed_head(model.module) is not None
    dtype = str(computes_in(model.module)).removeprefix("torch.")
    return ReferenceCache(folder, weights_identity(model), dtype, routed=several)
