"""Folding against mixed logits and the normalised geometric mean."""

import pytest
import torch

from alignlab.core.heads import fold


def test_folded_heads_give_the_mixed_logits():
    torch.manual_seed(0)
    heads, hidden = torch.randn(3, 7, 5, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    folded = hidden @ fold(heads, weights).T
    each = torch.einsum("nd,hvd->hnv", hidden, heads)
    torch.testing.assert_close(folded, torch.einsum("h,hnv->nv", weights, each))
    geometric = torch.einsum("h,hnv->nv", weights, each.log_softmax(-1)).softmax(-1)
    torch.testing.assert_close(folded.softmax(-1), geometric)


def test_a_single_head_alone():
    heads = torch.tensor([[[2.0], [0.0], [-1.0]], [[0.0], [1.0], [1.5]]])
    assert torch.equal(fold(heads, torch.tensor([0.0, 1.0])), heads[1])


def test_biases_fold_alike():
    biases, weights = torch.tensor([[1.0, 2.0], [3.0, -4.0]]), torch.tensor([0.25, 0.75])
    assert fold(biases, weights).tolist() == [2.5, -2.5]


@pytest.mark.parametrize("bad", [(0.5, 0.6), (-0.5, 1.5)])
def test_weights_are_a_mixture(bad):
    with pytest.raises(ValueError, match="add up to 1"):
        fold(torch.ones(2, 3, 4), torch.tensor(bad))
