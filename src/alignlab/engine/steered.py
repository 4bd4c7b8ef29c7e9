"""A model under interventions, with the face of a model: prompts are edited, logits processed, hooks installed."""

import contextlib
from collections.abc import Sequence
from typing import Any

from alignlab.core.types import Groups, Intervention, Model, Prompt, Sample, View


class Steered:
    """`model` under `interventions`, applied in the order prompt, logits, activations, decoder.

    Raises ValueError for more than one decoder.
    """

    def __init__(self, model: Model, interventions: Sequence[Intervention]) -> None:
        decoders = [i.spec for i in interventions if i.decode is not None]
        if len(decoders) > 1:
            raise ValueError(f"at most one decoder can steer a model, got {', '.join(decoders)}")
        self._model, self._interventions = model, tuple(interventions)
        self.tokenizer = model.tokenizer

    @property
    def identity(self) -> str:
        """The model's identity with what steers it."""
        return "+".join([self._model.identity, *(i.spec for i in self._interventions)])

    @property
    def context_length(self) -> int | None:
        """The most tokens of prompt and completion together; None where that is not known."""
        return getattr(self._model, "context_length", None)

    @property
    def writes_only(self) -> bool:
        """Whether text is steered by a decoder or logits processors, of which log-probabilities would know nothing."""
        return any(i.decode is not None or i.processors is not None for i in self._interventions)

    def edited(self, prompt: Prompt) -> Prompt:
        """Return the prompt that the model is shown; `sample` edits by itself, who scores must not forget to."""
        for intervention in self._interventions:
            if intervention.edit_messages is not None:
                prompt = intervention.edit_messages(prompt)
        return prompt

    def score(self, groups: Groups, at: Any = None) -> View:
        """Score under the activation hooks; prompts of `groups` are tokens already, so they are not edited."""
        with self._active():
            return self._model.score(groups, at)

    def sample(self, prompts: Sequence[Prompt], **options: Any) -> list[list[Sample]]:
        """Sample with everything that steers the model in force."""
        edited = [self.edited(prompt) for prompt in prompts]
        processors = [p for i in self._interventions if i.processors is not None for p in i.processors()]
        if processors:
            options["processors"] = (*options.get("processors", ()), *processors)
        decode = next((i.decode for i in self._interventions if i.decode is not None), None)
        with self._active():
            return decode(self._model, edited, **options) if decode else self._model.sample(edited, **options)

    @contextlib.contextmanager
    def _active(self) -> Any:
        with contextlib.ExitStack() as stack:
            for intervention in self._interventions:
                if intervention.active is not None:
                    stack.enter_context(intervention.active(self._model))
            yield
