"""The provider `alignlab/<path>@<identity>` of Inspect AI: local, adapted and steered models, without a network.

The name carries the identity, since Inspect's caches and resumed runs compare names: a name without it is refused, and
so is one that the weights do not match. Settings are plain data. Requests that arrive together are answered in one
batch, and an answer does not depend on who shares it. What cannot be done is refused rather than ignored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.to_thread
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    GenerateConfig,
    Logprob,
    Logprobs,
    ModelAPI,
    ModelInfo,
    ModelOutput,
    ModelUsage,
    set_model_info,
)
from inspect_ai.tool import ToolChoice, ToolInfo

from alignlab.core.types import Ask, Message, Model, Reply
from alignlab.harness import models, promptlogp
from alignlab.harness.answerers import by_model
from alignlab.harness.dialogue import SUBJECT

LINGER = 0.002
"""seconds to wait for more requests while they arrive"""
LOOKUP = "__model_info_lookup__"
"""the key with which Inspect builds a second model merely to ask for its name"""
ANSWERED = frozenset({"temperature", "max_tokens", "seed", "stop_seqs", "logprobs", "prompt_logprobs", "extra_body"})
HOST = frozenset({
    "max_retries", "timeout", "attempt_timeout", "stream_idle_timeout", "max_connections", "adaptive_connections",
    "system_message", "cache", "cache_prompt", "parallel_tool_calls", "internal_tools", "max_tool_output",
    "fail_on_refusal",
})  # fmt: skip
"""settings of Inspect itself, which change no answer of ours"""


@dataclass
class _Request:
    ask: Ask
    kind: tuple[float, int, str, tuple[str, ...]]
    """temperature, max_tokens, form, stop: requests of one kind share a batch"""
    seed: int
    reply: Reply | None = None
    error: BaseException | None = None


class AlignlabAPI(ModelAPI):
    """A model of ours in Inspect's hands; weights are loaded at the first request."""

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008 - Inspect's own signature
        *,
        adapter: str | None = None,
        steer: str | Sequence[str] = (),
        dtype: str = "auto",
        device: str = "auto",
        revision: str | None = None,
        trust_remote_code: bool = False,
        **unknown: Any,
    ) -> None:
        """Check name and settings; see `models.loaded` for them.

        Raises:
            ValueError: a name without its identity (the message gives the right one), a setting that we do not have or
                that is no plain value, a base URL or key, which nothing here needs.
        """
        if api_key == LOOKUP:
            raise ValueError("a model is not loaded a second time to look its name up")
        if unknown or base_url or api_key:
            names = [*unknown, *(["base_url"] if base_url else []), *(["api_key"] if api_key else [])]
            raise ValueError(
                f"alignlab/{model_name}: no setting {', '.join(names)}; settings: adapter, steer, dtype, device, "
                "revision, trust_remote_code"
            )
        steer = (steer,) if isinstance(steer, str) else tuple(steer)
        self.settings = {
            "adapter": adapter, "dtype": dtype, "device": device, "revision": revision,
            "trust_remote_code": trust_remote_code,
        }  # fmt: skip
        for name, value in [*self.settings.items(), *(("steer", spec) for spec in steer)]:
            if not isinstance(value, (str, bool, type(None))):
                raise ValueError(
                    f"alignlab/{model_name}: {name}: expected plain text, got {type(value).__name__}; an object has no "
                    "identity that a log or a cache could keep"
                )
        self.path, self.digest = models.parted(model_name)
        self.steer = steer
        self._model: Model | None = None
        if self.digest is None:
            found = models.digest_of(self.model().identity)
            raise ValueError(
                f"alignlab/{model_name}: the name must carry the model's identity, so that no cache and no resumed run "
                f"takes it for another: write alignlab/{self.path}@{found}"
            )
        super().__init__(model_name, None, None, [], config)
        # else Inspect builds a second model with default arguments in the middle of a run
        set_model_info(f"alignlab/{model_name}", ModelInfo(organization="alignlab", model=model_name))
        self._waiting: list[_Request] = []
        self._lock: anyio.Lock | None = None

    def model(self) -> Model:
        """Return the model, loaded when it is first asked for; ValueError where the weights are not the named ones."""
        if self._model is None:
            model = models.loaded(self.path, self.steer, **self.settings)
            found = models.digest_of(model.identity)
            if self.digest is not None and found != self.digest:
                raise ValueError(
                    f"alignlab/{self.path}@{self.digest}: the model there is {model.identity}, digest {found}: "
                    "other weights, adapter, steering, dtype, tokenizer or chat template"
                )
            self._model = model
        return self._model

    def connection_key(self) -> str:
        """Each model has its own pool of connections."""
        return self.model_name

    def max_connections(self) -> int:
        """About two batches of a small model."""
        return 128

    async def tokenize(self, text: str) -> list[int]:
        """Return the token ids of a text."""
        return list(self.model().tokenizer(text, add_special_tokens=False)["input_ids"])

    async def count_text_tokens(self, text: str) -> int:
        """Return the number of tokens of a text, exactly."""
        return len(await self.tokenize(text))

    async def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig  # noqa: A002, ARG002
    ) -> ModelOutput:  # fmt: skip
        """Answer one request: free text, or with `extra_body={"options": [...]}` the option of the highest score.

        Temperature is 0 unless it is given, the seed 0, max_tokens 256. With options, `metadata` of the output has
        `option_scores` (nats) in their order; `extra_body["option_score"]` is the form (`options.scores`).

        Raises:
            ValueError: tools, media, or a setting that is not served.
        """
        ask = _ask(input, tools, config)
        form = (config.extra_body or {}).get("option_score", "sum")
        kind = (config.temperature or 0.0, config.max_tokens or 256, form, tuple(config.stop_seqs or ()))
        reply = await self._answered(_Request(ask, kind, config.seed or 0))
        if reply.problem:
            return ModelOutput(
                model=self.model_name, error=reply.problem,
                choices=[ChatCompletionChoice(message=ChatMessageAssistant(content=""), stop_reason="model_length")],
            )  # fmt: skip
        known = None
        if config.prompt_logprobs:
            known = await anyio.to_thread.run_sync(promptlogp.of, self.model(), ask.messages, config.prompt_logprobs)
        return _output(self.model_name, self.model().tokenizer, reply, known, bool(config.logprobs))

    async def _answered(self, request: _Request) -> Reply:
        """Queue the request; whoever holds the lock answers all that wait, so the others find their reply there."""
        if self._lock is None:
            self._lock = anyio.Lock()
        self._waiting.append(request)
        async with self._lock:
            if request.reply is None and request.error is None:
                count = 0
                while count < len(self._waiting):
                    count = len(self._waiting)
                    await anyio.sleep(LINGER)
                batch, self._waiting = self._waiting, []
                await anyio.to_thread.run_sync(self._answer, batch)
        if request.error is not None:
            raise request.error
        assert request.reply is not None
        return request.reply

    def _answer(self, batch: Sequence[_Request]) -> None:
        kinds: dict[tuple[Any, ...], list[_Request]] = {}
        for request in batch:
            kinds.setdefault(request.kind, []).append(request)
        for (temperature, max_tokens, form, stop), some in kinds.items():
            try:
                by = by_model(
                    self.model(), seed=0, temperature=temperature, max_tokens=max_tokens, form=form, stop=stop
                )
                replies = by([r.ask for r in some], [r.seed for r in some])
            except Exception as error:  # each request of the batch is told, once
                for request in some:
                    request.error = error
                continue
            for request, reply in zip(some, replies, strict=True):
                request.reply = reply


def _ask(input: Sequence[ChatMessage], tools: Sequence[ToolInfo], config: GenerateConfig) -> Ask:  # noqa: A002
    given = {name for name, value in config.model_dump(exclude_none=True).items() if value not in ([], {})}
    refused = sorted(given - ANSWERED - HOST - ({"num_choices"} if config.num_choices == 1 else set()))
    if refused or tools:
        raise ValueError(
            f"alignlab models do not serve {', '.join([*refused, *(['tools'] if tools else [])])}; they take "
            f"{', '.join(sorted(ANSWERED))}"
        )
    body: Mapping[str, Any] = config.extra_body or {}
    if strange := sorted(set(body) - {"options", "option_score"}):
        raise ValueError(f"alignlab models: extra_body: no {', '.join(strange)}; expected options, option_score")
    turns = []
    for message in input:
        media = not isinstance(message.content, str) and any(part.type != "text" for part in message.content)
        if media or message.role == "tool":
            raise ValueError(f"alignlab models read text of system, user and assistant, got {message.role!r} or media")
        turns.append(Message(role=message.role, content=message.text))
    return Ask(role=SUBJECT, messages=tuple(turns), options=tuple(body.get("options", ())))


def _output(name: str, tokenizer: Any, reply: Reply, known: Logprobs | None, logprobs: bool) -> ModelOutput:
    sample, usage, said = reply.sample, None, None
    if sample is not None:
        usage = ModelUsage(
            input_tokens=sample.prompt_tokens, output_tokens=len(sample.ids),
            total_tokens=sample.prompt_tokens + len(sample.ids),
        )  # fmt: skip
        if logprobs:
            words = [tokenizer.decode([i]) for i in sample.ids]
            said = Logprobs(content=[Logprob(token=w, logprob=p) for w, p in zip(words, sample.logp, strict=True)])
    choice = ChatCompletionChoice(
        message=ChatMessageAssistant(content=str(reply), model=name, source="generate"),
        stop_reason="max_tokens" if sample is not None and sample.stop == "length" else "stop",
        logprobs=said, prompt_logprobs=known,
    )  # fmt: skip
    scores = {"option_scores": list(reply.logp)} if reply.logp else None
    return ModelOutput(model=name, choices=[choice], usage=usage, metadata=scores)
