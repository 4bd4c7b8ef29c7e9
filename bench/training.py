"""Training and scoring against TRL and lm-eval: groups per second, memory, and percent of the floor, all rows kept.

    python -m venv /tmp/bench && /tmp/bench/bin/python -m pip install -c constraints.txt -e '.[bench]'
    /tmp/bench/bin/python bench/training.py            # at most 20 minutes on two quiet cores
    /tmp/bench/bin/python bench/training.py --mini     # the path alone, in minutes; no figure to quote
    /tmp/bench/bin/python bench/training.py --gpu --dtype bfloat16 --attn_implementation flex_attention
    taskset -c 0 /tmp/bench/bin/python bench/training.py --threads 1 --clock cpu_seconds --only dpo/rag

Every measurement is a process of its own: a model from a config with random weights, rows of random words (lengths of
hh_rlhf from the published pairs), one epoch with AdamW. Seconds are those of the whole epoch, the reference's pass and
the optimiser included, import, tokenising and building a trainer not. Memory is the peak of the resident set during the
epoch less what was resident when model and trainer were there, less AdamW's two moments: a reference model that
TRL keeps beside the policy is thus not held against it; with `--gpu` it is PyTorch's on the accelerator, counted alike.
TRL is swept over batch, precomputed reference and
checkpointing, alignlab over batch; the fastest row of each is taken, for memory too. TRL's rows of four ranked
answers are the six pairs of them; alignlab's are one group of four with the same six pairs and the same loss. Options
are scored by log-likelihood, four to a question, against lm-eval's HFLM. `floor/...`: FLOPs of a step over its floor
on other families (`alignlab.engine.work`), of DPO by shape and of KTO on the first. Results are merged into the file by
name, dtype, machine and number of groups.
"""

import argparse
import gzip
import itertools
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from alignlab.core import files

OUT = Path(__file__).parent / "results" / "training.json"
DATA = Path(os.environ.get("ALIGNLAB_DATA", "../shared/data"))
CHARACTERS = 4.2
"""per token of English text under a usual vocabulary"""
SIZES = {
    "mini": dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, vocab_size=512),
    "20m": dict(hidden_size=384, intermediate_size=1024, num_hidden_layers=6, num_attention_heads=6, vocab_size=16384),
}
GOALS = {
    "dpo/hh_rlhf": 5.0, "dpo/rag": 5.0, "dpo/four": 10.0, "options": 3.0, "memory": 0.6, "floor": 105.0,
}  # fmt: skip
"""ratio of speeds, ratio of memory, percent of the floor"""
AFTER = 3
"""runs of ours behind each of the peer's"""
KEY = ("name", "dtype", "machine", "groups", "attn_implementation")
FAMILIES = ("llama", "qwen3", "gpt2", "gemma")
Lengths = list[tuple[int, tuple[int, ...]]]


def lengths_of(shape: str, groups: int, shrink: int) -> Lengths:
    """Return tokens of each group's prompt and completions; `shrink` divides the long shapes for a look at the path."""
    if shape == "rag":
        return [(2048 // shrink, (128 // shrink,) * 2)] * groups
    if shape == "four":
        return [(120 // shrink, (290 // shrink,) * 4)] * groups
    if shape == "options":
        return [(120 // shrink, (12, 9, 14, 7))] * groups
    found, turn = [], "\n\nAssistant:"
    with gzip.open(DATA / "hh_rlhf" / "harmless-base-test.jsonl.gz", "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            prompt = row["chosen"].rpartition(turn)[0] + turn
            if row["rejected"].startswith(prompt):
                sides = tuple(
                    max(1, round((len(row[k]) - len(prompt)) / CHARACTERS / shrink)) for k in ("chosen", "rejected")
                )
                found.append((max(2, round(len(prompt) / CHARACTERS / shrink)), sides))
    fits = [(p, c) for p, c in found if p + max(c) < 1000]
    return random.Random(0).sample(fits, groups)


def texts_of(lengths: Lengths, vocabulary: int) -> list[tuple[str, list[str]]]:
    """Return prompts and completions of random words, each of which is one token."""
    draw = random.Random(1)

    def text(n: int) -> str:
        return " ".join(f"w{draw.randrange(vocabulary - 3)}" for _ in range(n))

    return [(text(p), [" " + text(c) for c in cs]) for p, cs in lengths]


def tokenizer_of(vocabulary: int) -> Any:
    """Return a tokenizer whose words are its tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {w: k for k, w in enumerate(("<pad>", "<end>", "<other>", *(f"w{k}" for k in range(vocabulary - 3))))}
    inner = Tokenizer(models.WordLevel(words, unk_token="<other>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<end>", unk_token="<other>")


def model_of(asked: dict[str, Any]) -> Any:
    """Return the model, the same each time."""
    import torch
    from transformers import AutoModelForCausalLM, Gemma2Config, GPT2Config, LlamaConfig, Qwen3Config

    torch.manual_seed(0)
    size, family = SIZES[asked["size"]], asked.get("family", "llama")
    ends = {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": 1}
    if family == "gpt2":
        config = GPT2Config(
            n_embd=size["hidden_size"], n_layer=size["num_hidden_layers"], n_head=size["num_attention_heads"],
            vocab_size=size["vocab_size"], n_positions=4096, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **ends,
        )  # fmt: skip
    else:
        kind = {"llama": LlamaConfig, "qwen3": Qwen3Config, "gemma": Gemma2Config}[family]
        heads = {} if family == "llama" else {"head_dim": size["hidden_size"] // size["num_attention_heads"]}
        config = kind(**size, **ends, **heads, num_key_value_heads=2, max_position_embeddings=4096)
    chosen = asked.get("attn_implementation") if asked["worker"] in (ours.__name__, our_options.__name__) else None
    return AutoModelForCausalLM.from_config(config, **({"attn_implementation": chosen} if chosen else {}))


def resident(field: str) -> int:
    """Return a line of /proc/self/status in bytes: VmRSS now, VmHWM the highest since it was reset."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise ValueError(f"/proc/self/status has no {field}; memory is measured on Linux alone")


def measured(
    action: Callable[[], Any], units: int, model: Any = None, already: dict[str, float] | None = None, *, gpu: bool
) -> dict[str, Any]:
    """Return seconds, and bytes above what is resident now and the moments that AdamW makes of a model.

    The action returns more to keep, or None; `already`: time of the same work that was spent before.
    """
    moments = 0 if model is None else sum(8 * p.numel() for p in model.parameters())
    before, began = mark(gpu), clocks()
    more = action() or {}
    memory = highest(gpu) - before - moments
    found = {name: now - began[name] + (already or {}).get(name, 0.0) for name, now in clocks().items()}
    return {"units": units, **{name: round(value, 3) for name, value in found.items()}, "memory": memory, **more}


def mark(gpu: bool) -> int:
    """Return bytes in use; the highest mark starts from here."""
    if gpu:
        import torch

        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return resident("VmRSS")


def highest(gpu: bool) -> int:
    """Return the highest mark in bytes, once all work is done."""
    if gpu:
        import torch

        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated()
    return resident("VmHWM")


def clocks() -> dict[str, float]:
    """Return the clock and the processor time of this process, seconds."""
    return {"seconds": time.perf_counter(), "cpu_seconds": time.process_time()}


# alignlab


def ours(asked: dict[str, Any], texts: list[tuple[str, list[str]]]) -> dict[str, Any]:
    """Measure one epoch of an objective."""
    from alignlab.core.find import find
    from alignlab.engine.agreement import sharing_of
    from alignlab.engine.encode import Example, encode
    from alignlab.engine.load import LanguageModel
    from alignlab.train import loop
    from alignlab.train.config import TrainConfig

    tokenizer = tokenizer_of(SIZES[asked["size"]]["vocab_size"])
    module = find("objectives", asked["objective"])
    model = LanguageModel(module=placed(model_of(asked), asked), tokenizer=tokenizer, name="bench")
    examples: list[Example] = [encode(row, tokenizer) for row in rows_of(asked, texts)]
    if asked["shape"] == "four":
        import dataclasses

        pairs = tuple((b, w, 1.0, 0.0, 1.0) for b, w in itertools.combinations(range(4), 2))
        examples = [dataclasses.replace(e, pairs=pairs, scores={}) for e in examples]
    batch = min(asked["batch"], len(examples), asked["rows"])
    cfg = TrainConfig(
        per_device_train_batch_size=batch, gradient_accumulation_steps=max(1, asked["rows"] // batch),
        num_train_epochs=1, learning_rate=1e-6, save_steps=0, logging_steps=1000, use_cpu=not asked["gpu"],
        ref_cache="none", max_length=4096, bf16=asked["bf16"],
    )  # fmt: skip

    def once() -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            found = loop.train(
                model, examples, module.loss, cfg, Path(folder), objective_config=module.Config(),
                stats=getattr(module, "stats", None), settle=getattr(module, "settle", None), needs=module.CARD.needs,
            )  # fmt: skip
        reason = sharing_of(model.module).reason
        assert reason is None, f"fell back to the plain path: {reason}"
        return {"floor_percent": round(found["train/percent_of_floor"], 2), "teraflops": found["teraflops"]}

    return measured(once, len(texts), model.module, gpu=asked["gpu"])


def rows_of(asked: dict[str, Any], texts: list[tuple[str, list[str]]]) -> list[Any]:
    """Return the rows that an objective reads."""
    from alignlab.core.types import Row

    if asked["shape"] == "four":
        return [Row(prompt=p, completions=tuple(cs), scores=(3.0, 2.0, 1.0, 0.0)) for p, cs in texts]
    if asked["objective"] == "dpo":
        return [Row(prompt=p, chosen=cs[0], rejected=cs[1]) for p, cs in texts]
    if asked["objective"] == "kto":
        return [Row(prompt=p, completion=cs[0], label=k % 2 == 0) for k, (p, cs) in enumerate(texts)]
    return [Row(prompt=p, completion=cs[0]) for p, cs in texts]


def our_options(asked: dict[str, Any], texts: list[tuple[str, list[str]]]) -> dict[str, Any]:
    """Measure the scoring of options."""
    from dataclasses import replace

    import torch

    from alignlab.core.types import Row
    from alignlab.engine.encode import collate, encode
    from alignlab.engine.load import LanguageModel

    tokenizer = tokenizer_of(SIZES[asked["size"]]["vocab_size"])
    model = LanguageModel(module=placed(model_of(asked).eval(), asked), tokenizer=tokenizer, name="bench")

    def once() -> dict[str, Any]:
        examples = [encode(Row(prompt=p, completions=tuple(cs)), tokenizer) for p, cs in texts]
        # lm-eval scores no end of turn
        examples = [replace(e, completions=tuple(c[:-1] for c in e.completions)) for e in examples]
        total = 0.0
        with torch.no_grad():
            for k in range(0, len(examples), asked["batch"]):
                total += float(model.score(collate(examples[k : k + asked["batch"]], 0)).logp.sum())
        return {"sum": total}

    return measured(once, sum(len(cs) for _, cs in texts), gpu=asked["gpu"])


def placed(module: Any, asked: dict[str, Any]) -> Any:
    """Return a model where it is measured: what it takes by itself is not counted."""
    return module.to("cuda") if asked["gpu"] else module


# the peers


def trl(asked: dict[str, Any], texts: list[tuple[str, list[str]]]) -> dict[str, Any]:
    """Measure one epoch of TRL's trainer; a reference that it computes while it is built is part of the epoch."""
    import trl
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    rows = [{"prompt": p, "chosen": cs[0], "rejected": cs[1]} for p, cs in texts]
    if asked["shape"] == "four":
        rows = [
            {"prompt": p, "chosen": cs[b], "rejected": cs[w]}
            for p, cs in texts for b, w in itertools.combinations(range(4), 2)
        ]  # fmt: skip
    if asked["objective"] != "dpo":
        rows = [{"prompt": r["prompt"], "completion": r["chosen"]} for r in rows]
    if asked["objective"] == "kto":
        rows = [row | {"label": k % 2 == 0} for k, row in enumerate(rows)]
    trainer, config = {
        "dpo": (trl.DPOTrainer, trl.DPOConfig), "kto": (trl.KTOTrainer, trl.KTOConfig),
        "sft": (trl.SFTTrainer, trl.SFTConfig),
    }[asked["objective"]]  # fmt: skip
    step = asked["rows"] * len(rows) // len(texts)
    batch, spent = min(asked["batch"], len(rows), step), {"seconds": 0.0, "cpu_seconds": 0.0}
    extra = {} if asked["objective"] == "sft" else {"precompute_ref_log_probs": asked["precompute"]}
    if extra.get("precompute_ref_log_probs"):
        inner = trainer._precompute_ref_logps

        def timed(*args: Any, **kwargs: Any) -> Any:
            began = clocks()
            found = inner(*args, **kwargs)
            spent.update({name: spent[name] + now - began[name] for name, now in clocks().items()})
            return found

        trainer._precompute_ref_logps = timed
    with tempfile.TemporaryDirectory() as folder:
        args = config(
            output_dir=folder, per_device_train_batch_size=batch, num_train_epochs=1, learning_rate=1e-6,
            gradient_accumulation_steps=max(1, step // batch), save_strategy="no", report_to="none",
            disable_tqdm=True, bf16=asked["bf16"], gradient_checkpointing=asked["checkpointing"],
            use_cpu=not asked["gpu"], max_length=None, logging_strategy="no", **extra,
        )  # fmt: skip
        model_of(asked).save_pretrained(folder)  # TRL copies a reference from a folder or the hub alone
        made = trainer(
            model=folder, args=args, train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer_of(SIZES[asked["size"]]["vocab_size"]),
        )  # fmt: skip
        made.create_optimizer()

        def once() -> None:
            made.train()

        return measured(once, len(texts), made.model, spent, gpu=asked["gpu"])


def lm_eval(asked: dict[str, Any], texts: list[tuple[str, list[str]]]) -> dict[str, Any]:
    """Measure lm-eval's log-likelihood requests."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    model = HFLM(
        pretrained=model_of(asked).eval(), tokenizer=tokenizer_of(SIZES[asked["size"]]["vocab_size"]),
        batch_size=asked["batch"], backend="causal", add_bos_token=False,
    )  # fmt: skip
    requests = [
        Instance(request_type="loglikelihood", doc={}, arguments=(p, c), idx=k)
        for p, cs in texts for k, c in enumerate(cs)
    ]  # fmt: skip

    def once() -> dict[str, Any]:
        return {"sum": sum(value for value, _ in model.loglikelihood(requests, disable_tqdm=True))}

    return measured(once, len(requests), gpu=asked["gpu"])


WORKERS = {"ours": ours, "our_options": our_options, "trl": trl, "lm_eval": lm_eval}


def work(asked: dict[str, Any]) -> None:
    """Do one measurement in this process and print it."""
    import warnings

    import torch

    warnings.filterwarnings("ignore")
    torch.set_num_threads(asked["threads"])
    texts = texts_of([(p, tuple(c)) for p, c in asked["lengths"]], SIZES[asked["size"]]["vocab_size"])
    print("RESULT " + json.dumps(WORKERS[asked["worker"]](asked, texts)), flush=True)


def ask(asked: dict[str, Any], patience: float) -> dict[str, Any]:
    """Have one measurement done in a process of its own; what goes wrong is its result."""
    command = [sys.executable, __file__, "--work", json.dumps(asked)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment["OMP_NUM_THREADS"] = str(asked["threads"])
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=patience, env=environment)
    except subprocess.TimeoutExpired:
        return {"error": f"stopped after {patience:.0f} s"}
    line = next((x for x in done.stdout.splitlines() if x.startswith("RESULT ")), None)
    return json.loads(line[7:]) if line else {"error": " ".join(done.stderr.split())[-300:]}


def sweep(asked: dict[str, Any], args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return all rows of the peer."""
    rows = []
    if asked["objective"] == "options":
        for batch in args.option_batches:
            rows.append({"batch": batch} | ask({**asked, "worker": "lm_eval", "batch": batch}, args.patience))
        return rows
    precompute = (False,) if asked["objective"] == "sft" else (False, True)
    least = 2 if asked["objective"] == "kto" else 1  # TRL's KTO takes no batch of one
    batches = sorted({max(least, batch) for batch in args.batches})
    for batch, pre, check in itertools.product(batches, precompute, (False, True)):
        setting = {"batch": batch, "precompute": pre, "checkpointing": check}
        rows.append(setting | ask({**asked, **setting, "worker": "trl"}, args.patience))
        print("    ", rows[-1], flush=True)
    return rows


def fastest(rows: list[dict[str, Any]], clock: str) -> dict[str, Any] | None:
    """Return the fastest row, None where none was measured."""
    return min((row for row in rows if clock in row), key=lambda row: row[clock], default=None)


def compared(ours: list[dict[str, Any]], theirs: list[dict[str, Any]], clock: str) -> dict[str, Any]:
    """Return our best against the peer's best."""
    mine, best = fastest(ours, clock) or ours[0], fastest(theirs, clock)
    for row in theirs:  # both have scored the same
        assert abs(row.get("sum", 0.0) - mine.get("sum", row.get("sum", 0.0))) < 0.1, (mine, row)
    whole = best is not None and clock in mine
    for row in (*ours, *theirs):
        if clock in row:
            row["per_second"] = round(row["units"] / row[clock], 3)
    speeds = [row["units"] / row[clock] for row in (mine, best)] if whole else []
    return {
        "ours": mine, "peer": best, "ratio": round(speeds[0] / speeds[1], 2) if whole else None,
        "floor_percent": mine.get("floor_percent"),
        "memory_ratio": round(mine["memory"] / max(1, best["memory"]), 3) if whole else None,
        "our_rows": ours, "peer_rows": theirs,
    }  # fmt: skip


def in_turn(row: dict[str, Any], asked: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """Return what repeating our best and the peer's best, one after the other, makes of a row: medians over the turns.

    A machine that others use as well is not as fast in one minute as in the next: one run of each says little, and a
    short run less than a long one. So in a turn ours runs once before the peer and `AFTER` times behind it, and counts
    with its mean.
    """
    peer = "lm_eval" if asked["objective"] == "options" else "trl"
    ours = "our_options" if asked["objective"] == "options" else "ours"
    turns, failed = [], []
    for _ in range(args.turns):
        sides: dict[str, list[dict[str, Any]]] = {"ours": [], "peer": []}
        for side, worker in (("ours", ours), ("peer", peer), *[("ours", ours)] * AFTER):
            setting = {key: row[side][key] for key in ("batch", "precompute", "checkpointing") if key in row[side]}
            sides[side].append(ask({**asked, **setting, "worker": worker}, args.patience))
        if any(args.clock not in found for found in itertools.chain(*sides.values())):
            failed.append(sides)
            continue
        (a, memory), (b, other) = (
            (statistics.mean(found[args.clock] for found in side), statistics.mean(found["memory"] for found in side))
            for side in sides.values()
        )
        turns.append({
            "ours": round(a, 3), "peer": round(b, 3), "ratio": round(b / a, 2),
            "memory_ratio": round(memory / max(1.0, other), 3),
        })  # fmt: skip
    if not turns:
        raise SystemExit(f"{row['name']}: no turn was measured whole: {failed}")
    medians = {key: round(statistics.median(turn[key] for turn in turns), 3) for key in ("ratio", "memory_ratio")}
    return medians | {"turns": turns}


def merged(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of the file with these in the place of those they measure again."""
    keyed = {tuple(row.get(key, "") for key in KEY): row for row in [*measured_before(), *rows]}
    return [keyed[key] for key in sorted(keyed)]


def measured_before() -> list[dict[str, Any]]:
    """Return the rows of the file."""
    found: list[dict[str, Any]] = json.loads(OUT.read_text(encoding="utf-8"))["rows"] if OUT.exists() else []
    return found


def peers_before(wanted: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a peer's rows as the file has them, by the same clock; of an epoch of another length, too.

    Raises:
        LookupError: it has none.
    """
    for row in measured_before():
        if all(row[key] == wanted[key] for key in ("name", "dtype", "machine", "clock")):
            return list(row["peer_rows"])
    raise LookupError(f"--keep_peer: {OUT} has no row {wanted}; run without it first")


def verdict(row: dict[str, Any]) -> str:
    """Return a line about a row and its goals."""
    said = [row["name"]]
    for value, goal, sense in (
        (row["ratio"], GOALS.get(row["name"]), 1), (row["memory_ratio"], GOALS["memory"], -1),
        (row["floor_percent"], GOALS["floor"], -1),
    ):  # fmt: skip
        if value is not None:
            met = "" if goal is None else "met" if sense * (value - goal) >= 0 else "MISSED"
            said.append(f"{value:g} {met}")
    return "  ".join(said)


def main() -> None:
    """Measure in turn and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mini", action="store_true", help="a look at the path: a tiny model, short rows, no file")
    parser.add_argument("--groups", type=int, default=24, help="groups of hh_rlhf; long shapes take an eighth")
    parser.add_argument("--rows", type=int, default=16, help="groups per optimiser step")
    parser.add_argument("--our_batches", type=int, nargs="+", default=[1, 4, 8], help="groups in our micro-batches")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4], help="TRL's, all tried")
    parser.add_argument("--option_batches", type=int, nargs="+", default=[1, 8, 32], help="lm-eval's, all tried")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--gpu", action="store_true", help="measure on CUDA")
    parser.add_argument("--attn_implementation", choices=("sdpa", "eager", "flex_attention"),
                        help="ours alone; a row of its own in the file")  # fmt: skip
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--clock", default="seconds", choices=("seconds", "cpu_seconds"),
                        help="processor time, for one thread on a machine that others use as well")  # fmt: skip
    parser.add_argument("--patience", type=float, default=240.0, help="seconds after which one measurement is stopped")
    parser.add_argument("--only", nargs="*", help="names of rows, e.g. dpo/rag; any beginning of a name")
    parser.add_argument("--no_peer", action="store_true", help="ours alone, and no file")
    parser.add_argument("--keep_peer", action="store_true", help="do not sweep the peer again: its rows of the file")
    parser.add_argument("--turns", type=int, default=0, help="then our best and the peer's best this often in turn")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        return work(json.loads(args.work))
    size, groups, shrink = ("mini", 4, 16) if args.mini else ("20m", args.groups, 1)
    if args.mini:
        args.rows, args.our_batches, args.batches, args.threads = 4, [4], [2], 1
    shapes = [s for s in ("hh_rlhf", "rag", "four") if s != "hh_rlhf" or (DATA / "hh_rlhf").is_dir()]
    plan = [("dpo", s, "llama") for s in shapes] + [(o, shapes[0], "llama") for o in ("kto", "sft")]
    plan += [("options", "options", "llama"), *(("floor", s, f) for f in FAMILIES for s in shapes)]
    plan += [("floor_kto", shapes[0], f) for f in FAMILIES]
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=OUT.parent)
    shared = {
        "dtype": args.dtype, "size": size, "date": date.today().isoformat(), "commit": git.stdout.strip(),
        "machine": f"{machine(args.gpu)}, {args.threads} thread{'s' * (args.threads > 1)}", "rows_per_step": args.rows,
        **({"attn_implementation": args.attn_implementation} if args.attn_implementation else {}),
    }  # fmt: skip
    table = []
    for objective, shape, family in plan:
        floor = objective.startswith("floor")
        name = {"options": "options", "floor": f"floor/{family}/{shape}", "floor_kto": f"floor/{family}/kto"}.get(
            objective, f"{objective}/{shape}"
        )
        if args.only and not any(name.startswith(wanted) for wanted in args.only):
            continue
        few = groups if shape in ("hh_rlhf", "options") else max(2, groups // 8)
        method = {"floor": "dpo", "floor_kto": "kto"}.get(objective, objective)
        asked = {
            "objective": method, "shape": shape, "family": family, "size": size,
            "attn_implementation": args.attn_implementation,
            "gpu": args.gpu, "rows": args.rows, "bf16": args.dtype == "bfloat16", "threads": args.threads,
            "lengths": lengths_of(shape, 2 if floor else few, shrink),
        }  # fmt: skip
        print(name, flush=True)
        # in one micro-batch, KTO reads a prompt once for its own answer and the lent one
        batches = args.our_batches[: 1 if floor else None]
        if method == "kto":
            batches = sorted({*batches, args.rows} if not floor else {args.rows})
        mine = [
            {"batch": batch} | ask({**asked, "batch": batch, "worker": worker}, args.patience)
            for worker, batch in ([("our_options", 32)] if objective == "options" else
                                  [("ours", b) for b in batches])
        ]  # fmt: skip
        print(*(f"    ours {row}" for row in mine), sep="\n", flush=True)
        row = {"name": name, "shape": shape, **shared, "groups": len(asked["lengths"]), "clock": args.clock}
        bare = floor or args.no_peer
        row |= compared(mine, [] if bare else peers_before(row) if args.keep_peer else sweep(asked, args), args.clock)
        if args.turns and row["ratio"] is not None:
            row |= in_turn(row, asked, args)
            print(*(f"    in turn {turn}" for turn in row["turns"]), sep="\n", flush=True)
        table.append(row)
        print("  ", verdict(row), flush=True)
        if not (args.mini or args.no_peer):
            files.write_text(OUT, json.dumps({"goals": GOALS, "rows": merged(table)}, indent=1) + "\n")
    if not table:
        raise SystemExit(f"nothing was measured: no row is called {args.only}; rows of hh_rlhf need {DATA}/hh_rlhf")
    for row in table:
        print(verdict(row))
    return None


def machine(gpu: bool) -> str:
    """Return what is measured: the processor, and the accelerator where that does the work."""
    if not gpu:
        return processor()
    import torch

    return f"{torch.cuda.get_device_name()} on {processor()}"


def processor() -> str:
    """Return the processor's name and how many cores this process may use."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    name = names[0].partition(":")[2].strip() if names else platform.processor() or platform.machine()
    return f"{name}, {len(os.sched_getaffinity(0))} of {os.cpu_count()} cores"


if __name__ == "__main__":
    main()
