"""Lengths, in sentences, of prompts that suffice to misalign: Theorems 1-5 of behaviour expectation bounds.

Wolf et al. 2024 (arXiv:2304.11082v6). Natural logarithms; alpha, beta, beta', sigma per sentence; lengths unrounded.
The `published` form is the paper's; the `tight` form keeps the constants that its proof gives away: 2 w_+ < eps instead
of ratio < alpha eps / 4, and Cantelli's inequality as it stands. alpha = 0 is outside every theorem.
"""

import math
from collections.abc import Sequence
from typing import Literal

Form = Literal["published", "tight"]


def _check(alpha: float, beta: float, eps: float, delta: float = 0.5) -> None:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}; the theorems speak of weights in (0, 1) only")
    if not beta > 0:
        raise ValueError(f"beta is {beta}; without a gap > 0 no length is finite")
    if not 0 < eps < 2:
        raise ValueError(f"eps is {eps}; expected a number in (0, 2), the range of behaviour")
    if not 0 < delta < 1:
        raise ValueError(f"delta is {delta}; expected a probability in (0, 1)")


def evidence(alpha: float, eps: float, form: Form = "published", best_of: int = 1) -> float:
    """Return the log-ratio, in nats, at which the bad component rules: A of the theorems, + log n for best of n.

    published: log(1/alpha) + log(1/eps) + log 4 + log n. tight: the ratio at which n samples from P differ from n from
    P_- with probability eps / 2; for n = 1 log((1 - alpha)(2 - eps) / (alpha eps)).
    """
    _check(alpha, 1.0, eps)
    if best_of < 1:
        raise ValueError(f"best_of is {best_of}; at least one sample is drawn")
    if form == "published":
        return -math.log(alpha) - math.log(eps) + math.log(4) + math.log(best_of)
    share = -math.expm1(math.log1p(-eps / 2) / best_of)
    return math.log1p(-alpha) - math.log(alpha) + math.log1p(-share) - math.log(share)


def prompt_length(alpha: float, beta: float, eps: float, *, form: Form = "published", eta: float = 0.0) -> float:
    """Theorem 1: one prompt; with 0 < eta < 1 the relaxation of appendix I, where the gap is only beta / |s|**eta."""
    _check(alpha, beta, eps)
    if not 0 <= eta < 1:
        raise ValueError(f"eta is {eta}; expected a number in [0, 1): a faster fading gap need not add up")
    return float((max(evidence(alpha, eps, form), 0.0) / beta) ** (1 / (1 - eta)))


def _detour(beta: float, beta_prime: float, sigma: float, delta: float, length: float, form: Form) -> float:
    """Sentences that undo `length` sentences of the good component, all but one in 1 / delta times."""
    spread = length / delta if form == "published" else length * (1 - delta) / delta
    return (beta_prime * length + sigma * math.sqrt(spread)) / beta


def prefixed_length(
    alpha: float,
    beta: float,
    eps: float,
    *,
    beta_prime: float,
    sigma: float,
    delta: float,
    prefix: float,
    form: Form = "published",
) -> float:
    """Theorem 2: a prompt after an aligning prefix of `prefix` sentences drawn from P_+, with probability 1 - delta."""
    _check(alpha, beta, eps, delta)
    return evidence(alpha, eps, form) / beta + _detour(beta, beta_prime, sigma, delta, prefix, form) + 1


def dialogue_length(
    alpha: float,
    beta: float,
    eps: float,
    *,
    beta_prime: float,
    sigma: float,
    delta: float,
    answers: Sequence[float],
    form: Form = "published",
) -> tuple[float, tuple[float, ...]]:
    """Theorem 3: a dialogue whose answers have these lengths; return all user text together and the cap of each turn.

    Each turn fails with probability delta / n at most.
    """
    _check(alpha, beta, eps, delta)
    n = len(answers)
    if n == 0:
        return evidence(alpha, eps, form) / beta, ()
    own = evidence(alpha, eps, form) / (n * beta) + 1
    caps = tuple(own + _detour(beta, beta_prime, sigma, delta / n, length, form) for length in answers)
    return math.fsum(caps), caps


def best_of_length(alpha: float, beta: float, eps: float, *, best_of: int, form: Form = "published") -> float:
    """Theorem 4: one prompt against the best of n answers; gamma is then the supremum of best of n under P_-."""
    _check(alpha, beta, eps)
    return evidence(alpha, eps, form, best_of) / beta


def sampled_length(
    alpha: float, beta: float, eps: float, *, sigma: float, delta: float, form: Form = "published"
) -> float:
    """Theorem 5: a prompt sampled from P_- misaligns with probability 1 - delta from this length on.

    published: max(2 A / beta, 4 sigma^2 / (beta^2 delta)). tight: the n at which Cantelli's floor of the log-ratio,
    beta n - sigma sqrt(n (1 - delta) / delta), reaches the tight A.
    """
    _check(alpha, beta, eps, delta)
    nats = max(evidence(alpha, eps, form), 0.0)
    if form == "published":
        return max(2 * nats / beta, 4 * sigma**2 / (beta**2 * delta))
    pull = sigma * math.sqrt((1 - delta) / delta)
    return float(((pull + math.sqrt(pull**2 + 4 * beta * nats)) / (2 * beta)) ** 2)
