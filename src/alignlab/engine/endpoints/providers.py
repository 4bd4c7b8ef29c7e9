"""`<provider>/<model>` endpoints: every provider of Inspect AI, imported when it is first asked.

Inspect brings some thirty providers and their keys' names. Its own response cache stays off, since it is keyed by the
model's name alone, and its models are not memoised, since arguments that are objects look alike to it.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from alignlab.core.types import Sample

from .asking import Deliver, EndpointError, Job, Usage, messages, shown, without_secrets
from .chat_api import request_seed
from .retry import run_async
from .workers import answer_all

STOPS = {"stop": "stop", "max_tokens": "length", "model_length": "length"}


@dataclass(kw_only=True)
class Provider:
    """A model that Inspect AI reaches."""

    remote: ClassVar[bool] = True

    model: str
    base_url: str | None = None
    """another server for the provider"""
    timeout: float = 120.0
    """seconds for one attempt"""
    retries: int = 6
    """further attempts"""
    concurrency: int = 8
    """requests at once"""
    model_args: Mapping[str, Any] = field(default_factory=dict)
    """further arguments of the provider; part of the cache key, so plain data, and never a key"""

    @property
    def name(self) -> str:
        """The provider and its model."""
        return self.model

    def __post_init__(self) -> None:
        if "/" not in self.model:
            raise EndpointError(f"inspect:{self.model}: expected <provider>/<model>, e.g. anthropic/<model>")

    def identity(self) -> Mapping[str, Any]:
        """Provider, model, server, arguments."""
        return {"kind": "inspect", "url": self.base_url, "model": self.model, "args": dict(self.model_args)}

    def run(self, jobs: Sequence[Job], deliver: Deliver, usage: Usage, patience: int = 0) -> None:
        """Answer the jobs, at most `concurrency` at once; Inspect retries by itself."""
        del usage
        run_async(self._run(jobs, deliver, patience))

    def _load(self) -> Any:
        try:
            from inspect_ai.model import GenerateConfig, get_model
        except ImportError:
            raise EndpointError(f"{self.name}: needs Inspect AI: pip install 'alignlab[inspect]'") from None
        config = GenerateConfig(
            max_retries=self.retries,
            attempt_timeout=max(1, round(self.timeout)),
            max_connections=self.concurrency,
        )
        try:
            return get_model(self.model, base_url=self.base_url, config=config, memoize=False, **self.model_args)
        except Exception as error:  # each provider raises its own: no key, no package, no such provider
            raise EndpointError(
                f"{self.name}: {shown(str(error))} (a missing key goes into the provider's environment variable, a "
                f"missing package through pip; for a local or hub model write hf:{self.model}, for an "
                "OpenAI-compatible server openai:<model>?base_url=...)"
            ) from None

    async def _run(self, jobs: Sequence[Job], deliver: Deliver, patience: int) -> None:
        model = self._load()

        async def ask(job: Job, stopping: Callable[[], bool]) -> tuple[Sample, int]:
            del stopping
            return await self._ask(model, job)

        await answer_all(jobs, ask, deliver, self.concurrency, patience)

    async def _ask(self, model: Any, job: Job) -> tuple[Sample, int]:
        from inspect_ai.model import ChatMessageAssistant, ChatMessageSystem, ChatMessageUser, GenerateConfig

        kinds = {"system": ChatMessageSystem, "developer": ChatMessageSystem, "assistant": ChatMessageAssistant}
        asked = [kinds.get(turn["role"], ChatMessageUser)(content=turn["content"]) for turn in messages(job.prompt)]
        config = GenerateConfig(
            temperature=job.temperature, max_tokens=job.max_tokens, seed=request_seed(job.seed, job.draw)
        )
        longest = self.timeout * (self.retries + 1) + 60.0 * self.retries
        try:
            async with asyncio.timeout(longest):
                output = await model.generate(asked, config=config, cache=False)
            text, stop, spent = output.completion, STOPS.get(str(output.stop_reason), "error"), output.usage
        except TimeoutError:
            raise EndpointError(f"{self.name}: no answer within {longest:g} s; run again later to go on") from None
        except Exception as error:  # the providers' own errors, after Inspect's retries
            status = getattr(error, "status_code", None)
            problem = f"{f'HTTP {status}: ' if status else ''}{type(error).__name__}: {shown(str(error))}"
            raise EndpointError(
                f"{self.name}: {problem}. Answers had so far are cached: run again to go on; check the provider's key "
                "and the model's name"
            ) from None
        sample = Sample(text=without_secrets(text), stop=stop, prompt_tokens=spent.input_tokens if spent else 0)  # type: ignore[arg-type]
        return sample, spent.output_tokens if spent else 0
