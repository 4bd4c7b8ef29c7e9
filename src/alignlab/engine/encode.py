"""From rows of text to token ids: one prompt, its completions, and what is known of them."""

import functools
from collections.abc import Sequence
from typing import Any

from alignlab.core.facts import finite, number
from alignlab.core.judgement import under
from alignlab.core.types import Message, Prompt, Row
from alignlab.engine.controls import Rendered, controls, render, tokenise
from alignlab.engine.examples import Example, collate

__all__ = ["Example", "TooLong", "collate", "encode", "same_token_ids"]


class TooLong(ValueError):
    """A prompt or completion that the model has no room for; callers may count and leave out such rows."""


def same_token_ids(tokenizer: Any, other: Any, role: str, whose: str) -> None:
    """Check that a model may read token ids that were made for another.

    Args:
        tokenizer: the one that made them.
        other: the model that is to read them.
        role: of that model, for the message.
        whose: tokenizer it is, for the message.

    Raises:
        ValueError: the model's vocabulary is another one.
    """
    if other.tokenizer.get_vocab() != tokenizer.get_vocab():
        raise ValueError(
            f"{role} {other.identity} has another tokenizer than {whose}; token ids must agree: give a model with the"
            " same tokenizer"
        )


def chat_text(tokenizer: Any, messages: Sequence[Message]) -> str:
    """Render messages with the tokenizer's own template, ready for the assistant's next words.

    A conversation that already ends with an assistant message is continued, not answered.
    Raises ValueError for a tokenizer without a chat template.
    """
    return _chat(tokenizer, messages).text


def _chat(tokenizer: Any, messages: Sequence[Message]) -> Rendered:
    if not getattr(tokenizer, "chat_template", None):
        raise ValueError(
            f"tokenizer {getattr(tokenizer, 'name_or_path', '')!r} has no chat template, so it cannot render messages; "
            "give the prompt as plain text, or use an instruction-tuned model"
        )
    if not messages:
        raise ValueError("a prompt of messages holds none; give at least one message")
    continued = messages[-1]["role"] == "assistant"
    return render(tokenizer, messages, add_generation_prompt=not continued, continue_final_message=continued)


def prompt_ids(tokenizer: Any, prompts: Sequence[Prompt], *, max_length: int | None = None) -> list[list[int]]:
    """Tokenise prompts exactly as `score`, `sample` and training see them.

    Args:
        tokenizer: a transformers tokenizer.
        prompts: plain text (taken as is, with the tokenizer's usual beginning-of-text token) or messages.
        max_length: the most tokens the model takes; None for no check.

    Returns:
        One list of token ids per prompt.

    Raises:
        ValueError: a prompt without any token, or messages without a chat template.
        TooLong: a prompt that leaves no room for one token of an answer.
    """
    encoded: list[list[int]] = [[] for _ in prompts]
    for plain in (True, False):
        indices = [i for i, prompt in enumerate(prompts) if isinstance(prompt, str) == plain]
        if indices:
            listed: list[Any] = [prompts[i] for i in indices]
            found = (
                _plain_ids(tokenizer, listed) if plain else tokenise(tokenizer, [_chat(tokenizer, p) for p in listed])
            )
            for i, ids in zip(indices, found):
                encoded[i] = ids
    for i, ids in enumerate(encoded):
        if not ids:
            raise ValueError(f"prompt {i} has no tokens; a model cannot continue an empty text without a first token")
        if max_length is not None and len(ids) >= max_length:
            raise TooLong(
                f"prompt {i} has {len(ids)} tokens, but the model takes {max_length} and needs at least one for the "
                "answer; shorten the prompt (fewer or shorter contexts) or use a model with a longer context"
            )
    return encoded


def _plain_ids(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    encoded = tokenizer(texts, return_attention_mask=False)["input_ids"]
    end = tokenizer.eos_token_id
    # Some tokenizers close every text; a prompt is still open. A lone token may be beginning and end in one (GPT-2).
    return [ids[:-1] if len(ids) > 1 and ids[-1] == end and not t.endswith(tokenizer.eos_token) else ids
            for ids, t in zip(encoded, texts)]  # fmt: skip


def end_of_turn(tokenizer: Any, *, chat: bool = True) -> int:
    """Return the token that closes an answer: the chat template's own end of turn, else end of text.

    Raises ValueError for a tokenizer with neither.
    """
    token = _template_end(tokenizer, repr(tokenizer.chat_template)) if chat and tokenizer.chat_template else None
    token = tokenizer.eos_token_id if token is None else token
    if token is None:
        raise ValueError(f"tokenizer {tokenizer.name_or_path!r} has no end-of-text token; set `eos_token`")
    return token


@functools.lru_cache(maxsize=32)
def _template_end(tokenizer: Any, template: str) -> int | None:  # noqa: ARG001 - the template is part of the cache key
    marker = "alignlab"
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": marker}]
    text = tokenizer.apply_chat_template(turns, tokenize=False)
    tail = tokenizer(text[text.rindex(marker) + len(marker) :], add_special_tokens=False)["input_ids"]
    return next((i for i in tail if i in controls(tokenizer).ids), None)


def _closed(tokenizer: Any, ids: list[int], end: int) -> list[int]:
    """Cut what a template writes after the end of turn (usually a newline), and close what it leaves open."""
    if end in ids:
        last = len(ids) - 1 - ids[::-1].index(end)
        if not tokenizer.decode(ids[last + 1 :]).strip():
            return ids[: last + 1]
    return [*ids, end]


def completion_ids(tokenizer: Any, prompt: Prompt, before: list[int], completion: str) -> list[int]:
    """Tokenise `completion` as the continuation of `prompt`, whose ids are `before`.

    In a chat, special tokens that messages or completion spell out are text (`engine.controls`). The ids of the prompt
    stay what they are when the model generates, also where a joint tokenisation would merge across the border.

    Raises:
        ValueError: an empty completion, or a template that does not keep the prompt's text in front of the answer.
    """
    if not completion:
        raise ValueError("empty completion; expected at least one character to score")
    if isinstance(prompt, str):
        start, end = prompt, end_of_turn(tokenizer, chat=False)
        whole = Rendered(prompt + completion, prompt + completion)
        joint = _plain_ids(tokenizer, [whole.text])[0]
    else:
        start, end = chat_text(tokenizer, prompt), end_of_turn(tokenizer)
        turns = [dict(m) for m in prompt]
        if turns[-1]["role"] == "assistant":
            completion = str(turns.pop()["content"]) + completion
        whole = render(tokenizer, [*turns, {"role": "assistant", "content": completion}], add_generation_prompt=False)
        joint = tokenise(tokenizer, [whole])[0]
    if not whole.text.startswith(start):
        raise ValueError(
            f"the chat template of {tokenizer.name_or_path!r} rewrites the prompt once an answer follows: the text of "
            f"prompt and answer does not begin with the text of the prompt, which ends in {start[-40:]!r}"
        )
    # a bare text of a single token has nothing behind it but its end
    if joint[: len(before)] == before and (len(joint) > len(before) or not prompt):
        return _closed(tokenizer, joint[len(before) :], end)
    rest = tokenise(tokenizer, [Rendered(*(text[len(start) :] for text in whole))])[0]
    if tokenizer.decode([*before, *rest]) != tokenizer.decode(joint):
        raise ValueError(
            f"completion {completion[:40]!r} cannot be tokenised apart from its prompt, which ends in {start[-40:]!r}; "
            "move the white space between them from one to the other"
        )
    return _closed(tokenizer, rest, end)


def encode(row: Row, tokenizer: Any, *, max_length: int | None = None) -> Example:
    """Tokenise one row for training or scoring.

    `completion` gives one completion (with `label`, if any), and behind an empty prompt it is a bare text: all its
    tokens are scored but the first, the beginning-of-text token where the tokenizer writes one; `chosen` and `rejected`
    give two and one pair, with `facts` "p", "margin" and "weight" where present (1, 0, 1 otherwise); `completions` give
    as many, with `scores`.
    `facts` "scores" maps names to further numbers, one per completion (`facts["scores.NAME"]` gives one by itself);
    `head` is the number of the output head that scores it, of a model that has several.
    `second_prompt` is the prompt of `rejected`, or else the context "second"; a `judgement` gives the context
    "judgement".

    Args:
        row: the record.
        tokenizer: a transformers tokenizer.
        max_length: the most tokens of prompt and completion together; None for no check.

    Returns:
        The Example.

    Raises:
        ValueError: no completion or an empty one, no chat template, an empty prompt, scores that are not one finite
            number per completion, a "p" outside [0, 1], a "margin" that is not finite, a "weight" below 0.
        TooLong: prompt, or prompt and completion, longer than `max_length` (nothing is cut in silence).
    """
    texts, pairs, labels, scores = _completions(row)
    scores = scores | _given_scores(row, len(texts))
    before = _before(tokenizer, row, max_length)
    others = {name: prompt_ids(tokenizer, [p], max_length=max_length)[0] for name, p in _other_prompts(row).items()}
    own = {1: others["second"]} if pairs and "second" in others else {}
    contexts = {name: ids for name, ids in others.items() if not own or name != "second"}
    asked = [(row.second_prompt, own[k]) if k in own else (row.prompt, before) for k in range(len(texts))]
    completions = tuple(completion_ids(tokenizer, *asked[k], text) for k, text in enumerate(texts))
    longest = max(len(ids) for ids in (before, *others.values()))
    for index, ids in enumerate(completions):
        if max_length is not None and longest + len(ids) > max_length:
            raise TooLong(
                f"prompt ({longest} tokens) and completion {index} ({len(ids)} tokens) make {longest + len(ids)}, but "
                f"at most {max_length} fit; shorten them, raise max_length if the model allows it, or leave out the row"
            )
    return Example(
        prompt_ids=before, completions=completions, pairs=pairs, labels=labels, contexts=contexts, scores=scores,
        origins=("dataset",) * len(completions), row_id=str(row.meta.get("id", "")), own_prompts=own,
    )  # fmt: skip


def _before(tokenizer: Any, row: Row, max_length: int | None) -> list[int]:
    """Return the ids of a row's prompt; of a bare text its first token, which nothing predicts."""
    if row.prompt == "" and row.completion:
        return _plain_ids(tokenizer, [row.completion])[0][:1]
    return prompt_ids(tokenizer, [row.prompt], max_length=max_length)[0]


def _other_prompts(row: Row) -> dict[str, Prompt]:
    """Return what else the completions of a row are read under."""
    found = {} if row.second_prompt is None else {"second": row.second_prompt}
    return found if row.judgement is None else {**found, "judgement": under(row.prompt, row.judgement)}


def _completions(row: Row) -> tuple[tuple[str, ...], tuple, tuple[bool | None, ...], dict[str, tuple[float, ...]]]:
    """Return texts, pairs, labels and scores of a row."""
    if row.chosen is not None and row.rejected is not None:
        known = row.facts
        pair = (0, 1, number(known, "p", 1.0, 0, 1), number(known, "margin", 0.0), number(known, "weight", 1.0, 0))
        return (row.chosen, row.rejected), (pair,), (), {}
    if row.completions:
        if row.scores and len(row.scores) != len(row.completions):
            raise ValueError(f"field 'scores': {len(row.scores)} for {len(row.completions)} completions; give one each")
        if odd := [score for score in row.scores if not finite(score)]:
            raise ValueError(f"field 'scores': expected finite numbers, got {odd[0]!r}")
        return row.completions, (), (), {"score": tuple(map(float, row.scores))} if row.scores else {}
    if row.completion is not None:
        return (row.completion,), (), () if row.label is None else (row.label,), {}
    raise ValueError("a row needs 'completion', 'chosen' and 'rejected', or 'completions'; it has none of them")


def _given_scores(row: Row, count: int) -> dict[str, tuple[float, ...]]:
    """Return the named numbers among the facts of a row."""
    whole = dict(row.facts.get("scores") or {})
    whole |= {key.removeprefix("scores."): value for key, value in row.facts.items() if key.startswith("scores.")}
    found = {}
    for name, value in whole.items():
        numbers = tuple(value) if isinstance(value, (list, tuple)) else (value,)
        if len(numbers) != count or not all(map(finite, numbers)):
            raise ValueError(
                f"field 'facts.scores.{name}': expected {count} finite number(s), one per completion, got {value!r}"
            )
        found[name] = tuple(float(x) for x in numbers)
    if bad := [x for x in found.get("head", ()) if x < 0 or x % 1]:
        raise ValueError(f"field 'facts.scores.head': expected numbers of output heads, 0, 1, ..., got {bad[0]:g}")
    return found
