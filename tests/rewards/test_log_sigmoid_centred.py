import numpy as np
import pytest
import torch

from alignlab.core.types import Row
from alignlab.rewards.log_sigmoid_centred import CARD, Config, reference, score, transform
from alignlab.world import rows as world_rows

DOUBLE = torch.float64
BASE = torch.tensor([0.0, 1, 2, -1, 0.5], dtype=DOUBLE)


def u_of(*pairs, combine="all", refs=(0.0, 0.0)):
    scores = torch.tensor(pairs, dtype=DOUBLE)
    return transform(scores, torch.tensor(refs, dtype=DOUBLE).expand_as(scores), Config(combine=combine))


@pytest.mark.parametrize(
    ("z", "u", "slope"),
    [(-4, -4.018150, 0.982014), (-1.5, -1.701413, 0.817574), (0, -0.693147, 0.5), (1.5, -0.201413, 0.182426),
     (4, -0.018150, 0.017986)],
)  # fmt: skip
def test_values_and_slopes(z, u, slope):
    r = torch.tensor([float(z)], dtype=DOUBLE, requires_grad=True)
    found = transform(r, torch.zeros(1, dtype=DOUBLE), Config())
    assert found.item() == pytest.approx(u, abs=1e-6)
    found.backward()
    assert r.grad.item() == pytest.approx(slope, abs=1e-6)


def test_references():
    assert reference(BASE, Config()).item() == pytest.approx(1.4)
    assert reference(BASE, Config(form="normal")).item() == pytest.approx(1.658778, abs=1e-6)
    assert reference(torch.tensor([2.5]), Config()).item() == 2.5  # a canonical answer
    assert reference(torch.stack([BASE, BASE + 1]), Config()).tolist() == pytest.approx([1.4, 2.4])
    with pytest.raises(ValueError, match="no base rewards"):
        reference(torch.zeros(0), Config())


def test_single_rewards_against_the_normal_reference():
    ref = reference(BASE, Config(form="normal"))
    found = transform(torch.tensor([[2.0], [0.0], [5.0]], dtype=DOUBLE), ref.expand(3, 1), Config())
    assert found.tolist() == pytest.approx([-0.537020, -1.833044, -0.034782], abs=1e-6)


def test_good_in_all_and_in_any():
    answers = [(6, -3), (1, 1), (-2, 5), (0.2, 0.2)]
    both = u_of(*answers)
    assert both.tolist() == pytest.approx([-3.051063, -0.626523, -2.133643, -1.196278], abs=1e-6)
    assert both.exp().tolist() == pytest.approx([0.047309, 0.534447, 0.118405, 0.302317], abs=1e-6)
    assert int(both.argmax()) == 1
    assert int(torch.tensor(answers).sum(1).argmax()) == 0
    any_ = u_of(*answers, combine="any")
    assert any_.tolist() == pytest.approx([-0.002358, -0.075079, -0.005912, -0.226461], abs=1e-6)


def test_the_reference_cancels_a_prompts_offset():
    assert u_of((11.0, 2.0), refs=(5.0, 5.0)).item() == pytest.approx(-3.051063, abs=1e-6)


def test_limits():
    r, far = torch.tensor([[3.0]], dtype=DOUBLE), torch.tensor([[1e4]], dtype=DOUBLE)
    assert (transform(r, far, Config()) - (r - far)).item() == pytest.approx(0, abs=1e-9)
    assert transform(r, -far, Config()).item() == pytest.approx(0)
    assert torch.isfinite(transform(torch.tensor([[-300.0]]).half().float(), torch.zeros(1, 1), Config())).all()
    assert transform(r, far, Config(floor=-20.0)).item() == -20
    assert torch.isfinite(u_of((-800.0, -800.0), (800.0, 800.0), combine="any")).all()


def test_several_copies_of_one_reward():
    one, three = u_of((0.7,), refs=(0.0,)), u_of((0.7, 0.7, 0.7), refs=(0.0, 0.0, 0.0))
    assert three.item() == pytest.approx(3 * one.item())


def test_rows():
    row = Row(
        prompt="?",
        completion="x",
        facts={"scores": {"a": 2.0, "b": 1.0, "length": 9.0}, "base": {"a": BASE.tolist(), "b": 0.0}},
    )
    (found,) = score(None, [row])
    assert found == pytest.approx(-np.log1p(np.exp(1.4 - 2)) - np.log1p(np.exp(-1)))
    (normal,) = score(None, [row], Config(form="normal"))
    assert normal < found
    with pytest.raises(ValueError, match="row 1: expected facts.base"):
        score(None, [row, Row(prompt="?", completion="x")])
    with pytest.raises(ValueError, match=r"row 0: expected one finite number facts.scores.a, got None"):
        score(None, [Row(prompt="?", completion="x", facts={"base": {"a": [1.0]}})])


@pytest.mark.parametrize("bad", [float("nan"), True, "1.0", None])
def test_a_reward_that_is_no_finite_number_is_an_error(bad):
    for field, scores, base in (("scores", {"a": bad}, {"a": [1.0]}), ("base", {"a": 1.0}, {"a": [1.0, bad]})):
        with pytest.raises(ValueError, match=rf"row 0: expected (one )?finite numbers? facts.{field}.a, got"):
            score(None, [Row(prompt="?", completion="x", facts={"scores": scores, "base": base})])


def test_the_towns_answers_hold_the_claim():
    found = score(None, list(world_rows("rewarded", 0, 200)))
    assert all(claim.holds({"score": float(np.mean(found))}) for claim in CARD.claims)
    assert all(value < 0 for value in found)


@pytest.mark.parametrize(("field", "value"), [("quantile", 1.0), ("floor", 1.0)])
def test_bad_settings(field, value):
    with pytest.raises(ValueError, match=f"--{field}"):
        Config(**{field: value})
