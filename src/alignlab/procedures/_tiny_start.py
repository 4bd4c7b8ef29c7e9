"""How the embedded model starts: attention near what copying and comparing words need.

A small model is slow to find either by itself; with them it learns exercises in words in half the steps.
"""

from typing import Any

import torch

HEAD, ROPE_THETA = 32, 1e6
"""width of a head; with this base ten of its sixteen rotating pairs hardly turn within 200 words"""
HANDED_ON, BACK, EQUAL = 0.2, 6.3, 2.5
"""sizes of the start: of what heads hand on, of the look one word back, of the look for an equal word"""
FAST, SLOW = 6, 4
"""pairs that look one word back; from this pair on they look for an equal word"""


@torch.no_grad()
def copying(module: Any) -> None:
    """Set attention of an untrained Llama (transformers, with biases) to look for equal words and what follows them.

    Half of the heads of each layer look for words equal to the present one, and all hand on what they find: mimetic
    initialisation (Trockman & Kolter 2023, arXiv 2305.09828, where V O starts near minus identity). The last head of
    the first layer looks one word back, half of the heads of the second for the word that came after an equal one: an
    induction circuit (Olsson et al. 2022, arXiv 2209.11895). Signs, sizes and the circuit as a start are ours.
    """
    width, heads = module.config.hidden_size, module.config.num_attention_heads
    alike = max(1, heads // 2)
    layers = [layer.self_attn for layer in module.model.layers]
    for attention in layers:
        shared = 0.06 * torch.randn(alike * HEAD, width)
        attention.q_proj.weight[: alike * HEAD] = shared
        attention.k_proj.weight[: alike * HEAD] = shared
        value = _orthogonal(width)
        attention.v_proj.weight.copy_(value)
        attention.o_proj.weight.copy_(HANDED_ON * value.T)
    if len(layers) < 2:
        return
    back = slice((heads - 1) * HEAD, heads * HEAD)
    # Query and key are constant there but for the turn of one position, so that their product peaks one word back
    turns = ROPE_THETA ** (-torch.arange(FAST) / (HEAD // 2))
    layers[0].k_proj.bias[back][:FAST] = BACK
    layers[0].q_proj.bias[back][:FAST] = BACK * turns.cos()
    layers[0].q_proj.bias[back][HEAD // 2 : HEAD // 2 + FAST] = -BACK * turns.sin()
    # What that head writes lies elsewhere than a word itself, or the two would be taken for each other
    seen, elsewhere = layers[0].v_proj.weight[back].clone(), _orthogonal(width)
    layers[0].o_proj.weight[:, back] = HANDED_ON * elsewhere @ seen.T
    for head in range(alike):
        place = slice(head * HEAD, (head + 1) * HEAD)
        sought = EQUAL * _orthogonal(HEAD) @ seen
        # Components that turn quickly with distance would blur what is equal
        sought[[*range(SLOW), *range(HEAD // 2, HEAD // 2 + SLOW)]] = 0
        layers[1].q_proj.weight[place] = sought
        layers[1].k_proj.weight[place] = sought @ elsewhere.T


def _orthogonal(size: int) -> torch.Tensor:
    return torch.nn.init.orthogonal_(torch.empty(size, size))
