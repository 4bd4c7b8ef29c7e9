"""Joint preference optimisation (DOVE): compare answers to different prompts, prompts included.

h = [log p(R_w, I_w) - log p_ref(R_w, I_w)] - [the same of R_l, I_l], with log p(R, I) = log p(I) + log p(R|I) summed
over tokens, the first token of a prompt excepted, EOS included; L = -log sigma(beta * h). Where both answers are to one
prompt its terms cancel, and the loss is DPO's. `prompt_weight` w scales log p(I): 1 is DOVE, 0 compares answers across
prompts by log p(R|I) alone.

Source: Bansal et al. 2024 (arXiv:2404.00530, called JPO from its second version on); the form follows its abstract and
released code. Input: pairs, `second_prompt` being the prompt of the rejected answer where that is another. Unit: nats.
Reduction: mean over the pairs of the step, weighted; soft labels as in DPO.
Deviations: the released code cuts the rejected answer by the length of the chosen one; here nothing is cut. Tokens of
the template count, as there.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from alignlab.core.cards import Card, Claim
from alignlab.core.masks import seq_sum
from alignlab.core.preference import expected, pair_term, pairs_of, require, require_positive, reward_logs
from alignlab.core.types import Groups, Term

CARD = Card(
    title="Joint preference optimisation (DOVE)",
    paper="arXiv:2404.00530",
    bibtex="""@article{bansal2024comparing,
  title = {Comparing Bad Apples to Good Oranges: Aligning Large Language Models via Joint Preference Optimization},
  author = {Bansal, Hritik and Suvarna, Ashima and Bhatt, Gantavya and Peng, Nanyun and Chang, Kai-Wei
    and Grover, Aditya},
  journal = {arXiv preprint arXiv:2404.00530},
  year = {2024},
  eprint = {2404.00530},
  archivePrefix = {arXiv}
}""",
    brief="dove",
    status="reconstructed",
    summary="DPO over the joint probability of prompt and answer, so that answers to different prompts compare.",
    smoke="alignlab train dove --model tiny: --dataset world:joint --limit 64 --max_steps 40"
    " --per_device_train_batch_size 8 --learning_rate 1e-4 --warmup_ratio 0.1 --save_steps 0 --output_dir {out}",
    claims=(
        Claim(metric="train/loss_first - train/loss_last", relation=">", bound=0.05),
        Claim(metric="train/rewards/margins", relation=">", bound=0.1),
    ),
    needs=frozenset({"policy", "ref", "prompt"}),
    training={"learning_rate": 1e-6},
    deviations=(
        "written from the abstract and the released code; the paper's text was not read",
        "no truncation of the rejected answer by the chosen one's length",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of joint preference optimisation."""

    beta: float = 0.1
    """strength of the pull towards the reference, > 0 (authors: 0.1)"""
    prompt_weight: float = 1.0
    """weight of the prompts' log-probabilities, in [0, 1]: 1 is DOVE, 0 leaves the prompts out"""

    def __post_init__(self) -> None:
        require_positive("beta", self.beta)
        require(0 <= self.prompt_weight <= 1, "prompt_weight", "a number in [0, 1]", self.prompt_weight)


def loss(batch: Groups, cfg: Config) -> tuple[Term, ...]:
    """Preference loss over pairs of prompt and answer.

    Args:
        batch: views `policy` and `ref` [N, T] and `pairs` [R]; score `prompt_tokens` [N], how many of a completion's
            first scored tokens are its prompt's (the loop scores prompts where a card needs `prompt`).
        cfg: settings.

    Returns:
        One term `dove` over the R pairs, with TRL's reward and log-probability logs of prompt and answer together.

    Raises:
        ValueError: no pairs, or prompts that were not scored although they have weight.
    """
    pairs = pairs_of(batch, "dove")
    weight = _weights(batch, cfg)
    policy = seq_sum(batch.views["policy"].logp * weight, batch.mask)
    rewards = cfg.beta * (policy - seq_sum(batch.views["ref"].logp * weight, batch.mask))
    per_pair = expected(lambda better, worse: -logsigmoid(better - worse), rewards, pairs)
    return (pair_term("dove", per_pair, pairs, reward_logs(policy, rewards, pairs)),)


def _weights(batch: Groups, cfg: Config) -> Tensor:
    """Return the weight [N, T] of each scored token: `prompt_weight` for the prompt's, 1 for the answer's."""
    if "prompt_tokens" not in batch.scores:
        raise ValueError(
            "dove needs scored prompts: hand the loop `needs` of its card, or give the score prompt_tokens"
        )
    place = batch.mask.cumsum(1)
    of_prompt = place <= batch.scores["prompt_tokens"][:, None]
    like = batch.views["policy"].logp
    return torch.where(of_prompt, cfg.prompt_weight, torch.ones_like(like, requires_grad=False)).to(like.dtype)
