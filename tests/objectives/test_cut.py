"""CUT against the brief's vectors, an independent formula, the gradient of the unlikelihood and its limits."""

import dataclasses
import math

import exactness
import pytest
import torch
from exactness import Completion, Prompt, Scored

from alignlab.core.reduce import totals
from alignlab.objectives import cut

TOLD = (0.82, 0.94, 0.76, 0.99, 0.02, 0.89)
PLAIN = (0.03, 0.94, 0.93, 0.99, 0.03, 0.85)
"""probability of the six tokens of an answer with and without its judgement"""


def with_contexts(batch):
    """Give the judgement to the prompts of disliked completions."""
    prompts = len(batch.prompt_ids)
    there = torch.zeros(prompts, dtype=torch.bool).index_put((batch.group[~batch.label],), torch.tensor(True))
    ids = torch.ones(prompts, 3, dtype=torch.long)
    return dataclasses.replace(batch, contexts={"judgement": (ids, there[:, None].expand(prompts, 3))})


def loss(batch, cfg):
    return cut.loss(with_contexts(batch), cfg)


def answer(plain=PLAIN, told=TOLD, good=False):
    logs = {
        name: Scored(logp=[math.log(p) for p in values])
        for name, values in (("policy", plain), ("policy/judgement", told))
    }
    return Prompt([Completion(views=logs, label=good)])


def values(*prompts, loss=loss, **settings):
    ((batch, _),) = exactness.lay_out(prompts, exactness.Layout(), ())
    terms = loss(batch, cut.Config(**settings))
    sums = totals([terms])
    return {t.name: sums[t.name][0] / sums[t.name][1] if sums[t.name][1] else None for t in terms}


def check_vectors(loss):
    for weight, gamma, expected in ((0.5, 1.0, 0.637677), (0.5, 0.0, 0.638134), (1.0, 0.0, 0.640672)):
        found = values(answer(), loss=loss, threshold=1.1, weight=weight, gamma=gamma)
        assert found["unlikelihood"] == pytest.approx(expected, abs=5e-7)
        assert found["likelihood"] == pytest.approx(0.762228, abs=5e-7)
    assert values(answer(), loss=loss, threshold=1.0, gamma=0.0)["unlikelihood"] == pytest.approx(0.929772, abs=5e-7)
    assert values(answer(), loss=loss, threshold=1e-9, gamma=0.0)["unlikelihood"] == pytest.approx(2.005980, abs=5e-7)
    assert values(answer(), loss=loss, threshold=1e9, gamma=0.0)["unlikelihood"] == pytest.approx(1.220022, abs=5e-7)


def test_vectors():
    check_vectors(loss)


def other_way_round(batch, cfg):
    views = {"policy": batch.views["policy/judgement"], "policy/judgement": batch.views["policy"]}
    return loss(dataclasses.replace(batch, views=views), cfg)


@pytest.mark.parametrize("broken", [exactness.negated(loss), other_way_round])
def test_the_vector_check_sees_broken_losses(broken):
    with pytest.raises(AssertionError):
        check_vectors(broken)


def total(*prompts, **settings):
    ((batch, _),) = exactness.lay_out(prompts, exactness.Layout(), ("policy", "policy/judgement"))
    return exactness.evaluate(loss, batch, cut.Config(**settings))[0]


def test_the_two_readings_of_the_whole():
    assert total(answer(), weight=0.5) == pytest.approx(1.399905, abs=5e-7)
    assert total(answer(), weight=1.0, form="release") == pytest.approx(0.701450, abs=5e-7)


@pytest.mark.parametrize(
    ("threshold", "marked"), [(1.0, [1, 0, 0, 0, 0, 1]), (1.1, [1, 0, 0, 0, 0, 0]), (1.2, [1, 0, 0, 0, 0, 0])]
)
def test_blamed_tokens(threshold, marked):
    plain, told = (torch.tensor([p], dtype=torch.float64).log() for p in (PLAIN, TOLD))
    assert cut.blamed(plain, told, threshold)[0].tolist() == [bool(m) for m in marked]
    ((batch, _),) = exactness.lay_out([answer()], exactness.Layout(), ())
    first, _ = loss(batch, cut.Config(threshold=threshold))
    assert first.logs["blamed"].item() == pytest.approx(sum(marked) / 6)


def test_gradient_of_the_unlikelihood_on_logits():
    logits = torch.tensor([[0.3, 0.5, 0.2]], dtype=torch.float64).log().requires_grad_()
    cut.unlikelihood(logits.log_softmax(-1)[:, :1]).sum().backward()
    assert logits.grad[0].tolist() == pytest.approx([0.3, -0.214286, -0.085714], abs=5e-7)


def test_certain_and_impossible_tokens_stay_finite():
    logp = torch.tensor([[0.0, -1e-9, -1e-3, -800.0]], dtype=torch.float64, requires_grad=True)
    found = cut.unlikelihood(logp)
    found.sum().backward()
    assert found[0].tolist() == pytest.approx([13.8155, 13.8155, 6.9083, 0.0], abs=1e-3)
    assert bool(torch.isfinite(logp.grad).all())


def formula(prompts, cfg):
    one, two, tokens_judged, tokens = [], [], 0, 0
    for c in (c for prompt in prompts for c in prompt.completions):
        plain, told = c.views["policy"].logp, c.views["policy/judgement"].logp
        n = len(plain)
        per_answer = 1 if cfg.form == "release" else n
        two.append(-math.fsum(plain if c.label else told) / per_answer)
        tokens += n
        if not c.label:
            gamma = 0 if cfg.form == "release" else cfg.gamma
            lost = [
                -cfg.weight * detached[k] ** gamma * math.log(1 - math.exp(p))
                if math.exp(q) > cfg.threshold * math.exp(p)
                else -p
                for detached in [c.weights]
                for k, (p, q) in enumerate(zip(plain, told))
            ]
            one.append(math.fsum(lost) / per_answer)
            tokens_judged += n
    if cfg.form == "release":
        return 0.5 * (math.fsum(one) / tokens_judged + math.fsum(two) / tokens)
    return math.fsum(one) / len(one) + math.fsum(two) / len(two)


def judged(seed):
    step = exactness.prompts(
        seed, completions=(1, 1), tokens=(2, 8), views=("policy", "policy/judgement"), pairs=False, labels=True, count=9
    )
    step[0].completions[0].label, step[1].completions[0].label = True, False
    for prompt in step:
        for c in prompt.completions:  # the factor carries no gradient: the formula keeps it as it is
            c.weights = [math.exp(q) for q in c.views["policy/judgement"].logp]
    return step


@pytest.mark.parametrize("form", ["paper", "release"])
def test_exactness(form):
    cfg = cut.Config(threshold=1.2, weight=0.7, gamma=0.5, form=form)
    exactness.check(loss, cfg, formula, make=judged, trained=("policy", "policy/judgement"))


def test_limits():
    same = answer(told=PLAIN)
    assert values(same)["unlikelihood"] == pytest.approx(-sum(map(math.log, PLAIN)) / 6), "nothing is blamed"
    dropped = values(answer(), weight=0.0)["unlikelihood"]
    assert dropped == pytest.approx(-sum(map(math.log, PLAIN[1:])) / 6)


def test_good_answers_alone_are_plain_likelihood():
    found = values(answer(good=True))
    assert found == {"unlikelihood": None, "likelihood": pytest.approx(-sum(map(math.log, PLAIN)) / 6)}
    ((batch, _),) = exactness.lay_out([answer(good=True)], exactness.Layout(), ())
    bare = dataclasses.replace(batch, views={"policy": batch.views["policy"]})
    for term, wanted in zip(cut.loss(bare, cut.Config()), loss(batch, cut.Config())):
        assert torch.equal(term.num, wanted.num), "no context and no view of it is needed"


def test_settings():
    for flag, bad in (("threshold", 0.0), ("weight", -1.0), ("gamma", -1.0)):
        with pytest.raises(ValueError, match=f"--{flag}"):
            cut.Config(**{flag: bad})
