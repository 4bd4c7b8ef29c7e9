"""Models, tokenisation, scoring and sampling: the only code that knows transformers and peft."""

import os

# Read by huggingface_hub when it is first imported, which every module of this package does after this line.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
# Read at the first matrix product. For every shape of its operands oneDNN, and PyTorch's layer on it, keep a compiled
# kernel, up to 1024 each; in bfloat16 they take about a megabyte apiece, and batches of text have many lengths.
for _cache in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
    os.environ.setdefault(_cache, "128")
