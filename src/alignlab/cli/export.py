"""`export`: a model as one stock folder that any tool opens, its adapter merged and its output heads folded."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from alignlab.cli import about, flags, options


@dataclass(frozen=True, kw_only=True)
class Exporting:
    """Flags of `export`."""

    model: str
    """hub id, local folder, `tiny:` or `tiny:+ADDON` (also --model_name_or_path)"""
    output_dir: str
    """folder to write; new, or empty"""


def export(argv: Sequence[str]) -> int:
    """Write the model, weights as safetensors, and print its identity."""
    groups = [flags.Group("Export", Exporting), flags.Group("Model", options.Loading)]
    if about.asked_for_help("export", groups, argv):
        return 0
    values = flags.parse("alignlab export", groups, argv)
    folder = Path(values["output_dir"]).expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"--output_dir {folder}: there is something already; name a new folder, or an empty one")
    from alignlab.cli.actions import load_model
    from alignlab.engine.heads import merged
    from alignlab.engine.load import save
    from alignlab.engine.routed import routed_head, unrouted

    model = load_model(values)
    module = model.module
    if (several := routed_head(module)) is not None:
        raise ValueError(unrouted(len(several.weight)))
    words = (module.get_input_embeddings(), module.get_output_embeddings())
    if module.config.tie_word_embeddings and any(hasattr(layer, "lora_A") for layer in words):
        raise ValueError(
            f"{values['model']}: its adapter changes words that input and output share, each in its own way, so it"
            " cannot become part of the model; keep it beside the model, with --adapter"
        )
    model.module = merged(module)
    save(model, folder)
    print(f"{model.identity}: {folder}", file=sys.stderr)
    return 0
