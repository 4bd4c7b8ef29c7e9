import numpy as np
import pytest
import torch

from alignlab.engine import divergence
from alignlab.engine.divergence import apart, apart_after, groups_of, log_probabilities
from alignlab.engine.encode import prompt_ids


@pytest.fixture(scope="module")
def pair(tiny_models):
    return tiny_models.make_model("llama", seed=1), tiny_models.make_model("llama", seed=2)


@pytest.fixture(scope="module")
def before(pair):
    return prompt_ids(pair[0].tokenizer, ["The ferry leaves"])[0]


TEXTS = [[30, 41, 7], [55], [9, 9, 12, 100, 31]]


def whole(model, before, ids):
    with torch.no_grad():
        logits = model.module(input_ids=torch.tensor([[*before, *ids]])).logits[0, len(before) - 1 : -1]
    return logits.double().log_softmax(-1).numpy()


def test_against_whole_distributions(pair, before):
    for ids, found in zip(TEXTS, apart(*pair, before, TEXTS)):
        p, q = (whole(model, before, ids) for model in pair)
        rows = np.arange(len(ids))
        assert found.gap == pytest.approx(p[rows, ids] - q[rows, ids], abs=1e-4)
        assert found.kl == pytest.approx((np.exp(p) * (p - q)).sum(1), abs=1e-4)
        assert (found.kl > 0.01).all()


def test_other_starts_and_small_batches(pair, before, monkeypatch):
    other = before[:-1]
    whole_batch = apart(*pair, before, TEXTS, other)
    monkeypatch.setattr(divergence, "NUMBERS", 1)
    for one, again in zip(whole_batch, apart(*pair, before, TEXTS, other)):
        assert one.gap == pytest.approx(again.gap, abs=1e-5)
        assert one.kl == pytest.approx(again.kl, abs=1e-5)
    q = whole(pair[1], other, TEXTS[2])
    p = whole(pair[0], before, TEXTS[2])
    assert whole_batch[2].kl == pytest.approx((np.exp(p) * (p - q)).sum(1), abs=1e-4)


def test_a_model_is_not_apart_from_itself(pair, before):
    (found,) = apart(pair[0], pair[0], before, TEXTS[:1])
    assert found.gap.tolist() == [0, 0, 0]
    assert np.abs(found.kl).max() < 1e-9


def test_the_exact_form_is_the_mean_of_the_sampled_one(pair, before):
    """Same windows, many samples: equal means, and a fraction of the variance."""
    drawn = pair[0].sample([" The ferry leaves"[1:]], n=3000, max_tokens=3)[0]
    found = apart(*pair, before, [s.ids for s in drawn])
    sampled, exact = (np.array([getattr(a, name).sum() for a in found]) for name in ("gap", "kl"))
    error = (sampled - exact).std() / len(found) ** 0.5
    assert abs((sampled - exact).mean()) < 4 * error
    assert exact.var() < sampled.var()


def test_log_probabilities_and_padding(pair, before):
    found = log_probabilities(pair[0], before, TEXTS)
    assert [len(row) for row in found] == [3, 1, 5]
    assert found[2] == pytest.approx(whole(pair[0], before, TEXTS[2])[np.arange(5), TEXTS[2]], abs=1e-4)
    assert groups_of(before, TEXTS).mask.sum(1).tolist() == [3, 1, 5]


def test_other_vocabularies(pair, before, tiny_models):
    other = tiny_models.make_model("llama")
    other.tokenizer = tiny_models.make_tokenizer(size=300)
    with pytest.raises(ValueError, match="different vocabularies"):
        apart(pair[0], other, before, TEXTS)


def test_several_prompts_in_one_batch(pair, before):
    befores = [before, before[:-1], before]
    found = apart_after(*pair, befores, [TEXTS[:1], TEXTS, TEXTS[1:]])
    alone = [apart(*pair, one, texts) for one, texts in zip(befores, (TEXTS[:1], TEXTS, TEXTS[1:]))]
    assert [len(some) for some in found] == [1, 3, 2]
    for some, others in zip(found, alone):
        for one, again in zip(some, others):
            assert one.gap == pytest.approx(again.gap, abs=1e-5)
            assert one.kl == pytest.approx(again.kl, abs=1e-5)
    assert abs(found[0][0].kl[0] - found[1][0].kl[0]) > 1e-3  # the prompt matters
