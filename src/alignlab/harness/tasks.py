"""Evals as tasks of Inspect AI: `inspect eval alignlab/<name> --model PROVIDER/MODEL -T setting=value`.

Same items, same Asks, same seeds and the same result (`results.of`) as the local runner. Roles other than the model's
own must be bound (`--model-role judge=PROVIDER/MODEL`): an unbound one is an error, never the model itself.
"""

import logging
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from inspect_ai import Task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    GenerateConfig,
    Model,
    get_model,
)
from inspect_ai.scorer import Metric, SampleScore, Score, Scorer, Target, metric, scorer
from inspect_ai.solver import Generate, Solver, TaskState, solver
from inspect_ai.util import LimitExceededError

from alignlab.core.find import find
from alignlab.core.redact import redact
from alignlab.core.types import Ask, Reply
from alignlab.data import settings
from alignlab.harness import records, results
from alignlab.harness.dialogue import SUBJECT, Dialogue, begin, roles

log = logging.getLogger(__name__)
REPLIES, RECORD = "alignlab_replies", "record"
Lost = dict[tuple[str, int, int], str]
"""(model, place, epoch) -> why a sample has no answer"""
TRIES = 6
"""attempts at a role's answer where the user sets no limit; Inspect's own default never gives up"""
OWN = frozenset({"dataset", "split", "temperature", "max_tokens"})


def task_of(name: str, **given: Any) -> Task:
    """Return an eval as a task.

    Args:
        name: of the eval.
        **given: its settings; `dataset`, rows to play instead of its own items, with their `split`; `temperature`
            (0 by default) and `max_tokens` (256), as of `alignlab eval`; `seed` is that of items and sampling.

    Raises:
        ValueError: an unknown setting or a value of another type.
    """
    return built(find("evals", name), **given)


def built(module: ModuleType, **given: Any) -> Task:
    """Return a module with the functions of an eval as a task; settings and errors as of `task_of`."""
    name = module.__name__.rpartition(".")[2]
    own = {key: given.pop(key) for key in list(given) if key in OWN}
    fields = getattr(module.Config, "__dataclass_fields__", {})
    seed = int(given.get("seed", 0)) if "seed" in fields else int(given.pop("seed", 0))
    cfg = settings.build(module.Config, given, f"alignlab/{name}")
    items = _items(module, cfg, own)
    dialogues = begin(module, cfg, items)
    ids = records.sample_ids(items)
    places = {number: place for place, number in enumerate(ids)}
    lost: Lost = {}
    return Task(
        dataset=MemoryDataset([_sample(*pair) for pair in zip(ids, dialogues, strict=True)], name=name),
        solver=_dialogue(module, cfg, dialogues, places, seed, lost),
        scorer=_score(module, dialogues, places, lost),
        config=GenerateConfig(
            temperature=float(own.get("temperature", 0.0)), max_tokens=int(own.get("max_tokens", 256)), seed=seed
        ),
        version=records.version_of(module),
        metadata={"title": module.CARD.title, "paper": module.CARD.paper, "status": module.CARD.status},
    )


def _items(module: ModuleType, cfg: Any, own: Mapping[str, Any]) -> list[Any]:
    if "dataset" not in own:
        return list(module.items(cfg))
    from alignlab.data.rows import read

    found = list(read(str(own["dataset"]), split=own.get("split")))
    if not found:
        raise ValueError(f"-T dataset={own['dataset']}: no rows in it")
    return found


def _sample(number: str, dialogue: Dialogue) -> Sample:
    first = dialogue.asks[0].messages if dialogue.asks else ()
    return Sample(
        id=number, input=_messages(first) or number, target=records.target_of(dialogue.item),
        metadata=records.facts_of(dialogue.item),
    )  # fmt: skip


def _messages(turns: Sequence[Any]) -> list[ChatMessage]:
    kinds: dict[str, Any] = {"system": ChatMessageSystem, "assistant": ChatMessageAssistant}
    return [kinds.get(turn["role"], ChatMessageUser)(content=turn["content"]) for turn in turns]


def _dialogue(
    module: ModuleType, cfg: Any, known: Sequence[Dialogue], places: Mapping[str, int], seed: int, lost: Lost
) -> Solver:  # fmt: skip
    wanted = [role for role in roles(module, cfg, [d.item for d in known[:50]]) if role != SUBJECT]

    @solver(name="dialogue")
    def dialogue() -> Solver:
        async def solve(state: TaskState, generate: Generate) -> TaskState:  # noqa: ARG001
            for role in wanted:  # before the model has answered anything
                get_model(role=role, required=True)
            place = places[str(state.sample_id)]
            first = known[place]
            # an epoch is one more repetition of every item
            repeat = first.repeat + (state.epoch - 1) * len(known)
            played = Dialogue(first.item, module.play(first.item, cfg), repeat)
            played.begin()
            told: list[ChatMessage] = []
            try:
                while (ask := played.waiting) is not None:
                    given = played.seed(seed)
                    reply, output = await _answer(ask, None if given == seed else given)
                    told += _messages(ask.messages)
                    if output is not None:
                        told.append(output.message)
                        state.output = output if ask.role == SUBJECT else state.output
                    played.tell(reply)
                if played.problem:
                    raise RuntimeError(played.problem)
            except LimitExceededError:  # which Inspect scores as far as it came
                raise
            except Exception as error:
                lost[str(state.model), place, state.epoch] = redact(str(error))
                raise
            state.messages = told or state.messages
            state.store.set(REPLIES, [
                {"role": a.role, "text": str(r), "logp": list(r.logp), "problem": r.problem}
                for a, r in zip(played.asks, played.replies, strict=True)
            ])  # fmt: skip
            state.completed = True
            return state

        return solve

    return dialogue()


async def _answer(ask: Ask, seed: int | None) -> tuple[Reply, Any]:
    """Ask the model of a role; another role's failure is an empty reply, which an eval counts as missing."""
    from alignlab.harness.provider import AlignlabAPI

    model: Model = get_model() if ask.role == SUBJECT else get_model(role=ask.role, required=True)
    config = GenerateConfig(seed=seed)
    if ask.role != SUBJECT:
        # what a task sets holds for its model alone
        known = model.config
        config.temperature = 0.0 if known.temperature is None else known.temperature
        config.max_tokens = 256 if known.max_tokens is None else known.max_tokens
        config.max_retries = TRIES if known.max_retries is None else known.max_retries
    if ask.temperature is not None:
        config.temperature = ask.temperature
    if ask.options and isinstance(model.api, AlignlabAPI):
        config.extra_body = {"options": list(ask.options)}
    try:
        output = await model.generate(_messages(ask.messages), config=config)
    except LimitExceededError:
        raise
    except Exception as error:  # after Inspect's own retries; each provider raises its own
        if ask.role == SUBJECT:
            raise
        problem = redact(f"{type(error).__name__}: {error}")
        log.warning("the %s gave no answer: %s", ask.role, problem[:300])
        return Reply(problem=problem), None
    problem = str(output.error or "")
    scores = (output.metadata or {}).get("option_scores", ())
    return Reply("" if problem else output.completion, logp=scores, problem=problem), output


def _score(module: ModuleType, known: Sequence[Dialogue], places: Mapping[str, int], lost: Lost) -> Scorer:
    name = module.__name__.rpartition(".")[2]

    @scorer(metrics=[_aggregated(module, known, lost)], name=name)
    def scored() -> Scorer:
        async def score(state: TaskState, target: Target) -> Score:  # noqa: ARG001
            place = places[str(state.sample_id)]
            given: list[dict[str, Any]] = state.store.get(REPLIES, [])
            replies = [Reply(one["text"], logp=one["logp"], problem=one["problem"]) for one in given]
            record = module.score(known[place].item, replies)
            others = [(one["role"], one["problem"]) for one in given if one["role"] != SUBJECT]
            return Score(
                value=records.value_of(record), answer=str(replies[-1]) if replies else None,
                metadata={RECORD: record, "place": place, "epoch": state.epoch, "model": str(state.model),
                          "others": others},
            )  # fmt: skip

        return score

    return scored()


def _aggregated(module: ModuleType, known: Sequence[Dialogue], lost: Lost) -> Metric:
    name = module.__name__.rpartition(".")[2]

    @metric(name=f"{name}_metrics", scores="unreduced")
    def aggregated() -> Metric:
        def compute(scores: list[SampleScore]) -> dict[str, float]:
            kept: dict[tuple[int, int], dict[str, Any]] = {}
            for score in scores:
                told: dict[str, Any] = score.score.metadata or {}
                kept[told["epoch"], told["place"]] = told
            models = {told["model"] for told in kept.values()}
            # a sample that failed and was tried again is not lost
            failed = {(epoch, place): why for (model, place, epoch), why in lost.items() if model in models}
            played, found = [], []
            for epoch, place in sorted({*kept, *failed}):
                item, scored = known[place].item, kept.get((epoch, place))
                if scored is None:
                    played.append(results.Played(item=item, problem=failed[epoch, place]))
                    continue
                others = tuple((role, problem) for role, problem in scored["others"])
                played.append(results.Played(item=item, others=others))
                found.append(scored[RECORD])
            try:
                return results.flat(results.of(module, played, found))
            except (ValueError, ZeroDivisionError, IndexError, KeyError) as error:
                if len(played) >= len(known):
                    raise
                # the display asks while the run goes on, when a cell may still be empty
                log.warning("%s: no metrics of %d samples: %s", name, len(found), error)
                return {}

        return compute

    return aggregated()
