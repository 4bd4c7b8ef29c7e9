"""Speed and work of scoring with gradient, prompts shared against prompts repeated, on one model built from a config.

Per shape and path: groups (pairs, or lists of four) per second, the best of --repeats passes, forward and backward; and
the FLOPs of such a pass over its floor of three times F_sh = 2N(P + C) + 2aL[P^2 + sum(c^2 + 2Pc)] + 2dVC, where P and
C are the tokens of prompts and completions, N the weights of the layers, a heads x head dimension, L layers, d the
width, V the vocabulary. Linear layers and head are counted by PyTorch, attention by what each piece computes: half of a
causal square, all of a masked rectangle. The last token of a completion is never read, so 1.00 can be undercut.

Lengths of hh_rlhf: characters of the published test split over 4.2, an estimate; tokens themselves are random.
"""

import argparse
import gzip
import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, LlamaConfig

from alignlab.core import files
from alignlab.core.types import Groups
from alignlab.engine import attention, score
from alignlab.engine.encode import Example, collate
from alignlab.engine.plan import Span, attention_pairs

SIZES = {
    "1m": dict(hidden_size=128, intermediate_size=352, num_hidden_layers=4, num_attention_heads=4, vocab_size=2048),
    "20m": dict(hidden_size=384, intermediate_size=1024, num_hidden_layers=6, num_attention_heads=6, vocab_size=16384),
}
CHARACTERS = 4.2
"""per token of English text under a usual vocabulary"""
DATA = Path(os.environ.get("ALIGNLAB_DATA", "../shared/data"))


def hh_rlhf(groups: int, longest: int) -> list[tuple[int, tuple[int, ...]]]:
    """Lengths of prompts (up to the last turn) with their two answers."""
    found = []
    with gzip.open(DATA / "hh_rlhf" / "harmless-base-test.jsonl.gz", "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            turn = "\n\nAssistant:"
            prompt = row["chosen"].rpartition(turn)[0] + turn
            if not row["rejected"].startswith(prompt):
                continue
            answers = tuple(round((len(row[k]) - len(prompt)) / CHARACTERS) + 1 for k in ("chosen", "rejected"))
            if round(len(prompt) / CHARACTERS) + max(answers) <= longest:
                found.append((max(1, round(len(prompt) / CHARACTERS)), answers))
    return random.Random(0).sample(found, groups)


def shapes(groups: int) -> dict[str, list[tuple[int, tuple[int, ...]]]]:
    """Name -> lengths of each group."""
    known = {"rag (2048 + 2 x 128)": [(2048, (128, 128))] * max(1, groups // 8)}
    known["four (120 + 4 x 290)"] = [(120, (290,) * 4)] * max(1, groups // 4)
    if not (DATA / "hh_rlhf").is_dir():
        print(f"hh_rlhf: left out, no folder {DATA / 'hh_rlhf'} (ALIGNLAB_DATA says where published data lie)")
        return known
    return {"hh_rlhf": hh_rlhf(groups, 1024), **known}


def batch(lengths: list[tuple[int, tuple[int, ...]]], vocabulary: int) -> Groups:
    """Random tokens of the given lengths."""
    draw = random.Random(1)

    def ids(n: int) -> list[int]:
        return [draw.randrange(3, vocabulary) for _ in range(n)]

    return collate([Example(prompt_ids=ids(p), completions=tuple(map(ids, c))) for p, c in lengths], 0)


def floor(module: torch.nn.Module, lengths: list[tuple[int, tuple[int, ...]]]) -> float:
    """FLOPs that a pass with gradient cannot do without."""
    config = module.config
    weights = sum(p.numel() for name, p in module.named_parameters() if ".layers." in name and p.ndim == 2)
    tokens = sum(p + sum(c) for p, c in lengths)
    pairs = sum(attention_pairs(Span(p, c)) for p, c in lengths)
    width = config.num_attention_heads * config.head_dim
    head = 2 * config.hidden_size * config.vocab_size * sum(sum(c) for _, c in lengths)
    return 3 * (2 * weights * tokens + 2 * width * config.num_hidden_layers * pairs + head)


def work(module: torch.nn.Module, groups: Groups, share: bool) -> float:
    """FLOPs of one pass as it is done: linear layers counted, attention by formula, its backward pass as twice that."""
    squares = []

    def noted(*args, **kwargs):  # transformers calls SDPA by this name, whatever the path
        query, key, causal = args[0], args[1], kwargs.get("is_causal", False)
        squares.append(query.shape[0] * query.shape[1] * query.shape[3] * query.shape[2] * key.shape[2] * (2 - causal))
        return sdpa(*args, **kwargs)

    sdpa = torch.nn.functional.scaled_dot_product_attention
    torch.nn.functional.scaled_dot_product_attention = noted
    try:
        with FlopCounterMode(display=False) as counter:
            score.score(module, groups, share=share).logp.sum().backward()
    finally:
        torch.nn.functional.scaled_dot_product_attention = sdpa
    counted = counter.get_flop_counts()["Global"]
    linear = sum(flops for operation, flops in counted.items() if "attention" not in str(operation))
    return linear + 3 * 2 * sum(squares)


def best(action: Callable[[], None], repeats: int) -> float:
    """Seconds of the quickest of some passes, after one to warm up."""
    action()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="1m", help="parameters of the Llama")
    parser.add_argument("--groups", type=int, default=8, help="groups per pass; long shapes take fewer (default 8)")
    parser.add_argument("--repeats", type=int, default=3, help="timed passes per path (default 3)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path, help="also write the rows as JSON")
    asked = parser.parse_args()
    torch.manual_seed(0)
    config = LlamaConfig(**SIZES[asked.size], num_key_value_heads=2, max_position_embeddings=4096)
    module = AutoModelForCausalLM.from_config(config).to(asked.device, getattr(torch, asked.dtype))
    reason = attention.refusal(module)
    assert reason is None, reason
    print(f"{sum(p.numel() for p in module.parameters()):,} parameters, {asked.dtype}, {asked.device}, "
          f"{torch.get_num_threads()} threads, torch {torch.__version__}")  # fmt: skip
    print(f"{'shape':22} {'path':7} {'groups/s':>9} {'speed':>6} {'FLOPs/floor':>12}")
    rows = []
    for name, lengths in shapes(asked.groups).items():
        groups = batch(lengths, config.vocab_size)
        speeds = {}
        for share in (False, True):

            def once(groups: Groups = groups, share: bool = share) -> None:
                module.zero_grad(set_to_none=True)
                score.score(module, groups, share=share).logp.sum().backward()
                if asked.device == "cuda":
                    torch.cuda.synchronize()

            path = "shared" if share else "plain"
            speeds[path] = len(lengths) / best(once, asked.repeats)
            over = work(module, groups, share) / floor(module, lengths)
            ratio = speeds[path] / speeds["plain"]
            rows.append({"shape": name, "path": path, "groups_per_second": speeds[path], "ratio": ratio, "floor": over})
            print(f"{name:22} {path:7} {speeds[path]:9.2f} {ratio:5.2f}x {over:12.3f}", flush=True)
    if asked.output:
        files.write_json(asked.output, {"size": asked.size, "dtype": asked.dtype, "device": asked.device, "rows": rows})


if __name__ == "__main__":
    main()
