"""The records that every part of alignlab passes to every other part.

Axes, used in every docstring: P prompts, L prompt length, N completions (ragged, K per prompt),
T completion positions, R pairs, V vocabulary, D hidden. A mask is never inferred from values:
padding may hold NaN without reaching a value or a gradient.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypedDict, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor


class Message(TypedDict):
    """One chat turn, as tokenizers' chat templates take it."""

    role: str
    content: str


Prompt = str | tuple[Message, ...]
Origin = Literal["sampled", "dataset", "reference", "teacher", "mismatched"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One record of data, before tokenisation: what JSONL, Parquet, hub columns and pipelines hold."""

    prompt: Prompt
    completion: str | None = None
    chosen: str | None = None
    rejected: str | None = None
    completions: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    """one score per entry of `completions`"""
    label: bool | None = None
    """thumbs up or down for `completion`"""
    judgement: str | None = None
    """a critique in words of `completion` (CUT)"""
    second_prompt: Prompt | None = None
    """another prompt for the same completions, or the prompt of `rejected` (DOVE)"""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """what is known of the row: gold, target, claims, ratio, ..."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """id, source, licence"""


@dataclass(frozen=True, kw_only=True)
class View:
    """What one model says of the completions of a Groups; nats, float32, defined where `Groups.mask` is True."""

    logp: Float[Tensor, "N T"]
    value: Float[Tensor, "N T"] | None = None
    top_ids: Int[Tensor, "N T k"] | None = None
    top_logp: Float[Tensor, "N T k"] | None = None
    rest: Float[Tensor, "N T"] | None = None
    """log of the probability outside the top k"""


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Preferences between completions, by index into N."""

    better: Int[Tensor, "R"]
    worse: Int[Tensor, "R"]
    p: Float[Tensor, "R"]
    """probability that `better` is the better one; 1 for a hard label"""
    margin: Float[Tensor, "R"]
    weight: Float[Tensor, "R"]


@dataclass(frozen=True, kw_only=True)
class Groups:
    """Prompts with ragged completions, tokenised and padded on the right: the input of every objective."""

    prompt_ids: Int[Tensor, "P L"]
    prompt_mask: Bool[Tensor, "P L"]
    ids: Int[Tensor, "N T"]
    mask: Bool[Tensor, "N T"]
    """True on a scored token, EOS included"""
    group: Int[Tensor, "N"]
    """completion -> prompt"""
    contexts: Mapping[str, tuple[Int[Tensor, "P L2"], Bool[Tensor, "P L2"]]] = field(default_factory=dict)
    """name -> ids and mask of other prompts for the same completions"""
    origin: tuple[Origin, ...] = ()
    head: Int[Tensor, "N"] | None = None
    """completion -> output head that scores it, where a model has several"""
    advantage: Float[Tensor, "N T"] | None = None
    label: Bool[Tensor, "N"] | None = None
    """thumbs, for unpaired feedback"""
    views: Mapping[str, View] = field(default_factory=dict)
    scores: Mapping[str, Float[Tensor, "N"]] = field(default_factory=dict)
    pairs: Pairs | None = None


@dataclass(frozen=True, kw_only=True)
class Term:
    """One term of a loss: total = sum over terms of weight * sum(num) / sum(den), over the WHOLE optimiser batch.

    `den` may not depend on a view, so that the denominators are known before any model runs.
    """

    name: str
    num: Float[Tensor, "items"]
    den: Float[Tensor, "items"]
    weight: float = 1.0
    logs: Mapping[str, Tensor] = field(default_factory=dict)
    """detached per-item values, averaged for display with weights `den`; each shaped like `num`"""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One sampled completion, with the probabilities it was really drawn with."""

    text: str
    ids: tuple[int, ...] = ()
    logp: tuple[float, ...] = ()
    """behaviour log-probability per token (after temperature and processors), nats"""
    stop: Literal["stop", "length", "error"] = "stop"
    prompt_tokens: int = 0
    """0 where an endpoint does not say"""


@runtime_checkable
class Endpoint(Protocol):
    """Anything that answers chats: `world:`, `hf:`, `replay:` or a provider. Answers come in the order asked."""

    name: str

    def complete(
        self, prompts: Sequence[Prompt], *, n: int = 1, seed: int = 0, temperature: float = 1.0, max_tokens: int = 256
    ) -> list[list[Sample]]:
        """Return n samples for each prompt."""
        ...


@runtime_checkable
class Model(Protocol):
    """What every method takes; composites (mixtures, contrastive contexts, steered models) show the same face."""

    identity: str
    tokenizer: Any

    def score(self, groups: Groups, at: Int[Tensor, "N T k"] | None = None) -> View:
        """Log-probabilities of the completions of `groups`."""
        ...

    def sample(
        self, prompts: Sequence[Prompt], *, n: int = 1, seed: int = 0, temperature: float = 1.0, max_tokens: int = 256
    ) -> list[list[Sample]]:
        """Return n completions for each prompt."""
        ...


@dataclass(frozen=True, kw_only=True)
class Intervention:
    """Control of a model from outside: prompt, then logits, then activations, then at most one decoder."""

    spec: str
    """method and options, part of the identity of whatever the steered model answers"""
    edit_messages: Callable[[Prompt], Prompt] | None = None
    """prompt -> the prompt that the model is shown instead"""
    processors: Callable[[], Sequence[Any]] | None = None
    """returns fresh logits processors, each a function of the prefix"""
    active: Callable[["Model"], AbstractContextManager[None]] | None = None
    """installs activation hooks; they are gone after the `with`, exceptions included"""
    decode: Callable[..., list[list[Sample]]] | None = None
    """(model, prompts, **options of Model.sample) -> samples; replaces the sampling of answers"""


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One turn an eval wants answered: free text when `options` is empty, else a choice by log-likelihood."""

    role: str
    messages: tuple[Message, ...]
    options: tuple[str, ...] = ()
    temperature: float | None = None
    """at which a text is drawn; None leaves it to the run, whose own is 0 by default"""


class Reply(str):
    """The answer to an Ask: its text, with what else is known of it."""

    logp: tuple[float, ...]
    """where options were scored, the score of each, in the order of the Ask (nats)"""
    problem: str
    """why there is no answer; the text is empty then"""
    sample: Sample | None
    """what was sampled, where it was just now"""

    def __new__(
        cls, text: str = "", *, logp: Sequence[float] = (), problem: str = "", sample: Sample | None = None
    ) -> "Reply":
        """Make a reply."""
        reply = super().__new__(cls, text)
        reply.logp, reply.problem, reply.sample = tuple(logp), problem, sample
        return reply


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """Something fitted: vectors, probes, heads, adapters; kept as safetensors + json, never pickle."""

    tensors: Mapping[str, Tensor]
    config: Mapping[str, Any]
    card: str
    fingerprint: Mapping[str, str]
    """base model, revision, weight digest, tokenizer hash"""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One number with what is needed to believe it."""

    value: float
    n: int
    low: float | None = None
    """lower end of the 95 % interval; None where the number is exact"""
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of a result: cells are numbers or text; the report draws it, nobody writes HTML."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | int | None, ...], ...]
    caption: str = ""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure as data. `kind` picks the mark; each series maps axis names to equally long lists.

    kinds: `line` and `scatter` (x, y, optional low, high), `bars` (label, y, optional low, high),
    `heatmap` (x, y, value).
    """

    kind: Literal["line", "scatter", "bars", "heatmap"]
    series: Mapping[str, Mapping[str, Sequence[Any]]]
    x_label: str = ""
    y_label: str = ""
    caption: str = ""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What evals, probes, theory checks and procedures return, and what `result.json` and `report.html` show."""

    metrics: Mapping[str, Metric]
    tables: Mapping[str, Table] = field(default_factory=dict)
    figures: Mapping[str, Figure] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """sentences for the reader: what is reconstructed, what was refuted, what was left out"""
    samples: tuple[Mapping[str, Any], ...] = ()
    """shown side by side in the report; the full set is in samples.jsonl"""


@runtime_checkable
class Context(Protocol):
    """What a procedure is handed: where to write, what to ask, how to train."""

    folder: Path
    seed: int
    model: str
    """spec of the model to work on: hub id, folder or `tiny:`"""
    dataset: str | None
    """dataset spec, e.g. `world:` or `conflictqa:FILE`"""
    limit: int | None
    """at most this many items per stage, for quick looks"""

    def endpoint(self, role: str) -> Endpoint:
        """The endpoint the user gave for `role` (teacher, judge, ...)."""
        ...

    def stage(self, name: str, rows_in: int, total: int | None = None) -> AbstractContextManager[Any]:
        """Announce a stage: progress, rows in and out, an error with a reason at zero rows out."""
        ...


Stream = Iterator[Row]
