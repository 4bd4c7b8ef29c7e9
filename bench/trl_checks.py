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
import importlib
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch
from datasets import Dataset, load_from_disk
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint
from trl_settings import ABSENT, ROWS, SETTINGS, model, rows, tokenizer

from alignlab.core import files
from alignlab.core.find import find, names
from alignlab.core.types import Row
from alignlab.engine.encode import Example, encode
from alignlab.engine.load import LanguageModel
from alignlab.train import checkpoint, loop, mismatched
from alignlab.train.config import TrainConfig

OUT = Path(__file__).parent / "results" / "trl_checks.json"
Gradient = dict[str, torch.Tensor]


def trainer_of(name: str) -> tuple[type, type]:
    """Return TRL's trainer and its config."""
    module, words = importlib.import_module(SETTINGS[name].module), SETTINGS[name].trainer
    return getattr(module, f"{words}Trainer"), getattr(module, f"{words}Config")


def method(name: str) -> ModuleType:
    """Return our module."""
    return find("rewards" if name in names("rewards") else "objectives", name)


def models_of(name: str) -> dict[str, Any]:
    """Return policy and, where it is read, reference, as TRL's trainers take them."""
    needs = method(name).CARD.needs
    return {"model": model(reward="value" in needs)} | ({"ref_model": model(1)} if "ref" in needs else {})


class Keep(TrainerCallback):
    """Keep the gradient of the first optimiser step."""

    def __init__(self) -> None:
        self.found: Gradient = {}

    def on_pre_optimizer_step(self, args, state, control, model=None, **rest):  # noqa: ARG002, D102
        if not self.found:
            self.found = {n: p.grad.detach().clone() for n, p in model.named_parameters() if p.grad is not None}


def step(name: str, per_device: int, *, reverse=False, padding="<pad>", data: Any = None, **more: Any) -> Gradient:
    """Return TRL's gradient of one step over all rows."""
    (trainer, config), setting = trainer_of(name), SETTINGS[name]
    keep, ranks = Keep(), int(os.environ.get("WORLD_SIZE", "1"))
    given = rows(setting.kind)[:: -1 if reverse else 1]
    with tempfile.TemporaryDirectory() as folder:
        args = {
            "output_dir": folder, "per_device_train_batch_size": per_device, "max_steps": 1, "max_grad_norm": 0.0,
            "gradient_accumulation_steps": ROWS // per_device // ranks, "learning_rate": 1e-3, "bf16": False,
            "gradient_checkpointing": False, "use_cpu": True, "report_to": "none", "save_strategy": "no",
            "disable_tqdm": True, "logging_strategy": "no", "lr_scheduler_type": "constant",
        }  # fmt: skip
        made = trainer(
            args=config(**{**args, **setting.theirs, **more}), callbacks=[keep], processing_class=tokenizer(padding),
            train_dataset=Dataset.from_list(given) if data is None else data, **models_of(name),
        )  # fmt: skip
        made.train()
    return keep.found


def gradient(name: str, settings: dict[str, Any], examples: Sequence[Example]) -> Gradient:
    """Return the gradient of our method on examples."""
    module, keep = method(name), Gradient()
    policy, reference = (model(k, reward="value" in module.CARD.needs) for k in (0, 1))
    student, before = (LanguageModel(module=m, tokenizer=tokenizer(), name="bench/small") for m in (policy, reference))
    with tempfile.TemporaryDirectory() as folder:
        cfg = TrainConfig(
            per_device_train_batch_size=ROWS, max_steps=1, learning_rate=0.0, max_grad_norm=0.0, save_steps=0,
            use_cpu=True, ref_cache="none",
        )  # fmt: skip
        loop.train(
            student, examples, module.loss, cfg, Path(folder), objective_config=module.Config(**settings),
            stats=getattr(module, "stats", None), settle=getattr(module, "settle", None), needs=module.CARD.needs,
            reference=before,
            on_step=lambda *_: keep.update({n: p.grad.clone() for n, p in checkpoint.trained(student).items()}),
        )  # fmt: skip
    return keep


def row_before(items: Sequence[int], *_: Any) -> list[tuple[int, int]]:
    """Return the partners that TRL's KTO gives to one batch of all rows."""
    return [(i, (i - 1) % ROWS) for i in items]


def ours(name: str, *, alike: bool = True) -> Gradient:
    """Return the gradient of the proven method on the same rows.

    Args:
        name: of the method.
        alike: with what TRL does by design and our card declares as a deviation; see the notes in `trl_settings`.
    """
    setting, read = SETTINGS[name], tokenizer()
    examples = [encode(Row(**row), read) for row in rows(setting.kind)]
    chosen = row_before if alike and name == "kto" else mismatched.partners
    with patch.object(mismatched, "partners", chosen):
        found = gradient(name, setting.ours | ({} if alike else setting.default), examples)
    if alike and name == "orpo":
        # the likelihood term of the answers gives way to that of prompts and answers, less the first token
        parts = [(e.prompt_ids, e.completions[0]) for e in examples]
        answers = [Example(prompt_ids=p, completions=(c,)) for p, c in parts]
        whole = [Example(prompt_ids=p[:1], completions=([*p[1:], *c],)) for p, c in parts]
        less, more = (gradient("sft", {}, given) for given in (answers, whole))
        found = {n: g - less[n] + more[n] for n, g in found.items()}
    return {n: setting.scale * g for n, g in found.items()}


def apart(found: Gradient, wanted: Gradient) -> float:
    """Return the norm of the difference relative to the norm of what was wanted."""
    assert set(found) == set(wanted), "gradients of other parameters"
    one, other = (torch.cat([g[n].flatten().double() for n in sorted(wanted)]) for g in (found, wanted))
    return ((one - other).norm() / other.norm()).item()


def resumed(name: str) -> float:
    """Return how far weights are apart after a stop."""
    (trainer, config), setting = trainer_of(name), SETTINGS[name]

    def run(folder: str, steps: int, **how: Any) -> Gradient:
        args = {
            "output_dir": folder, "per_device_train_batch_size": 6, "num_train_epochs": 2, "learning_rate": 1e-3,
            "bf16": False, "gradient_checkpointing": False, "use_cpu": True, "report_to": "none", "disable_tqdm": True,
            "save_strategy": "steps", "save_steps": 2, "logging_strategy": "no",
        }  # fmt: skip

        class Stop(TrainerCallback):
            def on_step_end(self, args, state, control, **rest):  # noqa: ARG002
                control.should_training_stop = state.global_step >= steps
                control.should_save = state.global_step == 2

        made = trainer(
            args=config(**{**args, **setting.theirs}), train_dataset=Dataset.from_list(rows(setting.kind)),
            processing_class=tokenizer(), callbacks=[Stop()], **models_of(name),
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
    reads = "ref" in method(name).CARD.needs
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


def stale() -> str:
    """Say how far a run that only sets ld_alpha is off, when an earlier run has filled TRL's reference cache.

    TRL keeps that cache beside data that lie on disk; data made in memory get a new folder each time.
    """
    wanted = step("dpo", ROWS, ld_alpha=0.5, max_length=None)

    def found(folder: str, *runs: dict[str, float]) -> float:
        Dataset.from_list(rows("pairs")).save_to_disk(folder)
        options = {"precompute_ref_log_probs": True, "max_length": None}
        return apart([step("dpo", ROWS, data=load_from_disk(folder), **options, **run) for run in runs][-1], wanted)

    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        own, filled = found(one, {"ld_alpha": 0.5}), found(other, {}, {"ld_alpha": 0.5})
    return (
        f"dpo with ld_alpha 0.5 and precomputed reference: gradient off by {own:.2g} with a cache of its own, by"
        f" {filled:.2g} after a run without ld_alpha on the same data set on disk, whose cached values it reads"
    )


def remarks(wanted: Sequence[str]) -> list[str]:
    """Return what differs between the two sides, measured where it can be."""
    found = []
    for name in wanted:
        if note := SETTINGS[name].note:
            plain = f"{apart(ours(name), ours(name, alike=False)):.2g}" if "{apart}" in note else ""
            found.append(f"{name}: {note.format(apart=plain)}")
    return found


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
    every = list(SETTINGS)
    parser.add_argument("--objectives", nargs="*", default=every, choices=every, help="which ones")
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
        table.append({"objective": name, "setting": SETTINGS[name].called, "checks": checks(name, two.get(name))})
        print(json.dumps(table[-1]), flush=True)
    notes = remarks(args.objectives) + ([stale()] if "dpo" in args.objectives else [])
    print("\n".join(notes), flush=True)
    notes += [f"{name}: {why}" for name, why in ABSENT.items()]
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
