"""PoFT against the brief's vectors, an independent formula and the gradient of cross-entropy."""

import dataclasses
import math

import exactness
import pytest
import torch
from exactness import Completion, Prompt, Scored

import tiny_models
from alignlab.cli.main import main
from alignlab.core.reduce import totals
from alignlab.core.types import Row
from alignlab.engine.encode import encode
from alignlab.engine.load import load, save
from alignlab.objectives import poft, sft


def row(r, scores, tokens=3, end=-7.0):
    """A completion whose content has mean log-probability r, followed by an end-of-turn token."""
    return Prompt([Completion(views={"policy": Scored(logp=[*[r] * tokens, end])}, scores=scores)])


def batch_of_rows(*rows):
    ((batch, _),) = exactness.lay_out(rows, exactness.Layout(), ("policy",))
    return batch


def check_vectors(loss):
    cases = [
        (-1.2, {"aligned.a": -0.9, "aligned.b": -1.5, "aligned.c": -1.1}, 0.709953, 0.508333),
        (-1.2, {"aligned": -4.0}, 0.059033, 0.057324),
        (-1.2, {"aligned": -0.3}, 1.241154, 0.710950),
        (-1.2, {"aligned": -1.2}, math.log(2), 0.5),
    ]
    for r, scores, expected, tau in cases:
        batch = batch_of_rows(row(r, scores))
        value, gradient = exactness.evaluate(loss, batch, poft.Config())
        assert value == pytest.approx(expected, abs=5e-7)
        assert gradient[0].tolist() == pytest.approx([-tau / 3] * 3 + [0.0], abs=5e-7)
        (term,) = loss(batch, poft.Config())
        assert term.logs["tau"].item() == pytest.approx(tau, abs=5e-7)
        mean = sum(scores.values()) / len(scores)
        assert tau == pytest.approx(math.exp(mean) / (math.exp(mean) + math.exp(r)), abs=5e-7)


def test_vectors():
    check_vectors(poft.loss)


@pytest.mark.parametrize("broken", [exactness.negated(poft.loss), exactness.flipped(poft.loss)])
def test_the_vector_check_sees_broken_losses(broken):
    with pytest.raises(AssertionError):
        check_vectors(broken)


def formula(prompts, cfg):
    lost = []
    for c in (c for prompt in prompts for c in prompt.completions):
        tokens = c.views["policy"].logp if cfg.count_end else c.views["policy"].logp[:-1]
        if tokens:
            aligned = (c.scores["aligned.a"] + c.scores["aligned.b"]) / 2
            lost.append(
                math.log1p(math.exp(-cfg.temperature * (math.fsum(tokens) / len(tokens) - aligned) - cfg.margin))
            )
    return math.fsum(lost) / len(lost)


@pytest.mark.parametrize("count_end", [True, False])
def test_exactness(count_end):
    exactness.check(
        poft.loss,
        poft.Config(temperature=0.7, margin=0.2, count_end=count_end),
        formula,
        make=lambda seed: exactness.prompts(
            seed, completions=(1, 3), views=("policy",), pairs=False, scores=("aligned.a", "aligned.b")
        ),
    )


def test_a_far_argument_stays_finite():
    value, gradient = exactness.evaluate(poft.loss, batch_of_rows(row(-111.0, {"aligned": -1.0})), poft.Config())
    assert value == pytest.approx(110.0)
    assert gradient[0].tolist() == pytest.approx([-1 / 3] * 3 + [0.0])


def test_limits():
    def value(r, aligned, **settings):
        return exactness.evaluate(poft.loss, batch_of_rows(row(r, {"aligned": aligned})), poft.Config(**settings))

    assert value(-1.0, -2.0)[0] == pytest.approx(value(-3.0, -4.0)[0]), "one constant on both"
    assert value(-1.0, -900.0)[1].abs().max() == 0, "what aligned models find impossible is not learnt"
    rows = [row(r, {"aligned": 500.0}) for r in (-1.0, -2.0)]
    _, gradient = exactness.evaluate(poft.loss, batch_of_rows(*rows), poft.Config(count_end=True))
    _, cross_entropy = exactness.evaluate(sft.loss, batch_of_rows(*rows), sft.Config(form="sequence_mean"))
    torch.testing.assert_close(gradient, cross_entropy)
    assert value(-1.0, -2.0, margin=-1.0)[0] == pytest.approx(math.log(2))


def test_a_completion_of_the_end_alone_does_not_count():
    batch = batch_of_rows(row(-1.0, {"aligned": -1.0}, tokens=0), row(-1.0, {"aligned": -1.0}))
    assert totals([poft.loss(batch, poft.Config())])["poft"] == (pytest.approx(math.log(2)), 1.0)
    assert totals([poft.loss(batch, poft.Config(count_end=True))])["poft"][1] == 2.0


def test_errors():
    batch = batch_of_rows(row(-1.0, {"aligned": -1.0}))
    with pytest.raises(ValueError, match=r"facts.scores.aligned in nats per token"):
        poft.loss(dataclasses.replace(batch, scores={"other": torch.ones(1)}), poft.Config())
    with pytest.raises(ValueError, match="aligned is not finite"):
        poft.loss(dataclasses.replace(batch, scores={"aligned": torch.tensor([math.nan])}), poft.Config())
    for flag, bad in (("temperature", 0.0), ("margin", math.inf)):
        with pytest.raises(ValueError, match=f"--{flag}"):
            poft.Config(**{flag: bad})


@pytest.mark.parametrize("count_end", [False, True])
def test_full_sequence_averages_over_prompt_template_and_answer(tmp_path, count_end):
    save(tiny_models.make_model(), tmp_path / "base")
    model = load(tmp_path / "base")
    prompt = ({"role": "user", "content": "Where is the mill?"},)
    row = Row(prompt=prompt, completion="By the harbour.", facts={"scores.aligned": -1.0})
    example = encode(row, model.tokenizer)
    assert poft.recut(example, poft.Config()) is example
    cfg = poft.Config(full_sequence=True, count_end=count_end)
    whole = model.collate([poft.recut(example, cfg)])
    with torch.no_grad():
        view = model.score(whole)
        (term,) = poft.loss(dataclasses.replace(whole, views={"policy": view}), cfg)
        ids = torch.tensor([[*example.prompt_ids, *example.completions[0]]])
        logp = model.module(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
    wanted = logp if count_end else logp[:-1]
    assert len(wanted) > len(example.completions[0]) > 2
    assert term.logs["logps/policy"].item() == pytest.approx(wanted.mean().item(), abs=1e-5)


@pytest.mark.parametrize("whole", ["true", "false"])
def test_the_command_trains_on_the_full_sequence_where_asked(tmp_path, monkeypatch, whole):
    from alignlab.train import loop

    save(tiny_models.make_model(), tmp_path / "base")
    (tmp_path / "rows.jsonl").write_text(
        '{"prompt": "Where?", "completion": "Here.", "facts": {"scores.aligned": -1}}\n'
    )
    seen = []
    monkeypatch.setattr(loop, "train", lambda model, examples, *_, **__: seen.extend(examples) or {})
    argv = ["train", "poft", "--model", str(tmp_path / "base"), "--dataset", str(tmp_path / "rows.jsonl")]
    assert main([*argv, "--full_sequence", whole, "--output_dir", str(tmp_path / "out")]) == 0
    [example] = seen
    assert (len(example.prompt_ids) == 1) == (whole == "true")
