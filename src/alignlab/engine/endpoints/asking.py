"""What all endpoints that cost something share: numbered draws, the cache, token counts, errors without secrets."""

import logging
import os
import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from alignlab.core.types import Prompt, Sample

from .cache import AnswerCache, CacheError, key_of

log = logging.getLogger(__name__)
SECRET_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|CREDENTIALS?)$", re.IGNORECASE)
SECRET_LENGTH = 8
"""shorter values are not secrets, and hiding them would garble ordinary text"""
SAME_DRAWS = 8
"""so many repeated draws, all alike, are taken for a server that does not sample"""


class EndpointError(RuntimeError):
    """An endpoint that did not answer; the message names it, the status, and what to do."""


@dataclass(frozen=True, kw_only=True)
class Failed(Sample):
    """No answer: what `Asking.attempt` gives where every attempt failed. It is never cached."""

    text: str = ""
    stop: Literal["stop", "length", "error"] = "error"
    problem: str = ""
    """the error's message"""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One answer that is wanted."""

    prompt: Prompt
    draw: int
    """number of the draw for this prompt and seed, from 0"""
    seed: int
    temperature: float
    max_tokens: int
    key: str


@dataclass(kw_only=True)
class Usage:
    """What was spent since the endpoint was made; cached answers cost nothing and are counted apart."""

    answers: int = 0
    cached: int = 0
    retries: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


Deliver = Callable[[Job, Sample, int], None]
"""hand over one answer and its number of completion tokens (0 where unknown), at once when it is had"""


@runtime_checkable
class Source(Protocol):
    """Where answers come from; `run` delivers each as it comes.

    It raises EndpointError at the first that fails, or with `patience` at one failure more than that in a row.
    """

    @property
    def name(self) -> str:
        """How the source is called in logs and errors."""
        ...

    @property
    def remote(self) -> bool:
        """Whether a server of unknown behaviour answers."""
        ...

    def identity(self) -> Mapping[str, Any]:
        """Everything about the source that decides its answers, without secrets."""
        ...

    def run(self, jobs: Sequence[Job], deliver: Deliver, usage: Usage, patience: int = 0) -> None:
        """Answer the jobs in any order."""
        ...


def plain(prompt: Prompt) -> str | list[list[str]]:
    """Return a prompt as JSON-able content."""
    return prompt if isinstance(prompt, str) else [[turn["role"], turn["content"]] for turn in prompt]


def messages(prompt: Prompt) -> list[dict[str, str]]:
    """Return a prompt as chat messages; text becomes one user message."""
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    return [{"role": turn["role"], "content": turn["content"]} for turn in prompt]


def without_secrets(text: str) -> str:
    """Return text with the values of all environment variables that name a secret cut out."""
    secrets = {v for name, v in os.environ.items() if SECRET_NAME.search(name)}
    for secret in sorted({s.strip() for s in secrets}, key=len, reverse=True):
        if len(secret) >= SECRET_LENGTH:
            text = text.replace(secret, "[secret]")
    return text


def shown(text: str, width: int = 300) -> str:
    """Return untrusted text on one line, without secrets or control characters, cut to `width`."""
    # secrets first: a secret cut in half is not recognised any more
    line = "".join(c if c.isprintable() else " " for c in without_secrets(text)[: 8 * width])
    line = " ".join(line.split())
    return line if len(line) <= width else line[:width] + "..."


class Asking:
    """An `Endpoint` over a source: looks answers up before it asks, keeps each as it comes.

    A prompt given twice in one call gets further draws, not the same ones. At temperature 0 there is one draw, and all
    n answers are that one.
    """

    def __init__(
        self, source: Source, cache: AnswerCache | None, progress: Callable[[int, int], None] | None = None
    ) -> None:
        self.name = source.name
        self.source = source
        self.cache = cache
        self.usage = Usage()
        self.progress = progress
        self._lock = threading.Lock()

    def complete(
        self, prompts: Sequence[Prompt], *, n: int = 1, seed: int = 0, temperature: float = 1.0, max_tokens: int = 256
    ) -> list[list[Sample]]:
        """Return n samples for each prompt, in order.

        Raises:
            EndpointError: where an answer could not be had; those that were had stay in the cache.
        """
        return self._complete(prompts, n, seed, temperature, max_tokens, 0)

    def attempt(
        self,
        prompts: Sequence[Prompt],
        *,
        n: int = 1,
        seed: int = 0,
        temperature: float = 1.0,
        max_tokens: int = 256,
        patience: int = 16,
    ) -> list[list[Sample]]:
        """Like `complete`, but an answer that could not be had is a `Failed` sample.

        Raises:
            EndpointError: more than `patience` failures in a row, or nothing but failures since the endpoint was made.
        """
        return self._complete(prompts, n, seed, temperature, max_tokens, patience)

    def _complete(
        self, prompts: Sequence[Prompt], n: int, seed: int, temperature: float, max_tokens: int, patience: int
    ) -> list[list[Sample]]:
        if n < 1 or max_tokens < 1 or not 0 <= temperature < float("inf"):
            raise ValueError(f"{self.name}: n={n}, max_tokens={max_tokens}, temperature={temperature}: out of range")
        rows = self._jobs(prompts, n, seed, temperature, max_tokens)
        jobs = {job.key: job for row in rows for job in row}
        try:
            had = self.cache.get(list(jobs)) if self.cache else {}
            self.usage.cached += len(had)
            self._ask([job for key, job in jobs.items() if key not in had], had, len(jobs), patience)
        except CacheError as error:
            raise EndpointError(f"{self.name}: {error}") from None
        answers = [[had[job.key] for job in row] for row in rows]
        self._check_draws(answers, temperature)
        return answers

    def _jobs(
        self, prompts: Sequence[Prompt], n: int, seed: int, temperature: float, max_tokens: int
    ) -> list[list[Job]]:
        who = dict(self.source.identity())
        before: Counter[str] = Counter()
        rows = []
        for prompt in prompts:
            content = key_of({"prompt": plain(prompt)})
            draws = [0] * n if temperature == 0 else range(before[content], before[content] + n)
            before[content] += n
            asked = {"seed": seed, "temperature": float(temperature), "max_tokens": max_tokens}
            rows.append(
                [
                    Job(prompt=prompt, draw=d, key=key_of({"who": who, "prompt": content, "draw": d, **asked}), **asked)
                    for d in draws
                ]
            )
        return rows

    def _ask(self, jobs: list[Job], had: dict[str, Sample], wanted: int, patience: int) -> None:
        def deliver(job: Job, sample: Sample, completion_tokens: int) -> None:
            if isinstance(sample, Failed):
                with self._lock:
                    had[job.key] = sample
                    self.usage.failed += 1
                return
            sample = self.cache.put(job.key, sample) if self.cache else sample
            with self._lock:
                had[job.key] = sample
                self.usage.answers += 1
                self.usage.prompt_tokens += sample.prompt_tokens
                self.usage.completion_tokens += completion_tokens
            if self.progress:
                self.progress(len(had), wanted)

        if self.progress:
            self.progress(len(had), wanted)
        if jobs:
            self.source.run(jobs, deliver, self.usage, patience)
        missing = [job for job in jobs if job.key not in had]
        if missing:
            raise EndpointError(f"{self.name}: {len(missing)} of {wanted} answers did not come")
        problems = [sample.problem for job in jobs if isinstance(sample := had[job.key], Failed)]
        if problems and not self.usage.answers + self.usage.cached:
            raise EndpointError(problems[0])

    def _check_draws(self, answers: list[list[Sample]], temperature: float) -> None:
        repeats = [len(row) - 1 for row in answers]
        alike = all(len({sample.text for sample in row}) == 1 for row in answers)
        if self.source.remote and temperature > 0 and sum(repeats) >= SAME_DRAWS and alike:
            log.warning(
                "%s: at temperature %g all %d repeated draws were alike. If the server samples only when told so "
                "(`transformers serve` does), pass it the switch with extra_body, for example "
                'extra_body={"generation_config": "{\\"do_sample\\": true, \\"max_new_tokens\\": 256}"}',
                self.name,
                temperature,
                sum(repeats),
            )
