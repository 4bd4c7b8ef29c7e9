import copy
import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from alignlab.core.types import Row, View
from alignlab.engine.encode import collate, encode
from alignlab.engine.load import LanguageModel, save
from alignlab.engine.steered import Steered
from alignlab.objectives import dpo
from alignlab.probes import preference_rankings as rankings
from alignlab.probes._scoring import pair_logps
from alignlab.probes.preference_rankings import BETAS, CARD, Config, Scored, report
from alignlab.train import batches
from alignlab.world import rows as world_rows

BETTER, WORSE = np.array([-80.0, -120, -60, -100]), np.array([-90.0, -80, -58, -99])
LENGTHS = np.array([[40, 45], [60, 40], [30, 29], [50, 50]])
VOTES = np.array([0.75, 0.75, 1.0, 0.75])


def values(result):
    return {name: metric.value for name, metric in result.metrics.items()}


@pytest.mark.parametrize(
    ("c", "beta", "loss"),
    [(-10, 0.1, 1.313262), (0, 0.1, 0.693147), (5, 0.1, 0.474077), (30, 0.1, 0.048587), (100, 0.1, 0.000045),
     (30, 0.01, 0.554355)],
)  # fmt: skip
def test_thresholds(c, beta, loss):
    assert rankings.threshold(c, beta) == pytest.approx(loss, abs=1e-6)


@pytest.mark.parametrize(("gamma", "loss"), [(0, 0.693147), (0.5, 0.201413), (1, 0.048587), (2, 0.002476)])
def test_thresholds_of_dpo_gamma(gamma, loss):
    assert rankings.threshold(30, 0.1, gamma) == pytest.approx(loss, abs=1e-6)


def test_margins_and_what_can_be_flipped():
    assert rankings.margin_of(0.6) == pytest.approx(0.195870, abs=1e-6)
    assert rankings.largest_flippable(0.3, 0.1) == pytest.approx(10.5, abs=0.01)


def test_ipo():
    assert rankings.ipo_sufficient(-3, 0.1) == pytest.approx(4.0)
    assert np.isnan(rankings.ipo_sufficient(-10, 0.1))


def test_four_pairs():
    assert rankings.ranked(BETTER, WORSE).mean() == 0.25
    mean_better, mean_worse = BETTER / LENGTHS[:, 0], WORSE / LENGTHS[:, 1]
    assert rankings.ranked(mean_better, mean_worse).mean() == 0.75
    found = [rankings.idealised(BETTER, WORSE, VOTES, b).mean() for b in BETAS]
    assert found == [1, 0.75, 0.75, 0.25, 0.25]
    assert [rankings.idealised(mean_better, mean_worse, VOTES, b).mean() for b in BETAS] == [1] * 5
    script = [rankings.idealised(BETTER, WORSE, VOTES, b, form="released").mean() for b in BETAS]
    assert script == [1, 1, 1, 1, 0.75]


def test_simulated_difficulties():
    draw = np.random.default_rng(0)
    c, votes = draw.normal(10, 40, 400_000), np.where(draw.random(400_000) < 0.7, 0.75, 0.999)
    found = [rankings.idealised(-c, np.zeros_like(c), votes, b).mean() for b in BETAS]
    assert found == pytest.approx([0.996, 0.635, 0.429, 0.407, 0.404], abs=0.004)


def test_limits_of_the_ideal():
    votes = np.array([0.75, 0.4, 0.5, 0.6])
    assert rankings.idealised(BETTER, WORSE, votes, 1e-6).tolist() == [True, False, False, True]
    assert (rankings.idealised(BETTER, WORSE, votes, 1e6) == rankings.ranked(BETTER, WORSE)).all()
    even = np.full(4, 0.5)
    assert (rankings.idealised(BETTER, WORSE, even, 0.1) == rankings.ranked(BETTER, WORSE)).all()


def test_even_votes_are_ties():
    likely = np.log(np.array([0.300, 0.300]))
    other = np.log(np.array([0.305, 0.330]))
    assert rankings.ranked(likely, other, 0.5).tolist() == [True, False]
    assert rankings.ranked(likely, other, 0.75).tolist() == [False, False]


def test_whole_rankings():
    ranks = np.array([2, 1, 3, 3])
    assert rankings.ranked_exactly(np.array([-2.0, -1.0, -3.0, -4.0]), ranks)
    assert not rankings.ranked_exactly(np.array([-2.0, -1.0, -3.0, -1.5]), ranks)
    assert not rankings.ranked_exactly(np.array([-2.0, -2.0, -3.0, -4.0]), ranks)


def test_theorem_4_1_notices_a_wrong_loss():
    draw = np.random.default_rng(1)
    margin, c = draw.normal(0, 20, 500), draw.normal(5, 30, 500)
    for gamma in (0.0, 0.5, 1.0, 2.0):
        losses = rankings.dpo_loss(margin, c, 0.1, gamma)
        assert rankings.theorem_4_1(margin, c, losses, 0.1, gamma) < 1e-9
    right = rankings.dpo_loss(margin, c, 0.1)
    assert rankings.theorem_4_1(margin, c + 1, right, 0.1) > 1e-3  # another reference than the loss had
    assert rankings.theorem_4_1(margin, c, rankings.dpo_loss(-margin, c, 0.1), 0.1) > 1e-3
    assert rankings.theorem_4_1(margin / 2, c, rankings.dpo_loss(margin, c, 0.2), 0.1) > 1e-3


def test_theorem_4_1_on_a_dpo_run(tiny_models):
    """The objective's own losses at every step of a run, against rankings that another path scored."""
    rows = [dataclasses.replace(r, prompt=r.prompt[-1]["content"]) for r in world_rows("pairs", 0, 16)]
    model = tiny_models.make_model("llama")
    reference = copy.deepcopy(model)
    ref, tokens = pair_logps(reference, rows)
    groups = collate([encode(row, model.tokenizer) for row in rows], model.tokenizer.pad_token_id)
    with torch.no_grad():
        ref_view = View(logp=reference.score(groups).logp.double())
    optimizer = torch.optim.Adam(model.module.parameters(), lr=2e-3)
    flipped = 0
    for _ in range(12):
        policy, _ = pair_logps(model, rows)
        scored = model.score(groups).logp.double()
        batch = dataclasses.replace(groups, views={"policy": View(logp=scored), "ref": ref_view})
        term = dpo.loss(batch, dpo.Config(beta=0.1))[0]
        margin, c = policy[:, 0] - policy[:, 1], rankings.difficulty(ref[:, 0], ref[:, 1])
        assert rankings.theorem_4_1(margin, c, term.num.detach().numpy(), 0.1) <= 1e-6
        flipped = int(((margin >= 0) & (c > 0)).sum())
        optimizer.zero_grad()
        term.num.mean().backward()
        optimizer.step()
    assert flipped > 0  # the run did cross thresholds, so both sides were tested
    found = values(report(Scored(policy=policy, ref=ref, tokens=tokens, votes=np.ones(16)), Config()))
    assert found["flipped"] == pytest.approx(flipped / 16)
    assert found["theorem_4_1/worst"] <= 1e-6


def test_report_of_four_pairs():
    four = np.stack([BETTER, WORSE], 1)
    result = report(Scored(policy=four, ref=four, tokens=LENGTHS, votes=VOTES), Config())
    found = values(result)
    assert found["ranking_accuracy"] == 0.25
    assert found["idealised_accuracy"] == 0.75
    assert found["alignment_gap"] == pytest.approx(0.5)
    assert found["alignment_gap/length_normalised"] == pytest.approx(0.25)
    assert found["ranking_accuracy/length_matched"] == 0.0
    assert found["reward_accuracy"] == 0
    assert [row[1] for row in result.tables["flips"].rows] == [1, 0, 0, 3]
    released = values(report(Scored(policy=four, ref=four, tokens=LENGTHS, votes=VOTES), Config(form="released")))
    assert released["idealised_accuracy/median"] == 1.0


def test_the_reference_is_normalised_by_its_own_tokens():
    """Means of -3 and -1 by the reference's counts; by the policy's, -2 and -2.5, the other answer would be ideal."""
    ref, tokens = np.array([[-6.0, -5.0]]), np.array([[3, 2]])
    scored = Scored(policy=ref, ref=ref, tokens=tokens, votes=np.array([0.75]), ref_tokens=np.array([[2, 5]]))
    normalised = "alignment_gap/length_normalised"
    own, theirs = (values(report(s, Config())) for s in (scored, dataclasses.replace(scored, ref_tokens=tokens)))
    assert own["ranking_accuracy/length_normalised"] == theirs["ranking_accuracy/length_normalised"] == 1.0
    assert (own[normalised], theirs[normalised]) == (-1.0, 0.0)
    assert values(report(dataclasses.replace(scored, ref_tokens=None), Config()))[normalised] == 0.0, "as many"


def test_a_reference_may_have_a_tokenizer_of_its_own(tiny_models, tiny_model, monkeypatch, tmp_path):
    reference = tiny_models.make_model("llama", seed=1)
    reference.tokenizer = tiny_models.make_tokenizer(size=270)
    reference.module.resize_token_embeddings(len(reference.tokenizer))
    save(reference, tmp_path / "other")
    seen = []
    monkeypatch.setattr(rankings, "report", lambda found, cfg: seen.append(found) or report(found, cfg))
    for spec in (str(tmp_path / "other"), None):
        rankings.measure(tiny_model, ROWS, Config(reference=spec, ref_cache="none"))
    (policy, tokens), (ref, ref_tokens) = pair_logps(tiny_model, ROWS), pair_logps(reference, ROWS)
    assert (ref_tokens > tokens).all(), "of fewer words, so that a text has more"
    for found, expected in zip(seen, ((ref, ref_tokens), (policy, tokens)), strict=True):
        assert (found.tokens == tokens).all()
        np.testing.assert_allclose(found.ref, expected[0], atol=1e-4)
        assert (found.ref_tokens == expected[1]).all()


def test_win_rate_around_its_peak():
    before, after = rankings.around_peak([0.5, 0.6, 0.7, 0.65, 0.6], [0.40, 0.42, 0.44, 0.45, 0.46])
    assert before == pytest.approx(1)
    assert after == pytest.approx(-1)
    assert np.isnan(rankings.around_peak([0.7, 0.6, 0.5], [0.1, 0.2, 0.3])[0])


def test_a_peak_found_elsewhere():
    rates, accuracy = [0.5, 0.6, 0.55, 0.7, 0.65], [0.1, 0.2, 0.3, 0.4, 0.5]
    assert rankings.around_peak(rates, accuracy, peak=2) == pytest.approx((0.5, 0.5))
    assert np.isnan(rankings.around_peak([0.5] * 5, accuracy, peak=2)).all()  # a win rate that never moves


def test_measured_on_a_model(tiny_model):
    rows = [Row(prompt="Where?", chosen=" the mill", rejected=" the old harbour", facts={"p": 0.75})] * 3
    found = values(rankings.measure(tiny_model, rows, Config()))
    policy, tokens = pair_logps(tiny_model, rows)
    by_hand = tiny_model.score(collate([encode(rows[0], tiny_model.tokenizer)], 0)).logp.double().sum(1)
    assert policy[0] == pytest.approx(by_hand.detach().numpy(), abs=1e-5)
    assert found["ranking_accuracy"] == float(policy[0, 0] >= policy[0, 1])
    assert tokens[0, 0] < tokens[0, 1]
    assert all(c.metric in found for c in CARD.claims)


ROWS = [
    Row(prompt=f"Where is the {what}?", chosen=" the mill", rejected=" the old harbour", facts={"p": 0.75})
    for what in ("cat", "owl", "smith")
]


@pytest.fixture
def scored(monkeypatch):
    """Completions that any model scores, as they come."""
    seen, score = [], LanguageModel.score

    def counting(self, groups, *rest, **named):
        seen.append(len(groups.ids))
        return score(self, groups, *rest, **named)

    monkeypatch.setattr(LanguageModel, "score", counting)
    return seen


def test_a_second_measure_computes_nothing_and_has_the_same_bits(tiny_model, scored, tmp_path):
    cfg = Config(ref_cache=str(tmp_path))
    first, pairs = rankings.measure(tiny_model, ROWS, cfg), pair_logps(tiny_model, ROWS, str(tmp_path))
    assert sum(scored) == 6
    assert repr(rankings.measure(tiny_model, ROWS, cfg)) == repr(first)
    other = rankings.measure(tiny_model, ROWS, dataclasses.replace(cfg, beta=1.0))
    assert values(other)["ranking_accuracy"] == values(first)["ranking_accuracy"]
    assert sum(scored) == 6
    again = pair_logps(tiny_model, [*ROWS[1:], dataclasses.replace(ROWS[0], prompt="Where is the key?")], str(tmp_path))
    assert sum(scored) == 8, "known pairs are not scored, of the new one both completions are"
    assert (again[0][:2] == pairs[0][1:]).all()
    fresh = pair_logps(tiny_model, ROWS)
    assert sum(scored) == 14
    assert (fresh[0] == pairs[0]).all()
    assert (fresh[1] == pairs[1]).all()


def test_another_model_or_other_tokens_are_not_mixed_up(tiny_models, scored, tmp_path):
    model, where = tiny_models.make_model("llama"), str(tmp_path)
    first, _ = pair_logps(model, ROWS, where)
    swapped = [dataclasses.replace(row, chosen=row.rejected, rejected=row.chosen) for row in ROWS]
    assert (pair_logps(model, swapped, where)[0] == first[:, ::-1]).all()
    assert sum(scored) == 6, "a completion is known by its tokens, whichever side it is on"
    with torch.no_grad():
        next(model.module.parameters()).mul_(1.5)
    moved, _ = pair_logps(model, ROWS, where)
    assert sum(scored) == 12
    assert not np.isclose(moved, first, atol=1e-6).any()
    longer = [dataclasses.replace(row, chosen=row.chosen + "s") for row in ROWS]
    changed, _ = pair_logps(model, longer, where)
    assert (changed[:, 0] != moved[:, 0]).all()
    assert (changed == pair_logps(model, longer)[0]).all()


def test_what_is_more_than_its_weights_is_scored_every_time(tiny_model, scored, tmp_path):
    steered = Steered(tiny_model, [])
    for _ in range(2):
        pair_logps(steered, ROWS, str(tmp_path))
    assert sum(scored) == 12
    assert not list(tmp_path.iterdir())


def test_training_and_the_probe_look_up_each_others_values(tiny_model, scored, tmp_path):
    """In both directions: same keys, same bits."""
    examples = [encode(row, tiny_model.tokenizer) for row in ROWS]
    scorer = batches.Scorer(tiny_model, bf16=False)

    def as_training(some, where):
        cache = scorer.cache(where)
        return batches.reference_values(
            scorer, some, range(len(some)), tiny_model.tokenizer.pad_token_id,
            SimpleNamespace(num_processes=1, process_index=0), lambda _: None, cache,
        )  # fmt: skip

    for number, order in enumerate(("training first", "probe first")):
        where = str(tmp_path / str(number))
        if order == "training first":
            by_training, (sums, tokens) = as_training(examples, where), pair_logps(tiny_model, ROWS, where)
        else:
            (sums, tokens), by_training = pair_logps(tiny_model, ROWS, where), as_training(examples, where)
        assert sum(scored) == 6 * (number + 1)
        for i, pair in enumerate(tokens):
            parts = by_training[i].double().split(pair.tolist())
            assert [part.sum().item() for part in parts] == sums[i].tolist()


def test_errors(tiny_model):
    with pytest.raises(ValueError, match="--ref_cache: expected a folder, auto or none"):
        Config(ref_cache="")
    with pytest.raises(ValueError, match="row 0: expected 'chosen' and 'rejected'"):
        rankings.measure(tiny_model, [Row(prompt="?", completion="x")], Config())
    for p in (1.5, float("nan"), "most"):
        bad = Row(prompt="Where?", chosen=" mill", rejected=" tea", facts={"p": p}, meta={"id": "x7"})
        with pytest.raises(ValueError, match=r"row x7: field 'facts.p': expected a finite number in \[0, 1\]"):
            rankings.measure(tiny_model, [ROWS[0], bad], Config(ref_cache="none"))
    with pytest.raises(ValueError, match="--beta > 0"):
        Config(beta=0)
