"""f-DPO against the brief's vectors, independent formulas and the theorem behind it."""

import math

import exactness
import pairwise
import pytest
import torch

from alignlab.objectives import dpo, f_dpo

KINDS = ("reverse_kl", "js_divergence", "forward_kl", "alpha_divergence")


def slope_of_f(kind, a, alpha):
    """f'(e^a) from the divergences' definitions."""
    u = math.exp(a)
    return {
        "reverse_kl": lambda: math.log(u) + 1,
        "js_divergence": lambda: math.log(2 * u / (1 + u)),
        "forward_kl": lambda: -1 / u,
        "alpha_divergence": lambda: (u ** (alpha - 1) - 1) / (alpha - 1),
    }[kind]()


def formula(step, cfg):
    def of_pair(better, worse):
        s = [slope_of_f(cfg.f_divergence_type, x.ratio(), cfg.f_alpha_divergence_coef) for x in (better, worse)]
        return pairwise.nls(cfg.beta * (s[0] - s[1]))

    return pairwise.mean_over_pairs(of_pair, step)


@pytest.mark.parametrize("kind", KINDS)
def test_exactness(kind):
    cfg = f_dpo.Config(beta=0.3, f_divergence_type=kind, f_alpha_divergence_coef=0.3)
    exactness.check(f_dpo.loss, cfg, formula)


@pytest.mark.parametrize(
    ("kind", "vector"), [("reverse_kl", 0.598139), ("js_divergence", 0.644397), ("forward_kl", 0.582517)]
)
def test_vectors(kind, vector):
    cfg = f_dpo.Config(beta=0.1, f_divergence_type=kind)
    value, better, worse = pairwise.slopes(f_dpo, cfg, pairwise.pair(*pairwise.BRIEF))
    assert value == pytest.approx(vector, abs=5e-7)
    assert better < 0 < worse


def test_limits():
    batch = pairwise.ratios(0.7, -0.4, p=0.8)

    def found(kind, alpha=0.5):
        cfg = f_dpo.Config(beta=0.5, f_divergence_type=kind, f_alpha_divergence_coef=alpha)
        return pairwise.slopes(f_dpo, cfg, batch)

    plain = pairwise.slopes(dpo, dpo.Config(beta=0.5), batch)
    assert found("reverse_kl") == pytest.approx(plain)
    assert found("alpha_divergence", 1.0) == pytest.approx(plain)
    assert found("alpha_divergence", 1 - 1e-9) == pytest.approx(plain, rel=1e-7), "no digits are lost on the way"
    assert found("alpha_divergence", 0.0) == pytest.approx(found("forward_kl"))


def divergence(kind, policy, ref, alpha):
    """D_f(policy || ref) over enumerated answers."""
    p, q = policy.exp(), ref.exp()
    u = p / q
    f = {
        "reverse_kl": u * u.log(),
        "js_divergence": u * u.log() - (u + 1) * ((u + 1) / 2).log(),
        "forward_kl": -u.log(),
        "alpha_divergence": (u**alpha - alpha * u + alpha - 1) / (alpha * (alpha - 1)),
    }[kind]
    return (q * f).sum()


@pytest.mark.parametrize("kind", KINDS)
def test_the_optimum_maximises_reward_less_divergence(kind):
    """Theorem: preferences by sigma(r1 - r2) lead to the policy that maximises E[r] - beta D_f."""
    beta, alpha = 0.7, 0.3
    ref = torch.tensor(pairwise.REF, dtype=torch.float64).log_softmax(0)
    rewards = torch.tensor(pairwise.REWARDS, dtype=torch.float64)

    def regret(policy):
        return beta * divergence(kind, policy, ref, alpha) - (policy.exp() * rewards).sum()

    wanted = pairwise.minimised(regret, ref)
    cfg = f_dpo.Config(beta=beta, f_divergence_type=kind, f_alpha_divergence_coef=alpha)
    pairs = pairwise.all_pairs(lambda a, b: pairwise.sigmoid(a - b))
    found = pairwise.optimum(f_dpo, cfg, pairwise.REF, pairs)
    assert found.exp().tolist() == pytest.approx(wanted.exp().tolist(), abs=1e-5)
    assert (wanted.exp() - ref.exp()).abs().max() > 0.05, "the optimum is not where the search began"


def test_extreme_log_ratios_stay_finite_in_float32():
    for kind in KINDS:
        for at in ((500.0, -500.0), (-500.0, 500.0)):
            batch = pairwise.ratios(*at)
            views = {k: type(v)(logp=v.logp.detach().float().requires_grad_()) for k, v in batch.views.items()}
            object.__setattr__(batch, "views", views)
            for name in ("p", "weight", "margin"):
                object.__setattr__(batch.pairs, name, getattr(batch.pairs, name).float())
            found = pairwise.slopes(f_dpo, f_dpo.Config(beta=1.0, f_divergence_type=kind), batch)
            assert all(map(math.isfinite, found)), (kind, at)


def test_errors():
    wrong = [{"f_alpha_divergence_coef": x} for x in (-0.1, 1.1, math.nan)]
    pairwise.check_errors(f_dpo, [{"beta": 0.0}, {"f_divergence_type": "hellinger"}, *wrong])
