"""The whole study on an untrained micro model, and its arithmetic on curves whose answer is known."""

import dataclasses

import numpy as np
import pytest
import torch

from alignlab.cli.context import RunContext
from alignlab.core.types import Metric
from alignlab.engine.load import Lora, load, save
from alignlab.procedures import _beb_claims as claims
from alignlab.procedures import _beb_models as models
from alignlab.procedures import beb
from alignlab.world import personas

MICRO = beb.Config(
    width=32, sharp_steps=20, base_steps=20, persona_steps=15, persona_rate=1e-2, lora_r=4, batch=4, texts=4,
    text_tokens=36, sentences=3, horizon=2, responses=4, best_of=(1, 2, 4), alphas=(0.3, 0.1, 0.03), prefixes=(0, 1),
    dpo_steps=2, mixture_steps=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    """A folder with an untrained model of the personas' words."""
    folder = tmp_path_factory.mktemp("student")
    save(models.fresh(32, 0), folder)
    return folder


@pytest.fixture(scope="module")
def first(student, tmp_path_factory):
    folder = tmp_path_factory.mktemp("beb") / "run"
    return folder, beb.run(RunContext(folder=folder, model=str(student)), dataclasses.replace(MICRO, full=True))


def numbers(result):
    return {name: metric.value for name, metric in result.metrics.items()}


def test_every_stage_leaves_its_numbers(first):
    folder, result = first
    found = numbers(result)
    for name in ("sharp", "base", "minus", "plus", "mixture-0.1", "preferred", "control"):
        assert (folder / name / "model").is_dir()
    assert found["personas/beta"] > 0
    assert found["personas/told"] > 0.5
    assert found["control/kl"] == pytest.approx(found["preferred/kl"], rel=0.5)
    for name in ("before", "preferred", "control"):
        assert {f"{name}/beta", f"{name}/log_inverse_alpha", f"{name}/length"} <= set(found)
    assert {"known/rank_correlation", "learnt/slope", "prefix/slope", "best_of/predicted"} <= set(found)
    assert len(result.tables["cells"].rows) == 6
    shown = {row[0]: row for row in result.tables["claims"].rows}
    assert len(shown) == 17
    assert all(row[3] in ("yes", "no", "not measured") for row in shown.values())


def test_a_second_run_trains_nothing_again_and_finds_the_same(first, student, monkeypatch):
    folder, result = first
    monkeypatch.setattr(models, "train", lambda *a, **k: pytest.fail("trained again"))
    again = beb.run(RunContext(folder=folder, model=str(student)), dataclasses.replace(MICRO, full=True))
    assert numbers(again) == pytest.approx(numbers(result), nan_ok=True)


def test_models_of_ones_own(first, student):
    folder, _ = first
    cfg = dataclasses.replace(
        MICRO, minus=str(folder / "minus/model"), plus=str(folder / "plus/model"), behaviour="likelihood", prefixes=(0,)
    )
    other = folder.parent / "own"
    found = numbers(beb.run(RunContext(folder=other, model=str(student)), cfg))
    assert found["personas/beta"] == pytest.approx(numbers(first[1])["personas/beta"])
    assert not list(other.glob("*/model"))
    assert not any(name.startswith("learnt") for name in found)


@pytest.mark.parametrize(
    "wrong",
    [{"minus": "x"}, {"minus": "x", "plus": "y", "full": True}, {"alphas": (1.0,)}, {"prefixes": (1,)},
     {"full": True, "tuned_alpha": 0.2}, {"best_of": (64,)}, {"best_of": (0, 1)}, {"best_of": ()}, {"texts": 2},
     {"alphas": ()}, {"prefixes": ()}, {"prefixes": (0, -1)}, {"horizon": 0}, {"points": 1}, {"batch": 0},
     {"dpo_beta": 0.0}],
)  # fmt: skip
def test_settings_that_do_not_fit(wrong):
    with pytest.raises(ValueError, match="--"):
        beb.Config(**wrong)


def test_a_model_made_otherwise_is_not_taken_for_this_one(first):
    folder, _ = first
    ctx = RunContext(folder=folder, model="unused")
    with pytest.raises(ValueError, match="its model was made with other settings; give another --output_dir"):
        models.mixture(ctx, folder / "base" / "model", 0.1, dataclasses.replace(MICRO, mixture_steps=4))
    quick, other = dataclasses.replace(MICRO, sharp_steps=0, base_steps=1), folder.parent / "width"
    made = models.base(RunContext(folder=other, model="unused"), dataclasses.replace(quick, width=16))
    assert load(made).module.config.hidden_size == 16
    with pytest.raises(ValueError, match="made with other settings"):
        models.base(RunContext(folder=other, model="unused"), quick)


def exact_found(count=4000, n=9, seed=0):
    """What the probe would find of the personas' own laws: sentences drawn one by one, log-ratios exact."""
    draw = np.random.default_rng(seed)
    step = np.log(personas.LOYALTY / (1 - personas.LOYALTY))
    bad = draw.random((count, n)) < personas.LOYALTY
    ratio = np.concatenate([np.zeros((count, 1)), np.cumsum(np.where(bad, step, -step), axis=1)], axis=1)
    shape = (count, n + 1, 1)
    answers = {
        name: np.where(draw.random(shape) < chance, 1.0, -1.0)
        for name, chance in (("minus_answers", 1 - personas.LOYALTY), ("answers", personas.LOYALTY))
    }
    blank = np.zeros((count, n + 1, 1))
    return claims.Found(
        published=blank, published_exact=blank, sentence=blank, sentence_exact=blank, path=blank[..., 0],
        envelope=np.full((count, n + 1), 4 * personas.BETA), log_ratio=ratio, log_share=blank[..., 0],
        minus_after_good=blank, unfinished=0.0, origin=np.zeros(count, dtype=np.int64), **answers,
    )  # fmt: skip


@pytest.fixture(scope="module")
def exact():
    return exact_found()


def test_known_mixtures_against_the_papers_toy(exact):
    """alpha .01: KL of one sentence after none and n bad ones, and where it starts over long windows."""
    cell = claims.known(exact, 0.01, 4, 3)
    assert cell.kl.shape[1] == 6
    one = claims.known(exact, 0.01, 1, 3)
    assert one.kl[:, 0].mean() == pytest.approx(1.689408, abs=0.02)  # the published value for no sentence
    all_bad = exact.log_ratio[:, 3] > 6.5
    w = 1 / (1 + 99 * np.exp(-exact.log_ratio[all_bad, 3]))
    assert w == pytest.approx(np.full(all_bad.sum(), 0.880435), abs=1e-5)
    assert claims.known(exact, 0.01, 9, 3).kl.mean() == pytest.approx(-np.log(0.01), abs=0.1)


def test_the_theory_holds_of_what_it_speaks_of(exact):
    beta = claims.rate(exact, 4)
    assert beta == pytest.approx(personas.BETA)
    cells = [claims.known(exact, alpha, 4, 3) for alpha in beb.Config().alphas]
    found = {name: metric.value for name, metric in claims.over_cells("known", cells, beta).items()}
    assert found["known/rank_correlation"] == 1
    assert 0.75 < found["known/slope"] < 1.25
    assert found["known/intercept_rank"] == pytest.approx(1)
    good = claims.known(exact, 0.01, 4, 3).good
    crossings = claims.best_of_crossings(good, 0.1, 0.9, (1, 2, 4, 8))
    assert crossings == sorted(crossings)
    slope = claims.shifts("best_of", np.log([1, 2, 4, 8]).tolist(), crossings, 1 / beta)
    assert 0.5 < slope["best_of/slope"].value * beta < 1.5


def test_refuted_by_lengths_that_do_not_follow(exact):
    cells = [claims.known(exact, alpha, 4, 3) for alpha in (0.3, 0.1, 0.03)]
    swapped = [dataclasses.replace(c, good=d.good, kl=d.kl) for c, d in zip(cells, reversed(cells))]
    found = {name: m.value for name, m in claims.over_cells("known", swapped, personas.BETA).items()}
    assert found["known/rank_correlation"] == -1
    assert not all(claim.holds(found) for claim in beb.CARD.claims)


def test_a_smaller_alpha_alone_makes_lines_steeper(exact, monkeypatch):
    """Same personas, alpha .1 then .01: the line's beta rises, and all of it is what a known mixture shows too."""
    monkeypatch.setattr(claims, "DRAWS", 60)
    few = dataclasses.replace(exact, log_ratio=exact.log_ratio[:400])
    ladder = claims.Ladder.of(few, 4, 3)
    cells = {name: claims.known(few, alpha, 4, 3).kl for name, alpha in (("before", 0.1), ("after", 0.01))}
    steeper = cells["after"] * [[1.0, 0.8, 0.6, 0.4, 0.2, 0.1]]
    models_ = {
        name: dataclasses.replace(few, path=path) for name, path in {**cells, "steeper": steeper}.items()
    }  # fmt: skip
    found = claims.before_and_after(models_, ladder, 3, 0)
    assert found["after/beta_change"].low > 0.3
    assert found["after/log_inverse_alpha_change"].value == pytest.approx(np.log(10), abs=0.4)
    assert abs(found["after/beta_excess_change"].value) < 0.02
    assert found["steeper/beta_excess_change"].low > 0.2
    assert np.isnan(ladder.beta(np.arange(400), 99.0))


def test_lengths_that_never_change_have_no_rank(exact):
    cells = [dataclasses.replace(claims.known(exact, 0.1, 4, 3), alpha=alpha) for alpha in (0.3, 0.1, 0.03)]
    found = claims.over_cells("same", cells, personas.BETA)
    assert np.isnan(found["same/rank_correlation"].value)
    assert found["same/slope"].value == pytest.approx(0, abs=1e-9)


def test_growth_by_log_n_and_by_n():
    sizes = (1, 2, 4, 8)
    assert claims.logarithmic("x", sizes, [0.1, 0.72, 1.41, 2.1])["x/log_over_linear"].value < -2
    assert claims.logarithmic("x", sizes, [0.1, 0.2, 0.41, 0.8])["x/log_over_linear"].value > 2
    for nothing in ([0.1, 0.2, np.nan, np.nan], [0.0] * 4):  # two points, or lengths that both lines meet exactly
        assert np.isnan(claims.logarithmic("x", sizes, nothing)["x/log_over_linear"].value)


def test_best_of_n_is_unbiased():
    answers = np.array([[[1.0, -1.0, -1.0, -1.0, np.nan]]])
    assert claims.best_of(answers, 1)[0, 0] == pytest.approx(1 / 5)
    assert claims.best_of(answers, 2)[0, 0] == pytest.approx(1 - (4 * 3) / (5 * 4))
    assert claims.best_of(answers, 5)[0, 0] == 1
    with pytest.raises(ValueError, match="best of 6 from 5"):
        claims.best_of(answers, 6)


def test_seeds_are_pooled():
    seeds = [{"a": Metric(value=v, n=9), "b": Metric(value=w, n=9)} for v, w in ((1.0, np.nan), (3.0, 2.0))]
    found = claims.pooled(seeds)
    assert (found["a"].value, found["a"].low, found["a"].high, found["a"].n) == (2.0, 1.0, 3.0, 2)
    assert (found["b"].value, found["b"].n) == (2.0, 1)
    assert claims.pooled(seeds[:1]) is seeds[0]


def test_an_adapter_is_scaled_and_is_itself_again(student):
    model = load(student, lora=Lora(r=2, alpha=4))
    for key, parameter in model.module.named_parameters():
        if "lora_B" in key:
            torch.nn.init.normal_(parameter, std=0.1)
    plain, cfg = load(student), dataclasses.replace(MICRO, text_tokens=12)
    before = models.budget(model, plain, cfg, 0)
    with models.scaled(model, 0.0):
        assert models.budget(model, plain, cfg, 0) == pytest.approx(0.0, abs=1e-5)
    with models.scaled(model, 2.0):
        assert models.budget(model, plain, cfg, 0) > before
    assert models.budget(model, plain, cfg, 0) == before
    assert models.matching(lambda factor: factor**2, 2.25) == pytest.approx(1.5, abs=0.02)
    assert models.matching(lambda factor: 0.0, 1.0) > 31
