"""KL-regularised preference games, exactly: the Nash equilibrium, its duality gap, where IPO, IPO-MD and DPO settle.

Two policies answer; a known matrix says which answer is preferred, cycles allowed; each pays tau KL to a reference. The
unique Nash obeys pi = ref exp(p(y over pi) / tau) / Z, which is also where online IPO settles. Over enumerable answers
all of it is solved to float precision: the oracle that online procedures are held to.

Source: Calandriello et al. 2024 (arXiv:2403.08635), equations 10 and 11, propositions 4.1, 4.2, 5.1, 5.2, appendix F;
Munos et al. 2023 (arXiv:2312.00886) for Nash-MD; the duality gap as in EGPO (arXiv:2503.08942).
Arrays: policies [K]; preference [K, K], entry (i, j) the probability that i is preferred to j. Unit: nats; preferences
are probabilities, so tau is in units of preference per nat. Reduction: expectation over both answers.
Deviations: equations were read through reading notes. Mixtures are of whole answers, not token by token. The gradient
is that of the loss itself: for a mixed sampler proposition 5.1's form must be centred to equal it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import root
from scipy.special import expit, logsumexp, softmax

from alignlab.core.cards import Card, Claim
from alignlab.core.types import Figure, Metric, Result, Table
from alignlab.theory import optimum

Floats = NDArray[np.float64]

CARD = Card(
    title="Preference games: Online IPO, IPO-MD, Nash-MD",
    paper="arXiv:2403.08635",
    bibtex="""@inproceedings{calandriello2024human,
  title = {Human Alignment of Large Language Models through Online Preference Optimisation},
  author = {Calandriello, Daniele and Guo, Zhaohan Daniel and Munos, R{\\'e}mi and Rowland, Mark and Tang, Yunhao and
    Avila Pires, Bernardo and Richemond, Pierre Harvey and Le Lan, Charline and Valko, Michal and Liu, Tianqi and
    Joshi, Rishabh and Zheng, Zeyu and Piot, Bilal},
  booktitle = {International Conference on Machine Learning},
  year = {2024},
  eprint = {2403.08635},
  archivePrefix = {arXiv}
}""",
    brief="online-ipo-md",
    status="reconstructed",
    summary="Nash equilibria of regularised preference games, and the fixed points of IPO, IPO-MD and DPO beside them.",
    smoke="alignlab check preference_games --output_dir {out}",
    claims=(
        Claim(metric="nash/gap", relation="<=", bound=1e-9),
        Claim(metric="nash/gradient_of_online_ipo", relation="<=", bound=1e-8),
        Claim(metric="ipo_md/gap_of_mixture", relation="<=", bound=1e-9),
        Claim(metric="nash_md/share_of_its_bound", relation="<=", bound=1),
        Claim(metric="dpo/log_odds_from_rlhf", relation="<=", bound=1e-6),
        Claim(metric="dpo/gap: condorcet", relation=">", bound=0.02),
        Claim(metric="offline/gap: cycle", relation=">", bound=0.1),
    ),
    deviations=(
        "equations through third-party reading notes, checked by algebra and numbers",
        "mixtures of whole answers: the token-wise product of conditionals is another policy",
    ),
)
WORLDS = {
    "cycle": np.array([[0.5, 0.7, 0.2], [0.3, 0.5, 0.9], [0.8, 0.1, 0.5]]),
    "condorcet": np.array([[0.5, 0.55, 0.55], [0.45, 0.5, 0.95], [0.45, 0.05, 0.5]]),
    "bradley_terry": optimum.bradley_terry(np.array([0.0, 0.8, -0.5])),
}
"""a cycle; a Condorcet winner (0) that is not the Borda winner (1); one that a reward explains"""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which games are drawn."""

    games: int = 10
    """drawn at random beside the three fixed ones, >= 1"""
    answers: int = 6
    """K, answers of each, >= 2"""
    tau: float = 0.05
    """pull towards the reference, > 0"""
    mixing: float = 0.125
    """IPO-MD's beta, in [0, 1) (paper: 0.125)"""
    seed: int = 0
    """of the games"""

    def __post_init__(self) -> None:
        if self.games < 1 or self.answers < 2 or not self.tau > 0 or not 0 <= self.mixing < 1:
            raise ValueError(
                f"preference_games: expected --games >= 1, --answers >= 2, --tau > 0, --mixing in [0, 1), got {self}"
            )


def payoff(policy: Floats, opponent: Floats, preference: Floats, ref: Floats, tau: float) -> float:
    """Return p(policy over opponent) - tau KL(policy || ref) + tau KL(opponent || ref)."""
    pull = optimum.kl(opponent, ref) - optimum.kl(policy, ref)
    return float(policy @ preference @ opponent) + tau * pull


def duality_gap(policy: Floats, preference: Floats, ref: Floats, tau: float) -> float:
    """Return 2 (payoff of the best reply to `policy` - 1/2); >= 0, and 0 at the Nash alone."""
    reply = optimum.optimal_value(ref, preference @ policy, tau) + tau * optimum.kl(policy, ref)
    return 2 * (reply - 0.5)


def nash(preference: Floats, ref: Floats, tau: float) -> Floats:
    """Return the Nash equilibrium, by Newton's method on its log-odds while tau falls from 10 to its value.

    The game is monotone, so each Newton system is regular. Raises ValueError where preference + its transpose is not 1,
    RuntimeError where the equations are not solved to 1e-9 (tau beyond float arithmetic).
    """
    if not np.allclose(preference + preference.T, 1):
        raise ValueError("preference: expected P(i over j) + P(j over i) = 1, with 1/2 on the diagonal")
    if not tau > 0:
        raise ValueError(f"nash: tau is {tau}; expected a number > 0")
    z = np.log(ref) - logsumexp(np.log(ref))
    for step in np.geomspace(max(10.0, tau), tau, 60):
        for _ in range(30):
            policy = softmax(z)
            residual = z - np.log(ref) - preference @ policy / step
            residual -= residual.mean()
            if np.abs(residual).max() < 1e-12 * max(1.0, float(np.abs(z).max())):
                break
            curve = np.diag(policy) - np.outer(policy, policy)
            jacobian = np.eye(len(z)) - preference @ curve / step
            jacobian -= jacobian.mean(0)
            z = z - np.linalg.lstsq(jacobian + 1 / len(z), residual, rcond=None)[0]
            z -= z.mean()
    left = float(np.ptp(z - np.log(ref) - preference @ softmax(z) / tau))
    if not left < 1e-9 * max(1.0, float(np.abs(z).max())):
        raise RuntimeError(f"nash: no solution at tau {tau}, residual {left:.2g} nats; take a larger tau")
    return np.asarray(softmax(z))


def mixture(policy: Floats, ref: Floats, mixing: float) -> Floats:
    """Return policy^(1 - mixing) ref^mixing, normalised: the sampler of IPO-MD."""
    return np.asarray(softmax((1 - mixing) * np.log(policy) + mixing * np.log(ref)))


def ipo_md(preference: Floats, ref: Floats, tau: float, mixing: float) -> Floats:
    """Return where IPO-MD settles: its mixture is the Nash at tau / (1 - mixing) (proposition 5.2)."""
    sampler = nash(preference, ref, tau / (1 - mixing))
    return np.asarray(softmax((np.log(sampler) - mixing * np.log(ref)) / (1 - mixing)))


def ipo_gradient(policy: Floats, sampler: Floats, preference: Floats, ref: Floats, tau: float) -> Floats:
    """Return the gradient in the logits of E_{y, y' ~ sampler, no gradient}(h - (p - 1/2) / tau)^2 (equation 11)."""
    d = np.log(policy) - np.log(ref)
    gaps = d[:, None] - d[None, :] - (preference - 0.5) / tau
    return np.asarray(4 * sampler * (gaps @ sampler))


def policy_gradient(policy: Floats, opponent: Floats, preference: Floats, ref: Floats, tau: float) -> Floats:
    """Return Nash-MD-PG's ascent direction in the logits: E of grad log policy (p - 1/2 - tau log policy / ref)."""
    signal = preference @ opponent - 0.5 - tau * (np.log(policy) - np.log(ref))
    return np.asarray(policy * (signal - policy @ signal))


def nash_md(policy: Floats, preference: Floats, ref: Floats, tau: float, eta: float) -> tuple[Floats, Floats]:
    """Return the mixture and the policy of one tabular Nash-MD step of size eta."""
    between = mixture(policy, ref, eta * tau)
    return between, np.asarray(softmax(np.log(between) + eta * preference @ between))


def online_dpo(preference: Floats, ref: Floats, tau: float) -> Floats:
    """Return where online DPO settles: E_{y' ~ pi}(p - sigmoid(tau h)) = 0 for every answer; beta is tau.

    Followed from a strong pull, where it is near `ref`. Raises RuntimeError where no such policy is found.
    """

    def residual(d: Floats, pull: float) -> Floats:
        policy = softmax(np.log(ref) + d)
        found = (preference - expit(pull * (d[:, None] - d[None, :]))) @ policy
        return np.asarray(found + d.mean())  # a common shift of d changes nothing: fix it at mean 0

    d, before = np.zeros(len(ref)), max(10.0, tau)
    for pull in np.geomspace(before, tau, 40):
        d = root(residual, d * before / pull, args=(pull,), tol=1e-13).x
        before = pull
    left = float(np.abs(residual(d, tau)).max())
    if not left < 1e-9:
        raise RuntimeError(f"online_dpo: no fixed point found at tau {tau}, residual {left:.2g}; take a larger tau")
    return np.asarray(softmax(np.log(ref) + d))


def check(cfg: Config) -> Result:
    """Certify equilibria and fixed points on three fixed games with a uniform reference, and on drawn ones.

    Returns:
        nash/gap and ipo_md/gap_of_mixture (at tau / (1 - mixing)): largest duality gaps over all games;
        nash/gradient_of_online_ipo: largest entry of the gradient there; nash_md/share_of_its_bound:
        KL(Nash || iterate T) over 8 / (tau^2 (T + 1)), <= 1 as proven; dpo/log_odds_from_rlhf: largest distance, nats,
        on the Bradley-Terry game; gaps of online DPO and of offline IPO on uniform pairs, by fixed game.
    """
    draw = np.random.default_rng(cfg.seed)
    games = {name: (preference, np.full(3, 1 / 3)) for name, preference in WORLDS.items()}
    for number in range(cfg.games):
        skew = draw.uniform(-0.5, 0.5, (cfg.answers, cfg.answers))
        ref = 0.9 * draw.dirichlet(np.ones(cfg.answers)) + 0.1 / cfg.answers
        games[f"drawn {number}"] = 0.5 + (skew - skew.T) / 2, ref
    rows = {name: _certify(preference, ref, cfg) for name, (preference, ref) in games.items()}
    names = next(iter(rows.values()))
    metrics = {name: Metric(value=max(row[name] for row in rows.values()), n=len(rows)) for name in names}
    uniform = np.full(3, 1 / 3)
    settled = []
    for name, preference in WORLDS.items():
        places = {
            "Nash, online IPO": nash(preference, uniform, cfg.tau),
            "online DPO": online_dpo(preference, uniform, cfg.tau),
            "offline IPO, uniform pairs": optimum.ipo(uniform, preference, uniform, cfg.tau),
            "offline IPO, pairs (.1, .1, .8)": optimum.ipo(uniform, preference, np.array([0.1, 0.1, 0.8]), cfg.tau),
        }
        gaps = {place: duality_gap(policy, preference, uniform, cfg.tau) for place, policy in places.items()}
        settled += [(name, place, *np.round(policy, 6).tolist(), gaps[place]) for place, policy in places.items()]
        metrics[f"dpo/gap: {name}"] = Metric(value=gaps["online DPO"], n=1)
        metrics[f"offline/gap: {name}"] = Metric(value=gaps["offline IPO, uniform pairs"], n=1)
    rlhf = optimum.tilt(uniform, np.array([0.0, 0.8, -0.5]), cfg.tau)
    found = online_dpo(WORLDS["bradley_terry"], uniform, cfg.tau)
    metrics["dpo/log_odds_from_rlhf"] = Metric(value=float(np.ptp(np.log(found) - np.log(rlhf))), n=1)
    tables = {
        "where each settles": Table(
            columns=("game", "method", "answer 0", "answer 1", "answer 2", "duality gap"),
            rows=tuple(settled),
            caption=f"Uniform reference, tau = {cfg.tau:g}.",
        ),
        "games": Table(columns=("game", *names), rows=tuple((name, *row.values()) for name, row in rows.items())),
    }
    gaps_of = {
        place: [row[-1] for row in settled if row[1] == place] for place in dict.fromkeys(row[1] for row in settled)
    }
    figure = Figure(
        kind="bars", series={place: {"label": list(WORLDS), "y": gaps} for place, gaps in gaps_of.items()},
        x_label="game", y_label="duality gap", caption="0 is the Nash equilibrium. Uniform reference.",
    )  # fmt: skip
    return Result(metrics=metrics, tables=tables, figures={"where each settles": figure})


def _certify(preference: Floats, ref: Floats, cfg: Config) -> dict[str, float]:
    equilibrium = nash(preference, ref, cfg.tau)
    settled = ipo_md(preference, ref, cfg.tau, cfg.mixing)
    sampler = mixture(settled, ref, cfg.mixing)
    gradients = [
        ipo_gradient(equilibrium, equilibrium, preference, ref, cfg.tau),
        ipo_gradient(settled, sampler, preference, ref, cfg.tau),
    ]
    policy, shares = ref, []
    for t in range(2000):
        policy = nash_md(policy, preference, ref, cfg.tau, 2 / (cfg.tau * (t + 2)))[1]
        shares.append(optimum.kl(equilibrium, policy) * cfg.tau**2 * (t + 2) / 8)
    return {
        "nash/gap": duality_gap(equilibrium, preference, ref, cfg.tau),
        "nash/gradient_of_online_ipo": float(np.abs(gradients[0]).max()),
        "ipo_md/gap_of_mixture": duality_gap(sampler, preference, ref, cfg.tau / (1 - cfg.mixing)),
        "ipo_md/gradient": float(np.abs(gradients[1]).max()),
        "nash_md/share_of_its_bound": max(shares),
    }
