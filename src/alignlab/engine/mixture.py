"""A mixture of two models over whole texts: P(text) = alpha P_-(text) + (1 - alpha) P_+(text).

It is carried by the two cumulative log-probabilities alone: after a prefix the weight of P_- is
alpha P_-(prefix) / P(prefix), so a text that P_- finds likelier moves the mixture towards P_- (Wolf et al. 2024,
arXiv:2304.11082, section 2.2). Not a mixture of next-token distributions with fixed weights.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from alignlab.core.types import Groups, Model, Prompt, Sample, View
from alignlab.engine.adapters import score_all
from alignlab.engine.divergence import groups_after, groups_of
from alignlab.engine.encode import prompt_ids
from alignlab.engine.sample import uniforms
from alignlab.engine.sentences import default_start


class Mixture:
    """alpha of `minus`, 1 - alpha of `plus`, over what follows `start`; scores and samples like one model.

    Raises ValueError for alpha outside (0, 1) or models of different vocabularies.
    """

    def __init__(self, minus: Model, plus: Model, alpha: float, start: Prompt | None = None) -> None:
        if not 0 < alpha < 1:
            raise ValueError(f"alpha is {alpha}; expected a weight in (0, 1)")
        if minus.tokenizer.get_vocab() != plus.tokenizer.get_vocab():
            raise ValueError("the two models have different vocabularies, so no text of one is a text of the other")
        self.minus, self.plus, self.alpha, self.tokenizer = minus, plus, alpha, plus.tokenizer
        start = default_start(self.tokenizer) if start is None else start
        self.start = prompt_ids(self.tokenizer, [start])[0]

    @property
    def identity(self) -> str:
        """Both identities and the weight."""
        return f"{self.alpha:g}*{self.minus.identity}+{1 - self.alpha:g}*{self.plus.identity}"

    @torch.no_grad()
    def weights(self, prompts: Sequence[Sequence[int]]) -> Float[Tensor, "P"]:
        """Return the log-odds of P_- after each prompt of token ids, float64.

        Raises ValueError for a prompt that does not begin with the start of the mixture.
        """
        skipped = len(self.start)
        if bad := [i for i, ids in enumerate(prompts) if list(ids[:skipped]) != self.start]:
            raise ValueError(
                f"prompt {bad[0]} does not begin with the {skipped} token(s) after which the mixture is one"
            )
        odds = torch.full((len(prompts),), math.log(self.alpha) - math.log1p(-self.alpha), dtype=torch.float64)
        rest = [i for i, ids in enumerate(prompts) if len(ids) > skipped]
        if rest:
            groups = groups_of(self.start, [prompts[i][skipped:] for i in rest])
            minus, plus = score_all([self.minus, self.plus], groups)
            odds[rest] += (minus.logp.double() - plus.logp.double()).sum(1).cpu()
        return odds

    @torch.no_grad()
    def score(self, groups: Groups, at: Int[Tensor, "N T k"] | None = None) -> View:
        """Return log-probabilities under the mixture; every token of a completion must be scored, none left out."""
        lengths = groups.mask.sum(1)
        if not bool((groups.mask == (torch.arange(groups.mask.shape[1]) < lengths[:, None])).all()):
            raise ValueError(
                "a mixture weighs its parts by all that was said; give completions scored from the start on"
            )
        prompts = [ids[mask].tolist() for ids, mask in zip(groups.prompt_ids, groups.prompt_mask)]
        minus, plus = score_all([self.minus, self.plus], groups, at)
        device = minus.logp.device
        gaps = minus.logp.double() - plus.logp.double()
        before = torch.cumsum(gaps, 1) - gaps
        odds = self.weights(prompts).to(device)[groups.group.to(device)][:, None] + before

        def mixed(one: Tensor, other: Tensor, odds: Tensor) -> Tensor:
            # log-odds o: weights sigmoid(o) and sigmoid(-o)
            log = torch.nn.functional.logsigmoid
            return torch.logaddexp(log(odds) + one.double(), log(-odds) + other.double()).float()

        logp = torch.where(groups.mask.to(device), mixed(minus.logp, plus.logp, odds), 0.0)
        if at is None:
            return View(logp=logp)
        assert minus.top_logp is not None and plus.top_logp is not None  # noqa: PT018 - narrows types
        assert minus.rest is not None and plus.rest is not None  # noqa: PT018
        return View(
            logp=logp, top_ids=at, top_logp=mixed(minus.top_logp, plus.top_logp, odds[..., None]),
            rest=mixed(minus.rest, plus.rest, odds),
        )  # fmt: skip

    def sample(
        self, prompts: Sequence[Prompt], *, n: int = 1, seed: int = 0, temperature: float = 1.0, max_tokens: int = 256,
        **options: Any,
    ) -> list[list[Sample]]:  # fmt: skip
        """Draw a component by its weight after the prompt, then a text from it: exactly a text of the mixture.

        Raises ValueError for a temperature other than 1, at which the two parts would no longer be a mixture.
        """
        if temperature != 1:
            raise ValueError(f"temperature is {temperature}; a mixture is sampled at temperature 1")
        encoded = prompt_ids(self.tokenizer, prompts)
        chances = torch.sigmoid(self.weights(encoded)).tolist()
        drawn = [m.sample(prompts, n=n, seed=seed, max_tokens=max_tokens, **options) for m in (self.minus, self.plus)]
        chosen, seen = [], dict.fromkeys(map(tuple, encoded), 0)
        for i, (ids, chance) in enumerate(zip(encoded, chances)):
            first, seen[tuple(ids)] = seen[tuple(ids)], seen[tuple(ids)] + n
            # draws counted downwards are nobody else's
            from_minus = [uniforms(seed, ids, -1 - first - j, 1)[0] < chance for j in range(n)]
            chosen += [drawn[0 if bad else 1][i][j] for j, bad in enumerate(from_minus)]
        numbers = [i for i in range(len(encoded)) for _ in range(n)]
        logp = self.score(groups_after(encoded, [sample.ids for sample in chosen], numbers)).logp.tolist()
        mixed = [replace(sample, logp=tuple(row[: len(sample.ids)])) for sample, row in zip(chosen, logp)]
        return [mixed[i : i + n] for i in range(0, len(mixed), n)]
