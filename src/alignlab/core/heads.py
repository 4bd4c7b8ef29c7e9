"""Algebra of output heads that share a backbone: weights fold several heads into one."""

import torch
from jaxtyping import Float
from torch import Tensor


def fold(heads: Float[Tensor, "H *head"], weights: Float[Tensor, "H"]) -> Float[Tensor, "*head"]:
    """Return the one head whose logits are the weighted sum of the heads', since logits are linear in a head.

    Its policy is the normalised geometric mean of the heads' policies: softmax(sum_i w_i z_i) ~ prod_i p_i^w_i.

    Args:
        heads: an output matrix [V, D] per objective, or a bias [V].
        weights: of the objectives, >= 0, adding up to 1.

    Returns:
        sum_i w_i heads_i, in the precision of the heads.

    Raises:
        ValueError: weights that are negative or do not add up to 1.
    """
    if not bool((weights >= 0).all()) or abs(float(weights.sum()) - 1) > 1e-6:
        raise ValueError(f"weights of heads: expected numbers >= 0 that add up to 1, got {weights.tolist()}")
    return torch.einsum("h,h...->...", weights.to(heads), heads)
