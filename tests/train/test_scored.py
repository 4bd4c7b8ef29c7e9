"""What scores do on their way from a row through `encode`, `collate` and the loop: the gradient, worked out by hand."""

import dataclasses
import random

import pytest
import torch
import train_runs as runs

from alignlab.core.types import Row
from alignlab.engine import encode as encoder
from alignlab.engine import examples as collator
from alignlab.engine.encode import encode
from alignlab.objectives import poft, ranked, weak_to_strong
from alignlab.train import batches

WORDS = ("the", "mill", "at", "old", "harbour", "leaves", "noon", "baker", "likes", "tea", "clock", "is", "blue", "red")


def rows(name):
    """Rows of random words; scores of their completions in no order, two alike among them."""
    draw = random.Random(name)

    def text(most):
        return " ".join(draw.choice(WORDS) for _ in range(draw.randint(1, most)))

    found = []
    for k in range(7):
        count = {"ranked": 2 + k % 3, "poft": 1, "weak_to_strong": 3}[name]
        given = {"prompt": text(6), "completions": tuple(" " + text(5) for _ in range(count))}
        numbers = [draw.choice((-1.0, 0.5, 2.0)) for _ in range(count)]
        if name == "ranked":
            given["scores"] = tuple(numbers)
        elif name == "poft":
            given["facts"] = {"scores": {"aligned": [draw.uniform(-9.0, -2.0)], "aligned.other": [numbers[0] - 5]}}
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


CASES = {
    "ranked": (ranked, ranked.Config(weight=0.7, length_penalty=0.8, margin=0.2), by_ranked),
    "poft": (poft, poft.Config(temperature=1.3, margin=0.2), by_poft),
    "weak_to_strong": (weak_to_strong, weak_to_strong.Config(form="xent"), by_weak_to_strong),
}


def check(name, folder):
    module, cfg, by_hand = CASES[name]
    given, model = rows(name), runs.small(dtype=torch.float64)
    examples = [encoder.encode(row, model.tokenizer) for row in given]
    options = {part: getattr(module, part) for part in ("stats", "settle") if hasattr(module, part)}
    found = runs.gradients(model, examples, module.loss, cfg, folder, per_device=4, **options)
    alone, terms = runs.small(dtype=torch.float64), []
    for row, example in zip(given, examples):
        logps = []
        for completion in example.completions:
            ids = torch.tensor([example.prompt_ids + completion])
            logp = alone.module(input_ids=ids).logits[0, len(example.prompt_ids) - 1 : -1].log_softmax(-1)
            logps.append(logp[range(len(completion)), completion])
        terms.append(by_hand(logps, row, cfg))
    total = sum(sum(num for num, _ in column) / sum(den for _, den in column) for column in zip(*terms))
    total.backward()
    # scores are held in float32
    runs.assert_close(found, {key: p.grad for key, p in alone.module.named_parameters()}, 1e-6)
    assert found["record"]["loss"] == pytest.approx(total.item(), rel=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_the_gradient_is_the_one_worked_out_row_by_row(tmp_path, name):
    check(name, tmp_path)


def turned(scores):
    """The scores of one prompt the other way round: negated, or those of a distribution exchanged."""
    return {
        n: tuple(reversed(column)) if n == "weak" else tuple(-value for value in column) for n, column in scores.items()
    }


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("place", ["encode", "collate"])
def test_scores_that_are_turned_round_on_the_way_are_noticed(tmp_path, monkeypatch, name, place):
    def worse(example):
        return dataclasses.replace(example, scores=turned(example.scores))

    if place == "encode":
        monkeypatch.setattr(encoder, "encode", lambda *given: worse(encode(*given)))
    else:
        monkeypatch.setattr(batches, "collate", lambda given, pad: collator.collate([worse(e) for e in given], pad))
    with pytest.raises(AssertionError, match="relative difference"):
        check(name, tmp_path)
