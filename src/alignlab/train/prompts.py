"""Prompts that are scored like completions, for objectives over the joint probability of prompt and completion."""

from dataclasses import replace

from alignlab.engine.encode import Example


def scored(example: Example) -> Example:
    """Move the prompts of an example into its completions, all but their first token, which nothing predicts.

    Where all completions share one prompt, its probability is the same for all of them and cancels between them: the
    example then stays as it is.

    Returns:
        The example with the score `prompt_tokens`: how many tokens at the head of each completion are its prompt's.
    """
    asked = [example.prompt_of(k) for k in range(len(example.completions))]
    if all(prompt == asked[0] for prompt in asked):
        return replace(example, scores={**example.scores, "prompt_tokens": (0.0,) * len(asked)})
    return replace(
        example,
        prompt_ids=asked[0][:1],
        own_prompts={k: prompt[:1] for k, prompt in enumerate(asked) if prompt[:1] != asked[0][:1]},
        completions=tuple([*prompt[1:], *ids] for prompt, ids in zip(asked, example.completions)),
        scores={**example.scores, "prompt_tokens": tuple(float(len(prompt) - 1) for prompt in asked)},
    )
