"""Theorem 4.1 of Chen et al. 2024 (arXiv:2405.19534) on every DPO run of the tests, in whatever batch it computes.

A pair is ranked right, log p(better) >= log p(worse), exactly where its DPO loss is at most -log sigmoid(beta c), with
c the log-ratio of worse to better under the reference. One pair off by more than 1e-6 nats fails the test that trains.
"""

import functools
from types import ModuleType

import numpy as np
import torch

from alignlab.core.masks import seq_sum
from alignlab.core.types import Groups, Term

TOLERANCE = 1e-6
seen = 0
"""pairs held against the theorem so far"""


def hold(batch: Groups, beta: float, term: Term) -> None:
    """Fail where a pair of a batch breaks the theorem; `term` is what the objective said of the pairs."""
    global seen  # noqa: PLW0603 - the tests count what was checked
    from alignlab.probes.preference_rankings import difficulty, theorem_4_1

    pairs = batch.pairs
    sums = {name: seq_sum(batch.views[name].logp.detach().double(), batch.mask) for name in ("policy", "ref")}
    (policy_w, policy_l), (ref_w, ref_l) = ((s[pairs.better].numpy(), s[pairs.worse].numpy()) for s in sums.values())
    weight, p = (x.double() for x in (pairs.weight, pairs.p))
    # a soft label's loss is an expectation; the theorem speaks of -log sigmoid(z) of the pair as it stands
    hard = (term.num.detach().double() / weight).numpy()
    soft = torch.nn.functional.softplus(-term.logs["rewards/margins"].double()).numpy()
    losses = np.where((p == 1).numpy(), hard, soft)
    kept = (weight > 0).numpy() & np.isfinite(policy_w - policy_l) & np.isfinite(ref_w - ref_l)
    margin, c = (policy_w - policy_l)[kept], difficulty(ref_w, ref_l)[kept]
    worst = theorem_4_1(margin, c, losses[kept], beta)
    assert worst <= TOLERANCE, f"theorem 4.1 is broken by {worst:.3g} nats of loss"
    seen += int(kept.sum())


def watch(module: ModuleType) -> None:
    """Let the module's loss check each batch that it computes."""
    loss = module.loss

    @functools.wraps(loss)
    def watched(batch, cfg):
        terms = loss(batch, cfg)
        hold(batch, cfg.beta, terms[0])
        return terms

    module.loss = watched
