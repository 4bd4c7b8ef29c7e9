import numpy as np
import pytest

from alignlab.core.types import Row
from alignlab.probes import token_shift
from alignlab.probes.token_shift import (
    CARD,
    Config,
    base_prompt,
    compared,
    divergence,
    lists,
    measure,
    ranks,
    shift_class,
)

BASE = np.log(np.array([0.4, 0.25, 0.15, 0.1, 0.06, 0.04]))
TUNED = np.log(np.array([0.1, 0.5, 0.2, 0.1, 0.05, 0.05]))
PROMPT = ({"role": "user", "content": "Where does Ada Brook work?"},)


def test_ranks_and_classes():
    found = ranks(np.tile(BASE, (6, 1)), np.arange(6))
    assert found.tolist() == [1, 2, 3, 4, 5, 6]
    assert [token_shift.CLASSES[c][0] for c in shift_class(found)] == list("ummsss")


def test_divergence_over_the_whole_vocabulary():
    assert divergence(TUNED[None], BASE[None])[0] == pytest.approx(0.267522, abs=1e-6)
    assert divergence(BASE[None], TUNED[None])[0] == pytest.approx(0.340092, abs=1e-6)
    with np.errstate(divide="ignore"):
        sparse = np.log(np.array([[0.5, 0.5, 0.0, 0.0, 0.0, 0.0]]))
    assert np.isfinite(divergence(sparse, BASE[None])).all()


def test_lists_of_the_released_code():
    found = lists(BASE, TUNED, 3)
    assert found.kl == pytest.approx(0.422598, abs=1e-6)
    assert found.jaccard == 1.0
    assert found.ndcg == pytest.approx(0.877628, abs=1e-6)
    assert found.top_rank == 1
    assert found.top_probability == pytest.approx(0.3125)
    apart = lists(np.log(np.array([0.9, 0.05, 0.05])), np.log(np.array([0.1, 0.2, 0.7])), 1)
    assert (apart.top_rank, apart.top_probability, apart.jaccard, apart.kl) == (1, 0.0, 0.0, 0.0)


def test_the_same_model_does_not_shift():
    one = compared(np.tile(TUNED, (2, 1)), np.tile(TUNED, (2, 1)), np.array([1, 1]), 3)
    assert one.rank.tolist() == [1, 1]
    assert one.kl.tolist() == [0.0, 0.0]
    assert one.released[0].ndcg == pytest.approx(1)


def test_contexts_of_the_base():
    assert base_prompt(PROMPT, "same") == PROMPT
    assert base_prompt(PROMPT, "plain") == "Where does Ada Brook work?"
    assert base_prompt("Hm?", "skeleton") == "# Query:\nHm?\n\n# Answer:\n"


@pytest.fixture
def rows():
    return [Row(prompt=PROMPT), Row(prompt=({"role": "user", "content": "Where is the mill?"},))]


def test_whole_distributions_against_single_scores(tiny_model, rows):
    from alignlab.engine.encode import collate, encode, prompt_ids

    row = Row(prompt=PROMPT, completion="the mill")
    example = encode(row, tiny_model.tokenizer)
    before = prompt_ids(tiny_model.tokenizer, [PROMPT])[0]
    found = token_shift.whole(tiny_model, before, example.completions[0], len(tiny_model.tokenizer))
    assert np.exp(found).sum(1) == pytest.approx(np.ones(len(found)), abs=1e-5)
    own = tiny_model.score(collate([example], 0)).logp[0].detach().numpy()
    assert np.take_along_axis(found, np.array(example.completions[0])[:, None], 1)[:, 0] == pytest.approx(own, abs=1e-4)


def test_measured_with_its_control(tiny_model, rows):
    cfg = Config(context="plain", max_tokens=6)
    found = {name: metric.value for name, metric in measure(tiny_model, rows, cfg).metrics.items()}
    assert found["control/unshifted"] == 1
    assert found["control/kl"] < 1e-6
    assert found["unshifted"] + found["marginal"] + found["shifted"] == pytest.approx(1)
    assert found["in_top_3"] == pytest.approx(found["unshifted"] + found["marginal"])
    assert found["kl"] > 0.1
    assert all(claim.holds(found) for claim in CARD.claims)


def test_another_base(tiny_models, rows, monkeypatch):
    tuned, base = tiny_models.make_model("llama"), tiny_models.make_model("gpt2")
    monkeypatch.setattr(token_shift, "load", lambda spec: base)
    result = measure(tuned, rows, Config(base="other", max_tokens=5))
    found = {name: metric.value for name, metric in result.metrics.items()}
    assert "control/kl" not in found
    assert found["shifted"] > 0.5  # two random models agree on nothing
    shown = result.tables["most shifted tokens"].rows
    assert all(shifted <= seen for _, shifted, seen, _ in shown)
    base.tokenizer = tiny_models.make_tokenizer(size=300)
    with pytest.raises(ValueError, match="vocabulary differs"):
        measure(tuned, rows, Config(base="other"))


def test_given_answers(tiny_model, rows):
    given = [Row(prompt=PROMPT, completion="the mill near the old harbour")]
    n = measure(tiny_model, given, Config(answers="given")).metrics["kl"].n
    assert n == measure(tiny_model, given, Config(answers="given", max_tokens=n)).metrics["kl"].n
    assert measure(tiny_model, given, Config(answers="given", max_tokens=3)).metrics["kl"].n == 3
    with pytest.raises(ValueError, match="row 0 has no completion"):
        measure(tiny_model, rows, Config(answers="given"))
    with pytest.raises(ValueError, match="--max_tokens >= 1"):
        Config(max_tokens=0)
