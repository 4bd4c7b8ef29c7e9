"""The reference decision rule of a conflict: pool memory and contexts of known reliability, and what cues can buy.

score(a) = log P_mem(a) + sum_i w_i (log P(claim_i | truth a) + [claim_i = a] cue_i), where w_i weighs down copies and
cue_i is the log-likelihood ratio P(cues of i | i is true) / P(cues of i | i is false). Dialectical Alignment (arXiv
2404.00486) in its reconstructed form; natural logarithms; pure Python, so that tests can trust it.
"""

import math
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from alignlab.core.conflict import Claims, Number

Pooling = Literal["naive", "temper", "dedup"]
POWER: Mapping[str, float] = {"naive": 0.0, "temper": 0.5, "dedup": 1.0}
"""a cluster of s copies weighs s ** (1 - power): s votes, sqrt(s) votes, one vote"""


@dataclass(frozen=True, kw_only=True)
class Posterior:
    """Probabilities of the named answers (memory and claims) and of each of the `unnamed` others."""

    named: Mapping[str, float]
    other: float
    """probability of each single unnamed answer; 0 when there is none"""
    unnamed: int

    def probability(self, answer: str) -> float:
        """Return P(answer is true); answers nobody named share `other`."""
        return self.named.get(answer, self.other)

    def best(self, prefer: str | None = None) -> str | None:
        """Most probable answer; ties go to `prefer`, then to the first in order; None when an unnamed one leads."""
        top = max([*self.named.values(), self.other])
        leaders = sorted(a for a, p in self.named.items() if p >= top * (1 - 1e-12))
        if not leaders:
            return None
        return prefer if prefer in leaders else leaders[0]


def pool(
    claims: Claims,
    *,
    size: int,
    reliability: Number | Sequence[Number],
    memory: str | None = None,
    confidence: Number = 0.0,
    pooling: Pooling = "naive",
    clusters: Sequence[Hashable] | None = None,
    cue_logratio: Sequence[Number] | None = None,
) -> Posterior:
    """Return the posterior over a closed answer set of `size` answers.

    Args:
        claims: one claim per context; None (irrelevant) does not count.
        size: V, the number of possible answers, at least 2 and at least the number of named ones.
        reliability: r in (0, 1), P(claim = truth), one for all or one per context.
        memory: closed-book answer; None means no opinion (uniform prior).
        confidence: P_mem(memory); the rest is spread evenly.
        pooling: `naive` independent votes, `dedup` one vote per cluster, `temper` sqrt(size of cluster) votes.
        clusters: what counts as copies, one id per context; by default contexts that make the same claim.
        cue_logratio: sum over a context's cues (date, consistency, type, ...) of log P(cue|true)/P(cue|false).

    Raises:
        ValueError: a probability or length is out of range; the message names it.
    """
    rates = [reliability] * len(claims) if isinstance(reliability, int | float) else list(reliability)
    cues = [0.0] * len(claims) if cue_logratio is None else list(cue_logratio)
    groups = list(claims) if clusters is None else list(clusters)
    named = sorted({claim for claim in claims if claim is not None} | ({memory} if memory is not None else set()))
    _check(len(claims), size, len(named), rates, cues, groups, confidence)
    kept = [i for i, claim in enumerate(claims) if claim is not None]
    copies = Counter(groups[i] for i in kept)
    weights = {i: copies[groups[i]] ** -POWER[pooling] for i in kept}

    def score(answer: str | None) -> float:
        terms = [_prior(answer, memory, confidence, size)]
        for i in kept:
            hit = claims[i] == answer
            terms.append(weights[i] * (math.log(rates[i]) + cues[i] if hit else math.log1p(-rates[i])))
            terms.append(0.0 if hit else -weights[i] * math.log(size - 1))
        return math.fsum(terms)  # exact, hence the same whatever the order of contexts

    scores = {answer: score(answer) for answer in named}
    unnamed = size - len(named)
    rest = score(None) if unnamed else -math.inf
    top = max([*scores.values(), rest])
    masses = {answer: math.exp(value - top) for answer, value in scores.items()}
    other = math.exp(rest - top)
    total = math.fsum([*masses.values(), unnamed * other])
    return Posterior(named={a: m / total for a, m in masses.items()}, other=other / total, unnamed=unnamed)


def _prior(answer: str | None, memory: str | None, confidence: Number, size: int) -> float:
    if memory is None:
        return -math.log(size)
    p = confidence if answer == memory else (1 - confidence) / (size - 1)
    return math.log(p) if p > 0 else -math.inf


def _check(
    n: int,
    size: int,
    named: int,
    rates: Sequence[Number],
    cues: Sequence[Number],
    groups: Sequence[Hashable],
    confidence: Number,
) -> None:
    for name, values in (("reliability", rates), ("cue_logratio", cues), ("clusters", groups)):
        if len(values) != n:
            raise ValueError(f"pool: {name} has {len(values)} entries for {n} contexts; give one per context")
    if size < max(2, named):
        raise ValueError(f"pool: size is {size}, but {named} answers are named; it must be at least {max(2, named)}")
    if bad := [r for r in rates if not 0 < r < 1]:
        raise ValueError(f"pool: reliability {bad[0]} is outside (0, 1); a source is never certain")
    if not 0 <= confidence <= 1:
        raise ValueError(f"pool: confidence {confidence} is outside [0, 1]")


@dataclass(frozen=True, kw_only=True)
class SourceClass:
    """Sources of one reliability: the chance that a true, and that a poisoned, passage comes from one of them."""

    reliability: float
    p_true: float
    p_poison: float

    @property
    def logratio(self) -> float:
        """Log P(source | true) / P(source | poison), in nats."""
        return math.log(self.p_true / self.p_poison)


def source_classes(reliabilities: Sequence[float]) -> tuple[SourceClass, ...]:
    """Group sources by reliability, best first; a source shows on true passages in proportion to r, on poison to 1 - r.

    Raises ValueError for a reliability outside (0, 1).
    """
    if bad := [r for r in reliabilities if not 0 < r < 1]:
        raise ValueError(f"source_classes: reliability {bad[0]} is outside (0, 1)")
    size = Counter(reliabilities)
    true, poison = sum(reliabilities), sum(1 - r for r in reliabilities)
    return tuple(
        SourceClass(reliability=r, p_true=size[r] * r / true, p_poison=size[r] * (1 - r) / poison)
        for r in sorted(size, reverse=True)
    )


@dataclass(frozen=True, kw_only=True)
class Operating:
    """Where a policy works: edits followed (ES), attacks followed (ASR), and J = ES - ASR."""

    es: float
    asr: float

    @property
    def j(self) -> float:
        """Youden's J."""
        return self.es - self.asr


def source_frontier(n: int, reliabilities: Sequence[float], threshold: Number = 0.0) -> Operating:
    """Return the exact point of "follow iff the sources' summed log-ratio > threshold" for n independent contexts.

    This is the most that source cues can buy at rho = 1, where an attack and an edit look alike otherwise. An attacker
    who copies one passage of one source falls back to n = 1.
    """
    if n < 1:
        raise ValueError(f"source_frontier: n is {n}; at least one context is needed")
    classes = source_classes(reliabilities)
    es: list[float] = []
    asr: list[float] = []
    for taken in _compositions(n, len(classes)):
        if math.fsum(k * c.logratio for k, c in zip(taken, classes)) <= threshold + 1e-12:
            continue
        ways = math.factorial(n) // math.prod(map(math.factorial, taken))
        es.append(ways * math.prod(c.p_true**k for k, c in zip(taken, classes)))
        asr.append(ways * math.prod(c.p_poison**k for k, c in zip(taken, classes)))
    return Operating(es=math.fsum(es), asr=math.fsum(asr))


def _compositions(n: int, parts: int) -> Iterator[tuple[int, ...]]:
    if parts == 1:
        yield (n,)
        return
    for first in range(n + 1):
        for rest in _compositions(n - first, parts - 1):
            yield (first, *rest)
