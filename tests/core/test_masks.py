import pytest
import torch

from alignlab.core.masks import last, lengths, masked, seq_mean, seq_sum

NAN = float("nan")


def example(filler):
    values = torch.tensor([[1.0, 2.0, filler], [filler, filler, filler], [3.0, filler, -5.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True, False], [False, False, False], [True, False, True]])
    return values.requires_grad_(), mask


@pytest.mark.parametrize("filler", [0.0, NAN, float("inf"), -1e300])
def test_padding_reaches_neither_value_nor_gradient(filler):
    values, mask = example(filler)
    assert seq_sum(values, mask).tolist() == [3.0, 0.0, -2.0]
    assert seq_mean(values, mask).tolist() == [1.5, 0.0, -1.0]
    seq_mean(masked(values, mask).log1p(), mask)[0].backward()
    assert values.grad.tolist() == [[0.25, pytest.approx(1 / 6), 0.0], [0.0] * 3, [0.0] * 3]


def test_gradient_survives_a_nan_made_from_padding():
    values, mask = example(-7.0)
    seq_sum(masked(values, mask).sqrt(), mask).sum()  # sqrt(0) has an infinite slope
    seq_sum(values.log(), mask)[:2].sum().backward()  # log(-7) is NaN before the mask
    assert values.grad[0].tolist() == [1.0, 0.5, 0.0]
    assert values.grad[1].tolist() == [0.0] * 3


def test_lengths_are_counts():
    _, mask = example(0.0)
    assert lengths(mask).tolist() == [2.0, 0.0, 2.0]
    assert lengths(mask).dtype == torch.float32


def test_zero_positions():
    empty, mask = torch.zeros(2, 0), torch.zeros(2, 0, dtype=torch.bool)
    assert seq_mean(empty, mask).tolist() == [0.0, 0.0]


def test_last_takes_the_last_scored_token_and_nothing_else():
    nan = float("nan")
    values = torch.tensor([[1.0, nan, 3.0, nan], [5.0, nan, nan, nan], [nan] * 4], requires_grad=True)
    mask = torch.tensor([[True, False, True, False], [True, False, False, False], [False] * 4])
    found = last(values, mask)
    assert found.tolist() == [3.0, 5.0, 0.0]
    found.sum().backward()
    assert values.grad.tolist() == [[0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
