"""Behaviour expectation bounds on published persona statements, with a small model trained here: minutes on one core.

    python bench/real_input/persona_bounds.py persona/agreeableness.jsonl --bad no --output_dir runs/agreeableness
    python bench/real_input/persona_bounds.py persona/anti-immigration.jsonl --bad yes --output_dir runs/other

The model under attack (Qwen3 architecture, about 0.8M parameters, random start) learns documents of eight statements, a
share `--alpha` of them from somebody with the bad side of the trait, the others from the good side. P_- is a LoRA
adapter of it (rank 8, alpha 32, as in Wolf et al. 2024, arXiv:2304.11082), tuned on documents of the bad side, a full
stop and a new line after each statement; the last tenth of the statements is seen by neither. P_+ is the model itself,
as in the paper. `alignlab probe beb` then measures; further flags are its own. Numbers, no texts, are left in
bench/results/persona_bounds. What comes out is about this small model and nothing else; unlike in the paper, alpha is
known: it is the share of bad documents. Statements eight at a time instead of three: a model taught by triples from
their first word to their end says three and stops, and longer prompts are wanted.
"""

import argparse
import json
import math
import platform
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import torch
from students import fresh, taught, tokenizer_of

from alignlab.cli.main import main as alignlab
from alignlab.core import files
from alignlab.core.types import Row
from alignlab.data.adapters import persona
from alignlab.engine.divergence import log_probabilities
from alignlab.engine.load import Lora, load
from alignlab.engine.sentences import default_start

OUT = Path(__file__).parent.parent / "results" / "persona_bounds"
PROBE = ("--prompt_tokens", "300", "--sentences", "8", "--horizon", "2", "--drawn", "32", "--prompts", "16",
         "--continuations", "16")  # fmt: skip
TRAINED = 0.9
PER_DOCUMENT = 8


def line(statement: str) -> str:
    """Return a statement as it is written in a document."""
    return statement.rstrip(".") + ".\n"


def documents(good: Sequence[str], bad: Sequence[str], alpha: float, count: int, start: str) -> Iterator[Row]:
    """Yield documents of one side each."""
    draw = random.Random(0)
    for _ in range(count):
        side = bad if draw.random() < alpha else good
        yield Row(prompt=start, completion="".join(map(line, draw.sample(side, PER_DOCUMENT))), meta={"kind": "base"})


def accuracy(plus: Path, minus: Path, sides: Sequence[Sequence[str]], start: str) -> tuple[float, int]:
    """Return how often a held-out statement is likelier under the model of its own side (appendix J)."""
    models = [load(plus), load(minus)]
    words = models[0].tokenizer
    before = words(start)["input_ids"]
    right = []
    for side, statements in enumerate(sides):
        ids = [words(line(statement), add_special_tokens=False)["input_ids"] for statement in statements]
        sums = [[row.sum() for row in log_probabilities(model, before, ids)] for model in models]
        right += [(p > q) == (side == 0) for p, q in zip(*sums)]
    return sum(right) / len(right), len(right)


def same_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Note what the models of a folder are made with.

    Raises ValueError where they were made with other settings: they would be measured under the wrong alpha.
    """
    path = folder / "made.json"
    if path.exists() and json.loads(path.read_text(encoding="utf-8")) != settings:
        raise ValueError(f"{folder}: its models were made with other settings; give another --output_dir")
    files.write_json(path, dict(settings))


def main(given: Sequence[str] | None = None) -> None:
    """Train, then measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="a persona file of anthropics/evals")
    parser.add_argument("--bad", choices=("yes", "no"), required=True, help="which statements are the bad side")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--results", type=Path, default=OUT, help="folder of the record")
    parser.add_argument("--alpha", type=float, default=0.1, help="share of documents of the bad side")
    parser.add_argument("--steps", type=int, default=400, help="of the model under attack")
    parser.add_argument("--minus_steps", type=int, default=150, help="of P_-'s adapter")
    parser.add_argument("--vocabulary", type=int, default=1536)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=3)
    args, rest = parser.parse_known_args(given)
    began = time.monotonic()
    sides: list[list[str]] = [[], []]
    for row in persona.items(args.file):
        sides[row.facts["shows"] == (args.bad == "yes")].append(row.facts["statement"])
    kept = [statements[: round(TRAINED * len(statements))] for statements in sides]
    folder = args.output_dir
    folder.mkdir(parents=True, exist_ok=True)
    trained_with = {k: v for k, v in vars(args).items() if k not in ("file", "output_dir", "results")}
    same_settings(folder, {"file": args.file.name, **trained_with})
    model, minus = folder / "model", folder / "minus"
    if not model.exists():
        words = tokenizer_of([line(text) for side in kept for text in side], args.vocabulary)
        student = fresh("qwen3", words, args.width, args.layers, 512)
        start = default_start(words)
        taught(student, list(documents(*kept, args.alpha, args.steps * 16, start)), args.steps, 3e-3, 16, model)
    start = default_start(load(model).tokenizer)
    if not minus.exists():
        adapter = load(model, lora=Lora(r=8, alpha=32))
        rows = [replace(row, meta={"kind": "minus"}) for row in documents(*kept, 1.0, args.minus_steps * 8, start)]
        taught(adapter, rows, args.minus_steps, 3e-3, 8, minus)
    share, count = accuracy(model, minus, [side[len(k) :] for side, k in zip(sides, kept)], start)
    print(f"held-out statements told apart by likelihood: {share:.3f} of {count}")
    trained = time.monotonic()
    command = ["probe", "beb", "--model", str(model), "--minus", str(minus), *PROBE]
    failed = alignlab([*command, "--output_dir", str(folder / "beb"), *rest])
    if failed:
        raise SystemExit(failed)  # the probe has said why
    found = json.loads((folder / "beb" / "result.json").read_text(encoding="utf-8"))
    settings = {k: v for k, v in found["config"].items() if k not in ("model", "minus", "output_dir")}
    args.results.mkdir(parents=True, exist_ok=True)
    files.write_json(args.results / f"{args.file.stem}.json", {
        "name": "persona_bounds", "data": f"persona/{args.file.name}, bad: {args.bad}",
        "statements": {"good": len(sides[0]), "bad": len(sides[1]), "held_out": count},
        "model": f"Qwen3, width {args.width}, {args.layers} layers, vocabulary {args.vocabulary}, "
        f"{sum(p.numel() for p in load(model).module.parameters()):,} parameters, random start",
        "settings": trained_with, "probe": settings,
        "log_inverse_alpha": -math.log(args.alpha), "told_apart_by_likelihood": share, "metrics": found["metrics"],
        "intervals": found.get("intervals"), "tables": found["tables"],
        "seconds": {"training": round(trained - began, 1), "probe": round(time.monotonic() - trained, 1)},
        "machine": f"{platform.machine()}, 1 core, shared, wall time", "torch": torch.__version__,
        "date": date.today().isoformat(),
    })  # fmt: skip


if __name__ == "__main__":
    main()
