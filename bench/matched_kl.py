"""Every objective that trains on preferences, at one KL from the reference: gold reward, rankings, rewards, length.

    python bench/matched_kl.py --seeds 3        # one core; goes on where it was stopped

`tiny:` learns facts that its texts state at most once, where it does not rank answers right already: the true answer
over a wrong one of the same kind, in every question form that training may show. All objectives get the same pairs in
the form that they read (pairs, thumbs, ranked lists, demonstrations), their smoke command's settings of the loss, one
learning rate and as many steps. Every few steps the policy answers the same facts in the question form that no
training shows:

- KL: of the answer, nats, policy against reference: the exact KL over the next token, summed along sampled answers;
- gold: share of sampled answers that are true (the town knows);
- ranking accuracy: the policy finds the true answer likelier than a wrong one that no pair held;
- reward accuracy: so does its log-ratio to the reference, a tie being one half;
- length: tokens of an answer, its end included.

One rate carries policies at different speed, so they are compared where each is as far from the reference as the
others: at the largest KL that `--share` of the objectives reach in every seed, by linear interpolation between
checkpoints. KL need not rise all the way: early steps may carry a policy out and later ones back while gold rises
(slic: 1.40, then 1.21, then 1.57). What counts is where a run leaves for the last time, so that such a detour decides
nothing. An objective that does not reach the common KL has no numbers, and the KL that it reached. Intervals (95 %,
percentiles) draw seeds and facts again, crossing and all; the common KL is kept. Left out: objectives that need more
than preferences (teachers, judgements, other probabilities), or those of several goals (mah_dpo).

Every objective and seed is kept in --work_dir as it ends. Numbers, no texts, in bench/results/matched_kl.json;
`python -m alignlab.cli.docs` makes docs/matched_kl.md from it.
"""

import argparse
import dataclasses
import json
import math
import platform
import random
import shlex
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignlab.cli import flags
from alignlab.cli import runs as commands
from alignlab.core import evidence, files
from alignlab.core.find import find, names
from alignlab.core.types import Row
from alignlab.engine.divergence import apart_after
from alignlab.engine.encode import encode, prompt_ids
from alignlab.engine.load import LanguageModel, load
from alignlab.probes import preference_rankings as rankings
from alignlab.probes._scoring import pair_logps
from alignlab.train.config import TrainConfig
from alignlab.train.loop import train
from alignlab.world import facts, grammar
from alignlab.world.judges import quality

Floats = NDArray[np.float64]
OUT = Path(__file__).parent / "results" / "matched_kl.json"
FORMS = {"pairs": "pairs", "joint": "pairs", "thumbs": "thumbs", "lists": "lists", "noisy": "demonstrations"}
"""what the smoke command of an objective reads -> the form in which it gets the pairs here"""
METRICS = ("kl", "gold", "ranking_accuracy", "reward_accuracy", "length")
TOLD = range(2)
"""texts of the town that state a fact"""
TOKENS = 12
"""longest answer"""
DRAWS = 1000


def objectives() -> dict[str, str]:
    """Return the objectives that learn from preferences alone, each with the form in which it reads them."""
    found = {}
    for name in names("objectives"):
        module = find("objectives", name)
        dataset = shlex.split(module.CARD.smoke.partition("--dataset ")[2])[0].removeprefix("world:")
        if dataset in FORMS and "aligned" not in module.CARD.needs:
            found[name] = FORMS[dataset]
    return found


def asked(seed: int, limit: int) -> tuple[list[Row], list[Row]]:
    """Return pairs to train on and pairs to measure on, of the same facts in other words, with other wrong answers."""
    told = [fact for fact in facts.town().facts.values() if fact.frequency in TOLD]
    chosen = random.Random("matched KL").sample(told, min(limit, len(told)))
    draw, learnt, held_out = random.Random(f"matched KL:{seed}"), [], []
    for fact in chosen:
        others = [value for value in facts.RELATIONS[fact.relation].values if value != fact.value]
        draw.shuffle(others)
        forms = list(grammar.training_forms(fact.relation))
        for form, wrong in [*zip(forms, others), (len(forms), others[len(forms)])]:
            row = Row(
                prompt=evidence.ask(grammar.question(fact, form)), chosen=grammar.ANSWER.format(fact.value),
                rejected=grammar.ANSWER.format(wrong), facts={"gold": fact.value}, meta={"id": fact.id},
            )  # fmt: skip
            (held_out if form == len(forms) else learnt).append(row)
    return learnt, held_out


def in_form(row: Row, form: str) -> list[Row]:
    """Return a pair as an objective reads it."""
    bare = dataclasses.replace(row, chosen=None, rejected=None)
    said = (row.chosen, row.rejected)
    if form == "thumbs":
        return [dataclasses.replace(bare, completion=text, label=up) for text, up in zip(said, (True, False))]
    if form == "lists":
        return [dataclasses.replace(bare, completions=said, scores=(1.0, 0.0))]
    return [dataclasses.replace(bare, completion=row.chosen)] if form == "demonstrations" else [row]


def measured(model: LanguageModel, reference: LanguageModel, rows: Sequence[Row], ref: Floats, args: Any) -> Floats:
    """Return METRICS [5, R] of a checkpoint by row; every checkpoint answers with the same random numbers."""
    policy = pair_logps(model, rows)[0]
    gain = (policy - ref)[:, 0] - (policy - ref)[:, 1]
    answers = model.sample([row.prompt for row in rows], n=args.answers, max_tokens=TOKENS, seed=args.seed)
    befores = prompt_ids(model.tokenizer, [row.prompt for row in rows])
    found = apart_after(model, reference, befores, [[one.ids for one in some] for some in answers])
    return np.array([
        [np.mean([one.kl.sum() for one in some]) for some in found],
        [np.mean([quality(one.text, row.facts["gold"]) for one in some]) for row, some in zip(rows, answers)],
        rankings.ranked(policy[:, 0], policy[:, 1]).astype(float),
        0.5 + 0.5 * np.sign(gain),
        [np.mean([len(one.ids) for one in some]) for some in answers],
    ])  # fmt: skip


def settings_of(name: str) -> Any:
    """Return the settings of a loss that its smoke command gives."""
    module = find("objectives", name)
    given = shlex.split(module.CARD.smoke.replace("{out}", "out"))[3:]
    return flags.build(
        module.Config, flags.parse(name, commands.groups_of("train", flags.Group("Method", module.Config)), given)
    )


def run(name: str, form: str, seed: int, args: Any) -> Floats:
    """Train with one objective; return METRICS [T, 5, R] at the T checkpoints, the reference first."""
    model, reference, module = load(args.model), load(args.model), find("objectives", name)
    learnt, held_out = asked(seed, args.facts)
    ref = pair_logps(reference, held_out)[0]
    found = [measured(model, reference, held_out, ref, args)]

    def seen(step: int, _: Any) -> None:
        if step % args.every == 0:
            found.append(measured(model, reference, held_out, ref, args))

    # two thumbs make a pair, so that a step sees as many answers whatever the form
    batch = args.batch * (2 if form == "thumbs" else 1)
    settings = TrainConfig(
        learning_rate=args.learning_rate, per_device_train_batch_size=batch, max_steps=args.steps, warmup_ratio=0.1,
        lr_scheduler_type="constant", seed=seed, save_steps=0, logging_steps=args.steps, use_cpu=True, ref_cache="none",
    )  # fmt: skip
    rows = [one for row in learnt for one in in_form(row, form)]
    with tempfile.TemporaryDirectory() as folder:
        train(
            model, [getattr(module, "encode", encode)(row, model.tokenizer) for row in rows], module.loss, settings,
            Path(folder), objective_config=settings_of(name), stats=getattr(module, "stats", None),
            settle=getattr(module, "settle", None), needs=module.CARD.needs, on_step=seen,
        )  # fmt: skip
    return np.array(found)


def kept(name: str, form: str, seed: int, about: Mapping[str, Any], args: Any) -> tuple[Floats, float]:
    """Return what a run has measured, and its seconds of CPU; from --work_dir where the same run has ended there."""
    file = args.work_dir / f"{name}-{seed}.json"
    about = {**about, "objective": name, "seed": seed, "settings": repr(settings_of(name))}
    if file.exists():
        known = json.loads(file.read_text(encoding="utf-8"))
        if known["about"] == about:
            return np.array(known["measured"]), known["cpu_seconds"]
    began = time.process_time()
    found = run(name, form, seed, args)
    spent = round(time.process_time() - began, 1)
    files.write_json(file, {"about": about, "measured": np.round(found, 6).tolist(), "cpu_seconds": spent})
    print(f"{name} seed {seed}: KL {found[:, 0].mean(1).max():.2f}, {spent} s of CPU", flush=True)
    return found, spent


def at_kl(curves: Floats, kl: float) -> Floats | None:
    """Return a run's columns where it last rises past a KL, interpolated between checkpoints; None where it never does.

    Args:
        curves: [T, columns], means over rows; the first column is KL, 0 at the first checkpoint.
        kl: nats, > 0.
    """
    rises = np.flatnonzero((curves[:-1, 0] < kl) & (curves[1:, 0] >= kl))
    if not len(rises):
        return None
    before, after = curves[rises[-1]], curves[rises[-1] + 1]
    found: Floats = before + (kl - before[0]) / (after[0] - before[0]) * (after - before)
    return found


def common_kl(reached: Sequence[float], share: float) -> float:
    """Return the largest KL, to two digits rounded down, that a share of the objectives reaches."""
    ordered = sorted(reached, reverse=True)
    return math.floor(100 * ordered[max(0, math.ceil(share * len(ordered)) - 1)]) / 100


def compared(runs: Sequence[Floats], kl: float, every: int, seed: int = 0) -> dict[str, list[float]] | None:
    """Return name -> [value, low, high] at a KL over the runs [T, 5, R] of all seeds; None where one never is there."""

    def means(run: Floats, rows: NDArray[np.int64] | slice = slice(None)) -> Floats:
        return np.column_stack([run[:, :, rows].mean(2), every * np.arange(len(run))])

    found = [at_kl(means(one), kl) for one in runs]
    if any(one is None for one in found):
        return None
    draw, drawn, count = np.random.default_rng(seed), [], runs[0].shape[2]
    for _ in range(DRAWS):
        rows = draw.integers(count, size=count)
        some = [means(runs[k], rows) for k in draw.integers(len(runs), size=len(runs))]
        # a draw that stays below is taken at its farthest
        drawn.append(np.mean([at_kl(one, min(kl, one[:, 0].max())) for one in some], 0))
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    columns = enumerate((*METRICS, "step"))
    value = np.mean(found, 0)
    return {name: [round(float(x[i]), 4) for x in (value, low, high)] for i, name in columns if name != "kl"}


def row_of(name: str, form: str, runs: Sequence[Floats], kl: float, every: int) -> dict[str, Any]:
    """Return the table's row of an objective, with its curves."""
    curves = [one.mean(2) for one in runs]
    return {
        "objective": name, "form": form, "settings": repr(settings_of(name)),
        "reached": [round(float(c[:, 0].max()), 4) for c in curves], "at": compared(runs, kl, every),
        "step": [every * t for t in range(len(curves[0]))],
        "curves": {m: [np.round(c[:, i], 4).tolist() for c in curves] for i, m in enumerate(METRICS)},
    }  # fmt: skip


def main(given: Sequence[str] | None = None) -> None:
    """Run what is not there yet, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny:")
    parser.add_argument("--seeds", type=int, default=3, help="0 and up: other wrong answers, another order")
    parser.add_argument("--seed", type=int, default=0, help="of the answers")
    parser.add_argument("--only", nargs="*", help="these objectives alone")
    parser.add_argument("--facts", type=int, default=1000, help="at most")
    parser.add_argument("--steps", type=int, default=72)
    parser.add_argument("--every", type=int, default=12, help="steps between two checkpoints")
    parser.add_argument("--batch", type=int, default=16, help="pairs of a step")
    parser.add_argument("--learning_rate", type=float, default=3e-4)
    parser.add_argument("--answers", type=int, default=2, help="sampled per fact")
    parser.add_argument(
        "--share", type=float, default=0.9, help="of the objectives that reach the common KL, in (0, 1]"
    )
    parser.add_argument("--work_dir", type=Path, default=Path("runs/matched_kl"))
    parser.add_argument("--output", type=Path, default=OUT)
    args = parser.parse_args(given)
    known = objectives()
    if unknown := set(args.only or ()) - set(known):
        parser.error(f"--only {' '.join(sorted(unknown))}: expected some of {', '.join(known)}")
    wanted = {name: known[name] for name in args.only} if args.only else known
    if not 0 < args.share <= 1:
        parser.error(f"--share {args.share}: expected a number in (0, 1]")
    settings = {k: v for k, v in vars(args).items() if k not in ("seeds", "only", "share", "work_dir", "output")}
    about = {"identity": load(args.model).identity, **settings}
    args.work_dir.mkdir(parents=True, exist_ok=True)
    runs: dict[str, list[Floats]] = {name: [] for name in wanted}
    spent = 0.0
    for seed in range(args.seeds):
        for name, form in wanted.items():
            found, seconds = kept(name, form, seed, about, args)
            runs[name].append(found)
            spent += seconds
    kl = common_kl([min(one.mean(2)[:, 0].max() for one in some) for some in runs.values()], args.share)
    start = next(iter(runs.values()))
    files.write_json(args.output, {
        "command": "python bench/matched_kl.py " + shlex.join(sys.argv[1:] if given is None else given),
        "identity": about["identity"], "settings": {**settings, "seeds": args.seeds, "share": args.share}, "kl": kl,
        "facts": int(start[0].shape[2]), "reference": dict(zip(METRICS, np.round(
            np.mean([one[0].mean(1) for one in start], 0), 4).tolist())),
        "rows": [row_of(name, form, runs[name], kl, args.every) for name, form in wanted.items()],
        "cpu_seconds": round(spent, 1), "machine": f"{platform.machine()}, 1 core", "date": date.today().isoformat(),
    })  # fmt: skip
    print(f"common KL {kl} nats; {args.output}")


if __name__ == "__main__":
    main()
