"""The policy under other prompts in one forward pass, and CUT's step from rows to gradients."""

import dataclasses
import random

import pytest
import torch
import train_runs as runs

from alignlab.engine.encode import collate
from alignlab.objectives import cut
from alignlab.train import contexts


def judged(n=12, seed=4):
    """Random examples, two in three of them with a judgement."""
    draw = random.Random(seed)
    found = []
    for i, example in enumerate(runs.some(n, pairs=False, seed=seed)):
        told = [draw.randrange(6, 300) for _ in range(draw.randint(1, 14))]
        found.append(dataclasses.replace(example, contexts={"judgement": told} if i % 3 else {}))
    return found


def test_views_under_contexts_are_those_of_the_contexts_as_prompts():
    examples, model = judged(7), runs.small()
    batch = collate(examples, 0)
    asked, picked = contexts.widened(batch, ["judgement", "absent"])
    assert [len(rows) for rows in picked] == [4, 0]
    plain, told, absent = contexts.split(model.score(asked).logp, batch, picked)
    torch.testing.assert_close(plain, model.score(batch).logp)
    assert (absent == 0).all()
    for n, example in enumerate(examples):
        if "judgement" not in example.contexts:
            assert (told[n] == 0).all()
            continue
        alone = collate([dataclasses.replace(example, prompt_ids=example.contexts["judgement"], contexts={})], 0)
        torch.testing.assert_close(told[n][batch.mask[n]], model.score(alone).logp[0][alone.mask[0]])


OPTIONS = {"needs": cut.CARD.needs}


@pytest.mark.parametrize("form", ["paper", "release"])
def test_cuts_step_does_not_depend_on_cut_or_order(tmp_path, form):
    cfg = cut.Config(form=form, gamma=0.5)
    kwargs = dict(OPTIONS)
    dtype = torch.float64
    whole = runs.gradients(runs.small(dtype=dtype), judged(), cut.loss, cfg, tmp_path, per_device=12, **kwargs)
    assert 0 < whole["record"]["blamed"] < 1
    for per_device, examples in ((1, judged()), (4, judged()[::-1])):
        found = runs.gradients(
            runs.small(dtype=dtype), examples, cut.loss, cfg, tmp_path, per_device=per_device, **kwargs
        )
        runs.assert_close(found, whole, 1e-9)


def token_log_probs(module, prompt, completion):
    ids = torch.tensor([prompt + completion])
    logp = module(input_ids=ids).logits[0, :-1].log_softmax(-1)
    start = len(prompt) - 1
    return logp[range(start, logp.shape[0]), ids[0, start + 1 :]]


def test_cuts_gradient_is_the_one_worked_out_row_by_row(tmp_path):
    examples, cfg = judged(), cut.Config(weight=0.5, gamma=0.5)
    found = runs.gradients(runs.small(dtype=torch.float64), examples, cut.loss, cfg, tmp_path, **OPTIONS)
    model = runs.small(dtype=torch.float64)
    with runs.tiny_models.Float64():
        by_hand(model, examples).backward()
    runs.assert_close(found, {name: p.grad for name, p in model.module.named_parameters()}, 1e-9)


def by_hand(model, examples):
    """CUT of the examples with weight 0.5 and gamma 0.5; no code in common with module or loop."""
    first, second = [], []
    for example in examples:
        plain = token_log_probs(model.module, example.prompt_ids, example.completions[0])
        if "judgement" not in example.contexts:
            second.append(-plain.mean())
            continue
        told = token_log_probs(model.module, example.contexts["judgement"], example.completions[0])
        second.append(-told.mean())
        marked = told.detach().exp() > 1.1 * plain.detach().exp()
        pushed = -0.5 * told.detach().exp() ** 0.5 * torch.log(1 - plain.exp())
        first.append(torch.where(marked, pushed, -plain).mean())
    return sum(first) / len(first) + sum(second) / len(second)


def test_a_step_without_judgements_needs_none(tmp_path):
    bare = [dataclasses.replace(e, contexts={}) for e in judged()]
    found = runs.gradients(runs.small(), bare, cut.loss, cut.Config(), tmp_path, **OPTIONS)
    assert found["record"]["omitted_terms"] == 1
    assert "blamed" not in found["record"]


def test_without_its_needs_the_loop_says_which_views_it_makes(tmp_path):
    examples = [dataclasses.replace(e, contexts={"other": [7]}) for e in runs.some(12, pairs=False)]

    def loss(batch, cfg):
        return batch.views["policy/missing"]

    with pytest.raises((ValueError, KeyError), match="policy/missing"):
        runs.gradients(runs.small(), examples, loss, cut.Config(), tmp_path)
