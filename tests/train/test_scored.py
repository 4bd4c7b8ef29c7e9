"""What scores do on their way from a row through `encode`, `collate` and the loop: the gradient, worked out by hand."""

import dataclasses
import functools
import random

import pytest
import torch
import train_runs as runs

from alignlab.core.types import Row
from alignlab.engine import examples as collator
from alignlab.engine.encode import encode
from alignlab.objectives import poft, ranked, weak_to_strong
from alignlab.rewards import outcome, process
from alignlab.train import batches

WORDS = ("the", "mill", "at", "old", "harbour", "leaves", "noon", "baker", "likes", "tea", "clock", "is", "blue", "red")


def rows(name):
    """Rows of random words; scores of their completions in no order, two alike among them."""
    draw = random.Random(name)

    def text(most):
        return " ".join(draw.choice(WORDS) for _ in range(draw.randint(1, most)))

    found = []
    for k in range(7):
        count = {"poft": 1, "weak_to_strong": 3}.get(name, 2 + k % 3)
        given = {"prompt": text(6), "completions": tuple(" " + text(5) for _ in range(count))}
        numbers = [draw.choice((-1.0, 0.5, 2.0)) for _ in range(count)]
        if name == "ranked":
            given["scores"] = tuple(numbers)
        elif name == "poft":
            given["facts"] = {"scores": {"aligned": [draw.uniform(-9.0, -2.0)], "aligned.other": [numbers[0] - 5]}}
        elif name == "outcome":
            given["scores"] = tuple(draw.random() for _ in range(count))
        elif name == "process":
            given["facts"] = {"labels": [number > 0 for number in numbers], "correct": k % 2 == 0}
        else:
            weights = [draw.random() for _ in range(count)]
            given["facts"] = {"scores": {"weak": [w / sum(weights) for w in weights]}}
        found.append(Row(**given))
    return found


def by_ranked(logps, row, cfg):
    """(ranking, likelihood): numerators and denominators of the step's two means."""
    s = [logp.sum() / len(logp) ** cfg.length_penalty for logp in logps]
    order = [(i, j) for i in range(len(s)) for j in range(len(s)) if row.scores[i] > row.scores[j]]
    hinge = sum((torch.relu(s[j] - s[i] + cfg.margin) for i, j in order), torch.zeros(()))
    best = [logp for logp, score in zip(logps, row.scores) if score == max(row.scores)]
    nll = sum(-logp.sum() / len(logp) for logp in best) / len(best)
    return (cfg.weight * hinge, float(bool(order))), (nll, 1.0)


def by_poft(logps, row, cfg):
    aligned = sum(column[0] for column in row.facts["scores"].values()) / 2
    r = logps[0][:-1].mean()  # the end of turn is not counted
    return ((torch.log1p(torch.exp(-(cfg.temperature * (r - aligned) + cfg.margin))), 1.0),)


def by_weak_to_strong(logps, row, cfg):
    p = torch.stack([logp.sum() for logp in logps]).log_softmax(0)
    return ((-sum(q * x for q, x in zip(row.facts["scores"]["weak"], p)), 1.0),)


def by_outcome(values, row, cfg):
    """Cross-entropy over all completions of the step, right ones weighing more."""
    lost = [
        cfg.right_weight * z * torch.log1p(torch.exp(-r)) + (1 - z) * torch.log1p(torch.exp(r))
        for r, z in zip(values, row.scores)
    ]
    return ((sum(lost), sum(cfg.right_weight * z + 1 - z for z in row.scores)),)


def by_process(values, row, cfg):
    last = len(values) - 1
    wanted = [r + cfg.gamma ** (last - t) * row.facts["correct"] for t, r in enumerate(row.facts["labels"])]
    return ((sum((p - v) ** 2 for p, v in zip(values, wanted)) / len(values), 1.0),)


CASES = {
    "ranked": (ranked, ranked.Config(weight=0.7, length_penalty=0.8, margin=0.2), by_ranked),
    "poft": (poft, poft.Config(temperature=1.3, margin=0.2), by_poft),
    "weak_to_strong": (weak_to_strong, weak_to_strong.Config(form="xent"), by_weak_to_strong),
    "outcome": (outcome, outcome.Config(right_weight=1.5), by_outcome),
    "process": (process, process.Config(gamma=0.8), by_process),
}


def said(module, prompt, completion, reward):
    """Log-probabilities of a completion's tokens, or what a reward model gives to it, in a forward pass of its own."""
    logits = module(input_ids=torch.tensor([prompt + completion])).logits
    if reward:
        return logits[0, 0]
    return logits[0, len(prompt) - 1 : -1].log_softmax(-1)[range(len(completion)), completion]


def check(name, folder, changed=lambda example: example):
    module, cfg, by_hand = CASES[name]
    reward = "value" in module.CARD.needs
    given, model = rows(name), runs.small(dtype=torch.float64, reward=reward)
    told = module.annotate(given, cfg) if hasattr(module, "annotate") else given
    examples = [changed(getattr(module, "encode", encode)(row, model.tokenizer)) for row in told]
    options = {part: getattr(module, part) for part in ("stats", "settle") if hasattr(module, part)}
    found = runs.gradients(model, examples, module.loss, cfg, folder, per_device=4, **options)
    alone, terms = runs.small(dtype=torch.float64, reward=reward), []
    for row, example in zip(given, examples):
        numbers = [said(alone.module, example.prompt_ids, ids, reward) for ids in example.completions]
        terms.append(by_hand(numbers, row, cfg))
    total = sum(sum(num for num, _ in column) / sum(den for _, den in column) for column in zip(*terms))
    total.backward()
    # scores are held in float32
    runs.assert_close(found, {key: p.grad for key, p in alone.module.named_parameters()}, 1e-6)
    assert found["record"]["loss"] == pytest.approx(total.item(), rel=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_the_gradient_is_the_one_worked_out_row_by_row(tmp_path, name):
    check(name, tmp_path)


def turned(name, example):
    """The example with its scores the other way round: a distribution exchanged, a share's rest, or the negative."""
    ways = {
        "weak_to_strong": lambda column: tuple(reversed(column)),
        "outcome": lambda column: tuple(1 - value for value in column),
    }
    way = ways.get(name, lambda column: tuple(-value for value in column))
    return dataclasses.replace(example, scores={key: way(column) for key, column in example.scores.items()})


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("place", ["encode", "collate"])
def test_scores_that_are_turned_round_on_the_way_are_noticed(tmp_path, monkeypatch, name, place):
    if place == "collate":
        turn = functools.partial(turned, name)
        monkeypatch.setattr(batches, "collate", lambda given, pad: collator.collate(list(map(turn, given)), pad))
    with pytest.raises(AssertionError, match="relative difference"):
        check(name, tmp_path, *([functools.partial(turned, name)] if place == "encode" else []))
