"""The algebra of pairs, on numbers that can be checked by hand."""

import math

import pytest
import torch

from alignlab.core import preference
from alignlab.core.reduce import total, totals
from alignlab.core.types import Groups, Pairs, View

NAN = float("nan")


def batch(p=(1.0, 0.75), weight=(1.0, 3.0)):
    logp = torch.tensor([[-1.0, -2.0, NAN], [-4.0, NAN, NAN], [-1.0, -1.0, -4.0]], dtype=torch.float64)
    ref = torch.tensor([[-2.0, -2.0, NAN], [-4.0, NAN, NAN], [-1.0, -1.0, -1.0]], dtype=torch.float64)
    n = torch.zeros(3, dtype=torch.long)
    return Groups(
        prompt_ids=n[:1, None],
        prompt_mask=n[:1, None] == 0,
        ids=torch.zeros(3, 3, dtype=torch.long),
        mask=~logp.isnan(),
        group=n,
        views={"policy": View(logp=logp), "ref": View(logp=ref)},
        pairs=Pairs(
            better=torch.tensor([0, 2]),
            worse=torch.tensor([1, 0]),
            p=torch.tensor(p, dtype=torch.float64),
            margin=torch.zeros(2, dtype=torch.float64),
            weight=torch.tensor(weight, dtype=torch.float64),
        ),
    )


def test_log_ratios_and_tokens():
    policy, ratios = preference.policy_and_ratios(batch())
    assert policy.tolist() == [-3.0, -4.0, -6.0]
    assert ratios.tolist() == [1.0, 0.0, -3.0]
    assert preference.tokens(batch(), policy).tolist() == [2.0, 1.0, 3.0]


def test_a_soft_label_is_an_expectation():
    values = torch.tensor([1.0, 0.0, -3.0], dtype=torch.float64)
    found = preference.expected(lambda better, worse: 10 * better + worse, values, batch().pairs)
    assert found.tolist() == [10.0, pytest.approx(0.75 * -29 + 0.25 * 7)]
    assert preference.flipped_with(batch().pairs.p, 0.1).tolist() == pytest.approx([0.9, 0.7])


@pytest.mark.parametrize(
    ("form", "expected"), [("sum", (3 + 3 * 6) / 4), ("per_pair", (1.5 + 3 * 2) / 4), ("per_token", 21 / (2 + 3 * 3))]
)
def test_likelihood_term(form, expected):
    given = batch()
    policy, _ = preference.policy_and_ratios(given)
    term = preference.likelihood_term(policy, given, given.pairs, 0.5, form)
    assert total(totals([(term,)]), {"nll": term.weight}) == pytest.approx(0.5 * expected)


def test_terms_and_logs():
    given = batch()
    policy, ratios = preference.policy_and_ratios(given)
    policy.requires_grad_()
    term = preference.pair_term(
        "t", torch.tensor([1.0, 2.0]), given.pairs, preference.reward_logs(policy, ratios, given.pairs)
    )
    assert totals([(term,)]) == {"t": (7.0, 4.0)}
    assert {name: log.tolist() for name, log in term.logs.items()} == {
        "rewards/chosen": [1.0, -3.0],
        "rewards/rejected": [0.0, 1.0],
        "rewards/margins": [1.0, -4.0],
        "rewards/accuracies": [1.0, 0.0],
        "logps/chosen": [-3.0, -6.0],
        "logps/rejected": [-4.0, -3.0],
    }
    assert not any(log.requires_grad for log in term.logs.values())
    tie = preference.reward_logs(policy, torch.zeros(3), given.pairs)
    assert tie["rewards/accuracies"].tolist() == [0.0, 0.0], "a tie is no success"


def test_errors():
    bare = batch()
    object.__setattr__(bare, "pairs", None)
    with pytest.raises(ValueError, match="simpo needs pairs: give rows with chosen and rejected"):
        preference.pairs_of(bare, "simpo")
    for value in (0.0, -1.0, NAN, math.inf):
        with pytest.raises(ValueError, match=r"--beta: expected a finite number > 0, got"):
            preference.require_positive("beta", value)
    for value in (-0.1, NAN, math.inf):
        with pytest.raises(ValueError, match=r"--tau: expected a finite number >= 0, got"):
            preference.require_at_least_zero("tau", value)
    preference.require_at_least_zero("tau", 0.0)
    preference.require_positive("beta", 1e-9)
