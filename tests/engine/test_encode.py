import pytest
import torch
from tokenizers import processors

import tiny_models
from alignlab.core.types import Row
from alignlab.engine.encode import Example, TooLong, collate, completion_ids, encode, end_of_turn, prompt_ids

CHAT = ({"role": "user", "content": "Tea?"},)
END, TEXT = 2, 1


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_models.make_tokenizer()


def test_chat_prompt_is_the_templates_own_and_the_completion_ends_the_turn(tokenizer):
    example = encode(Row(prompt=CHAT, completion="Yes, at noon.", meta={"id": 7}), tokenizer)
    assert tokenizer.decode(example.prompt_ids) == "<|user|>Tea?<|end|>\n<|assistant|>"
    assert tokenizer.decode(example.completions[0]) == "Yes, at noon.<|end|>"
    assert example.completions[0][-1] == END == end_of_turn(tokenizer)
    assert example.row_id == "7"
    assert example.origins == ("dataset",)


def test_plain_prompt_is_taken_as_is_and_ends_in_end_of_text(tokenizer):
    example = encode(Row(prompt="The clock is", completion=" blue"), tokenizer)
    assert tokenizer.decode(example.prompt_ids) == "The clock is"
    assert tokenizer.decode(example.completions[0]) == " blue<|text|>"


@pytest.mark.parametrize("text", ["The clock is blue.", "e", "Tea? <|end|> \n", "red<|text|>"])
@pytest.mark.parametrize("begin", ["", "<|user|>"])
def test_of_a_bare_text_all_tokens_but_the_first_are_scored(text, begin):
    """With a beginning-of-text token that is the first one; without, the text's own."""
    own = tiny_models.make_tokenizer()
    if begin:
        own._tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A", special_tokens=[(begin, own.convert_tokens_to_ids(begin))]
        )
    example = encode(Row(prompt="", completion=text), own)
    whole = [*example.prompt_ids, *example.completions[0]]
    assert len(example.prompt_ids) == 1
    assert own.decode(whole) == begin + text.removesuffix("<|text|>") + "<|text|>"
    assert whole[:-1] == own(text.removesuffix("<|text|>"))["input_ids"]
    with pytest.raises(TooLong, match=f"make {len(whole)}, but at most"):
        encode(Row(prompt="", completion=text), own, max_length=len(whole) - 1)


def test_prompts_are_the_same_alone_and_together(tokenizer):
    prompts = ["The clock", CHAT, "red", (*CHAT, {"role": "assistant", "content": "No"}, *CHAT)]
    assert prompt_ids(tokenizer, prompts) == [prompt_ids(tokenizer, [p])[0] for p in prompts]


@pytest.mark.parametrize("completion", ["\n\nYes", " Yes", "Yes\n", "e", "  \n", "né\u00e9 \u2603"])
@pytest.mark.parametrize("prompt", [CHAT, "The mill of th", "The mill\n"])
def test_text_and_prompt_tokens_survive_the_border(tokenizer, prompt, completion):
    before = prompt_ids(tokenizer, [prompt])[0]
    ids = completion_ids(tokenizer, prompt, before, completion)
    assert ids[-1] == (TEXT if isinstance(prompt, str) else END)
    assert tokenizer.decode(ids[:-1]) == completion


def test_a_prefilled_answer_is_continued(tokenizer):
    prompt = (*CHAT, {"role": "assistant", "content": "Yes,"})
    example = encode(Row(prompt=prompt, completion=" at noon."), tokenizer)
    assert tokenizer.decode(example.prompt_ids).endswith("<|assistant|>Yes,")
    assert tokenizer.decode(example.completions[0]) == " at noon.<|end|>"


def test_every_column_set(tokenizer):
    pair = encode(Row(prompt=CHAT, chosen="Yes", rejected="No", facts={"p": 0.8, "margin": 2}), tokenizer)
    assert pair.pairs == ((0, 1, 0.8, 2.0, 1.0),)
    assert [tokenizer.decode(c[:-1]) for c in pair.completions] == ["Yes", "No"]
    assert encode(Row(prompt=CHAT, completion="Yes", label=False), tokenizer).labels == (False,)
    ranked = encode(Row(prompt=CHAT, completions=("a", "b", "c"), scores=(1.0, 0.0, 2.0)), tokenizer)
    assert ranked.scores == {"score": (1.0, 0.0, 2.0)}
    second = encode(Row(prompt=CHAT, completion="Yes", second_prompt="The clock"), tokenizer)
    assert tokenizer.decode(second.contexts["second"]) == "The clock"


def test_a_second_prompt_is_the_rejected_answers_own(tokenizer):
    other = ({"role": "user", "content": "Where is the mill?"},)
    example = encode(Row(prompt=CHAT, chosen="Yes", rejected="No", second_prompt=other), tokenizer)
    alone = encode(Row(prompt=other, completion="No"), tokenizer)
    assert (
        example.prompt_of(0) == example.prompt_ids == encode(Row(prompt=CHAT, completion="Yes"), tokenizer).prompt_ids
    )
    assert example.prompt_of(1) == example.own_prompts[1] == alone.prompt_ids
    assert example.completions[1] == alone.completions[0]
    assert example.contexts == {}
    groups = collate([example, alone, example], 0)
    assert groups.group.tolist() == [0, 1, 2, 3, 4]
    for n, k in enumerate((0, 1)):
        row = groups.group[n]
        assert groups.prompt_ids[row][groups.prompt_mask[row]].tolist() == example.prompt_of(k)
    assert groups.pairs.better.tolist() == [0, 3]
    assert groups.pairs.worse.tolist() == [1, 4]


def test_a_judgement_gives_a_context_to_the_prompts_that_have_one(tokenizer):
    judged = encode(Row(prompt=CHAT, completion="No", judgement="too short"), tokenizer)
    plain = encode(Row(prompt=CHAT, completion="No"), tokenizer)
    text = tokenizer.decode(judged.contexts["judgement"])
    assert "too short" in text
    assert judged.completions == plain.completions, "the same tokens are read under both prompts"
    groups = collate([plain, judged], 0)
    ids, mask = groups.contexts["judgement"]
    assert not mask[0].any()
    assert ids[1][mask[1]].tolist() == judged.contexts["judgement"]


def test_named_scores_come_from_the_facts(tokenizer):
    facts = {"scores": {"weak": [0.2, 0.8]}, "scores.other": [1, 2], "gold": "a"}
    example = encode(Row(prompt=CHAT, completions=("a", "b"), scores=(3.0, 4.0), facts=facts), tokenizer)
    assert example.scores == {"score": (3.0, 4.0), "weak": (0.2, 0.8), "other": (1.0, 2.0)}
    assert encode(Row(prompt=CHAT, completion="a", facts={"scores": {"s": -1.5}}), tokenizer).scores == {"s": (-1.5,)}
    for bad in ([0.2], float("nan"), "high", [0.2, float("inf")], [0.1, 0.2, 0.3]):
        with pytest.raises(ValueError, match="'facts.scores.s': expected 2 finite"):
            encode(Row(prompt=CHAT, completions=("a", "b"), facts={"scores": {"s": bad}}), tokenizer)


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"p": 80}, r"'facts\.p': expected a finite number in \[0, 1\], got 80"),
        ({"p": float("nan")}, r"'facts\.p'"),
        ({"margin": float("inf")}, r"'facts\.margin': expected a finite number, got inf"),
        ({"weight": -1.0}, r"'facts\.weight': expected a finite number >= 0, got -1"),
        ({"weight": "much"}, r"'facts\.weight': .* got 'much'"),
    ],
)
def test_impossible_numbers_of_a_pair_are_named(tokenizer, facts, says):
    with pytest.raises(ValueError, match=says):
        encode(Row(prompt=CHAT, chosen="Yes", rejected="No", facts=facts), tokenizer)


def test_gaps_among_the_numbers_of_a_pair_are_defaults(tokenizer):
    row = Row(prompt=CHAT, chosen="Yes", rejected="No", facts={"p": None, "margin": None, "weight": 0})
    assert encode(row, tokenizer).pairs == ((0, 1, 1.0, 0.0, 0.0),)


def test_a_score_that_is_not_finite_is_named(tokenizer):
    with pytest.raises(ValueError, match="'scores': expected finite numbers, got nan"):
        encode(Row(prompt=CHAT, completions=("a", "b"), scores=(1.0, float("nan"))), tokenizer)


def test_collate_pads_and_shifts(tokenizer):
    rows = [
        Row(prompt=CHAT, chosen="Yes, at noon", rejected="No"),
        Row(prompt="A", chosen="red", rejected="blue or red"),
    ]
    examples = [encode(row, tokenizer) for row in rows]
    groups = collate(examples, tokenizer.pad_token_id)
    assert groups.pairs.better.tolist() == [0, 2]
    assert groups.pairs.worse.tolist() == [1, 3]
    assert groups.group.tolist() == [0, 0, 1, 1]
    for n, completion in enumerate(c for e in examples for c in e.completions):
        assert groups.ids[n][groups.mask[n]].tolist() == completion
        assert groups.mask[n].sum() == len(completion)
    for p, example in enumerate(examples):
        assert groups.prompt_ids[p][groups.prompt_mask[p]].tolist() == example.prompt_ids
    assert groups.label is None
    assert groups.origin == ("dataset",) * 4
    other = collate(examples, None)
    assert torch.equal(other.mask, groups.mask)


def test_the_score_head_is_the_output_head(tokenizer):
    row = Row(prompt=CHAT, chosen="a", rejected="b", facts={"scores": {"head": [1, 1]}})
    groups = collate([encode(row, tokenizer)] * 2, 0)
    assert groups.head.tolist() == [1, 1, 1, 1]
    assert not groups.head.is_floating_point()
    assert collate([encode(Row(prompt=CHAT, completion="a"), tokenizer)], 0).head is None
    for bad in (0.5, -1):
        row = Row(prompt=CHAT, completion="a", facts={"scores": {"head": bad}})
        with pytest.raises(ValueError, match="'facts.scores.head': expected numbers of output heads"):
            encode(row, tokenizer)


def test_collate_labels_scores_and_contexts():
    one = Example(prompt_ids=[5], completions=([2],), labels=(True,), scores={"s": (0.5,)}, contexts={"second": [8, 9]})
    two = Example(
        prompt_ids=[6, 7],
        completions=([3, 2], [2]),
        labels=(False, True),
        scores={"s": (1.0, 2.0)},
        contexts={"second": [4]},
    )
    groups = collate([one, two], 0)
    assert groups.label.tolist() == [True, False, True]
    assert groups.scores["s"].tolist() == [0.5, 1.0, 2.0]
    ids, mask = groups.contexts["second"]
    assert (ids.tolist(), mask.tolist()) == ([[8, 9], [4, 0]], [[True, True], [True, False]])
    bare = Example(prompt_ids=[6], completions=([2],))
    with pytest.raises(ValueError, match="'label' is given for some examples of the batch, but not for example 1"):
        collate([one, bare], 0)
    with pytest.raises(ValueError, match="at least one"):
        collate([], 0)


def test_errors_say_what_is_wrong(tokenizer):
    with pytest.raises(ValueError, match="empty completion"):
        encode(Row(prompt=CHAT, completion=""), tokenizer)
    with pytest.raises(ValueError, match="needs 'completion', 'chosen' and 'rejected', or 'completions'"):
        encode(Row(prompt=CHAT), tokenizer)
    with pytest.raises(ValueError, match="'scores': 1 for 2 completions"):
        encode(Row(prompt=CHAT, completions=("a", "b"), scores=(1.0,)), tokenizer)
    with pytest.raises(ValueError, match="has no tokens"):
        encode(Row(prompt="", chosen="a", rejected="b"), tokenizer)
    with pytest.raises(ValueError, match="holds none"):
        encode(Row(prompt=(), completion="a"), tokenizer)


def test_no_chat_template_is_a_clear_error():
    bare = tiny_models.make_tokenizer(template=None)
    with pytest.raises(ValueError, match="has no chat template.*plain text"):
        encode(Row(prompt=CHAT, completion="a"), bare)
    assert encode(Row(prompt="Tea?", completion="a"), bare).completions[0][-1] == TEXT
    assert end_of_turn(bare) == TEXT


def test_too_long_names_the_lengths(tokenizer):
    row = Row(prompt="Tea " * 5, completion="The clock is blue and red.")
    whole = encode(row, tokenizer)
    before, after = len(whole.prompt_ids), len(whole.completions[0])
    assert encode(row, tokenizer, max_length=before + after) == whole
    with pytest.raises(
        TooLong, match=rf"prompt \({before} tokens\).*\({after} tokens\) make {before + after}, but at most"
    ):
        encode(row, tokenizer, max_length=before + after - 1)
    with pytest.raises(TooLong, match=f"prompt 0 has {before} tokens, but the model takes {before}"):
        encode(row, tokenizer, max_length=before)


def test_a_template_that_rewrites_the_prompt_is_an_error():
    odd = tiny_models.make_tokenizer(
        template="{{ messages | length }}{% for m in messages %}<|user|>{{ m['content'] }}<|end|>{% endfor %}"
    )
    with pytest.raises(ValueError, match="rewrites the prompt once an answer follows"):
        encode(Row(prompt=CHAT, completion="a"), odd)


def test_a_template_without_an_end_of_turn_closes_with_end_of_text():
    open_ended = tiny_models.make_tokenizer(
        template="{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    assert end_of_turn(open_ended) == TEXT
    example = encode(Row(prompt=CHAT, completion="Yes"), open_ended)
    assert open_ended.decode(example.completions[0]) == "Yes\n<|text|>"
