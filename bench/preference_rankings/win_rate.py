"""Ranking accuracy and win rate over one run of DPO on the town's pairs, and whether they go together.

    python bench/preference_rankings/win_rate.py --seeds 3

`tiny:` is tuned by DPO on the facts that its texts state once or never, where it does not rank pairs right already:
two wordings each, the right answer over a wrong one of the same kind. Before the first step and after every `--every`:
ranking accuracy, the win rate of sampled answers against the untuned model's (the town's truth decides; two right or
two wrong ones are a tie, half a win), mean DPO loss in nats, the squared distance of the weights. All on the prompts
trained on, as in Chen et al. 2024 (arXiv:2405.19534), and on up to `--others` facts stated 2 to 15 times, not trained
on.

Spearman's correlation of both up to the peak of the win rate and from it on. A peak found in the very rates that are
then correlated favours + before and - after on noise alone, so half of the facts finds the peak and the other half is
correlated; the intervals (95 %, percentiles) draw these facts again with the peak kept. They say what other facts would
do to this run, not what another run would do. Beside it "same": all facts for both.
Numbers, no texts, are left in bench/results/preference_rankings/win_rate.json.
"""

import argparse
import json
import platform
import random
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alignlab.core import evidence, files
from alignlab.core.types import Metric, Row
from alignlab.engine.encode import encode
from alignlab.engine.load import LanguageModel, load
from alignlab.objectives import dpo
from alignlab.probes import preference_rankings as rankings
from alignlab.probes._scoring import Floats, pair_logps
from alignlab.stats.resample import statistic
from alignlab.train.config import TrainConfig
from alignlab.train.loop import train
from alignlab.world import facts, grammar
from alignlab.world.judges import quality

OUT = Path(__file__).parent.parent / "results" / "preference_rankings" / "win_rate.json"
TOLD = {"trained on": range(2), "other facts": range(2, 16)}
"""texts of the town that state a fact"""
WORDINGS = 2
TOKENS = 12
"""longest answer"""


@dataclass(frozen=True)
class Seen:
    """One checkpoint, by row."""

    right: Floats
    """[R] 1 where the pair is ranked right"""
    true: Floats
    """[R] share of sampled answers that are true"""
    loss: Floats
    """[R] DPO's loss, nats"""
    distance: float
    """squared distance of all weights from the reference"""


def pairs(group: str, seed: int, limit: int) -> list[Row]:
    """Return the right answer over a wrong one, WORDINGS rows for each of at most `limit` facts of a group of TOLD."""
    draw = random.Random(f"{group}:{seed}")
    told = [fact for fact in facts.town().facts.values() if fact.frequency in TOLD[group]]
    rows = []
    for fact in draw.sample(told, min(limit, len(told))):
        wrong = draw.choice([value for value in facts.RELATIONS[fact.relation].values if value != fact.value])
        for form in draw.sample(grammar.training_forms(fact.relation), WORDINGS):
            rows.append(Row(
                prompt=evidence.ask(grammar.question(fact, form)), chosen=grammar.ANSWER.format(fact.value),
                rejected=grammar.ANSWER.format(wrong), facts={"gold": fact.value},
                meta={"id": fact.id, "group": group},
            ))  # fmt: skip
    return rows


def weights(model: LanguageModel) -> list[torch.Tensor]:
    """Return a copy of all weights."""
    return [parameter.detach().double().clone() for parameter in model.module.parameters()]


def seen(model: LanguageModel, rows: Sequence[Row], ref: Floats, start: Sequence[torch.Tensor], args: Any) -> Seen:
    """Measure a checkpoint; every one answers with the same random numbers."""
    policy, _ = pair_logps(model, rows)
    answers = model.sample([row.prompt for row in rows], n=args.answers, max_tokens=TOKENS, seed=args.seed)
    margin, c = policy[:, 0] - policy[:, 1], rankings.difficulty(ref[:, 0], ref[:, 1])
    moved = sum(float((now - before).square().sum()) for now, before in zip(weights(model), start))
    return Seen(
        right=rankings.ranked(policy[:, 0], policy[:, 1]).astype(float),
        true=np.array([np.mean([quality(one.text, row.facts["gold"]) for one in some])
                       for row, some in zip(rows, answers)]),
        loss=rankings.dpo_loss(margin, c, args.beta), distance=moved,
    )  # fmt: skip


def run(rows: Sequence[Row], seed: int, args: Any) -> list[Seen]:
    """Tune a model on the rows of its group and measure all on the way; the first checkpoint is the reference."""
    model, found = load(args.model), []
    ref, start = pair_logps(model, rows)[0], weights(model)
    found.append(seen(model, rows, ref, start, args))

    def measured(step: int, _: Any) -> None:
        if step % args.every == 0:
            found.append(seen(model, rows, ref, start, args))

    settings = TrainConfig(
        learning_rate=args.learning_rate, per_device_train_batch_size=args.batch, max_steps=args.steps,
        lr_scheduler_type="constant", warmup_ratio=0.1, seed=seed, save_steps=0, logging_steps=args.steps,
        use_cpu=True, ref_cache="none",
    )  # fmt: skip
    examples = [encode(row, model.tokenizer) for row in rows if row.meta["group"] == "trained on"]
    with tempfile.TemporaryDirectory() as folder:
        train(model, examples, dpo.loss, settings, folder, objective_config=dpo.Config(beta=args.beta),
              on_step=measured)  # fmt: skip
    return found


def correlated(right: Floats, true: Floats, fact: Sequence[str]) -> dict[str, Metric]:
    """Return the correlations before and after the peak, by halves of the facts and with the same facts for both.

    Args:
        right: [T, R] by checkpoint and row.
        true: [T, R]; the win rate over rows is 1/2 + (true - true of the first checkpoint) / 2 where answers are right
            or wrong, so that neither the reference's answers nor the judge need be asked again.
        fact: [R] what the row asks about; rows of one fact are drawn together.
    """
    wins, places = 0.5 + (true - true[:1]) / 2, {name: i for i, name in enumerate(dict.fromkeys(fact))}
    odd = np.array([places[name] % 2 == 1 for name in fact])
    found = {}
    for name, finds, tells in (("halves", ~odd, odd), ("same", odd | ~odd, odd | ~odd)):
        peak = int(np.argmax(wins[:, finds].mean(1)))
        rows = np.flatnonzero(tells)
        for side, points in enumerate((peak + 1, len(wins) - peak)):
            metric = statistic(
                lambda index, rows=rows, peak=peak, side=side: rankings.around_peak(
                    wins[:, rows[index]].mean(1), right[:, rows[index]].mean(1), peak
                )[side],
                [fact[row] for row in rows],
            )
            what = ("up to the peak", "from the peak on")[side]
            found[f"{name}/{what}"] = Metric(value=metric.value, n=points, low=metric.low, high=metric.high)
        found[f"{name}/peak"] = Metric(value=float(peak), n=int(tells.sum()))
    return found


def group_record(about: Sequence[Mapping[str, Any]], found: Sequence[Seen], group: str, every: int) -> dict[str, Any]:
    """Return what one run shows of one group: curves by checkpoint and their correlation."""
    mine = [i for i, meta in enumerate(about) if meta["group"] == group]
    right, true, loss = (np.array([getattr(one, name) for one in found])[:, mine] for name in ("right", "true", "loss"))
    names = [about[i]["id"] for i in mine]
    curves = {
        "step": [every * t for t in range(len(found))], "ranking_accuracy": right.mean(1), "true": true.mean(1),
        "win_rate": 0.5 + (true - true[0]).mean(1) / 2, "dpo_loss": loss.mean(1),
        "squared_distance": [one.distance for one in found],
    }  # fmt: skip
    correlation = correlated(right, true, names)
    return {
        "group": group, "pairs": len(mine), "facts": len(set(names)),
        "correlation": {name: {k: _short(v) for k, v in vars(m).items()} for name, m in correlation.items()},
        "curves": {name: [_short(value) for value in values] for name, values in curves.items()},
    }  # fmt: skip


def main(given: Sequence[str] | None = None) -> None:
    """Run every seed and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny:")
    parser.add_argument("--seeds", type=int, default=3, help="0 and up: other wrong answers, another order")
    parser.add_argument("--seed", type=int, default=0, help="of the answers")
    parser.add_argument("--facts", type=int, default=1000, help="trained on, at most")
    parser.add_argument("--others", type=int, default=100, help="not trained on, at most")
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--every", type=int, default=10, help="steps between two checkpoints")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--learning_rate", type=float, default=3e-4)
    parser.add_argument("--beta", type=float, default=0.1)
    parser.add_argument("--answers", type=int, default=4, help="sampled per prompt")
    parser.add_argument("--output", type=Path, default=OUT)
    args = parser.parse_args(given)
    began, runs = time.process_time(), []
    for seed in range(args.seeds):
        rows = [*pairs("trained on", seed, args.facts), *pairs("other facts", seed, args.others)]
        found = run(rows, seed, args)
        for group in TOLD:
            runs.append(group_record([row.meta for row in rows], found, group, args.every) | {"seed": seed})
            print(json.dumps(runs[-1]), flush=True)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(args.output, {
        "name": "win_rate", "settings": {k: v for k, v in vars(args).items() if k != "output"}, "runs": runs,
        "cpu_seconds": round(time.process_time() - began, 1), "machine": f"{platform.machine()}, 1 core",
        "torch": torch.__version__, "date": date.today().isoformat(),
    })  # fmt: skip


def _short(value: Any) -> Any:
    """Return a number with four digits behind the point; None where it is not one."""
    if value is None or not np.isfinite(value):
        return None
    return value if isinstance(value, int) else round(float(value), 4)


if __name__ == "__main__":
    main()
