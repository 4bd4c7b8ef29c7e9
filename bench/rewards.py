"""Reward heads on real text: Bradley-Terry against the order classifier on the published hh_rlhf test pairs.

    python bench/rewards.py

One small Llama from a config, random start, and one tokenizer fitted to the training pairs; both losses see the same
pairs in the same order with the same settings. A fifth of the pairs, chosen by a digest of their prompt, is held out
of everything, tokenizer included. Printed beside: which side is longer, and logistic regression on differences of word
counts, fitted to the same training pairs. With so few pairs and no pre-training this shows that the heads learn
from real text and how the two compare, not how good a reward model can be.
"""

import argparse
import hashlib
import json
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np
import torch
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForSequenceClassification, LlamaConfig, PreTrainedTokenizerFast

from alignlab.core import files
from alignlab.core.types import Metric, Row
from alignlab.data.rows import read
from alignlab.engine.encode import TooLong, encode
from alignlab.engine.load import LanguageModel
from alignlab.rewards import bradley_terry, order_classifier
from alignlab.rewards._shared import score_rows
from alignlab.stats import bootstrap
from alignlab.stats.proportion import share
from alignlab.train import loop
from alignlab.train.config import TrainConfig

DATA = Path(os.environ.get("ALIGNLAB_DATA", "../shared/data"))
OUT = Path(__file__).parent / "results" / "rewards_hh_rlhf.json"
METHODS = {"bradley_terry": bradley_terry, "order_classifier": order_classifier}
VOCABULARY = 2048


def held_out(row: Row) -> bool:
    """Whether a row is never trained on; the same prompt is always on the same side."""
    return hashlib.sha256(str(row.prompt).encode()).digest()[0] % 5 == 0


def fitted_tokenizer(rows: Sequence[Row]) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer fitted to training pairs."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<pad>", "<end>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    inner.train_from_iterator((text for r in rows for text in (str(r.prompt), r.chosen, r.rejected)), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<end>")


def made(tokenizer: PreTrainedTokenizerFast, args: argparse.Namespace, seed: int) -> LanguageModel:
    """Return an untrained reward model."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=args.width, intermediate_size=3 * args.width, num_labels=1,
        num_hidden_layers=args.layers, num_attention_heads=4, max_position_embeddings=args.max_length, pad_token_id=0,
        bos_token_id=None, eos_token_id=1,
    )  # fmt: skip
    module = AutoModelForSequenceClassification.from_config(config).eval()
    return LanguageModel(module=module, tokenizer=tokenizer, name=f"llama-{args.width}x{args.layers}")


def short_enough(rows: Sequence[Row], tokenizer: PreTrainedTokenizerFast, longest: int) -> list[Row]:
    """Return the rows that fit, whole."""
    kept = []
    for row in rows:
        try:
            encode(row, tokenizer, max_length=longest)
        except TooLong:
            continue
        kept.append(row)
    return kept


def trained(
    name: str, rows: Sequence[Row], tokenizer, args: argparse.Namespace, seed: int
) -> tuple[LanguageModel, dict]:
    """Train one reward model; return it and the run's numbers."""
    model, module = made(tokenizer, args, seed), METHODS[name]
    examples = [encode(row, tokenizer, max_length=args.max_length) for row in rows]
    cfg = TrainConfig(
        learning_rate=args.learning_rate, per_device_train_batch_size=16, gradient_accumulation_steps=2,
        num_train_epochs=args.epochs, warmup_ratio=0.1, lr_scheduler_type="cosine", weight_decay=0.1, save_steps=0,
        seed=seed, use_cpu=True,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        found = loop.train(model, examples, module.loss, cfg, Path(folder), objective_config=module.Config())
    return model, found


def words_right(train: Sequence[Row], test: Sequence[Row]) -> list[bool]:
    """Return which held-out pairs logistic regression on differences of word counts orders rightly."""
    count = CountVectorizer(min_df=5, binary=True).fit([text for r in train for text in (r.chosen, r.rejected)])

    def gaps(rows: Sequence[Row]):
        return count.transform([r.chosen for r in rows]) - count.transform([r.rejected for r in rows])

    signs = np.where(np.arange(len(train)) % 2, 1, -1)
    features = gaps(train).multiply(signs[:, None]).tocsr()
    model = LogisticRegression(C=0.03, fit_intercept=False, max_iter=500).fit(features, signs)
    return (model.decision_function(gaps(test)) > 0).tolist()


def shown(metric: Metric) -> dict[str, float | int | None]:
    """Return a metric as JSON values."""
    return {"value": metric.value, "low": metric.low, "high": metric.high, "n": metric.n}


def main() -> None:
    """Train, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--width", type=int, default=96)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--max_length", type=int, default=256)
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--limit", type=int, default=None, help="at most this many pairs, for a quick look")
    parser.add_argument("--output", type=Path, default=OUT)
    args = parser.parse_args()
    torch.set_num_threads(1)
    source = DATA / "hh_rlhf" / "harmless-base-test.jsonl.gz"
    if not source.exists():
        raise SystemExit(f"no {source}; set ALIGNLAB_DATA to the folder that holds hh_rlhf/harmless-base-test.jsonl.gz")
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=OUT.parent.parent.parent,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    began, everything = time.monotonic(), list(read(source, limit=args.limit))
    unequal = [row for row in everything if row.chosen != row.rejected and row.chosen and row.rejected]
    tokenizer = fitted_tokenizer([row for row in unequal if not held_out(row)])
    kept = short_enough(unequal, tokenizer, args.max_length)
    train, test = ([row for row in kept if held_out(row) == side] for side in (False, True))
    print(
        f"{len(everything)} pairs, {len(kept)} fit {args.max_length} tokens: {len(train)} train, {len(test)} held out"
    )
    right: dict[str, list[list[bool]]] = {name: [] for name in METHODS}
    rows = []
    for seed in range(args.seeds):
        for name in METHODS:
            model, numbers = trained(name, train, tokenizer, args, seed)
            for_train = [a > b for a, b in score_rows(model, train)]
            right[name].append([a > b for a, b in score_rows(model, test)])
            rows.append({
                "method": name, "seed": seed, "held_out": shown(share(right[name][-1])),
                "train": shown(share(for_train)), "loss": numbers["train/loss_last"],
                "seconds": round(numbers["seconds"], 1),
            })  # fmt: skip
            print(json.dumps(rows[-1]), flush=True)
    places = [place for _ in range(args.seeds) for place in range(len(test))]
    flat = {name: [float(hit) for one in found for hit in one] for name, found in right.items()}
    summary = {name: shown(bootstrap.mean(hits, clusters=places)) for name, hits in flat.items()}
    summary["bradley_terry - order_classifier"] = shown(
        bootstrap.paired_difference(flat["bradley_terry"], flat["order_classifier"], clusters=places)
    )
    summary["word counts, logistic regression"] = shown(share(words_right(train, test)))
    summary["the longer answer"] = shown(share(len(r.chosen) > len(r.rejected) for r in test))
    for name, found in summary.items():
        print(f"{name:<36}{found['value']:.3f}  [{found['low']:.3f}, {found['high']:.3f}]")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(args.output, {
        "name": "rewards_hh_rlhf", "data": "hh_rlhf harmless-base test", "pairs": len(everything), "fit": len(kept),
        "train": len(train), "held_out": len(test),
        "model": f"Llama, width {args.width}, {args.layers} layers, vocabulary {len(tokenizer)}, "
        f"{sum(p.numel() for p in made(tokenizer, args, 0).module.parameters()):,} parameters, random start",
        "settings": {k: v for k, v in vars(args).items() if k != "output"}, "accuracy": summary, "runs": rows,
        "seconds": round(time.monotonic() - began, 1), "machine": f"{platform.machine()}, 1 core, wall time",
        "torch": torch.__version__, "date": date.today().isoformat(), "commit": commit,
    })  # fmt: skip


if __name__ == "__main__":
    main()
