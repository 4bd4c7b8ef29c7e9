"""TRL's own trainers on the checks of docs/checks.md: the gradient of one optimiser step, before clipping.

    python -m venv /tmp/trl && /tmp/trl/bin/python -m pip install -c constraints.txt -e '.[bench]'
    /tmp/trl/bin/python bench/trl_checks.py

A random Llama of 0.1M parameters in float32 on a CPU; twelve rows of random words of uneven lengths. `formula`: against
the gradient of alignlab's objective on the same rows and weights, which the tests hold against the paper's formula.
`split`: twelve micro-batches of one and three of four against one of twelve. `order`: rows in reverse. `padding`:
another padding token. `cache`: precomputed reference against computed. `ranks`: two gloo ranks. `resume`: four steps
against two and two more from the checkpoint; 0 where the weights have the same bits, else the relative difference.
"""

import argparse
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast, TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from alignlab.core import files
from alignlab.core.find import find
from alignlab.core.types import Row
from alignlab.engine.encode import encode
from alignlab.engine.load import LanguageModel
from alignlab.train import checkpoint, loop
from alignlab.train.config import TrainConfig

OUT = Path(__file__).parent / "results" / "trl_checks.json"
WORDS, ROWS, BETA = 200, 12, 0.3
Gradient = dict[str, torch.Tensor]
DPO: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    # objective -> what TRL calls it, DPOConfig, ours
    "dpo": ("DPO sigmoid", {}, {}),
    "cdpo": ("DPO sigmoid, label_smoothing 0.1", {"label_smoothing": 0.1}, {"label_smoothing": 0.1}),
    "robust_dpo": ("DPO robust", {"loss_type": ["robust"], "label_smoothing": 0.1}, {"label_smoothing": 0.1}),
    "hinge": ("DPO hinge", {"loss_type": ["hinge"]}, {}),
    "ipo": ("DPO ipo", {"loss_type": ["ipo"]}, {}),
    "exo": ("DPO exo_pair", {"loss_type": ["exo_pair"], "label_smoothing": 1e-3}, {}),
    "nca": ("DPO nca_pair", {"loss_type": ["nca_pair"]}, {}),
    "bco_pair": ("DPO bco_pair", {"loss_type": ["bco_pair"]}, {}),
    "sppo": ("DPO sppo_hard", {"loss_type": ["sppo_hard"]}, {}),
    "apo": ("DPO apo_zero", {"loss_type": ["apo_zero"]}, {}),
    "sigmoid_norm": ("DPO sigmoid_norm", {"loss_type": ["sigmoid_norm"]}, {}),
    "f_dpo": ("DPO sigmoid, js_divergence", {"f_divergence_type": "js_divergence"}, {}),
    "rpo": ("DPO sigmoid + sft", {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.5]},
            {"eta": 0.5, "form": "token_mean"}),
}  # fmt: skip
ABSENT = {
    "adpa": "no such trainer", "bco": "removed in September 2026", "cut": "no such trainer", "dckd": "no such trainer",
    "dove": "no such trainer", "mah_dpo": "no such trainer", "plackett_luce": "no lists of more than two",
    "poft": "no such trainer", "ranked": "no lists of more than two", "slic": "CPO hinge, another loss",
    "spin": "no such trainer", "weak_to_strong": "no such trainer",
}  # fmt: skip


def tokenizer(padding: str = "<pad>") -> PreTrainedTokenizerFast:
    """Return a tokenizer whose words are its tokens, so that TRL and alignlab read the same ids."""
    vocabulary = {word: k for k, word in enumerate(("<pad>", "<end>", "<other>", *(f"w{k}" for k in range(WORDS))))}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<other>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token=padding, eos_token="<end>", unk_token="<other>")


def model(seed: int = 0) -> Any:
    """Return a Llama whose distributions are not far from uniform."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=WORDS + 3, hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, pad_token_id=0, bos_token_id=None, eos_token_id=1,
    )  # fmt: skip
    module = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                parameter.mul_(2.0)
    return module


def rows(kind: str) -> list[dict[str, Any]]:
    """Return rows of random words: `pairs`, `thumbs` or `plain`."""
    import random

    draw = random.Random(0)

    def text(least: int, most: int) -> str:
        return " ".join(f"w{draw.randrange(WORDS)}" for _ in range(draw.randint(least, most)))

    found = []
    for k in range(ROWS):
        row: dict[str, Any] = {"prompt": text(2, 9)}
        if kind == "pairs":
            row |= {"chosen": " " + text(1, 9), "rejected": " " + text(1, 9)}
        else:
            row |= {"completion": " " + text(1, 9)} | ({"label": k % 3 > 0} if kind == "thumbs" else {})
        found.append(row)
    return found


def trainer_of(name: str) -> tuple[type, type, str, dict[str, Any], dict[str, Any], str]:
    """Return TRL's trainer and config, the kind of rows, its settings, ours, and what it is called."""
    import trl

    if name in DPO:
        called, theirs, ours = DPO[name]
        return trl.DPOTrainer, trl.DPOConfig, "pairs", {"beta": BETA} | theirs, {"beta": BETA} | ours, called
    if name == "sft":
        return trl.SFTTrainer, trl.SFTConfig, "plain", {}, {}, "SFT"
    if name == "kto":
        return trl.KTOTrainer, trl.KTOConfig, "thumbs", {"beta": BETA}, {"beta": BETA}, "KTO"
    if name == "orpo":
        from trl.experimental.orpo import ORPOConfig, ORPOTrainer

        return (
            ORPOTrainer,
            ORPOConfig,
            "pairs",
            {"beta": BETA},
            {"beta": BETA, "form": "per_token"},
            "ORPO (experimental)",
        )
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    theirs = {"beta": 2.0, "loss_type": "simpo", "simpo_gamma": 1.0, "cpo_alpha": 0.0}
    return CPOTrainer, CPOConfig, "pairs", theirs, {}, "CPO simpo (experimental)"


class Keep(TrainerCallback):
    """Keep the gradient of the first optimiser step."""

    def __init__(self) -> None:
        self.found: Gradient = {}

    def on_pre_optimizer_step(self, args, state, control, model=None, **rest):  # noqa: ARG002, D102
        if not self.found:
            self.found = {n: p.grad.detach().clone() for n, p in model.named_parameters() if p.grad is not None}


def step(name: str, per_device: int, *, reverse=False, padding="<pad>", data: Any = None, **more: Any) -> Gradient:
    """Return TRL's gradient of one step over all rows."""
    trainer, config, kind, settings, _, _ = trainer_of(name)
    keep, ranks = Keep(), int(os.environ.get("WORLD_SIZE", "1"))
    given = rows(kind)[::-1] if reverse else rows(kind)
    with tempfile.TemporaryDirectory() as folder:
        args = {
            "output_dir": folder, "per_device_train_batch_size": per_device, "max_steps": 1, "max_grad_norm": 0.0,
            "gradient_accumulation_steps": ROWS // per_device // ranks, "learning_rate": 1e-3, "bf16": False,
            "gradient_checkpointing": False, "use_cpu": True, "report_to": "none", "save_strategy": "no",
            "disable_tqdm": True, "logging_strategy": "no", "lr_scheduler_type": "constant",
        }  # fmt: skip
        extra = {"ref_model": model(1)} if "ref" in find("objectives", name).CARD.needs else {}
        made = trainer(
            model=model(), args=config(**{**args, **settings, **more}), callbacks=[keep],
            train_dataset=Dataset.from_list(given) if data is None else data, processing_class=tokenizer(padding),
            **extra,
        )  # fmt: skip
        made.train()
    return keep.found


def ours(name: str) -> Gradient:
    """Return the gradient of the proven objective on the same rows."""
    module, (_, _, kind, _, settings, _) = find("objectives", name), trainer_of(name)
    examples = [encode(Row(**row), tokenizer()) for row in rows(kind)]
    student, reference = (LanguageModel(module=model(k), tokenizer=tokenizer(), name="bench/small") for k in (0, 1))
    keep: Gradient = {}
    with tempfile.TemporaryDirectory() as folder:
        cfg = TrainConfig(
            per_device_train_batch_size=ROWS, max_steps=1, learning_rate=0.0, max_grad_norm=0.0, save_steps=0,
            use_cpu=True, ref_cache="none",
        )  # fmt: skip
        loop.train(
            student, examples, module.loss, cfg, Path(folder), objective_config=module.Config(**settings),
            stats=getattr(module, "stats", None), settle=getattr(module, "settle", None), needs=module.CARD.needs,
            reference=reference,
            on_step=lambda *_: keep.update({n: p.grad.clone() for n, p in checkpoint.trained(student).items()}),
        )  # fmt: skip
    return keep


def apart(found: Gradient, wanted: Gradient) -> float:
    """Return the norm of the difference relative to the norm of what was wanted."""
    names = sorted(set(found) & set(wanted))
    one, other = (torch.cat([g[n].flatten().double() for n in names]) for g in (found, wanted))
    return ((one - other).norm() / other.norm()).item()


def resumed(name: str) -> float:
    """Return how far weights are apart after a stop."""
    trainer, config, kind, settings, _, _ = trainer_of(name)

    def run(folder: str, steps: int, **how: Any) -> Gradient:
        student = model()
        args = {
            "output_dir": folder, "per_device_train_batch_size": 6, "num_train_epochs": 2, "learning_rate": 1e-3,
            "bf16": False, "gradient_checkpointing": False, "use_cpu": True, "report_to": "none", "disable_tqdm": True,
            "save_strategy": "steps", "save_steps": 2, "logging_strategy": "no",
        }  # fmt: skip

        class Stop(TrainerCallback):
            def on_step_end(self, args, state, control, **rest):  # noqa: ARG002
                control.should_training_stop = state.global_step >= steps
                control.should_save = state.global_step == 2

        extra = {"ref_model": model(1)} if "ref" in find("objectives", name).CARD.needs else {}
        made = trainer(
            model=student, args=config(**{**args, **settings}), train_dataset=Dataset.from_list(rows(kind)),
            processing_class=tokenizer(), callbacks=[Stop()], **extra,
        )  # fmt: skip
        made.train(**how)
        return {n: p.detach().clone() for n, p in made.model.named_parameters()}

    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        alone = run(one, 4)
        run(two, 2)
        later = run(two, 4, resume_from_checkpoint=get_last_checkpoint(two))
    return apart(later, alone)


def attempted(check: Callable[[], float | str]) -> float | str:
    """Return what a check found, or why TRL could not run it, in one line."""
    try:
        return check()
    except Exception as error:  # noqa: BLE001 - whatever stops TRL is the result
        return f"{type(error).__name__}: {' '.join(str(error).split())[:90]}"


def checks(name: str, two: Gradient | None) -> dict[str, float | str]:
    """Return all checks of one objective."""
    smallest = 2 if name == "kto" else 1  # TRL's KTO pairs rows within a micro-batch
    whole = attempted(lambda: step(name, ROWS))
    if isinstance(whole, str):
        return {"formula": whole}
    reads = "ref" in find("objectives", name).CARD.needs
    found: dict[str, float | str] = {"formula": attempted(lambda: apart(whole, ours(name)))}
    found["split"] = attempted(lambda: max(apart(step(name, size), whole) for size in (smallest, 4)))
    found["order"] = attempted(lambda: apart(step(name, ROWS, reverse=True), whole))
    found["padding"] = attempted(lambda: apart(step(name, ROWS, padding="<other>"), whole))
    found["sharing"] = "not offered"
    if name == "sft":
        found["sharing"] = attempted(lambda: apart(step(name, 3, packing=True, max_length=64), whole))
    if reads:
        found["cache"] = attempted(lambda: apart(step(name, ROWS, precompute_ref_log_probs=True), whole))
    if two is not None:
        found["ranks"] = apart(two, whole)
    found["resume"] = attempted(lambda: resumed(name))
    return found


def stale() -> float:
    """Return how far a run that only sets ld_alpha is off, when its reference comes from an earlier run's cache."""
    data = Dataset.from_list(rows("pairs"))
    wanted = step("dpo", ROWS, ld_alpha=0.5, max_length=None)
    step("dpo", ROWS, precompute_ref_log_probs=True, max_length=None, data=data)
    return apart(step("dpo", ROWS, precompute_ref_log_probs=True, ld_alpha=0.5, max_length=None, data=data), wanted)


def two_ranks(wanted: list[str]) -> dict[str, Gradient]:
    """Compute gradients on two gloo ranks, in processes of their own."""
    with socket.socket() as at, tempfile.TemporaryDirectory() as folder:
        at.bind(("127.0.0.1", 0))
        port, path = str(at.getsockname()[1]), Path(folder) / "rank-0.pt"
        at.close()
        started = []
        for rank in ("0", "1"):
            placed = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
            placed |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "1"}
            command = [sys.executable, __file__, "--rank_to", str(path), "--objectives", *wanted]
            started.append(subprocess.Popen(command, env=os.environ | placed))
        if any([each.wait() for each in started]):
            return {}
        return torch.load(path)


def rank(path: Path, wanted: list[str]) -> None:
    """Save this rank's gradients."""
    found = {}
    for name in wanted:
        got = attempted(lambda name=name: step(name, ROWS // 2))
        if not isinstance(got, str):
            assert torch.distributed.get_world_size() == 2
            found[name] = got
    if os.environ["RANK"] == "0":
        torch.save(found, path)


def main() -> None:
    """Run all checks and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = ["sft", *DPO, "kto", "orpo", "simpo"]
    parser.add_argument("--objectives", nargs="*", default=every, help="which ones")
    parser.add_argument("--no_ranks", action="store_true", help="leave two ranks out")
    parser.add_argument("--rank_to", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    if args.rank_to:
        return rank(args.rank_to, args.objectives)
    import trl

    two = {} if args.no_ranks else two_ranks(args.objectives)
    table = []
    for name in args.objectives:
        table.append({"objective": name, "setting": trainer_of(name)[5], "checks": checks(name, two.get(name))})
        print(json.dumps(table[-1]), flush=True)
    notes = [f"{name}: {why}" for name, why in ABSENT.items()]
    if "dpo" in args.objectives:
        notes.append(f"dpo, reference cache filled, then ld_alpha 0.5 on the same rows: gradient off by {stale():.2g}")
    whole = {
        "version": f"TRL {trl.__version__}", "machine": f"{platform.machine()}, one thread",
        "date": date.today().isoformat(), "rows": table, "notes": notes,
    }  # fmt: skip
    if set(args.objectives) == set(every):
        OUT.parent.mkdir(exist_ok=True)
        files.write_text(OUT, json.dumps(whole, indent=2) + "\n")
    return None


if __name__ == "__main__":
    main()
