import pytest
import torch

from alignlab.core.reduce import share, total, totals
from alignlab.core.types import Term


def terms(parameter, num, den, weight=1.0, name="loss"):
    num, den = torch.tensor(num, dtype=torch.float64), torch.tensor(den, dtype=torch.float64)
    return (Term(name=name, num=parameter * num, den=den, weight=weight),)


ITEMS = [(1.0, 4.0), (2.0, 1.0), (-3.0, 2.0), (7.0, 1.0), (0.5, 0.0)]


def gradient(splits):
    parameter = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    batches = [terms(parameter, [ITEMS[i][0] for i in s], [ITEMS[i][1] for i in s]) for s in splits]
    denominators = {name: den for name, (_, den) in totals(batches).items()}
    for batch in batches:
        share(batch, denominators).backward()
    return parameter.grad.item()


@pytest.mark.parametrize(
    "splits", [[[0, 1, 2, 3, 4]], [[0], [1], [2], [3], [4]], [[4, 2], [3, 0, 1]], [[4], [0, 1, 2, 3]]]
)
def test_a_step_does_not_depend_on_how_it_is_cut(splits):
    assert gradient(splits) == pytest.approx(7.5 / 8.0, rel=1e-12)


def test_a_mean_of_means_is_told_apart():
    parameter = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    for part in ([0, 1], [2, 3, 4]):
        num, den = sum(ITEMS[i][0] for i in part), sum(ITEMS[i][1] for i in part)
        (parameter * num / den / 2).backward()
    assert parameter.grad.item() != pytest.approx(gradient([[0, 1], [2, 3, 4]]), rel=1e-3)


def test_totals_and_total():
    one = torch.ones((), dtype=torch.float64)
    batches = [
        terms(one, [1.0, 2.0], [1.0, 1.0]) + terms(one, [5.0], [0.0], 3.0, "empty"),
        terms(one, [3.0], [2.0]) + terms(one, [4.0], [0.0], 3.0, "empty"),
    ]
    sums = totals(batches)
    assert sums == {"loss": (6.0, 4.0), "empty": (9.0, 0.0)}
    assert total(sums, {"loss": 2.0, "empty": 3.0}) == 3.0


def test_weights_scale_and_empty_terms_keep_a_graph():
    parameter = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    part = terms(parameter, [3.0], [1.0], 0.5)
    assert share(part, {"loss": 4.0}).item() == pytest.approx(0.75)
    nothing = share(part, {"loss": 0.0})
    nothing.backward()
    assert (nothing.item(), parameter.grad.item()) == (0.0, 0.0)


def test_a_loss_without_terms_is_an_error():
    with pytest.raises(ValueError, match="no term"):
        share((), {})
