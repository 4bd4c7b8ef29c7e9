"""Models, tokenisation, scoring and sampling: the only code that knows transformers and peft."""

import os

# Read by huggingface_hub when it is first imported, which every module of this package does after this line.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
