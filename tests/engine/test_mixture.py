"""A mixture over whole texts is held against sums over its two parts."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from alignlab.engine.divergence import groups_of, log_probabilities
from alignlab.engine.encode import prompt_ids
from alignlab.engine.mixture import Mixture

TEXTS = [[30, 41, 7], [55], [9, 9, 12, 100, 31]]


@pytest.fixture(scope="module")
def parts(tiny_models):
    return tiny_models.make_model("llama", seed=1), tiny_models.make_model("llama", seed=2)


@pytest.fixture(scope="module")
def start(parts):
    return prompt_ids(parts[0].tokenizer, ["<|text|>"])[0]


def whole(parts, alpha, start, text):
    minus, plus = (log_probabilities(m, start, [text])[0].sum() for m in parts)
    return np.logaddexp(np.log(alpha) + minus, np.log1p(-alpha) + plus)


@pytest.mark.parametrize("alpha", [0.3, 1e-6])
@pytest.mark.parametrize("cut", [0, 1, 3])
def test_scores_are_conditionals_of_the_mixture_of_whole_texts(parts, start, alpha, cut):
    text, mixture = TEXTS[2], Mixture(*parts, alpha)
    view = mixture.score(groups_of([*start, *text[:cut]], [text[cut:]]))
    expected = whole(parts, alpha, start, text) - (whole(parts, alpha, start, text[:cut]) if cut else 0.0)
    assert float(view.logp.sum()) == pytest.approx(expected, abs=2e-4)


def test_it_is_a_distribution_at_every_place(parts, start):
    mixture, size = Mixture(*parts, 0.2), len(parts[0].tokenizer)
    groups = groups_of(start, TEXTS)
    view = mixture.score(groups, torch.arange(size).expand(*groups.ids.shape, size))
    total = torch.cat([view.top_logp, view.rest[..., None]], -1).exp().sum(-1)
    assert total[groups.mask].tolist() == pytest.approx([1.0] * 9, abs=1e-5)
    own = view.top_logp.gather(-1, groups.ids[..., None])[..., 0]
    assert own[groups.mask].tolist() == pytest.approx(view.logp[groups.mask].tolist(), abs=1e-5)
    assert view.logp[~groups.mask].eq(0).all()


def test_never_below_its_parts(parts, start):
    """P(s) / P_-(s) >= alpha for every s."""
    mixture = Mixture(*parts, 0.01)
    for text in TEXTS:
        gap = log_probabilities(mixture, start, [text])[0].sum() - log_probabilities(parts[0], start, [text])[0].sum()
        assert gap >= np.log(0.01) - 1e-4


def test_samples_come_from_the_component_that_the_prompt_speaks_for(parts, start, tiny_models):
    mixture = Mixture(*parts, 0.5)
    prompts = ["<|text|>" + text for text in tiny_models.TEXT]
    encoded = prompt_ids(parts[0].tokenizer, prompts)
    odds = mixture.weights(encoded)
    chosen = int(odds.abs().argmax())
    assert abs(float(odds[chosen])) > 15
    prompt, ids, part = prompts[chosen], encoded[chosen], parts[0 if odds[chosen] > 0 else 1]
    drawn = mixture.sample([prompt], n=4, max_tokens=6, seed=1)[0]
    assert [s.ids for s in drawn] == [s.ids for s in part.sample([prompt], n=4, max_tokens=6, seed=1)[0]]
    view = mixture.score(groups_of(ids, [s.ids for s in drawn]))
    for row, sample in zip(view.logp.tolist(), drawn):
        assert sample.logp == pytest.approx(row[: len(sample.ids)], abs=1e-5)


def test_components_are_drawn_by_their_weight(parts):
    """First tokens of many samples against the mixture's own probabilities, and again from the same seed."""
    mixture = Mixture(*parts, 0.3)
    drawn = mixture.sample(["<|text|>"], n=2000, max_tokens=1, seed=5)[0]
    assert drawn == mixture.sample(["<|text|>"], n=2000, max_tokens=1, seed=5)[0]
    assert float(np.mean([s.logp[0] for s in drawn])) == pytest.approx(-entropy(mixture), abs=0.15)
    counts = np.bincount([s.ids[0] for s in drawn], minlength=len(parts[0].tokenizer)) / 2000
    size = len(counts)
    groups = groups_of(mixture.start, [[0]])
    chances = mixture.score(groups, torch.arange(size).expand(1, 1, size)).top_logp[0, 0].exp().numpy()
    assert np.abs(counts - chances).max() < 0.05


def entropy(mixture):
    size = len(mixture.tokenizer)
    logp = mixture.score(groups_of(mixture.start, [[0]]), torch.arange(size).expand(1, 1, size)).top_logp[0, 0]
    return float(-(logp.exp() * logp).sum())


def test_what_it_refuses(parts, start, tiny_models):
    for alpha in (0.0, 1.0):
        with pytest.raises(ValueError, match="weight in"):
            Mixture(*parts, alpha)
    mixture = Mixture(*parts, 0.5, start="The mill")
    with pytest.raises(ValueError, match="does not begin"):
        mixture.score(groups_of(start, TEXTS))
    with pytest.raises(ValueError, match="temperature 1"):
        mixture.sample(["The mill"], temperature=0.5)
    groups = groups_of(start, TEXTS)
    with pytest.raises(ValueError, match="scored from the start"):
        Mixture(*parts, 0.5).score(replace(groups, mask=groups.mask & (torch.arange(5) > 0)))
    other = tiny_models.make_model("llama")
    other.tokenizer = tiny_models.make_tokenizer(size=300)
    with pytest.raises(ValueError, match="different vocabularies"):
        Mixture(parts[0], other, 0.5)
    names = {Mixture(*parts, a).identity for a in (0.1, 0.2)} | {Mixture(*reversed(parts), 0.1).identity}
    assert len(names) == 3
    assert not list(itertools.filterfalse(lambda name: "@" in name, names))
