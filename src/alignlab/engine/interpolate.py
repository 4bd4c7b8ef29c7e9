"""Between the weights before and after tuning: most of what was learnt for a part of what was forgotten."""

import torch

from alignlab.engine.load import LanguageModel


@torch.no_grad()
def towards(learnt: LanguageModel, start: LanguageModel, share: float) -> None:
    """Move the tuned weights of `learnt` back to `start` + share * (`learnt` - `start`), in place.

    Wortsman et al. 2022 (WiSE-FT, arXiv 2109.01903), section 3. An adapter is its own difference: its B is scaled.

    Args:
        learnt: the tuned model; only weights that take part in its tuning (`requires_grad`) are moved.
        start: the model that it was tuned from.
        share: 1 leaves all as it is, 0 undoes the tuning.

    Raises:
        ValueError: a share outside [0, 1], or weights that `start` does not have in the same shape.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"expected a share in [0, 1], got {share}")
    before = dict(start.module.named_parameters())
    for name, weight in learnt.module.named_parameters():
        if ".lora_B." in name:
            weight.mul_(share)
        elif weight.requires_grad and ".lora_" not in name:
            if name not in before or before[name].shape != weight.shape:
                raise ValueError(f"{start.identity} has no weight {name} of shape {tuple(weight.shape)}")
            weight.copy_(torch.lerp(before[name].to(weight), weight, share))
