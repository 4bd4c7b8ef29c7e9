"""Endpoints without a network: a local model (`hf:`, `tiny:`) and recorded answers (`replay:`)."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from alignlab.core.types import Prompt, Sample

from .asking import Deliver, EndpointError, Job, Usage, plain, shown

CHUNK = 64
"""prompts sampled between two deliveries: large enough to batch, small enough to lose little"""


class Local:
    """A local language model, loaded when it is first asked.

    Args:
        name: the spec.
        model: a loaded model (identity, sample), or the spec of one for `engine.load.load`.
        options: arguments of `load`.
    """

    remote = False

    def __init__(self, name: str, model: Any, options: Mapping[str, Any] | None = None) -> None:
        self.name = name
        self._model = model
        flags = {"true": True, "false": False}
        self._options = {k: flags.get(v, v) if isinstance(v, str) else v for k, v in (options or {}).items()}
        self._digest: str | None = None

    def loaded(self) -> Any:
        """Return the model, loaded now where it was not."""
        if isinstance(self._model, str):
            from alignlab.engine.load import load

            try:
                self._model = load(self._model, **self._options)
            except (TypeError, ValueError, OSError) as error:
                raise EndpointError(f"{self.name}: {error}") from None
            # nobody else holds this model, so its weights stay as they are; a model handed in may be in training
            self._digest = self._model.identity
        return self._model

    def identity(self) -> Mapping[str, Any]:
        """The digest of weights, adapter, tokenizer and chat template."""
        model = self.loaded()
        return {"kind": "local", "model": self._digest or model.identity}

    def run(self, jobs: Sequence[Job], deliver: Deliver, usage: Usage, patience: int = 0) -> None:
        """Sample in batches, all draws of a prompt from its first on, as `engine.sample` numbers them."""
        del usage, patience
        model = self.loaded()
        wanted: dict[str, list[Job]] = {}
        for job in jobs:
            wanted.setdefault(str(plain(job.prompt)), []).append(job)
        by_draws: dict[int, list[list[Job]]] = {}
        for same in wanted.values():
            by_draws.setdefault(1 + max(job.draw for job in same), []).append(same)
        for draws, groups in by_draws.items():
            for start in range(0, len(groups), CHUNK):
                chunk = groups[start : start + CHUNK]
                first = chunk[0][0]
                answers = model.sample(
                    [same[0].prompt for same in chunk],
                    n=draws,
                    seed=first.seed,
                    temperature=first.temperature,
                    max_tokens=first.max_tokens,
                )
                for same, samples in zip(chunk, answers, strict=True):
                    for job in same:
                        deliver(job, samples[job.draw], len(samples[job.draw].ids))


class Replay:
    """Recorded answers: a file of rows with `prompt` and `completions` (or one `completion`), given in their order."""

    def __init__(self, path: str) -> None:
        self.name = f"replay:{path}"
        self._path = path
        self._known: dict[str, list[str]] | None = None

    def _answers(self) -> dict[str, list[str]]:
        if self._known is None:
            from alignlab.data.columns import DataError
            from alignlab.data.rows import read

            known: dict[str, list[str]] = {}
            try:
                for row in read(self._path):
                    texts = row.completions or ((row.completion,) if row.completion is not None else ())
                    known.setdefault(self._key(row.prompt), []).extend(texts)
            except DataError as error:
                raise EndpointError(f"{self.name}: {error}") from None
            self._known = known
        return self._known

    @staticmethod
    def _key(prompt: Prompt) -> str:
        """Text and one user message with that text are the same question."""
        if not isinstance(prompt, str) and len(prompt) == 1 and prompt[0]["role"] == "user":
            return str(plain(prompt[0]["content"]))
        return str(plain(prompt))

    def complete(
        self, prompts: Sequence[Prompt], *, n: int = 1, seed: int = 0, temperature: float = 1.0, max_tokens: int = 256
    ) -> list[list[Sample]]:
        """Return the next n recorded answers of each prompt; the sampling parameters cannot change a record.

        Raises:
            EndpointError: for a prompt that was not recorded, or not often enough.
        """
        del seed, temperature, max_tokens
        known = self._answers()
        taken: Counter[str] = Counter()
        rows = []
        for prompt in prompts:
            key = self._key(prompt)
            answers = known.get(key, [])[taken[key] : taken[key] + n]
            taken[key] += n
            if len(answers) < n:
                raise EndpointError(
                    f"{self.name}: {len(known.get(key, []))} recorded answers, {taken[key]} wanted, for the prompt "
                    f"{shown(key, 120)!r}; record it: a line with `prompt` and `completions`"
                )
            rows.append([Sample(text=text) for text in answers])
        return rows
