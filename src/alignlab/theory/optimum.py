"""Exact optima over enumerable answers: of KL-regularised reward, of DPO, IPO and RPO losses, and of token values.

Where all K answers of a prompt can be listed, every one of these problems is convex in the logits or in the reward and
is solved to float precision: the oracle that objectives and procedures are held to. `check` proves on drawn spaces that
each optimum is one, that DPO's is RLHF's, and that RPO's loss solves the pessimistic maximin it was derived from.

Source: Liu et al. 2024 (arXiv:2405.16436v1), sections 3.3, 4.1, 4.2 and equation 4.8; DPO: Rafailov et al. 2023
(arXiv:2305.18290), equations 4 and 7; offline IPO: Calandriello et al. 2024 (arXiv:2403.08635), equation 10; soft token
values: Sun and van der Schaar 2025 (arXiv:2507.13158). Arrays: policies, rewards [K]; preferences, pair weights [K, K]
with entry (i, j) for i over j. Unit: nats; rewards in the reward's own unit. Reduction: expectation over pairs.
Deviations: the IPO equation and the token form come from secondary sources and standard theory.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logsumexp, softmax

from alignlab.core.cards import Card, Claim
from alignlab.core.types import Metric, Result, Table

Floats = NDArray[np.float64]

CARD = Card(
    title="Exact optima of alignment objectives",
    paper="arXiv:2405.16436",
    bibtex="""@inproceedings{liu2024provably,
  title = {Provably Mitigating Overoptimization in RLHF: Your SFT Loss is Implicitly an Adversarial Regularizer},
  author = {Liu, Zhihan and Lu, Miao and Zhang, Shenao and Liu, Boyi and Guo, Hongyi and Yang, Yingxiang and
    Blanchet, Jose and Wang, Zhaoran},
  booktitle = {Advances in Neural Information Processing Systems},
  volume = {37},
  year = {2024},
  eprint = {2405.16436},
  archivePrefix = {arXiv}
}""",
    brief="rpo-overoptimization",
    status="reconstructed",
    summary="KL-regularised, DPO, IPO and RPO optima over enumerable answers, with certificates.",
    smoke="alignlab check optimum --output_dir {out}",
    claims=(
        Claim(metric="regret/identity_error", relation="<=", bound=1e-9),
        Claim(metric="dpo/distance_to_rlhf", relation="<=", bound=1e-6),
        Claim(metric="ipo/distance_to_closed_form", relation="<=", bound=1e-6),
        Claim(metric="rpo/duality_gap", relation="<=", bound=1e-6),
        Claim(metric="rpo/distance_to_maximin", relation="<=", bound=1e-6),
        Claim(metric="tokens/advantage_error", relation="<=", bound=1e-9),
    ),
    deviations=("IPO's optimum and soft token values were not read in the originals",),
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which spaces are drawn."""

    spaces: int = 20
    """drawn at random, >= 1"""
    answers: int = 6
    """K, answers of each, >= 3"""
    beta: float = 0.5
    """strength of the pull towards the reference, > 0; also IPO's tau"""
    eta: float = 0.2
    """RPO's pessimism, > 0"""
    seed: int = 0
    """of the spaces"""

    def __post_init__(self) -> None:
        if self.spaces < 1 or self.answers < 3 or not self.beta > 0 or not self.eta > 0:
            raise ValueError(f"optimum: expected --spaces >= 1, --answers >= 3, --beta > 0, --eta > 0, got {self}")


def kl(policy: Floats, other: Floats) -> float:
    """Return KL(policy || other) in nats; 0 log 0 is 0."""
    held = policy > 0
    with np.errstate(divide="ignore"):
        return float(np.sum(policy[held] * (np.log(policy[held]) - np.log(other[held]))))


def tilt(ref: Floats, reward: Floats, beta: float) -> Floats:
    """Return the policy that maximises E reward - beta KL(policy || ref): ref exp(reward / beta), normalised."""
    if not beta > 0:
        raise ValueError(f"tilt: beta is {beta}; expected a number > 0")
    return np.asarray(softmax(np.log(ref) + reward / beta))


def value(policy: Floats, ref: Floats, reward: Floats, beta: float) -> float:
    """Return E reward - beta KL(policy || ref); its maximum is beta log E_ref exp(reward / beta)."""
    return float(policy @ reward) - beta * kl(policy, ref)


def optimal_value(ref: Floats, reward: Floats, beta: float) -> float:
    """Return the largest value of any policy."""
    return float(beta * logsumexp(reward / beta, b=ref))


def bradley_terry(reward: Floats) -> Floats:
    """Return P(i over j) = sigmoid(r_i - r_j), [K, K]."""
    return np.asarray(expit(reward[:, None] - reward[None, :]))


def ipo(ref: Floats, preference: Floats, opponents: Floats, tau: float) -> Floats:
    """Return the optimum of offline IPO on pairs of answers drawn from `opponents`: ref exp(p(y over mu) / tau)."""
    return tilt(ref, preference @ opponents, tau)


Derivatives = Callable[[Floats], tuple[float, Floats, Floats]]
"""logits -> function, gradient, Hessian"""


def minimise(
    derivatives: Derivatives, start: Floats, *, tolerance: float = 1e-11, steps: int = 500, ridge: float = 1e-12
) -> Floats:
    """Return the minimiser of a convex function of K logits that a common shift leaves alone, by damped Newton steps.

    Raises RuntimeError when the gradient stays above `tolerance`: there is no minimum, as for DPO on labels without
    noise, or on answers that no pair connects (then add `eta`).
    """
    z = start - start.mean()
    size = len(z)
    for _ in range(steps):
        f, gradient, hessian = derivatives(z)
        if np.abs(gradient).max() < tolerance * max(1.0, float(np.abs(hessian).max())):
            return np.asarray(z)
        step = np.linalg.lstsq(hessian + (1 / size) + ridge * np.eye(size), gradient, rcond=None)[0]
        step *= min(1.0, 2.0 / max(np.abs(step).max(), 1e-300))
        rate = 1.0
        while derivatives(z - rate * step)[0] > f - 1e-4 * rate * (gradient @ step) + 1e-15 * abs(f) and rate > 1e-8:
            rate /= 2
        z = z - rate * step
        z -= z.mean()
    raise RuntimeError(
        f"optimum: no minimum found in {steps} steps, gradient {np.abs(gradient).max():.2g}; are labels without noise, "
        "or answers without pairs?"
    )


@dataclass(frozen=True, kw_only=True)
class Losses:
    """The expected RPO loss of a softmax policy: DPO's over pairs plus eta beta E_base[-log policy]; eta = 0 is DPO.

    Called with logits [K] it returns loss, gradient [K] and Hessian [K, K].
    """

    ref: Floats
    preference: Floats
    """[K, K] probability that i is preferred to j"""
    pairs: Floats
    """[K, K] how often i and j are compared, symmetric, diagonal 0; scaled to sum 1"""
    beta: float
    eta: float = 0.0
    base: Floats | None = None
    """baseline distribution [K]; needed where eta > 0"""

    def __post_init__(self) -> None:
        """Raise ValueError where P(i over j) + P(j over i) is not 1, or eta comes without a baseline."""
        if not np.allclose(self.preference + self.preference.T, 1):
            raise ValueError("preference: expected P(i over j) + P(j over i) = 1, with 1/2 on the diagonal")
        if self.eta and self.base is None:
            raise ValueError("RPO with eta > 0 needs the baseline distribution `base`")

    def __call__(self, z: Floats) -> tuple[float, Floats, Floats]:
        """Return loss, gradient and Hessian at these logits."""
        share = self.pairs / self.pairs.sum()
        d = z - np.log(self.ref)
        gaps = self.beta * (d[:, None] - d[None, :])
        # each unordered pair stands twice, as (i, j) and (j, i), with half its weight each time
        loss = float(-(share * (self.preference * _logsigmoid(gaps) + self.preference.T * _logsigmoid(-gaps))).sum())
        gradient = 2 * self.beta * (share * (expit(gaps) - self.preference)).sum(1)
        curve = self.beta**2 * share * expit(gaps) * expit(-gaps)
        hessian = 2 * (np.diag(curve.sum(1)) - curve)
        if self.base is not None and self.eta:
            policy, weight = softmax(z), self.eta * self.beta
            loss -= weight * float(self.base @ (z - logsumexp(z)))
            gradient = gradient + weight * (policy - self.base)
            hessian = hessian + weight * (np.diag(policy) - np.outer(policy, policy))
        return loss, gradient, hessian


def _logsigmoid(x: Floats) -> Floats:
    return -np.logaddexp(0.0, -x)


def rpo(
    ref: Floats, preference: Floats, pairs: Floats, *, beta: float, eta: float = 0.0, base: Floats | None = None
) -> Floats:
    """Return the policy that minimises the expected RPO loss; eta = 0 is DPO. See `Losses` for the arguments."""
    losses = Losses(ref=ref, preference=preference, pairs=pairs, beta=beta, eta=eta, base=base)
    return np.asarray(softmax(minimise(losses, np.log(ref))))


def maximin_gap(policy: Floats, losses: Losses) -> float:
    """Return the duality gap of RPO's maximin at `policy` with the reward that makes it optimal; >= 0, 0 at a saddle.

    The game is eta (E_policy r - E_base r - beta KL(policy || ref)) + L_D(r), the policy against the reward [3.3].
    """
    if losses.base is None or not losses.eta > 0:
        raise ValueError("the maximin needs eta > 0 and the baseline distribution `base`")
    reward = losses.beta * (np.log(policy) - np.log(losses.ref))
    ours = Losses(ref=np.ones_like(policy), preference=losses.preference, pairs=losses.pairs, beta=1.0)
    best_reply = losses.eta * (optimal_value(losses.ref, reward, losses.beta) - float(losses.base @ reward))
    upper = best_reply + ours(reward)[0]
    pull = losses.eta * (policy - losses.base)

    def against(r: Floats) -> tuple[float, Floats, Floats]:
        loss, gradient, hessian = ours(r)
        return loss + float(pull @ r), gradient + pull, hessian

    # answers that no pair reaches give the reward no curvature: there the policy must match the baseline
    worst = minimise(against, reward, tolerance=1e-10)
    lower = against(worst)[0] - losses.eta * losses.beta * kl(policy, losses.ref)
    return upper - lower


def soft_values(reward: Floats, conditionals: Sequence[Floats], beta: float) -> tuple[list[Floats], list[Floats]]:
    """Return soft values V_1 .. V_T, V_{T+1} = reward, and the optimal policy of each step, over texts of T tokens.

    V_t = beta log sum_a ref(a | s) exp(V_{t+1}(s, a) / beta); policy(a | s) = ref(a | s) exp((V_{t+1}(s, a) - V_t(s)) /
    beta), so beta log(policy / ref) is the advantage of a token, and advantages of a text add up to reward - V_1.

    Args:
        reward: [V] * T, of whole texts.
        conditionals: ref(token t | tokens before), [V] * t for t = 1 .. T.
        beta: strength of the pull towards the reference, > 0.
    """
    values: list[Floats] = [np.asarray(reward, dtype=np.float64)]
    policies: list[Floats] = []
    for ref in reversed(conditionals):
        above = values[0]
        here = np.asarray(beta * logsumexp(above / beta, b=ref, axis=-1))
        policies.insert(0, np.asarray(ref * np.exp((above - here[..., None]) / beta)))
        values.insert(0, here)
    return values, policies


def check(cfg: Config) -> Result:
    """Certify every optimum on drawn spaces.

    Returns:
        regret/identity_error: |J* - J(pi) - beta KL(pi || pi*)| over random pi; dpo/distance_to_rlhf: total variation
        between DPO's minimiser on Bradley-Terry labels and the tilt of their reward; ipo/distance_to_closed_form: the
        same for IPO's squared loss; rpo/duality_gap and rpo/distance_to_maximin; tokens/advantage_error. Largest over
        the spaces each.
    """
    draw = np.random.default_rng(cfg.seed)
    rows = [_space(draw, cfg) for _ in range(cfg.spaces)]
    metrics = {name: Metric(value=max(row[name] for row in rows), n=len(rows)) for name in rows[0]}
    table = Table(
        columns=("space", *rows[0]),
        rows=tuple((number, *row.values()) for number, row in enumerate(rows)),
        caption=f"{cfg.answers} answers each; 0 but for rounding where the mathematics holds.",
    )
    from alignlab.theory import _optimum_figure  # it draws what is defined here

    return Result(metrics=metrics, tables={"spaces": table}, figures={"one space": _optimum_figure.policies(cfg)})


def _space(draw: np.random.Generator, cfg: Config) -> dict[str, float]:
    k, beta = cfg.answers, cfg.beta
    ref, base, other, mu = (np.asarray(draw.dirichlet(np.ones(k)) * 0.9 + 0.1 / k) for _ in range(4))
    reward = draw.normal(0, 1, k)
    best = tilt(ref, reward, beta)
    regret = optimal_value(ref, reward, beta) - value(other, ref, reward, beta)
    pairs = np.ones((k, k)) - np.eye(k)
    preference = bradley_terry(reward)
    fitted = rpo(ref, preference, pairs, beta=beta)
    losses = Losses(ref=ref, preference=_cyclic(draw, k), pairs=pairs, beta=beta, eta=cfg.eta, base=base)
    robust = rpo(ref, losses.preference, pairs, beta=beta, eta=cfg.eta, base=base)
    tokens = [np.asarray(draw.dirichlet(np.ones(k), size=(k,) * t)) for t in range(2)]
    whole = draw.normal(0, 1, (k, k))
    values, policies = soft_values(whole, tokens, beta)
    advantages = beta * (np.log(policies[0] / tokens[0])[:, None] + np.log(policies[1] / tokens[1]))
    return {
        "regret/identity_error": abs(regret - beta * kl(other, best)),
        "dpo/distance_to_rlhf": float(np.abs(fitted - best).sum() / 2),
        "ipo/distance_to_closed_form": float(
            np.abs(_ipo_by_regression(ref, losses.preference, mu, beta) - ipo(ref, losses.preference, mu, beta)).sum()
            / 2
        ),
        "rpo/duality_gap": maximin_gap(robust, losses),
        "rpo/distance_to_maximin": float(np.abs(robust - _maximin(losses)).sum() / 2),
        "tokens/advantage_error": float(np.abs(advantages + values[0] - whole).max()),
    }


def _cyclic(draw: np.random.Generator, k: int) -> Floats:
    """Draw preferences that no reward explains."""
    skew = draw.uniform(-0.45, 0.45, (k, k))
    return np.asarray(0.5 + (skew - skew.T) / 2)


def _ipo_by_regression(ref: Floats, preference: Floats, mu: Floats, tau: float) -> Floats:
    """Minimise E_{y, y' ~ mu}(h - (p - 1/2) / tau)^2 as the least-squares problem it is."""
    k = len(ref)
    i, j = np.triu_indices(k, 1)
    root = np.sqrt(mu[i] * mu[j])
    design = (np.eye(k)[i] - np.eye(k)[j]) * root[:, None]
    d = np.linalg.lstsq(design, root * (preference[i, j] - 0.5) / tau, rcond=None)[0]
    return np.asarray(softmax(np.log(ref) + d))


def _maximin(losses: Losses) -> Floats:
    """Solve min over rewards of max over policies directly, by a general optimiser, and return the reply to it."""
    from scipy.optimize import minimize

    assert losses.base is not None
    base = losses.base
    ours = Losses(ref=np.ones_like(losses.ref), preference=losses.preference, pairs=losses.pairs, beta=1.0)

    def game(r: Floats) -> tuple[float, Floats]:
        loss, gradient, _ = ours(r)
        inner = optimal_value(losses.ref, r, losses.beta) - float(base @ r)
        return loss + losses.eta * inner, gradient + losses.eta * (tilt(losses.ref, r, losses.beta) - base)

    found = minimize(game, np.zeros_like(base), jac=True, method="BFGS", options={"gtol": 1e-10})
    return tilt(losses.ref, np.asarray(found.x), losses.beta)
