"""What the optima of one drawn space look like beside each other."""

import numpy as np

from alignlab.core.types import Figure
from alignlab.theory import optimum


def policies(cfg: optimum.Config) -> Figure:
    """Return what each optimum makes of one reference: noisy comparisons of a reward, with and without pessimism."""
    draw, k = np.random.default_rng(cfg.seed), cfg.answers
    ref, reward = np.asarray(draw.dirichlet(np.ones(k)) * 0.9 + 0.1 / k), draw.normal(0, 1, k)
    preference, pairs = optimum.bradley_terry(reward), np.ones((k, k)) - np.eye(k)
    found = {
        "reference": ref,
        "reward - beta KL; DPO": optimum.tilt(ref, reward, cfg.beta),
        "IPO, pairs of the reference": optimum.ipo(ref, preference, ref, cfg.beta),
        "RPO, baseline the reference": optimum.rpo(ref, preference, pairs, beta=cfg.beta, eta=cfg.eta, base=ref),
    }
    order = np.argsort(-reward)
    answers = [f"reward {value:.2f}" for value in reward[order]]
    return Figure(
        kind="bars", series={name: {"label": answers, "y": policy[order].tolist()} for name, policy in found.items()},
        x_label="answer", y_label="probability", caption="A drawn space whose preferences a reward explains.",
    )  # fmt: skip
