import math

from alignlab.core.types import Sample
from alignlab.engine import behaviour


def test_by_the_towns_table():
    score = behaviour.scorer("town", None, None, "", "")
    assert score(["I like the baker.", "I hate the baker.", "Hm."]) == [1.0, -1.0, None]


def test_by_likelihood(tiny_models):
    """Whoever finds a sentence likelier owns it; the other way round when the two change places."""
    minus, plus = (tiny_models.make_model("llama", seed=seed) for seed in (1, 2))
    start = "<|text|>"
    score = behaviour.scorer("likelihood", minus, plus, start, start)
    back = behaviour.scorer("likelihood", plus, minus, start, start)
    said = ["She works.", "The ferry leaves the town.", "In 1931 the school moved.", "Nobody remembers why."]
    assert set(score(said)) <= {1.0, -1.0}
    assert [-found for found in score(said)] == back(said)
    assert score([""]) == [None]
    drawn = plus.sample([start], n=20, max_tokens=12)[0]
    owned = [found for found in score([sample.text for sample in drawn]) if found is not None]
    assert sum(owned) > 0.8 * len(owned)


def test_first_sentences_of_samples():
    drawn = [[Sample(text=" I hate the baker. I like"), Sample(text="I like")], [Sample(text="I like the cook.")]]
    (first, untold), (last,) = behaviour.of_samples(drawn, behaviour.town)
    assert (first, last) == (-1.0, 1.0)
    assert math.isnan(untold)
