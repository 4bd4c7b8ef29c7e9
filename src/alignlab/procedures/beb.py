"""Behaviour expectation bounds end to end: two personas, their mixtures, and how long a prompt must be to undo tuning.

Trains P_- and P_+ as adapters of one base on the town's unkind and kind persona (or takes --minus and --plus), then
holds the theory against them. Always: mixtures of the two with known alpha, whose KL decay, misaligning length,
aligning prefixes and best of n must follow log(1 / alpha) / beta. With `full`, also models that learnt the mixture
themselves (claim 2), and one of them before and after preference tuning, beside a control that spends the same KL on
an unrelated preference (claim 4, the RLHF conjecture: alpha falls and beta rises).

Source: Wolf et al. 2024 (arXiv:2304.11082v6), section 4; the claims are the brief's. Units: sentences, nats.
Reduction: means over prompts sampled from P_-; over seeds the mean with the lowest and highest seed as ends.
"""

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from alignlab.core.cards import Card, Claim
from alignlab.core.limits import at_least
from alignlab.core.types import Context, Metric, Prompt, Result
from alignlab.engine.adapters import load_all
from alignlab.engine.divergence import apart, log_probabilities
from alignlab.engine.encode import prompt_ids
from alignlab.engine.load import load
from alignlab.engine.sentences import after, default_start, sample_texts
from alignlab.probes import _beb_fits as fits
from alignlab.probes import beb as probe
from alignlab.probes._beb_found import Found, compare, starts_of
from alignlab.procedures import _beb_claims as claims
from alignlab.procedures import _beb_models as models
from alignlab.procedures import _beb_report as pages
from alignlab.procedures._beb_kept import kept
from alignlab.procedures._seeded import Seeded
from alignlab.theory import beb
from alignlab.world import personas

CARD = Card(
    title="Behaviour expectation bounds: personas, mixtures and tuning",
    paper="arXiv:2304.11082",
    bibtex=beb.CARD.bibtex,
    brief="beb",
    status="reconstructed",
    summary="Two personas, their mixtures, and the prompts that bring the worse one back.",
    smoke="alignlab run beb --minus tiny:+unkind --plus tiny:+kind --texts 12 --prefixes 0 2 --output_dir {out}",
    study="alignlab run beb --full true --seeds 5 --width 64 --texts 64",
    claims=(
        Claim(metric="known/rank_correlation", relation=">=", bound=0.8),
        Claim(metric="known/slope", relation=">=", bound=0.75),
        Claim(metric="known/slope", relation="<=", bound=1.25),
        Claim(metric="known/intercept_rank", relation=">=", bound=0.8),
    ),
    deviations=(
        "personas of an invented town and at most 2M parameters instead of published statements and Llama-2-13B",
        "KL over windows of several sentences: in one sentence of overlapping components log(1 / alpha) cannot show",
        "the base learns both personas first, at first from ones that never stray; the personas are adapters of it",
        "the control spends DPO's KL by scaling its adapter",
        "beside the line, what it shows of a known mixture: its beta grows as alpha falls, though the personas stay",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Models, mixtures and sizes."""

    full: bool = False
    """also learn mixtures and tune one of them by preferences (claims 2 and 4): minutes"""
    seeds: int = 1
    """how often everything is done, from --seed upwards, >= 1"""
    minus: str | None = None
    """spec of P_-, to measure models of your own; nothing is trained then"""
    plus: str | None = None
    """spec of P_+, given together with minus"""
    behaviour: Literal["town", "likelihood"] = "town"
    """who says what is good: the personas' table, or which of the two finds it likelier (for models of your own)"""
    alphas: tuple[float, ...] = (0.3, 0.1, 0.03, 0.01)
    """weights of P_- in the mixtures, in (0, 1)"""
    tuned_alpha: float = 0.1
    """the learnt mixture that preferences are tuned on; one of alphas"""
    horizon: int = 4
    """window of KL(P_- || P), in sentences; beta times it should exceed log(1 / alpha)"""
    sentences: int = 8
    """longest prompt, in sentences; with the horizon at most what a text has"""
    points: int = 3
    """of the fitted line, >= 2 (paper: 3)"""
    prefixes: tuple[int, ...] = (0, 1, 2, 3)
    """aligning prefixes, in sentences of P_+"""
    best_of: tuple[int, ...] = (1, 2, 4, 8)
    """answers of which the best counts, each at most responses"""
    texts: int = 24
    """prompts sampled from P_-, >= 4"""
    text_tokens: int = 96
    """longest text, in tokens"""
    responses: int = 8
    """answers per prompt"""
    response_tokens: int = 8
    """longest sentence, in tokens; 32 suits models that write more than the town does"""
    batch: int = 8
    """texts or pairs per optimiser step"""
    width: int = 0
    """train a fresh model of one layer and this width instead of tuning --model; 0: --model"""
    sharp_steps: int = 60
    """steps on personas that never stray, before the base; without them it learns no mixture"""
    base_steps: int = 400
    """steps of the base on both personas"""
    base_rate: float = 1e-2
    """peak learning rate of these"""
    persona_steps: int = 150
    """steps of each persona's adapter"""
    persona_rate: float = 3e-3
    """peak learning rate of these"""
    lora_r: int = 8
    """rank of every adapter; its scale is 2"""
    mixture_steps: int = 400
    """steps of a learnt mixture, from the base on"""
    mixture_rate: float = 1e-3
    """peak learning rate of these"""
    dpo_steps: int = 40
    """steps of preference tuning"""
    dpo_rate: float = 6e-4
    """peak learning rate of these"""
    dpo_beta: float = 0.1
    """inverse temperature of DPO's implicit reward, > 0"""

    def __post_init__(self) -> None:
        if (self.minus is None) != (self.plus is None):
            raise ValueError("--minus and --plus: give both, or neither and they are trained")
        if self.full and self.minus is not None:
            raise ValueError("--full true trains mixtures of the town's personas; leave --minus and --plus out")
        if not self.alphas or any(not 0 < alpha < 1 for alpha in self.alphas):
            raise ValueError(f"--alphas: expected numbers in (0, 1), got {self.alphas}")
        if min(self.prefixes, default=1) != 0:
            raise ValueError(f"--prefixes: expected 0 and numbers above it, got {self.prefixes}")
        if self.full and self.tuned_alpha not in self.alphas:
            raise ValueError(f"--tuned_alpha {self.tuned_alpha}: expected one of --alphas {self.alphas}")
        if not self.best_of or min(self.best_of) < 1 or max(self.best_of) > self.responses:
            raise ValueError(f"--best_of: expected sizes from 1 to --responses {self.responses}, got {self.best_of}")
        if not self.dpo_beta > 0:
            raise ValueError(f"--dpo_beta: expected a number > 0, got {self.dpo_beta}")
        least = {
            "seeds": 1, "horizon": 1, "sentences": 1, "points": 2, "texts": 4, "text_tokens": 1, "response_tokens": 2,
            "batch": 1, "width": 0, "sharp_steps": 0, "base_steps": 1, "persona_steps": 1, "lora_r": 1,
            "mixture_steps": 1, "dpo_steps": 1,
        }  # fmt: skip
        at_least(self, least)


@dataclass
class Seed:
    """What one seed found."""

    first: Found
    """P_+ against P_-"""
    beta: float
    """KL(P_- || P_+) per sentence, nats"""
    known: list[claims.Cell]
    metrics: dict[str, Metric] = field(default_factory=dict)
    learnt: list[claims.Cell] = field(default_factory=list)
    prefix: dict[int, float] = field(default_factory=dict)
    """sentences of prefix -> half-crossing, in the known mixture of the smallest alpha"""
    best_of: dict[int, float] = field(default_factory=dict)
    """n -> half-crossing, in the same mixture"""
    tuned: dict[str, Found] = field(default_factory=dict)
    """before, preferred, control -> what was found of it"""


def run(ctx: Context, cfg: Config) -> Result:
    """Train or take the personas, measure, and say which claims hold."""
    seeds = []
    for number in range(ctx.seed, ctx.seed + cfg.seeds):
        here = ctx if cfg.seeds == 1 else Seeded(ctx, number)
        seeds.append(_seed(here, cfg))
    return pages.result(seeds, cfg)


def _seed(ctx: Context, cfg: Config) -> Seed:
    if cfg.minus is not None and cfg.plus is not None:
        minus, plus = load_all([cfg.minus, cfg.plus])
    else:
        start = models.base(ctx, cfg)
        minus, plus = models.both(ctx, start, cfg)
    first = _compared(ctx, "P_+ against P_-", plus, minus, plus, cfg, parts=("audit",))
    cells = [claims.known(first, alpha, cfg.horizon, cfg.points) for alpha in cfg.alphas]
    found = Seed(first=first, beta=claims.rate(first, cfg.horizon), known=cells)
    numbers = fits.without_windows(first, settings(cfg, ctx.seed))
    found.metrics |= {f"personas/{name}": numbers[name] for name in (
        "sigma", "gamma/after_own", "gamma/after_good", "told")}  # fmt: skip
    found.metrics["personas/beta"] = Metric(value=found.beta, n=cfg.texts)
    found.metrics |= claims.over_cells("known", found.known, found.beta)
    _prefixes(ctx, cfg, minus, plus, found)
    _best_of(cfg, found)
    if cfg.full:
        _learnt(ctx, cfg, minus, plus, found)
        _tuning(ctx, cfg, minus, plus, found)
    return found


def settings(cfg: Config, seed: int) -> probe.Config:
    """Return the probe's settings; the longest third of what is drawn beyond `texts` is kept."""
    return probe.Config(
        drawn=-(-cfg.texts * 4 // 3), prompts=cfg.texts, prompt_tokens=cfg.text_tokens, sentences=cfg.sentences,
        continuations=4, tokens=cfg.response_tokens, horizon=cfg.horizon, sentence_tokens=cfg.response_tokens,
        responses=cfg.responses, response_tokens=cfg.response_tokens, behaviour=cfg.behaviour, points=cfg.points,
        seed=seed,
    )  # fmt: skip


def _compared(
    ctx: Context,
    name: str,
    model: Any,
    minus: Any,
    plus: Any,
    cfg: Config,
    starts: Sequence[Prompt] = (),
    *,
    parts: Collection[str] = (),
) -> Found:
    """Measure a model against P_-; the prompts depend on seed and starts alone, so they are the same for all models."""
    options = settings(cfg, ctx.seed)
    begins = starts_of(minus.tokenizer, starts, None)
    key = (name, [m.identity for m in (model, minus, plus)], begins, options, parts)

    def measure() -> Found:
        with ctx.stage(name, options.prompts, options.prompts) as stage:
            return compare(model, minus, plus, begins, options, stage.advance, parts=parts)

    return kept(ctx.folder, key, measure)


def _prefixes(ctx: Context, cfg: Config, minus: Any, plus: Any, found: Seed) -> None:
    """Claim 3: after an aligning prefix of P_+, the known mixture of the smallest alpha."""
    alpha, words = min(cfg.alphas), minus.tokenizer
    begin = default_start(words)
    before = prompt_ids(words, [begin])[0]
    texts = sample_texts(plus, begin, cfg.texts, max_tokens=cfg.text_tokens, seed=ctx.seed + 5)
    ratios = [p - q for p, q in zip(*(log_probabilities(m, before, [t.ids for t in texts]) for m in (minus, plus)))]
    other = [pair.kl for pair in apart(plus, minus, before, [t.ids for t in texts])]
    per_sentence = [kl[: t.ends[-1]].sum() / len(t.ends) for kl, t in zip(other, texts) if t.ends]
    for m in cfg.prefixes:
        told = [i for i, text in enumerate(texts) if m == 0 or len(text.ends) >= m]
        if not told:
            continue
        cuts = [texts[i].ends[m - 1] if m else 0 for i in told]
        starts = [after(words, begin, texts[i].ids[:cut]) for i, cut in zip(told, cuts)]
        one = found.first if m == 0 else _compared(ctx, f"after {m} good sentences", plus, minus, plus, cfg, starts)
        against = np.array([ratios[i][:cut].sum() for i, cut in zip(told, cuts)])  # what the prefix says of P_-
        moved = dataclasses.replace(one, log_ratio=one.log_ratio + against[one.origin][:, None]) if m else one
        found.prefix[m] = claims.known(moved, alpha, cfg.horizon, cfg.points).crossing
    predicted = float(np.mean(per_sentence)) / found.beta
    found.metrics |= claims.shifts("prefix", list(found.prefix), list(found.prefix.values()), predicted)


def _best_of(cfg: Config, found: Seed) -> None:
    """Claim 3: the best of n answers, in the known mixture of the smallest alpha."""
    cell = found.known[cfg.alphas.index(min(cfg.alphas))]
    bad, good = (float(np.nanmean(fits.good(a))) for a in (found.first.minus_answers, found.first.answers))
    found.best_of = dict(zip(cfg.best_of, claims.best_of_crossings(cell.good, bad, good, cfg.best_of)))
    nats = [float(np.log(n)) for n in found.best_of]
    found.metrics |= claims.shifts("best_of", nats, list(found.best_of.values()), 1 / found.beta)
    found.metrics |= claims.logarithmic("best_of", cfg.best_of, list(found.best_of.values()))


def _learnt(ctx: Context, cfg: Config, minus: Any, plus: Any, found: Seed) -> None:
    """Claim 2: models that learnt the mixture of whole documents themselves."""
    for alpha in cfg.alphas:
        model = load(models.mixture(ctx, ctx.folder / "base" / "model", alpha, cfg))
        one = _compared(ctx, f"learnt mixture {alpha:g}", model, minus, plus, cfg)
        cell = claims.Cell(alpha=alpha, kl=one.path, good=fits.good(one.answers), points=cfg.points)
        found.learnt.append(cell)
        found.metrics[f"learnt/component/log_alpha {alpha:g}"] = Metric(value=float(one.log_share.min()), n=cfg.texts)
        if alpha == cfg.tuned_alpha:
            found.tuned["before"] = one
            crossings = claims.sampled_best_of_crossings(one, cfg.best_of)
            nats = [float(np.log(n)) for n in cfg.best_of]
            found.metrics |= claims.shifts("learnt/best_of", nats, crossings, 1 / found.beta)
            found.metrics |= claims.logarithmic("learnt/best_of", cfg.best_of, crossings)
    found.metrics |= claims.over_cells("learnt", found.learnt, found.beta)


def _tuning(ctx: Context, cfg: Config, minus: Any, plus: Any, found: Seed) -> None:
    """Claim 4: one learnt mixture before and after preferences for kind sentences, and for something unrelated."""
    start = ctx.folder / f"mixture-{cfg.tuned_alpha:g}" / "model"
    rows = {"preferred": personas.preferences(ctx.seed), "control": personas.other_preferences(ctx.seed)}
    folders = [models.preferring(ctx, start, name, stream, cfg) for name, stream in rows.items()]
    preferred, control, before = load_all([*folders, start])
    spent = models.budget(preferred, before, cfg, ctx.seed)

    def spends(factor: float) -> float:
        with models.scaled(control, factor):
            return models.budget(control, before, cfg, ctx.seed)

    factor = models.matching(spends, spent)
    found.tuned["preferred"] = _compared(ctx, "after preferences", preferred, minus, plus, cfg)
    with models.scaled(control, factor):
        found.metrics["control/kl"] = Metric(value=models.budget(control, before, cfg, ctx.seed), n=cfg.texts)
        name = f"after the control's preferences, scaled by {factor:.4g}"
        found.tuned["control"] = _compared(ctx, name, control, minus, plus, cfg)
    found.metrics["preferred/kl"] = Metric(value=spent, n=cfg.texts)
    found.metrics["control/scale"] = Metric(value=factor, n=1)
    ladder = claims.Ladder.of(found.first, cfg.horizon, cfg.points)
    found.metrics |= claims.before_and_after(found.tuned, ladder, cfg.points, ctx.seed)
