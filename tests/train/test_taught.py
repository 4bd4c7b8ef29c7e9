"""Distillation from annotated examples: the step's gradient does not depend on its cut, and is the one by hand."""

import pytest
import torch
import train_runs as runs

from alignlab.engine.teachers import annotated
from alignlab.objectives import adpa, dckd

NAMES = ("teacher", "teacher_ref")


def taught(names, k, dtype=torch.float64):
    teachers = {name: runs.small(seed + 1, dtype=dtype) for seed, name in enumerate(names)}
    with runs.tiny_models.Float64():
        return annotated(runs.some(12, pairs=True), teachers, runs.small(dtype=dtype), k)


CASES = {
    "dckd": (dckd.loss, dckd.Config(chosen_weight=0.5, rejected_weight=0.7), NAMES[:1]),
    "adpa": (adpa.loss, adpa.Config(), NAMES),
}


@pytest.mark.parametrize("name", CASES)
def test_a_step_does_not_depend_on_cut_or_order(tmp_path, name):
    loss, cfg, names = CASES[name]
    examples = taught(names, 5)
    whole = runs.gradients(runs.small(dtype=torch.float64), examples, loss, cfg, tmp_path, per_device=12)
    for per_device, given in ((1, examples), (4, examples[::-1])):
        found = runs.gradients(runs.small(dtype=torch.float64), given, loss, cfg, tmp_path, per_device=per_device)
        runs.assert_close(found, whole, 1e-9)


def log_probs(module, prompt, completion):
    ids = torch.tensor([prompt + completion])
    return module(input_ids=ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)


@pytest.mark.parametrize("name", CASES)
def test_with_the_whole_vocabulary_it_is_the_gradient_by_hand(tmp_path, name):
    loss, cfg, names = CASES[name]
    examples = taught(names, 10**6)
    found = runs.gradients(runs.small(dtype=torch.float64), examples, loss, cfg, tmp_path)
    model = runs.small(dtype=torch.float64)
    teachers = [runs.small(seed + 1, dtype=torch.float64) for seed in range(len(names))]
    sums = {"nll": 0.0, "chosen": 0.0, "rejected": 0.0, "advantage": 0.0, "w": 0.0, "l": 0.0}
    with runs.tiny_models.Float64():
        for example in examples:
            weight = torch.tensor(example.pairs[0][4]).item()
            for side, completion in zip(("w", "l"), example.completions):
                mine = log_probs(model.module, example.prompt_ids, completion)
                with torch.no_grad():
                    theirs = [log_probs(t.module, example.prompt_ids, completion) for t in teachers]
                sums[side] += weight * len(completion)
                kl = (theirs[0].exp() * (theirs[0] - mine)).sum()
                if side == "w":
                    sums["nll"] -= weight * mine[range(len(completion)), completion].sum()
                    sums["chosen"] += weight * kl
                else:
                    sums["rejected"] += weight * kl
                    sums["advantage"] += weight * (mine.exp() * (theirs[0] - theirs[-1])).sum()
        total = sums["nll"] / sums["w"]
        if name == "dckd":
            total = total + 0.5 * sums["chosen"] / sums["w"] + 0.7 * sums["rejected"] / sums["l"]
        else:
            total = total - 1.6 * sums["advantage"] / sums["l"]
        total.backward()
    runs.assert_close(found, {key: p.grad for key, p in model.module.named_parameters()}, 1e-6)
    assert found["record"]["loss"] == pytest.approx(total.item(), rel=1e-6)


def test_without_teachers_the_loss_says_what_to_give(tmp_path):
    with pytest.raises(ValueError, match="--teacher_model"):
        runs.gradients(runs.small(), runs.some(12, pairs=True), dckd.loss, dckd.Config(), tmp_path)
