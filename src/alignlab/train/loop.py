"""The one training loop: an optimiser step equals the step on one big batch, however it is cut, padded or spread over ranks.

A step first learns its denominators (from masks and weights, before any model runs), then, where a loss has them, its batch
statistics, and only then adds up gradients; nothing is averaged per micro-batch. Read `Run.train`, then downwards.
"""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, set_seed
from torch import Tensor, nn

from alignlab.core.reduce import share, totals
from alignlab.core.types import Groups, Term, View
from alignlab.engine.encode import Example
from alignlab.engine.load import LanguageModel
from alignlab.train import batches, checkpoint
from alignlab.train.config import TrainConfig, items_of_step, learning_rate, steps_per_epoch, total_steps
from alignlab.train.log import Log, Meter, Sums, check_tracker, ratios, with_logs

__all__ = ["Interrupted", "TrainConfig", "train"]

Loss = Callable[..., tuple[Term, ...]]
OnStep = Callable[[int, Mapping[str, float]], None]
FREE = {
    "per_device_train_batch_size", "gradient_accumulation_steps", "num_train_epochs", "max_steps", "logging_steps",
    "eval_steps", "save_steps", "save_total_limit", "report_to", "resume_from_checkpoint", "use_cpu", "max_length",
}  # fmt: skip
"""settings that may differ when a run goes on; the rows per optimiser step may not, nor what else changes a step"""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during training; the message says what is kept and how to go on."""


def train(
    model: LanguageModel,
    examples: Sequence[Example],
    loss: Loss,
    cfg: TrainConfig,
    output_dir: Path,
    *,
    objective_config: Any,
    stats: Loss | None = None,
    reference: LanguageModel | None = None,
    eval_examples: Sequence[Example] = (),
    on_step: OnStep | None = None,
) -> dict[str, float]:
    """Train `model` in place.

    Args:
        model: what is trained: all parameters that require a gradient (those of the adapter, where it has one).
        examples: tokenised rows.
        loss: `loss(batch, objective_config)` -> terms; `loss(batch, objective_config, values)` where `stats` is given.
            It reads `batch.views["policy"]`, with gradient, and `batch.views["ref"]` if it needs it.
        cfg: settings of the run.
        output_dir: receives metrics.jsonl and checkpoint-<step> folders. The final model is the caller's to save.
        objective_config: settings of the loss.
        stats: batch statistics as terms; `loss` receives name -> sum(num) / sum(den) over the whole step (names with a
            zero denominator are absent). They carry no gradient.
        reference: model behind the view `ref`; None: `model` as it is when this is called, a fresh adapter being
            no change. Either way it is scored once, before the first step.
        eval_examples: rows to evaluate on.
        on_step: called on every rank after each step with the step's number and what it logged, if anything.

    Returns:
        Plain numbers: `train/loss_first` (step 1), `train/loss_last` (mean over the last logging window), `train/loss`
        (mean over all steps), the other last logged metrics as `train/<name>`, `eval/<name>`, `steps`, `tokens`,
        `tokens_per_second`, `seconds`, `omitted_terms` (terms of a step left out because nothing counted for them).

    Raises:
        ValueError: no examples; settings or data that do not fit the checkpoint to go on from.
        FileExistsError: output_dir holds checkpoints and the run is not told to go on.
        FloatingPointError: the loss or the gradient is not finite.
        OSError: a checkpoint could not be written.
        Interrupted: Ctrl-C.
    """
    if not examples:
        raise ValueError("no examples to train on; the data set is empty, or all its rows were left out")
    check_tracker(cfg.report_to)
    run = Run(model, examples, loss, cfg, Path(output_dir), objective_config, stats, eval_examples)
    try:
        with batches.without_dropout(model.module) if cfg.disable_dropout else contextlib.nullcontext():
            return run.train(reference, on_step)
    except KeyboardInterrupt as stop:
        last = checkpoint.newest(run.folder)
        kept = f"{last} is whole; go on with --resume_from_checkpoint" if last else "no checkpoint had been saved yet"
        raise Interrupted(f"interrupted at step {run.step} of {run.total}; {kept}") from stop
    finally:
        run.close()


class Run:
    """The state of one training run."""

    def __init__(
        self,
        model: LanguageModel,
        examples: Sequence[Example],
        loss: Loss,
        cfg: TrainConfig,
        folder: Path,
        objective_config: Any,
        stats: Loss | None,
        eval_examples: Sequence[Example],
    ) -> None:
        self.accelerator = Accelerator(cpu=cfg.use_cpu, log_with=None if cfg.report_to == "none" else cfg.report_to,
                                       project_dir=str(folder))  # fmt: skip
        kind = self.accelerator.distributed_type
        if kind not in (DistributedType.NO, DistributedType.MULTI_GPU, DistributedType.MULTI_CPU):
            raise ValueError(f"this loop runs on one device or under DDP (torchrun), not under {kind}")
        self.model, self.examples, self.eval_examples, self.cfg = model, examples, eval_examples, cfg
        self.folder, self.ranks = folder, self.accelerator.num_processes
        self._loss, self._stats, self._objective = loss, stats, objective_config
        self.batch = cfg.per_device_train_batch_size * cfg.gradient_accumulation_steps * self.ranks
        self.total, self.step = total_steps(cfg, len(examples), self.batch), 0
        self.meter, self.done = Meter(), {"loss": 0.0, "tokens": 0.0, "seconds": 0.0, "omitted_terms": 0.0}
        self.metrics: dict[str, float] = {}
        self.identity, self.log = model.identity, None
        self._prepare()

    def _prepare(self) -> None:
        """Put weights and optimiser in place."""
        module = self.model.module
        module.to(self.accelerator.device)
        for parameter in checkpoint.trained(self.model).values():
            if parameter.dtype in (torch.bfloat16, torch.float16):
                # AdamW's small steps are lost in 8 bits of mantissa; autocast computes in bfloat16 all the same
                parameter.data = parameter.data.float()
        self.parameters = list(checkpoint.trained(self.model).values())
        if not self.parameters:
            raise ValueError(
                "no parameter of the model requires a gradient; load it with a trainable adapter, or in full"
            )
        groups = [
            {"params": [p for p in self.parameters if p.ndim >= 2], "weight_decay": self.cfg.weight_decay},
            {"params": [p for p in self.parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(
            [group for group in groups if group["params"]], lr=self.cfg.learning_rate,
            betas=(self.cfg.adam_beta1, self.cfg.adam_beta2), eps=self.cfg.adam_epsilon, fused=True,
        )  # fmt: skip
        if self.cfg.gradient_checkpointing:
            module.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        self.bare = batches.Scorer(self.model, self.cfg.bf16)
        self.scorer: nn.Module = self.accelerator.prepare(self.bare) if self.ranks > 1 else self.bare

    def train(self, reference: LanguageModel | None, on_step: OnStep | None) -> dict[str, float]:
        """Run all steps that are not done yet."""
        folder = self._checkpoint()
        set_seed(self.cfg.seed)
        settings = {"objective": f"{self._loss.__module__}.{self._loss.__qualname__}", **_plain(self._objective)}
        self.log = Log(
            self.folder, self.accelerator, after=checkpoint.read_state(folder)["step"] if folder else 0,
            config=_plain(self.cfg) | settings, tracked=self.cfg.report_to != "none",
        )  # fmt: skip
        # before the checkpoint's weights are put in place: the reference is the model as it came
        self.reference, self.eval_reference = self._references(reference)
        self.settings = {
            "model": self.identity, "data": batches.fingerprint(self.examples), "rows per step": self.batch, **settings,
            **{name: value for name, value in _plain(self.cfg).items() if name not in FREE},
        }  # fmt: skip
        if folder is not None:
            self._resume(folder)
        self.model.module.train()
        move = self.log.bar("training", self.total, self.step)
        began, tokens = time.monotonic(), self.done["tokens"]
        before = self.done["seconds"]
        while self.step < self.total:
            norm = self._optimise()
            self.done["seconds"] = before + time.monotonic() - began
            speed = (self.done["tokens"] - tokens) / max(1e-9, self.done["seconds"] - before)
            record = self._record(norm, speed)
            if self.cfg.save_steps and (self.step % self.cfg.save_steps == 0 or self.step == self.total):
                self._save()
            if on_step is not None:
                on_step(self.step, record)
            move(f"loss {record['loss']:.4f}" if "loss" in record else "")
        self.optimizer.zero_grad(set_to_none=True)
        speed = (self.done["tokens"] - tokens) / max(1e-9, self.done["seconds"] - before)
        return {
            **self.metrics, "train/loss": self.done["loss"] / self.total, "steps": float(self.total),
            "tokens": self.done["tokens"], "seconds": self.done["seconds"], "omitted_terms": self.done["omitted_terms"],
            "tokens_per_second": speed,
        }  # fmt: skip

    def _optimise(self) -> Tensor:
        """Do one optimiser step; returns the gradient's norm before clipping."""
        items = items_of_step(self.step, len(self.examples), self.batch, self.cfg.seed)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.cfg, self.step, self.total)
        self.optimizer.zero_grad(set_to_none=True)
        self._gradients(self._micro_batches(items, self.examples, self.reference))
        norm = nn.utils.clip_grad_norm_(self.parameters, self.cfg.max_grad_norm or math.inf, foreach=True)
        self.optimizer.step()
        self.done["tokens"] += sum(batches.size(self.examples[i]) for i in items)
        self.step += 1
        return norm

    def _micro_batches(
        self, items: Sequence[int], examples: Sequence[Example], reference: batches.Values
    ) -> list[tuple[Groups, bool]]:
        cut = batches.micro_batches(
            items, examples, self.cfg.per_device_train_batch_size, self.accelerator.process_index, self.ranks
        )
        device, pad = self.accelerator.device, self.model.tokenizer.pad_token_id
        return [(batches.batch_of(indices, examples, reference, pad, device), counts) for indices, counts in cut]

    def _gradients(self, parts: list[tuple[Groups, bool]]) -> None:
        """Add up the gradient of the whole step's loss."""
        values = self._statistics(parts)
        sums = self._reduce(
            totals(self._terms(batches.with_zero_views(part), counts, values) for part, counts in parts)
        )
        denominators = {name: den for name, (_, den) in sums.items()}
        self.done["omitted_terms"] += sum(den == 0.0 for den in denominators.values())
        seen, whole = [], torch.zeros((), device=self.accelerator.device)
        for k, (part, counts) in enumerate(parts):
            # ranks exchange gradients once a step
            together = k == len(parts) - 1 or self.ranks == 1
            with contextlib.nullcontext() if together else self.accelerator.no_sync(self.scorer):
                terms = self._terms(_scored(part, self.scorer(part)), counts, values)
                loss = share(terms, denominators)
                # DDP takes the mean over ranks, but the shares are to be added
                self.accelerator.backward(loss * self.ranks)
            seen.append(with_logs(terms))
            whole = whole + loss.detach()
        self.meter.add(seen, whole)

    def _terms(self, batch: Groups, counts: bool, values: Mapping[str, float] | None) -> tuple[Term, ...]:
        terms = self._loss(batch, self._objective, *(() if values is None else (values,)))
        return terms if counts else tuple(dataclasses.replace(t, num=t.num * 0.0, den=t.den * 0.0) for t in terms)

    @torch.no_grad()
    def _statistics(self, parts: list[tuple[Groups, bool]]) -> dict[str, float] | None:
        """Return the batch statistics of a step, finished before any loss is computed."""
        if self._stats is None:
            return None
        found = [self._stats(_scored(part, self.bare(part)), self._objective) for part, counts in parts if counts]
        return ratios(self._reduce(totals(found)))

    def _reduce(self, sums: Sums) -> Sums:
        """Add up over ranks; every rank brings the same names, or none."""
        if self.ranks == 1:
            return sums
        gathered: list[Sums] = [{} for _ in range(self.ranks)]
        torch.distributed.all_gather_object(gathered, sums)
        names = dict.fromkeys(name for part in gathered for name in part)
        return {name: tuple(math.fsum(p.get(name, (0.0, 0.0))[k] for p in gathered) for k in (0, 1)) for name in names}

    def _record(self, norm: Tensor, speed: float) -> dict[str, float]:
        """Write the metrics that are due after a step."""
        cfg, record = self.cfg, {}
        if self.step in (1, self.total) or self.step % cfg.logging_steps == 0:
            steps = len(self.meter.state())
            record = self.meter.flush(self._reduce)
            # every rank holds the same number of steps, so the mean over ranks has to be undone
            record["loss"] *= self.ranks
            record |= {
                "grad_norm": norm.item(), "learning_rate": learning_rate(cfg, self.step - 1, self.total),
                "epoch": self.step / steps_per_epoch(len(self.examples), self.batch), "num_tokens": self.done["tokens"],
            }  # fmt: skip
            if not (math.isfinite(record["loss"]) and math.isfinite(record["grad_norm"])):
                raise FloatingPointError(
                    f"loss {record['loss']} and gradient norm {record['grad_norm']} at step {self.step}: training diverged;"
                    " lower --learning_rate, or look for a row that the reference finds impossible"
                )
            self.done["loss"] += record["loss"] * steps
            self.metrics |= {f"train/{name}": record[name] for name in record if name not in ("loss", "epoch")}
            self.metrics.setdefault("train/loss_first", record["loss"])
            self.metrics["train/loss_last"] = record["loss"]
            record |= {"seconds": round(self.done["seconds"], 3), "tokens_per_second": round(speed, 1)}
        due = cfg.eval_steps and self.step % cfg.eval_steps == 0
        if self.eval_examples and (due or self.step == self.total):
            found = self._evaluate()
            record |= {f"eval_{name}": value for name, value in found.items()}
            self.metrics |= {f"eval/{name}": value for name, value in found.items()}
        if record:
            self.log.write(self.step, record)
        return record

    @torch.no_grad()
    def _evaluate(self) -> dict[str, float]:
        """Return loss and logs over the whole evaluation set, as if it were one step."""
        parts = self._micro_batches(range(len(self.eval_examples)), self.eval_examples, self.eval_reference)
        values = self._statistics(parts)
        found, weights = [], {}
        for part, counts in parts:
            terms = self._terms(_scored(part, self.bare(part)), counts, values)
            weights |= {f"loss/{term.name}": term.weight for term in terms}
            found.append(with_logs(terms))
        sums = self._reduce(totals(found))
        loss = sum(weight * sums[name][0] / sums[name][1] for name, weight in weights.items() if sums[name][1] != 0.0)
        return {"loss": loss, **ratios(sums)}

    def _references(self, reference: LanguageModel | None) -> tuple[batches.Values, batches.Values]:
        """Score the reference on every row that the run will visit, if the loss or its statistics read the view."""

        def everything(batch: Groups) -> None:
            values = ratios(totals([self._stats(batch, self._objective)])) if self._stats else None
            self._terms(batch, True, values)

        pad = self.model.tokenizer.pad_token_id
        probe = batches.batch_of([0], self.examples, {}, pad, torch.device("cpu"))
        if "ref" not in batches.views_read(everything, probe):
            return {}, {}
        if reference is not None:
            reference.module.to(self.accelerator.device)
        score = self.bare if reference is None else batches.Scorer(reference, self.cfg.bf16)
        visited = {
            i for s in range(self.total) for i in items_of_step(s, len(self.examples), self.batch, self.cfg.seed)
        }
        found = []
        for rows, wanted in ((self.examples, sorted(visited)), (self.eval_examples, range(len(self.eval_examples)))):
            move = self.log.bar("reference", -(-len(wanted) // 32))
            found.append(batches.reference_values(score, rows, wanted, pad, self.accelerator, move) if wanted else {})
        return found[0], found[1]

    def _checkpoint(self) -> Path | None:
        """Return the checkpoint to go on from; refuse to mix two runs in one folder."""
        if self.accelerator.is_main_process:
            self.folder.mkdir(parents=True, exist_ok=True)
            checkpoint.sweep(self.folder)
        self.accelerator.wait_for_everyone()
        asked = self.cfg.resume_from_checkpoint
        if asked and not isinstance(asked, bool):
            return Path(asked)
        last = checkpoint.newest(self.folder)
        if last is not None and not asked:
            raise FileExistsError(
                f"{last} is from an earlier run: add --resume_from_checkpoint to go on from it, or choose another --output_dir"
            )
        return last

    def _resume(self, folder: Path) -> None:
        """Put the run where the checkpoint left it."""
        state = checkpoint.read_state(folder)
        for name, value in self.settings.items():
            if state["settings"].get(name) != value:
                raise ValueError(
                    f"cannot go on from {folder}: {name} was {state['settings'].get(name)!r} and is now {value!r};"
                    " use the same settings, or another --output_dir"
                )
        random = checkpoint.load(folder, self.model, self.optimizer)
        mine = f"{self.accelerator.process_index}/"
        own = {name.removeprefix(mine): value for name, value in random.items() if name.startswith(mine)}
        if own:
            checkpoint.set_random_state(own, self.accelerator.device)
        self.step, self.done, self.metrics = state["step"], state["done"], state["metrics"]
        self.meter = Meter(state["meter"][self.accelerator.process_index] if state["ranks"] == self.ranks else ())

    def _save(self) -> None:
        """Write checkpoint-<step>; every rank gives its random state, the first one writes."""
        bad = [name for name, p in checkpoint.trained(self.model).items() if not bool(torch.isfinite(p).all())]
        if bad:
            raise FloatingPointError(
                f"{bad[0]} is not finite at step {self.step}: training diverged; nothing was saved"
            )
        mine = (checkpoint.random_state(self.accelerator.device), self.meter.state())
        gathered = [mine]
        if self.ranks > 1:
            gathered = [mine] * self.ranks
            torch.distributed.all_gather_object(gathered, mine)
        if self.accelerator.is_main_process:
            state = {
                "step": self.step, "epoch": self.step / steps_per_epoch(len(self.examples), self.batch), "done": self.done,
                "metrics": self.metrics, "meter": [meter for _, meter in gathered], "ranks": self.ranks, "settings": self.settings,
            }  # fmt: skip
            random = {
                f"{rank}/{name}": value for rank, (states, _) in enumerate(gathered) for name, value in states.items()
            }
            checkpoint.save(self.folder / f"checkpoint-{self.step}", self.model, self.optimizer, random, state)
            checkpoint.prune(self.folder, self.cfg.save_total_limit)
        self.accelerator.wait_for_everyone()

    def close(self) -> None:
        """Give back what the run holds: bars, trackers, recomputation of activations."""
        if self.log is not None:
            self.log.close()
        if self.cfg.gradient_checkpointing:
            self.model.module.gradient_checkpointing_disable()
        self.model.module.eval()


def _scored(batch: Groups, logp: Tensor) -> Groups:
    return dataclasses.replace(batch, views={**batch.views, "policy": View(logp=logp)})


def _plain(config: Any) -> dict[str, Any]:
    return dataclasses.asdict(config) if dataclasses.is_dataclass(config) and not isinstance(config, type) else {}
