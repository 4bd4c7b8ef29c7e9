"""`sample` and `chat`: a look at what a model says."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alignlab.cli import about, flags, options
from alignlab.cli.context import private_logs
from alignlab.core.answers import readable


@dataclass(frozen=True, kw_only=True)
class Prompting:
    """Flags of `sample`."""

    prompt: str
    """what to ask; `-` reads it from standard input"""
    model: str = "tiny:"
    """hub id, local folder, `tiny:` or `tiny:+ADDON` (also --model_name_or_path)"""
    seed: int = 0
    """seed of the sampling"""
    raw: bool = False
    """give the prompt as it is, without the chat template"""
    json: bool = False
    """print JSON for programs"""


@dataclass(frozen=True, kw_only=True)
class Chatting:
    """Flags of `chat`."""

    model: str = "tiny:"
    """hub id, local folder, `tiny:` or `tiny:+ADDON` (also --model_name_or_path)"""
    seed: int = 0
    """seed of the sampling"""
    system: str | None = None
    """system message"""
    temperature: float = 0.0
    """0 takes the likeliest token each time"""
    max_tokens: int = 256
    """longest answer, in tokens"""


def _load(values: dict[str, Any]) -> Any:
    from alignlab.cli.actions import load_model

    private_logs()
    return load_model(values)


def sample(argv: Sequence[str]) -> int:
    """Print completions of one prompt."""
    groups = [
        flags.Group("Prompt", Prompting),
        flags.Group("Sampling", options.Sampling),
        flags.Group("Model", options.Loading),
    ]
    if about.asked_for_help("sample", groups, argv):
        return 0
    values = flags.parse("alignlab sample", groups, argv)
    text = sys.stdin.read() if values["prompt"] == "-" else values["prompt"]
    model = _load(values)
    from alignlab.cli.actions import chat_or_text

    prompt = text if values["raw"] else chat_or_text(model, text)
    drawn = {name: values[name] for name in ("n", "seed", "temperature", "max_tokens")}
    for found in model.sample([prompt], **drawn)[0]:
        if values["json"]:
            record = {"text": found.text, "stop": found.stop, "logp": sum(found.logp), "tokens": len(found.ids)}
            print(json.dumps(record | {"model": model.identity}, ensure_ascii=True))
        else:
            print(readable(found.text))
    return 0


def chat(argv: Sequence[str]) -> int:
    """Talk until an empty line or end of input."""
    groups = [flags.Group("Chat", Chatting), flags.Group("Model", options.Loading)]
    if about.asked_for_help("chat", groups, argv):
        return 0
    values = flags.parse("alignlab chat", groups, argv)
    model = _load(values)
    if not getattr(model.tokenizer, "chat_template", None):
        raise ValueError(f"{values['model']} has no chat template; use `alignlab sample --raw --prompt ...`")
    drawn = {name: values[name] for name in ("seed", "temperature", "max_tokens")}
    messages = [{"role": "system", "content": values["system"]}] if values["system"] else []
    print(f"{model.identity}; an empty line ends", file=sys.stderr)
    while True:
        try:
            words = input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return 0
        if not words:
            return 0
        messages.append({"role": "user", "content": words})
        answer = model.sample([tuple(messages)], **drawn)[0][0].text
        messages.append({"role": "assistant", "content": answer})
        print(readable(answer), flush=True)
