"""Ensembles: the brief's numbers, identities, and members that are saved models."""

import numpy as np
import pytest
import torch

import tiny_models
from alignlab.core.types import Row
from alignlab.engine.load import load, save
from alignlab.rewards.bradley_terry import score as score_alone
from alignlab.rewards.ensembles import Config, score, transform

MEMBERS = torch.tensor([[1, 2, 0.5], [0.8, 3, 0.6], [1.2, -1, 0.4]], dtype=torch.float64).T


@pytest.mark.parametrize(
    ("cfg", "wanted"),
    [
        (Config(), (1, 1.333333, 0.5)),
        (Config(combine="worst"), (0.8, -1, 0.4)),
        (Config(combine="uncertainty"), (0.986667, -0.111111, 0.496667)),
    ],
)
def test_vectors(cfg, wanted):
    assert transform(MEMBERS, cfg).tolist() == pytest.approx(wanted, abs=1e-6)


def test_variances_and_limits():
    population, sample = (transform(MEMBERS, Config(combine="uncertainty", form=f)) for f in ("population", "sample"))
    table = MEMBERS.numpy()
    np.testing.assert_allclose(population, table.mean(1) - 0.5 * table.var(1))
    np.testing.assert_allclose(sample, table.mean(1) - 0.5 * table.var(1, ddof=1))
    mean = transform(MEMBERS, Config())
    torch.testing.assert_close(transform(MEMBERS, Config(combine="uncertainty", uncertainty_weight=0.0)), mean)
    same = MEMBERS[:, :1].expand(-1, 4)
    for combine in ("mean", "worst", "uncertainty"):
        torch.testing.assert_close(transform(same, Config(combine=combine)), MEMBERS[:, 0], msg="members that agree")
        shifted = transform(MEMBERS + 7, Config(combine=combine)) - 7
        torch.testing.assert_close(shifted, transform(MEMBERS, Config(combine=combine)))
    assert (transform(MEMBERS, Config(combine="worst")) <= mean).all()
    assert transform(MEMBERS.reshape(3, 1, 3), Config()).shape == (3, 1)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("combine", ["mean", "worst", "uncertainty"])
def test_a_member_without_an_opinion_is_an_error(bad, combine):
    with pytest.raises(ValueError, match="expected finite rewards"):
        transform(torch.tensor([1.0, bad]), Config(combine=combine))


def test_rewards_that_come_with_the_rows():
    rows = [Row(prompt="Q", completion="A", facts={"scores": {"a": 1, "b": 3.0, "truth": 9.0}})]
    assert score(None, rows, Config(names=("a", "b"))) == [2.0]
    assert score(None, rows) == [pytest.approx(13 / 3)]
    other = Row(prompt="Q", completion="A", facts={"scores": {"a": 1}})
    with pytest.raises(ValueError, match="row 1: .*facts.scores.b, got None"):
        score(None, [*rows, other])
    for bad in (True, float("nan"), "1"):
        with pytest.raises(ValueError, match="row 0: expected one finite number facts.scores.a"):
            score(None, [Row(prompt="Q", completion="A", facts={"scores": {"a": bad, "b": 1.0}})])
    with pytest.raises(ValueError, match="row 0: expected facts.scores"):
        score(None, [Row(prompt="Q", completion="A")])
    assert score(None, []) == []


def test_members_that_are_saved_models(tmp_path):
    rows = [Row(prompt="Where is the mill?", completion=text) for text in ("At the harbour.", "Nobody knows.")]
    alone = []
    for seed in (0, 1):
        save(tiny_models.make_model(seed=seed), tmp_path / f"base{seed}")
        model = load(tmp_path / f"base{seed}", head="fresh")
        save(model, tmp_path / f"member{seed}")
        alone.append(score_alone(model, rows))
    folders = tuple(str(tmp_path / f"member{seed}") for seed in (0, 1))
    table = np.array(alone)
    assert score(None, rows, Config(members=folders)) == pytest.approx(table.mean(0).tolist(), abs=1e-5)
    worst = score(None, rows, Config(members=folders, combine="worst"))
    assert worst == pytest.approx(table.min(0).tolist(), abs=1e-5)


def test_errors():
    with pytest.raises(ValueError, match="at least one member"):
        transform(torch.zeros(2, 0), Config())
    with pytest.raises(ValueError, match="two members"):
        transform(torch.zeros(2, 1), Config(combine="uncertainty", form="sample"))
    with pytest.raises(ValueError, match="--uncertainty_weight: expected"):
        Config(uncertainty_weight=-1.0)
