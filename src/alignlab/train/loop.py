"""The one training loop, for every objective: what happens over a run. What happens in a step is in `step`.

Read `Run.train`, then downwards.
"""

import contextlib
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate.utils import set_seed
from torch import Tensor, nn

from alignlab.engine.encode import Example
from alignlab.engine.hardware import collecting_what_is_new
from alignlab.engine.load import LanguageModel
from alignlab.engine.sharded import whole
from alignlab.train import batches, checkpoint
from alignlab.train.config import FREE, TrainConfig, items_of_step, learning_rate, plain, steps_per_epoch, total_steps
from alignlab.train.distributed import Placement, everyone
from alignlab.train.log import Log, Meter, check_tracker
from alignlab.train.mismatched import extended
from alignlab.train.optimizer import adamw
from alignlab.train.prompts import scored
from alignlab.train.step import SPENT, Loss, Settle, Stepper

__all__ = ["Interrupted", "TrainConfig", "train"]

OnStep = Callable[[int, Mapping[str, float]], None]


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during training; the message says what is kept and how to go on."""


@collecting_what_is_new()
def train(
    model: LanguageModel,
    examples: Sequence[Example],
    loss: Loss,
    cfg: TrainConfig,
    output_dir: Path,
    *,
    objective_config: Any,
    stats: Loss | None = None,
    settle: Settle | None = None,
    needs: Collection[str] = (),
    reference: LanguageModel | None = None,
    eval_examples: Sequence[Example] = (),
    on_step: OnStep | None = None,
) -> dict[str, float]:
    """Train `model` in place.

    Args:
        model: what is trained: all parameters that require a gradient. After --fsdp its module is another, on the host.
        examples: tokenised rows.
        loss: `loss(batch, objective_config)` -> terms; `loss(batch, objective_config, values)` where `stats` is given.
            It reads `batch.views["policy"]`, with gradient, and `batch.views["ref"]` if it needs it. Of a reward
            model the views hold values.
        cfg: settings of the run.
        output_dir: receives metrics.jsonl and checkpoint-<step> folders. The final model is the caller's to save.
        objective_config: settings of the loss.
        stats: batch statistics as terms; `loss` receives name -> sum(num) / sum(den) over the whole step (names with a
            zero denominator are absent), without gradient.
        settle: what becomes of the statistics, where that is more than these ratios: `step.Settle`. What it returns is
            handed to the loss and, at the next step, to itself; it is part of a checkpoint.
        needs: inputs beyond the rows' own, as on a card. `mismatched`: `stats` looks at prompts with other rows'
            completions, so marked. `policy/NAME`: the policy's view under context NAME. `prompt`: prompts are scored.
        reference: model behind the view `ref`, scored once, before the first step; None: `model` as it is now.
        eval_examples: rows to evaluate on.
        on_step: called on every rank after each step with the step's number and what it logged, if anything.

    Returns:
        Plain numbers: `train/loss_first` (step 1), `train/loss_last` (mean over the last logging window), `train/loss`
        (mean over all steps), the other last logged metrics as `train/<name>`, `eval/<name>` and its 95 % interval as
        `eval/<name>/low` and `/high`, `steps`, `tokens`, `tokens_per_second`, `seconds`, `omitted_terms` (of a step,
        where nothing counted for them), and the work of the steps as in `Stepper.spent`, without the reference's.

    Raises:
        ValueError: no examples, or one that the loss has no use for (`inputs.views_of`; nothing is written then); a
            reference with another tokenizer; settings or data that do not fit the checkpoint to go on from.
        FileExistsError: output_dir holds checkpoints and the run is not told to go on.
        FloatingPointError: the loss or the gradient is not finite.
        OSError: a checkpoint could not be written.
        Interrupted: Ctrl-C.
    """
    if not examples:
        raise ValueError("no examples to train on; the data set is empty, or all its rows were left out")
    check_tracker(cfg.report_to)
    if "prompt" in needs:
        examples, eval_examples = ([scored(e) for e in part] for part in (examples, eval_examples))
    run = Run(
        model, examples, loss, cfg, Path(output_dir), objective_config, stats, eval_examples, settle=settle, needs=needs
    )
    try:
        with contextlib.ExitStack() as during:
            if cfg.disable_dropout:
                during.enter_context(batches.without_dropout(model.module))
            if cfg.gradient_checkpointing:
                during.enter_context(batches.recomputing(model.module))
            return run.train(reference, on_step)
    except KeyboardInterrupt as stop:
        last = checkpoint.newest(run.folder)
        how = "the same command goes on" if cfg.resume_from_checkpoint else "go on with --resume_from_checkpoint"
        kept = f"{last} is whole; {how}" if last else "no checkpoint had been saved yet"
        raise Interrupted(f"interrupted at step {run.step} of {run.total}; {kept}") from stop
    finally:
        run.close()


class Run:
    """The state of one training run."""

    def __init__(
        self, model: LanguageModel, examples: Sequence[Example], loss: Loss, cfg: TrainConfig, folder: Path,
        objective_config: Any, stats: Loss | None, eval_examples: Sequence[Example],
        *, settle: Settle | None = None, needs: Collection[str] = (),
    ) -> None:  # fmt: skip
        self.placement = Placement(model, cfg, folder)
        self.accelerator = self.placement.accelerator
        self.model, self.cfg = model, cfg
        self.folder, self.ranks, self.log = folder, self.accelerator.num_processes, None
        self.batch = cfg.per_device_train_batch_size * cfg.gradient_accumulation_steps * self.ranks
        self.total, self.step = total_steps(cfg, len(examples), self.batch), 0
        self.done = {"loss": 0.0, "tokens": 0, "seconds": 0.0, "omitted_terms": 0, **dict.fromkeys(SPENT, 0.0)}
        self.meter, self.metrics = Meter(), {}
        objective = {f"objective.{name}": value for name, value in plain(objective_config).items()}
        settings = {name: value for name, value in plain(cfg).items() if name not in FREE}
        self.settings = {
            "model": model.identity, "data": batches.fingerprint(examples), "rows per step": self.batch,
            "objective": f"{loss.__module__}.{getattr(loss, '__qualname__', '')}", **objective, **settings,
        }  # fmt: skip
        self.rows, lend = len(examples), "mismatched" in needs
        self.data = extended(examples, map(self._items, range(self.total)), lend=lend)
        self.held_out = extended(eval_examples, [range(len(eval_examples))], lend=lend)
        self.placement.place()
        self.parameters = list(checkpoint.trained(model).values())
        self.optimizer = adamw(self.parameters, cfg)
        self.stepper = Stepper(
            model, self.accelerator, loss, stats, objective_config,
            per_device=cfg.per_device_train_batch_size, bf16=cfg.bf16, settle=settle, needs=needs,
            ref_cache=cfg.ref_cache,
        )  # fmt: skip
        self.refers = self.stepper.needs_reference(examples, eval_examples)

    def _items(self, step: int) -> tuple[int, ...]:
        return items_of_step(step, self.rows, self.batch, self.cfg.seed)

    def train(self, reference: LanguageModel | None, on_step: OnStep | None) -> dict[str, float]:
        """Run all steps that are not done yet."""
        folder, state = self._start()
        self.log = Log(
            self.folder, self.accelerator, after=state["step"] if state else 0, config=plain(self.cfg) | self.settings,
            tracked=self.cfg.report_to != "none",
        )  # fmt: skip
        # before a checkpoint's weights are put in place: the reference is the model as it came
        self.reference, self.eval_reference = self._references(reference)
        set_seed(self.cfg.seed)
        if state is not None:
            self._resume(folder, state)
        self.model.module.train()
        move = self.log.bar("training", self.total, self.step)
        self.began, self.before = time.monotonic(), dict(self.done)
        while self.step < self.total:
            norm = self._optimise()
            record = self._record(norm)
            if self.cfg.save_steps and (self.step % self.cfg.save_steps == 0 or self.step == self.total):
                self._save()
            if on_step is not None:
                on_step(self.step, record)
            move(f"loss {record['loss']:.4f}" if "loss" in record else "")
        self.optimizer.zero_grad(set_to_none=True)
        self.placement.settle()
        return {
            **self.metrics, "train/loss": self.done["loss"] / self.step, "steps": self.step,
            **{name: self.done[name] for name in ("tokens", "seconds", "omitted_terms", *SPENT)},
            "tokens_per_second": self._speed(),
        }  # fmt: skip

    def _optimise(self) -> Tensor:
        """Do one optimiser step; return the gradient's norm before clipping."""
        items = self._items(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.cfg, self.step, self.total)
        self.optimizer.zero_grad(set_to_none=True)
        seen, loss, omitted = self.stepper.gradients(*self.stepper.all_parts(items, self.data, self.reference))
        norm = whole(nn.utils.clip_grad_norm_(self.parameters, self.cfg.max_grad_norm or math.inf, foreach=True))
        self.optimizer.step()
        self.step += 1
        self.meter.add(seen, loss)
        self.done["omitted_terms"] += omitted
        self.done["tokens"] += sum(batches.size(self.data.examples[i]) for i in items)
        self.done["seconds"] = self.before["seconds"] + time.monotonic() - self.began
        return norm

    def _record(self, norm: Tensor) -> dict[str, float]:
        """Write the metrics that are due after a step; return them."""
        record: dict[str, float] = {}
        if self.step in (1, self.total) or self.step % self.cfg.logging_steps == 0:
            steps = len(self.meter.state())
            record = self.meter.flush(self.stepper.reduce)
            # each rank brings its share of a step's loss, so the mean over ranks has to be undone
            record["loss"] *= self.ranks
            self._count_work()
            record |= {
                "grad_norm": norm.item(), "learning_rate": learning_rate(self.cfg, self.step - 1, self.total),
                "num_tokens": self.done["tokens"], **{name: self.done[name] for name in SPENT},
                "percent_of_floor": 100 * self.done["teraflops"] / (self.done["floor_teraflops"] or math.nan),
            }  # fmt: skip
            if self.done["omitted_terms"]:
                record["omitted_terms"] = self.done["omitted_terms"]
            self._finite(record)
            self.done["loss"] += record["loss"] * steps
            self.metrics |= {f"train/{name}": value for name, value in record.items() if name != "loss"}
            self.metrics |= {"train/loss_first": self.metrics.get("train/loss_first", record["loss"])}
            self.metrics["train/loss_last"] = record["loss"]
            record |= {
                "epoch": self.step / steps_per_epoch(self.rows, self.batch), "seconds": self.done["seconds"],
                "tokens_per_second": self._speed(),
            }  # fmt: skip
        due = self.cfg.eval_steps and self.step % self.cfg.eval_steps == 0
        if self.held_out.rows and (due or self.step == self.total):
            found = self.stepper.evaluate(self.held_out, self.eval_reference)
            record |= {f"eval_{name}": value for name, value in found.items()}
            self.metrics |= {f"eval/{name}": value for name, value in found.items()}
        if record:
            self.log.write(self.step, record)
        return record

    def _count_work(self) -> None:
        for name, value in self.stepper.take_spent().items():
            self.done[name] += value

    def _finite(self, record: Mapping[str, float]) -> None:
        if not (math.isfinite(record["loss"]) and math.isfinite(record["grad_norm"])):
            raise FloatingPointError(
                f"training diverged: loss {record['loss']}, gradient norm {record['grad_norm']} at step {self.step};"
                " lower --learning_rate, or look for a row that model or reference finds impossible"
            )

    def _speed(self) -> float:
        seconds = self.done["seconds"] - self.before["seconds"]
        return (self.done["tokens"] - self.before["tokens"]) / seconds if seconds > 0 else 0.0

    def _references(self, reference: LanguageModel | None) -> tuple[batches.Values, batches.Values]:
        """Score the reference on every row that the run will visit, if the loss or its statistics look at it."""
        if not self.refers:
            return {}, {}
        visited = sorted({i for step in range(self.total) for i in self._items(step)})
        visited += range(self.rows, len(self.data.examples))
        held_out, found = list(range(len(self.held_out.examples))), []
        for examples, wanted in ((self.data.examples, visited), (self.held_out.examples, held_out)):
            move = self.log.bar("reference", -(-len(wanted) // batches.REFERENCE_BATCH))
            found.append(self.stepper.references(reference, examples, wanted, move) if wanted else {})
        return found[0], found[1]

    def _start(self) -> tuple[Path | None, dict[str, Any] | None]:
        """Return the checkpoint to go on from, if any; refuse to mix two runs."""
        if self.accelerator.is_main_process:
            self.folder.mkdir(parents=True, exist_ok=True)
            checkpoint.sweep(self.folder)
        self.accelerator.wait_for_everyone()
        asked = self.cfg.resume_from_checkpoint
        folder = checkpoint.newest(self.folder) if isinstance(asked, bool) else Path(asked)
        if folder is None:
            return None, None
        if not asked:
            raise FileExistsError(
                f"{folder} is from an earlier run: go on with --resume_from_checkpoint, or choose another --output_dir"
            )
        state = checkpoint.read_state(folder)
        checkpoint.same_settings(folder, state, self.settings)
        return folder, state

    def _resume(self, folder: Path, state: Mapping[str, Any]) -> None:
        """Put the run where the checkpoint left it."""
        random = checkpoint.load(folder, self.model, self.optimizer)
        rank = self.accelerator.process_index
        mine = {name.partition("/")[2]: value for name, value in random.items() if name.startswith(f"{rank}/")}
        if mine:
            checkpoint.set_random_state(mine, self.accelerator.device)
        self.step, self.metrics = state["step"], state["metrics"]
        self.done |= state["done"]
        self.stepper.carried = state.get("carried", {})
        self.meter = Meter(state["meter"][rank] if state["ranks"] == self.ranks else ())

    def _save(self) -> None:
        """Write checkpoint-<step>; every rank gives its random state, the first one writes."""
        tensors = checkpoint.gathered(self.model, self.optimizer, keep=self.accelerator.is_main_process)
        bad = checkpoint.not_finite(tensors)
        mine = (checkpoint.random_state(self.accelerator.device), self.meter.state(), bad)
        all_ranks = everyone(mine, self.ranks)
        bad = [name for *_, names in all_ranks for name in names]
        if bad:
            raise FloatingPointError(
                f"training diverged: {bad[0]} is not finite at step {self.step}; nothing was saved"
            )
        self._count_work()
        model = self.placement.whole(keep=self.accelerator.is_main_process)
        if self.accelerator.is_main_process:
            state = {
                "step": self.step, "epoch": self.step / steps_per_epoch(self.rows, self.batch), "done": self.done,
                "metrics": self.metrics, "meter": [meter for _, meter, _ in all_ranks], "ranks": self.ranks,
                "settings": self.settings, "carried": self.stepper.carried,
            }  # fmt: skip
            random = {f"{rank}/{name}": v for rank, (states, *_) in enumerate(all_ranks) for name, v in states.items()}
            checkpoint.save(self.folder / f"checkpoint-{self.step}", model, tensors, random, state)
            checkpoint.prune(self.folder, self.cfg.save_total_limit)
        self.placement.release()
        self.accelerator.wait_for_everyone()

    def close(self) -> None:
        """Give back bars and trackers; the model is back in evaluation mode."""
        if self.log:
            self.log.close()
        self.model.module.eval()
