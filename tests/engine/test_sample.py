import math

import pytest
import scipy.stats
import torch

import tiny_models
from alignlab.engine.encode import Example, TooLong, prompt_ids
from alignlab.engine.sample import GrowingLayer, draw_tokens, end_ids, new_cache, sample, uniforms

PROMPTS = [
    "Where does Ada Brook work?",
    "T",
    "The ferry leaves the town at noon, and the baker likes tea. Why?",
    ({"role": "user", "content": "Sources disagree."},),
    "In 1931",
    "red",
]


@pytest.fixture(params=tiny_models.ARCHITECTURES)
def model(request):
    return tiny_models.make_model(request.param)


def likely_to_end(model, bias=4.0):
    """Make the end token likely, so that rows finish at different times."""
    head = model.module.get_output_embeddings()
    end = 2

    def raise_end(module, args, out):
        out = out.clone()
        out[..., end] += bias
        return out

    head.register_forward_hook(raise_end)
    return model


def rescored(model, samples, **options):
    """Score the sampled ids independently, one row at a time, in float64."""
    rows = []
    for prompt, answers in zip(prompt_ids(model.tokenizer, PROMPTS), samples):
        for answer in answers:
            example = Example(prompt_ids=prompt, completions=(list(answer.ids),))
            with torch.no_grad():
                rows.append((answer, model.score(model.collate([example])).logp[0]))
    return rows


def test_greedy_equals_transformers_generate(model):
    likely_to_end(model, 2.0)
    found = sample(model, PROMPTS, temperature=0, max_tokens=24)
    ends = sorted(end_ids(model.module, model.tokenizer))
    for prompt, answers in zip(prompt_ids(model.tokenizer, PROMPTS), found):
        wanted = model.module.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long), do_sample=False,
            max_new_tokens=24, eos_token_id=ends, pad_token_id=0,
        )[0, len(prompt) :]  # fmt: skip
        assert list(answers[0].ids) == wanted.tolist()
        assert answers[0].prompt_tokens == len(prompt)
        assert answers[0].logp == (0.0,) * len(answers[0].ids)


@pytest.mark.parametrize("temperature", [0, 1.0, 0.7])
def test_the_text_does_not_depend_on_the_batch(model, temperature):
    likely_to_end(model)
    options = dict(n=2, seed=3, temperature=temperature, max_tokens=16)
    whole = sample(model, PROMPTS, **options, batch_tokens=10**6)
    pieces = sample(model, PROMPTS, **options, batch_tokens=1)
    backwards = sample(model, PROMPTS[::-1], **options, batch_tokens=300)[::-1]
    ids = [[s.ids for s in row] for row in whole]
    assert ids == [[s.ids for s in row] for row in pieces] == [[s.ids for s in row] for row in backwards]
    assert len({len(s) for row in ids for s in row}) > 1 or temperature == 0  # rows did finish at different times


def test_behaviour_log_probabilities_are_those_of_score(model):
    samples = sample(model, PROMPTS, n=2, seed=1, max_tokens=12)
    kinds = rescored(model, samples)
    likely_to_end(model)
    kinds += rescored(model, sample(model, PROMPTS, n=2, seed=1, max_tokens=12))
    assert {answer.stop for answer, _ in kinds} == {"stop", "length"}
    for answer, logp in kinds:
        torch.testing.assert_close(torch.tensor(answer.logp), logp, atol=1e-4, rtol=0)


def test_temperature_divides_the_logits(model):
    temperature = 0.5
    samples = sample(model, PROMPTS, seed=1, temperature=temperature, max_tokens=6)
    for prompt, (answer,) in zip(prompt_ids(model.tokenizer, PROMPTS), samples):
        with torch.no_grad():
            logits = model.module(input_ids=torch.tensor([prompt + list(answer.ids)])).logits[0].double() / temperature
        table = logits.log_softmax(-1)
        wanted = [table[len(prompt) - 1 + t, token].item() for t, token in enumerate(answer.ids)]
        assert answer.logp == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_frequencies_match_the_softmax(temperature):
    model = tiny_models.make_model("llama")
    n = 4000
    answers = sample(model, ["Why"], n=n, seed=11, temperature=temperature, max_tokens=1)[0]
    with torch.no_grad():
        logits = model.module(input_ids=torch.tensor(prompt_ids(model.tokenizer, ["Why"]))).logits[0, -1].double()

    def p_value(t):
        expected = (logits / t).softmax(-1) * n
        observed = torch.bincount(torch.tensor([a.ids[0] for a in answers]), minlength=len(expected)).double()
        large = expected >= 5  # the usual condition of the test; the rest is pooled
        pooled = [torch.cat([x[large], x[~large].sum()[None]]).numpy() for x in (observed, expected)]
        return scipy.stats.chisquare(*pooled).pvalue

    assert p_value(temperature) > 0.001
    assert p_value(temperature * 1.3) < 1e-6  # the test can tell a wrong temperature


def test_draws_of_tokens_follow_quantiles_and_skip_impossible_tokens():
    logits = torch.tensor([[0.25, 0.0, 0.5, 0.25]]).log().repeat(6, 1)
    u = torch.tensor([0.0, 0.2499, 0.25, 0.7499, 0.7501, 1 - 2**-53], dtype=torch.float64)
    tokens, logp = draw_tokens(logits, u)
    assert tokens.tolist() == [0, 0, 2, 2, 3, 3]
    assert logp.tolist() == pytest.approx([math.log(p) for p in (0.25, 0.25, 0.5, 0.5, 0.25, 0.25)])


def test_a_token_of_probability_zero_is_not_drawn_at_the_border():
    tokens, _ = draw_tokens(torch.tensor([[-torch.inf, 0.0, -torch.inf, 0.0]]), torch.zeros(1, dtype=torch.float64))
    assert tokens.tolist() == [1]


def test_random_numbers_depend_on_seed_prompt_and_draw():
    base = uniforms(0, [1, 2], 0, 4).tolist()
    assert base == uniforms(0, [1, 2], 0, 9).tolist()[:4]
    others = [uniforms(1, [1, 2], 0, 4), uniforms(0, [2, 1], 0, 4), uniforms(0, [1, 2], 1, 4), uniforms(0, [1], 0, 4)]
    assert len({tuple(base), *(tuple(o.tolist()) for o in others)}) == 5


def test_a_prompt_given_twice_gets_the_next_draws(tiny_model):
    options = dict(seed=5, max_tokens=6)
    twice = sample(tiny_model, ["Why", "tea", "Why"], **options)
    both = sample(tiny_model, ["Why"], n=2, **options)[0]
    assert [twice[0][0].ids, twice[2][0].ids] == [s.ids for s in both]
    assert both[0].ids != both[1].ids


def test_stops_at_the_end_of_turn_and_keeps_it_in_the_ids(tiny_model):
    likely_to_end(tiny_model, 100.0)
    (answer,) = sample(tiny_model, PROMPTS[:1], max_tokens=5)[0]
    assert (answer.ids, answer.text, answer.stop) == ((2,), "", "stop")
    assert answer.logp[0] == pytest.approx(0.0, abs=1e-6)


def test_stop_strings_cut_the_text(model):
    # letters only: random bytes do not make text
    letters = [len(t) == 1 and t.isalpha() for t in map(model.tokenizer.decode, range(len(model.tokenizer)))]

    def readable(ids, logits):
        return torch.where(torch.tensor(letters), logits, -torch.inf)

    free = sample(model, PROMPTS, seed=4, max_tokens=20, processors=[readable])
    for index, (answer,) in enumerate(free):
        middle = answer.text[3:6]
        (cut,) = sample(
            model, PROMPTS, seed=4, max_tokens=20, processors=[readable], stop=[middle, "never such a text"]
        )[index]
        assert cut.text == answer.text[: answer.text.index(middle)]
        assert cut.stop == "stop"
        assert len(cut.ids) == len(cut.logp) < 20
        assert cut.ids == answer.ids[: len(cut.ids)]
        # nothing is sampled after the stop string is complete
        assert middle not in model.tokenizer.decode(cut.ids[:-1], skip_special_tokens=True)


def test_processors_see_the_prefix_and_change_what_is_drawn(model):
    seen = []

    def only(ids, logits):
        seen.append(ids.clone())
        return torch.where(torch.isin(torch.arange(logits.shape[1]), torch.tensor([40, 41])), logits, -torch.inf)

    samples = sample(model, PROMPTS[:2], processors=[only], max_tokens=5, seed=2)
    assert {i for row in samples for s in row for i in s.ids} <= {40, 41}
    assert all(-20 < p <= 0 for row in samples for s in row for p in s.logp)
    long = prompt_ids(model.tokenizer, PROMPTS[:1])[0]
    assert seen[0][0].tolist() == long
    assert seen[-1][0].tolist() == [*long, *samples[0][0].ids[:-1]]


def test_grammar_of_arguments(tiny_model):
    for wrong in ({"temperature": -1}, {"max_tokens": 0}, {"n": 0}, {"stop": [""]}):
        with pytest.raises(ValueError, match="expected temperature >= 0"):
            sample(tiny_model, ["a"], **wrong)
    assert sample(tiny_model, []) == []


def test_the_context_of_the_model_ends_the_answer(tiny_models):
    model = tiny_models.make_model("gpt2", positions=16)
    prompts = ["Why", "The ferry"]
    answers = sample(model, prompts, max_tokens=100, temperature=0, batch_tokens=1)
    assert [len(a.ids) + a.prompt_tokens for (a,) in answers if a.stop == "length"] == [16, 16]
    with pytest.raises(TooLong, match=r"prompt 1 has \d+ tokens, but the model takes 16"):
        sample(model, ["Why", "The ferry leaves the town. " * 9])


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
def test_a_long_prompt_takes_no_room_from_others(tiny_models, arch):
    """In one batch with prompts that fill the context, a short one is answered as it is alone."""
    model = tiny_models.make_model(arch, positions=48)
    full = "The ferry leaves the town at noon."
    while len(prompt_ids(model.tokenizer, [full + " a"])[0]) < 47:
        full += " a"
    prompts = [full] + [f"{number} red" for number in range(12)]
    together = sample(model, prompts, max_tokens=30, temperature=0, batch_tokens=10_000)
    alone = [sample(model, [p], max_tokens=30, temperature=0)[0] for p in prompts]
    assert [a.ids for (a,) in together] == [a.ids for (a,) in alone]
    assert len(together[0][0].ids) <= 2
    assert max(len(a.ids) for (a,) in together) == 30


def test_an_end_token_that_is_not_called_special_is_no_text(tiny_model):
    """Some chat tokenizers leave their end of turn out of the special tokens."""
    from tokenizers import AddedToken

    tokenizer = tiny_model.tokenizer
    tokenizer.add_tokens([AddedToken("<|im_end|>", special=False, normalized=False)])
    tokenizer.chat_template = tokenizer.chat_template.replace("<|end|>", "<|im_end|>")
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    tiny_model.module.resize_token_embeddings(len(tokenizer))

    def certain(ids, logits):
        return (
            logits
            if ids.shape[1] % 2
            else torch.nn.functional.one_hot(torch.full((len(logits),), end), len(tokenizer)) * 50.0
        )

    ((answer,),) = sample(tiny_model, [PROMPTS[3]], max_tokens=8, temperature=0, processors=[certain])
    assert answer.ids[-1] == end
    assert answer.stop == "stop"
    assert "im_end" not in answer.text


def test_mode_is_restored_and_no_gradient_kept(tiny_model):
    tiny_model.module.train()
    sample(tiny_model, ["Why"], max_tokens=2)
    assert tiny_model.module.training

    def fail(ids, logits):
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        sample(tiny_model, ["Why"], processors=[fail])
    assert tiny_model.module.training
    assert all(p.grad is None for p in tiny_model.module.parameters())


def test_progress_counts_prompts(tiny_model):
    counts = []
    sample(tiny_model, PROMPTS, max_tokens=2, batch_tokens=100, progress=counts.append)
    assert sum(counts) == len(PROMPTS)
    assert len(counts) > 1


def test_growing_layer_keeps_the_same_past_as_concatenation():
    layer, generator = GrowingLayer(room=2), torch.Generator().manual_seed(0)
    pieces = [torch.randn(3, 2, width, 4, generator=generator) for width in (5, 1, 1, 1, 7, 1)]
    for i, piece in enumerate(pieces):
        keys, values = layer.update(piece, -piece)
        past = torch.cat(pieces[: i + 1], 2)
        assert torch.equal(keys, past)
        assert torch.equal(values, -past)
        assert layer.get_seq_length() == past.shape[2]
    layer.batch_select_indices(torch.tensor([2, 0]))
    keys, _ = layer.update(pieces[1][:2], pieces[1][:2])
    assert torch.equal(keys[:, :, :-1], past[[2, 0]])
    layer.batch_repeat_interleave(2)
    assert torch.equal(layer.keys[:, :, :-1], past[[2, 2, 0, 0]])


def test_new_cache_keeps_sliding_layers_for_sliding_models(tiny_models):
    kinds = [type(layer).__name__ for layer in new_cache(tiny_models.make_module("gemma2", 320)).layers]
    assert kinds == ["DynamicSlidingWindowLayer", "GrowingLayer"]
