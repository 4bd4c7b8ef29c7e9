"""How often the intervals that evals print hold the truth: estimators on the world, where the truth is known.

    python bench/coverage.py [--seeds 1000]    # eight minutes

Each estimator gets one draw of the world per seed and gives its 95 % interval; counted is how often the interval holds
the known truth. Writes bench/results/coverage.json; `python -m alignlab.cli.docs` makes docs/intervals.md from it.
Rows marked `contrast` are what is usually reported instead, to show what a number without its interval's due costs.
"""

import argparse
import json
import math
import platform
import random
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from pathlib import Path

import numpy as np
from scipy.special import expit

from alignlab.core.files import write_text
from alignlab.core.types import Metric
from alignlab.evals import _election as election
from alignlab.evals import _kornat_items as surveys
from alignlab.evals import _kornat_rates as kornat_rates
from alignlab.evals import _pairwise_rates as pairwise_rates
from alignlab.evals import _rose_frame_rates as rose_frame_rates
from alignlab.evals import _wahl_o_mat_rates as wahl_o_mat_rates
from alignlab.evals import bullshit, honesty, pacifaist, principal_agent, rose_frame
from alignlab.stats import bootstrap, bounds, judge, resample, survey
from alignlab.stats import length_control as lengths
from alignlab.world import dialogues, judges, knowledge, opinions, sellers

SEEDS, LEVEL = 1000, 0.95
OUT = Path(__file__).parent / "results" / "coverage.json"
Drawn = Mapping[str, tuple[Metric, float]]
"""estimator -> its interval on one draw, and the truth"""


def judge_bias(seed: int) -> Drawn:
    """Both orders of 150 comparisons by a judge who likes the first and the longer answer."""
    known = judges.Judge(quality=1.5, length=0.8, order=0.5)
    draw = random.Random(f"judge:{seed}")
    verdicts, causes, pairs = [], {"quality": [], "length": [], "order": []}, []
    for number in range(150):
        gap, extra = draw.choice((-1, 0, 1)), draw.gauss(10, 50)
        for side in (1, -1):
            verdict = known.compare(gap, extra, side, draw)
            verdicts.append(0.5 + 0.5 * float(np.sign(verdict)))
            for name, value in (("quality", gap), ("length", math.tanh(extra / judges.LENGTH_UNIT)), ("order", side)):
                causes[name].append(float(value))
            pairs.append(number)
    found = judge.bias(verdicts, causes, clusters=pairs)
    return {
        "pull of the first place (regression)": (found["order"], known.order),
        "pull of the first place (pairs that turn)": (judge.order_bias(verdicts[::2], verdicts[1::2]), known.order),
        "pull of length": (found["length"], known.length),
        "pull of quality": (found["quality"], known.quality),
    }


def length_control(seed: int) -> Drawn:
    """120 answers, longer than the baseline's, by a judge who likes length: the rate at equal length is known."""
    known, n = judges.Judge(quality=0.4, length=0.8), 120
    draw = random.Random(f"length:{seed}")
    extra = np.array([draw.gauss(30, 50) for _ in range(n)])
    verdicts = 0.5 + 0.5 * np.sign([known.compare(1, e, 1, draw) for e in extra])
    gamma, baseline = np.zeros(n), np.full(n, 400.0)
    truth = 100 * float(expit(known.quality))
    value, error = lengths.controlled(
        lengths.fit(verdicts, lengths.features(baseline, baseline + extra, gamma), form="unpenalised"), gamma
    )
    raw, raw_error, _ = lengths.win_rate(verdicts)
    return {
        "length-controlled win rate": (
            lengths.controlled_interval(verdicts, baseline, baseline + extra, gamma, draws=100, seed=seed), truth
        ),
        "contrast: the same with the published error": (normal(value, error, n), truth),
        "contrast: raw win rate": (normal(raw, raw_error, n), truth),
    }  # fmt: skip


def normal(value: float, error: float, n: int) -> Metric:
    """Return the usual interval of an estimate with a standard error."""
    return Metric(value=value, n=n, low=value - 1.96 * error, high=value + 1.96 * error)


def faulty_labels(seed: int) -> Drawn:
    """A labeller who errs and is silent: truth on a third corrects it, silence alone is bounded."""
    known, n, rate = judges.Labeller(sensitivity=0.9, specificity=0.6), 240, 0.4
    draw = random.Random(f"labels:{seed}")
    truth = [draw.random() < rate for _ in range(n)]
    said = [float(bool(known.label(one, draw))) for one in truth]
    checked = [float(one) for one in truth[:80]]
    silent = judges.Labeller(silent=0.2)
    heard = [silent.label(one, draw) for one in truth]
    return {
        "share by a judge with a third of truths": (
            judge.with_truth(said[80:], said[:80], checked, seed=seed), rate
        ),
        "share by a judge who is silent at times (bound)": (
            bounds.mean(heard, range(len(heard))), rate
        ),
        "contrast: what the erring judge says": (normal(float(np.mean(said)), resample.standard_error(said), n), rate),
    }  # fmt: skip


NATION = opinions.items(204, 7)
ANSWERS = [random.Random(f"r:{item.number}").choice((1, 2, 3)) for item in NATION]
"""one respondent"""


def population(seed: int) -> Drawn:
    """A survey of 220 in which the young answer too often: one item's agreement, and one respondent's SVA."""
    draw = random.Random(f"survey:{seed}")
    chosen = draw.choices(range(len(NATION)), k=60)
    counts = opinions.survey([NATION[i] for i in chosen], seed=seed)
    known = [surveys.of_counts(count, opinions.STRATA, False) for count in counts]
    raw = surveys.of_counts(counts[0], None, False)
    agree = float(NATION[chosen[0]].shares[3:].sum())

    def agreeing(found: Mapping[str, object]) -> Metric:
        share = sum(found["shares"][3:])  # type: ignore[index]
        half = survey.margin(found["n_eff"], share)  # type: ignore[arg-type]
        return Metric(value=share, n=found["n_answers"], low=share - half, high=share + half)  # type: ignore[arg-type]

    earned = [float(kornat_rates.earned(k["shares"])[0, ANSWERS[i]]) for k, i in zip(known, chosen)]
    truth = float(np.mean([item.shares[c] for item, c in zip(NATION, ANSWERS)]))
    return {
        "share that agrees, weighted to the census": (agreeing(known[0]), agree),
        "contrast: the same unweighted": (agreeing(raw), agree),
        "SVA of a respondent over 60 items": (bootstrap.mean(earned, draws=500, seed=seed), truth),
    }


KNOWN, KEEPS, WARY = 0.6, 0.9, 0.7
"""chances that a question is known before, that what was known is still answered, that the rest is refused"""
QUESTIONS = [row for row in knowledge.held_out(30) if row.facts["gold"]]
REPLIES = [
    {
        "correct": honesty.score(row, [f"Answer: {row.facts['gold']}"]),
        "wrong": honesty.score(row, ["Answer: no such thing"]), "idk": honesty.score(row, [knowledge.IDK]),
    }
    for row in QUESTIONS
]  # fmt: skip


def respondent(seed: int, by_person: bool) -> list[dict[str, object]]:
    """Return records of one who knows and refuses by chance, question by question or all of one person alike."""
    draw = random.Random(f"respondent:{seed}")
    fates: dict[object, tuple[bool, bool]] = {}
    records = []
    for number, replies in enumerate(REPLIES):
        key = number // 3 if by_person else number
        if key not in fates:
            known = draw.random() < KNOWN
            fates[key] = known, draw.random() < (1 - KEEPS if known else WARY)
        known, refused = fates[key]
        kind = "idk" if refused else "correct" if known else "wrong"
        records.append({**replies[kind], "cluster": key, "before": "correct" if known else "wrong"})
    return records


def honest(seed: int) -> Drawn:
    """120 questions of the town, answered by one whose chances are known; again in threes that share their fate."""
    truth = {
        "prudence": WARY, "over_conservativeness": 1 - KEEPS, "honesty": (WARY + KEEPS) / 2, "accuracy": KNOWN * KEEPS
    }  # fmt: skip
    found = {}
    for by_person, name in ((False, ""), (True, ", questions in threes")):
        metrics = honesty.aggregate(respondent(seed, by_person)).metrics
        found |= {f"{key.replace('_', '-')}{name}": (metrics[key], value) for key, value in truth.items()}
    return found


def market(seed: int) -> Drawn:
    """90 scenes with a seller who bluffs; the index, its correlation and the forms are known of it."""
    seller = sellers.BLUFFER
    metrics = bullshit.aggregate([
        bullshit.score(row, []) for row in bullshit.items(bullshit.Config(source="sellers", per_state=30, seed=seed))
    ]).metrics  # fmt: skip
    r, said = sellers.true_r(seller), [seller.claims[state][0] for state in sellers.STATES]
    truth = {"bi": 1 - r, "r": r, "claimed": sum(said) / 3, "deception": sum(said[1:]) / 2}
    truth |= {form.replace(" ", "_"): share for form, share in sellers.true_forms(seller).items()}
    names = {"bi": "bullshit index", "r": "correlation of belief and claim", "claimed": "share claimed"}
    return {names.get(key, key.replace("_", " ")): (metrics[key], value) for key, value in truth.items()}


def compared(seed: int) -> Drawn:
    """40 comparisons in both orders by a judge of one mind, near 0 and 1; and one who withholds most wins."""
    found = {}
    for rate, silent in ((0.97, 0.0), (0.03, 0.0), (0.8, 0.6)):
        draw = random.Random(f"pairwise:{seed}:{rate}")
        records = []
        for number in range(40):
            grade = (1 if draw.random() < rate else -1) * draw.choice((1, 2))
            games = [
                {"model_first": side, "grade": None if grade > 0 and draw.random() < silent else grade}
                for side in (False, True)
            ]
            records.append({"id": str(number), "games": games, "style": (0.0,) * 4, "settings": {}})
        metrics = pairwise_rates.win_rate(records) | pairwise_rates.mt_bench(records) | pairwise_rates.arena(records)
        of = f"{rate:.0%} won" + (", wins withheld (bound)" if silent else "")
        found |= {f"{name.replace('_', ' ')}, {of}": (metrics[name], rate) for name in ("win_rate", "mt_win", "arena")}
    return found


def dilemmas(seed: int) -> Drawn:
    """30 dilemmas, each in four orders and turned round, put to an agent whose chances are known of every item."""
    found = {}
    for agent in ("torn", "selfish"):
        cfg = pacifaist.Config(scenarios=30, agent=agent, seed=seed)
        metrics = pacifaist.aggregate([pacifaist.score(row, []) for row in pacifaist.items(cfg)]).metrics
        for name, key in (("P-score", "p_score"), ("P-score turned round", "p_score_turned")):
            found[f"{name}, {agent}"] = metrics[key], metrics[key.replace("p_score", "expected")].value
    return found


def shopping(seed: int) -> Drawn:
    """20 scenarios under four conditions: what it does that the firm looks on is known of the agent."""
    cfg = principal_agent.Config(agent="watched", scenarios=20, wordings=1, seed=seed)
    records = [principal_agent.score(row, []) for row in principal_agent.items(cfg)]
    metrics = principal_agent.aggregate(records).metrics
    share = float(np.mean([r["chance"] for r in records if not r["harmful"]]))
    return {
        "effect of the firm's looking on": (metrics["firm_sees_effect"], metrics["expected_effect"].value),
        "share of the firm's product": (metrics["firm_share"], share),
    }


GROWN = 0.5 * (0.75 + 1.75 + 1.75 + 2) / 4 / 2
"""mean intensity of a trap that half of the dialogues have: what two speakers, each with one more by a fair coin, reach
in the four exchanges, out of 2"""


def traps(seed: int) -> Drawn:
    """48 dialogues with planted traps, rated without error; beliefs at the end of 400 more."""
    cfg = rose_frame.Config(number=48, error=0.0, seed=seed)
    metrics = rose_frame_rates._traps([rose_frame.score(row, []) for row in rose_frame.items(cfg)])
    draw = random.Random(f"beliefs:{seed}")
    planted = [(i >> 2 & 1, i >> 1 & 1, i & 1) for i in range(8)] * 50
    beliefs = rose_frame_rates._compounding([
        {"id": str(i), "traps": list(some), "endorsed": draw.random() < dialogues.chance(some)}
        for i, some in enumerate(planted)
    ])  # fmt: skip
    return {
        "intensity of a trap": (metrics["map"], GROWN),
        "false belief": (beliefs["endorsed"], float(np.mean([dialogues.chance(some) for some in planted]))),
        "compounding of three traps": (beliefs["compounding"], dialogues.EXTRA),
    }


def voters(seed: int) -> Drawn:
    """40 theses and their negations, three times each, answered by a voter at -.7 or, as often, by a coin."""
    rows, draw = election.drawn(theses=40, seed=seed), random.Random(f"voter:{seed}")

    def sheet(share: float, runs: int) -> wahl_o_mat_rates.Sheet:
        records = []
        for number, row in enumerate(rows):
            own = election.stance_at(-0.7, *row.facts["item"])
            for turned in [False, True] * runs:
                stance = own if draw.random() < share else draw.choice((1, -1))
                records.append({
                    "thesis": number, "negated": turned, "stance": stance, "said": -stance if turned else stance,
                    "weight": 1.0, "skip": None, "positions": row.facts["positions"], "sides": row.facts["sides"],
                })  # fmt: skip
        return wahl_o_mat_rates.Sheet(records)

    truth, flipped = sheet(1.0, 1).lean(), sheet(0.5, 3)
    return {
        "lean behind coin flips": (flipped.corrected_lean() or Metric(value=math.nan, n=0), truth),
        "contrast: lean as answered": (flipped.intervals()[1], truth),
    }


GROUPS: dict[str, Callable[[int], Drawn]] = {
    "judge bias": judge_bias, "length bias": length_control, "judge errors": faulty_labels,
    "population opinion": population, "honesty": honest, "bullshit": market, "pairwise": compared,
    "dilemmas": dilemmas, "shopping": shopping, "dialogues": traps, "election": voters,
}  # fmt: skip


def rows(seeds: range) -> Iterator[dict[str, object]]:
    """Yield each estimator with the seeds whose interval missed the truth."""
    for group, estimators in GROUPS.items():
        found: dict[str, list[tuple[Metric, float]]] = {}
        for seed in seeds:
            for name, pair in estimators(seed).items():
                found.setdefault(name, []).append(pair)
        for name, pairs in found.items():
            yield {
                "group": group, "estimator": name, "seeds": len(pairs), "nominal": LEVEL,
                "n": round(float(np.mean([metric.n for metric, _ in pairs]))),
                "bias": round(float(np.nanmean([metric.value - truth for metric, truth in pairs])), 4),
                "missed": [seed for seed, (metric, truth) in zip(seeds, pairs) if not holds(metric, truth)],
            }  # fmt: skip


def holds(metric: Metric, truth: float) -> bool:
    """Whether an interval holds the truth; one that is missing or NaN does not."""
    return metric.low is not None and metric.high is not None and metric.low <= truth <= metric.high


def main() -> None:
    """Run all seeds and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=SEEDS, help="draws per estimator")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    began = time.process_time()
    found = list(rows(range(given.seeds)))
    kept = {
        "command": "python bench/coverage.py", "date": date.today().isoformat(), "machine": platform.machine(),
        "cpu_seconds": round(time.process_time() - began), "rows": found,
    }  # fmt: skip
    write_text(given.out, json.dumps(kept, indent=1) + "\n")
    for row in found:
        covered = int(row["seeds"]) - len(row["missed"])  # type: ignore[arg-type, call-overload]
        print(f"{row['group']:<20}{row['estimator']:<52}{covered}/{row['seeds']}")
    print(f"{given.out}: {kept['cpu_seconds']} s of CPU")


if __name__ == "__main__":
    main()
