"""`openai:` endpoints: the chat-completions protocol over httpx, for OpenAI and every server that speaks it.

Written here rather than through Inspect AI's provider because the protocol is one POST: Inspect needs two seconds to
import and the `openai` package besides, its retries are unlimited by default, and an answer that is no JSON, or half of
one, surfaces as whatever the package raises. Here each of these has a limit and a message. Every draw is a request of
its own, with its own seed: some servers ignore `n` (`transformers serve` does).
"""

import asyncio
import hashlib
import json
import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar
from urllib.parse import SplitResult, urlsplit

import httpx

from alignlab.core.types import Sample

from .asking import Deliver, EndpointError, Job, Usage, messages, shown
from .retry import RETRIED, pause, retry_after, run_async
from .workers import answer_all

OPENAI = "https://api.openai.com/v1"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
LARGEST = 32 * 2**20
"""bytes of one answer; more is not an answer"""
STOPS = {"stop": "stop", "eos": "stop", "length": "length", "max_tokens": "length"}
HINTS = {
    **dict.fromkeys((301, 302, 307, 308), "redirects are not followed: give the final address as base_url"),
    400: "the server refuses the request: prompt too long for the model, or a parameter it does not know",
    401: "the key is missing or wrong: set {key}",
    402: "the account has no credit",
    403: "the key may not use this model",
    404: "no such model or path: check the model's name and that base_url ends in /v1",
    413: "the prompt is too long",
    422: "the server refuses the request: a parameter it does not know",
}


class _Malformed(ValueError):
    """An answer that is not what the protocol says; asked again."""


def request_seed(seed: int, draw: int) -> int:
    """Return the seed sent with a draw, so that a server that honours seeds gives different draws."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{draw}".encode()).digest()[:4], "big") >> 1


def _port_is_good(parts: SplitResult) -> bool:
    try:
        return parts.port is None or parts.port > 0
    except ValueError:
        return False


@dataclass(kw_only=True)
class ChatApi:
    """A model behind an OpenAI-compatible server."""

    remote: ClassVar[bool] = True

    model: str
    base_url: str | None = None
    """up to and including /v1; default OPENAI_BASE_URL, then OpenAI's own"""
    api_key_env: str = "OPENAI_API_KEY"
    """the environment variable with the key; a server on this machine may go without"""
    timeout: float = 120.0
    """seconds for one attempt, from the first byte sent to the last received"""
    retries: int = 6
    """further attempts after timeouts, broken connections, 408, 409, 425, 429, 5xx and garbage"""
    concurrency: int = 8
    """requests at once"""
    backoff: float = 1.0
    """seconds before the first further attempt; doubles each time, with jitter"""
    longest_wait: float = 60.0
    """seconds, an upper bound on any wait"""
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    """further fields of the request, e.g. top_p or a server's own switches; part of the cache key"""

    def __post_init__(self) -> None:
        url = (self.base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI).rstrip("/")
        parts = urlsplit(url)
        if parts.username or parts.password:
            raise EndpointError(f"{self.name}: base_url holds a user or password; put the key into {self.api_key_env}")
        if parts.scheme not in ("http", "https") or not parts.hostname or not _port_is_good(parts):
            raise EndpointError(f"{self.name}: base_url: expected http(s)://host[:port]/v1, got {shown(url)!r}")
        if self.timeout <= 0 or self.retries < 0 or self.concurrency < 1 or self.backoff < 0:
            raise EndpointError(f"{self.name}: expected timeout > 0, retries >= 0, concurrency >= 1, backoff >= 0")
        self.base_url, self._local = url, parts.hostname in LOOPBACK
        self._limit_field = "max_tokens"

    @property
    def name(self) -> str:
        """The spec without its options."""
        return f"openai:{self.model}"

    def identity(self) -> Mapping[str, Any]:
        """Server, model and extra fields."""
        return {"kind": "chat", "url": self.base_url, "model": self.model, "extra": dict(self.extra_body)}

    @cached_property
    def _draw(self) -> random.Random:
        return random.Random()

    def _headers(self) -> dict[str, str]:
        """Return the authorisation, from the environment as it is now; the key is kept nowhere."""
        key = os.environ.get(self.api_key_env, "").strip()
        if not key:
            if self._local:
                return {}
            raise EndpointError(
                f"{self.name}: {self.base_url} needs a key: set the environment variable {self.api_key_env} "
                "(or name another one with api_key_env; for a server of your own give base_url)"
            )
        if not (key.isascii() and key.isprintable()):
            raise EndpointError(f"{self.name}: {self.api_key_env} holds characters that no key has (a line break?)")
        return {"Authorization": f"Bearer {key}"}

    def run(self, jobs: Sequence[Job], deliver: Deliver, usage: Usage, patience: int = 0) -> None:
        """Answer the jobs, at most `concurrency` at once."""
        headers = self._headers()
        run_async(self._run(jobs, deliver, usage, headers, patience))

    async def _run(
        self, jobs: Sequence[Job], deliver: Deliver, usage: Usage, headers: dict[str, str], patience: int
    ) -> None:
        # a loopback server needs no proxy; redirects are not followed, so the key goes to one host only
        async with httpx.AsyncClient(headers=headers, timeout=self.timeout, trust_env=not self._local) as client:

            async def ask(job: Job, stopping: Callable[[], bool]) -> tuple[Sample, int]:
                return await self._ask(client, job, stopping, usage)

            await answer_all(jobs, ask, deliver, self.concurrency, patience)

    async def _ask(
        self, client: httpx.AsyncClient, job: Job, stopping: Callable[[], bool], usage: Usage
    ) -> tuple[Sample, int]:
        problem = ""
        for attempt in range(self.retries + 1):
            said = None
            try:
                limit_field = self._limit_field
                async with asyncio.timeout(self.timeout):
                    status, headers, body = await self._post(client, job, limit_field)
                if status == 200:
                    return self._sample(body)
                if status == 400 and limit_field == "max_tokens" and b"max_completion_tokens" in body:
                    # newer OpenAI models know the limit by another name, and say so
                    self._limit_field = "max_completion_tokens"
                    return await self._ask(client, job, stopping, usage)
                problem = f"HTTP {status}: {self._detail(body)}"
                if status not in RETRIED or b"insufficient_quota" in body:
                    raise EndpointError(self._message(problem, HINTS.get(status, "see the server's documentation")))
                said = retry_after(headers)
            except (TimeoutError, httpx.TimeoutException):
                problem = f"no whole answer within {self.timeout:g} s (timeout)"
            except httpx.RequestError as error:
                problem = f"{type(error).__name__}: {shown(str(error)) or 'connection lost'} (is the server running?)"
            except _Malformed as error:
                problem = f"malformed answer: {error}"
            if attempt == self.retries or stopping():
                break
            usage.retries += 1
            await asyncio.sleep(
                pause(attempt, base=self.backoff, longest=self.longest_wait, said=said, draw=self._draw)
            )
        advice = "run again later to go on from the answers had so far, or raise retries, timeout or lower concurrency"
        raise EndpointError(self._message(f"gave up after {attempt + 1} attempts; the last: {problem}", advice))

    async def _post(
        self, client: httpx.AsyncClient, job: Job, limit_field: str
    ) -> tuple[int, Mapping[str, str], bytes]:
        body = {
            "model": self.model, "messages": messages(job.prompt), "temperature": job.temperature, "stream": False,
            "seed": request_seed(job.seed, job.draw), limit_field: job.max_tokens, **self.extra_body,
        }  # fmt: skip
        received = bytearray()
        async with client.stream("POST", f"{self.base_url}/chat/completions", json=body) as response:
            async for chunk in response.aiter_bytes():
                received += chunk
                if len(received) > LARGEST:
                    raise _Malformed(f"more than {LARGEST >> 20} MiB")
        return response.status_code, response.headers, bytes(received)

    def _sample(self, body: bytes) -> tuple[Sample, int]:
        """Return the answer and its number of completion tokens."""
        try:
            data = json.loads(body)
            choice = data["choices"][0]
            text, reason = choice["message"].get("content"), choice.get("finish_reason")
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            raise _Malformed(f"expected a chat completion, got {shown(body.decode(errors='replace'))!r}") from None
        if text is None and reason is None or not isinstance(text, str | None):
            raise _Malformed("the message has no text")
        # lone surrogates are valid in JSON and in no file
        text = (text or "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        key = os.environ.get(self.api_key_env, "").strip()
        text = text.replace(key, "[secret]") if key else text
        counts = data.get("usage") if isinstance(data.get("usage"), dict) else {}
        tokens = [
            v if isinstance(v := counts.get(n), int) and v > 0 else 0 for n in ("prompt_tokens", "completion_tokens")
        ]
        stop = STOPS.get(reason or "stop", "error")
        return Sample(text=text, stop=stop, prompt_tokens=tokens[0]), tokens[1]  # type: ignore[arg-type]

    def _detail(self, body: bytes) -> str:
        """Return the server's own words, wherever it puts them."""
        text = body.decode(errors="replace")
        try:
            data = json.loads(body)
            error = data.get("error", data.get("detail", data)) if isinstance(data, dict) else data
            text = error["message"] if isinstance(error, dict) and "message" in error else json.dumps(error)
        except ValueError:
            pass
        return shown(str(text)) or "no explanation"

    def _message(self, problem: str, advice: str) -> str:
        advice = advice.format(key=self.api_key_env)
        return f"{self.name} at {self.base_url}: {problem}. {advice[0].upper()}{advice[1:]}"
