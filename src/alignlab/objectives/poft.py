"""Preference-oriented supervised fine-tuning: be preferred, on each demonstration, over models aligned before.

r = mean token log p(y|x) of the policy, rbar = the same of aligned models, each with its own tokeniser and chat format,
averaged over them; L = -log sigma(temperature * (r - rbar) + margin). The gradient is that of cross-entropy times
tau = sigma(rbar - r) (at temperature 1, margin 0), so that a row counts little which aligned models find unlikely.

Source: Fan et al. 2024 (arXiv:2412.12865), equations 5 to 8; temperature and margin as in the authors' code.
Input: completions with the score `aligned` (rows: `facts.scores.aligned`), in nats per token, or one score
`aligned.NAME` per aligned model. Unit: nats. Reduction: mean over the completions of the step.
The scores leave out the end-of-turn token, and so does r by default (`count_end`).
Deviations: the authors' collator also averages the policy over system, user and template tokens, the scores over the
assistant's alone; here both cover the completion, unless `full_sequence` asks for their reading.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from alignlab.core.cards import Card, Claim
from alignlab.core.masks import seq_mean
from alignlab.core.preference import require, require_positive
from alignlab.core.types import Groups, Term

CARD = Card(
    title="Preference-oriented supervised fine-tuning (PoFT)",
    paper="arXiv:2412.12865",
    bibtex="""@inproceedings{fan2025preference,
  title = {Preference-Oriented Supervised Fine-Tuning: Favoring Target Model Over Aligned Large Language Models},
  author = {Fan, Yuchen and Hong, Yuzhong and Wang, Qiushi and Bao, Junwei and Jiang, Hongfei and Song, Yang},
  booktitle = {AAAI Conference on Artificial Intelligence},
  year = {2025},
  eprint = {2412.12865},
  archivePrefix = {arXiv}
}""",
    brief="poft",
    status="faithful",
    summary="Imitate demonstrations, each weighted by how likely aligned models find it against the policy.",
    smoke="alignlab train poft --model tiny: --dataset world:noisy --limit 128 --max_steps 40"
    " --per_device_train_batch_size 16 --learning_rate 1e-3 --warmup_ratio 0.1 --save_steps 0 --output_dir {out}",
    claims=(
        Claim(metric="train/loss - train/loss_last", relation=">", bound=0.02),
        Claim(metric="train/tau", relation="<", bound=0.5),
    ),
    needs=frozenset({"policy", "aligned"}),
    training={"learning_rate": 1e-6},
    deviations=(
        "policy and aligned scores cover the same tokens (released code: prompt and template too, for the policy,"
        " as with full_sequence)",
        "log-sigmoid instead of the log of a sigmoid, which overflows",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of preference-oriented supervised fine-tuning."""

    temperature: float = 1.0
    """factor of the difference of log-likelihoods, > 0 (paper: 1)"""
    margin: float = 0.0
    """added to it (paper: 0); above 0, rows that the policy already finds likelier count less"""
    full_sequence: bool = False
    """mean of the policy over prompt, template and answer, all but the first token (released code), not the answer"""
    count_end: bool = False
    """count the end-of-turn token in r; the aligned models' scores must then count it too"""

    def __post_init__(self) -> None:
        require_positive("temperature", self.temperature)
        require(abs(self.margin) < float("inf"), "margin", "a finite number", self.margin)


def recut(example: Any, cfg: Config) -> Any:
    """Return a tokenised row as it is, or for `full_sequence` with all but its first token as completion.

    Args:
        example: with `prompt_ids` and `completions`, token ids.
        cfg: settings.
    """
    if not cfg.full_sequence:
        return example
    first, rest = example.prompt_ids[:1], example.prompt_ids[1:]
    return dataclasses.replace(
        example, prompt_ids=first, completions=tuple([*rest, *answer] for answer in example.completions)
    )


def loss(batch: Groups, cfg: Config) -> tuple[Term, ...]:
    """Bradley-Terry loss of the policy against the aligned models on each completion.

    Args:
        batch: view `policy` [N, T] and scores `aligned` or `aligned.NAME` [N], nats per token.
        cfg: settings.

    Returns:
        One term `poft` over the N completions, those without a counted token left out; logs: tau, the weight of the
        row's cross-entropy gradient, and both log-likelihoods.

    Raises:
        ValueError: no aligned score, or one that is not finite.
    """
    mask = batch.mask
    if not cfg.count_end:
        mask = mask & (mask.flip(1).cumsum(1).flip(1) > 1)
    r = seq_mean(batch.views["policy"].logp, mask)
    aligned = _aligned(batch)
    argument = cfg.temperature * (r - aligned) + cfg.margin
    counted = mask.any(1)
    logs = {
        "tau": cfg.temperature * torch.sigmoid(-argument.detach()),
        "logps/policy": r.detach(),
        "logps/aligned": aligned.to(r.dtype),
    }
    return (Term(name="poft", num=torch.where(counted, softplus(-argument), 0.0), den=counted.float(), logs=logs),)


def _aligned(batch: Groups) -> Float[Tensor, "N"]:
    """Return the mean score over aligned models."""
    names = [name for name in batch.scores if name == "aligned" or name.startswith("aligned.")]
    if not names:
        raise ValueError(
            "poft needs what aligned models think of each completion: give facts.scores.aligned in nats per token, or"
            " one facts.scores.aligned.NAME per model"
        )
    scores = torch.stack([batch.scores[name] for name in names])
    if not bool(torch.isfinite(scores).all()):
        raise ValueError(f"poft: a score among {', '.join(names)} is not finite; leave out its row")
    return scores.mean(0)
