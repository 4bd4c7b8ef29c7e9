"""A prompt together with a judgement of its answer: how critique in words is shown to a model."""

from alignlab.core.types import Message, Prompt

LEAD = "The answer should match this judgement:"


def under(prompt: Prompt, judgement: str) -> Prompt:
    """Return the prompt with a judgement of the answer that is to come.

    In a chat it follows the words of the last user turn; plain text has it in front, so that it still ends where the
    answer begins.

    Raises:
        ValueError: a chat without a user turn.
    """
    if isinstance(prompt, str):
        return f"{LEAD} {judgement}\n{prompt}"
    turns = list(prompt)
    last = next((i for i in reversed(range(len(turns))) if turns[i]["role"] == "user"), None)
    if last is None:
        raise ValueError("a judgement is put to the last user turn, but the prompt has none")
    turns[last] = Message(role="user", content=f"{turns[last]['content']}\n{LEAD} {judgement}")
    return tuple(turns)
