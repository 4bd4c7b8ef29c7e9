"""The Inspect log of a local run: `inspect view`, `samples_df` and `inspect score` read it like one of Inspect's own.

Inspect AI is imported when a log is written, and not before.
"""

import importlib.util
import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

from alignlab.core import files
from alignlab.core.redact import plain, redactor
from alignlab.core.types import Result
from alignlab.harness import records
from alignlab.harness.dialogue import SUBJECT, Dialogue
from alignlab.harness.results import flat


def available() -> bool:
    """Whether Inspect AI is installed."""
    return importlib.util.find_spec("inspect_ai") is not None


def log_name(identity: str) -> str:
    """Return a model's name in logs: `alignlab/<name>@<digest>`, with what steers it."""
    return identity if identity.startswith("alignlab/") else f"alignlab/{identity}"


def write(
    path: Path,
    module: ModuleType,
    dialogues: Sequence[Dialogue],
    found: Sequence[Any],
    result: Result,
    *,
    settings: Mapping[str, Any],
    identities: Mapping[str, Mapping[str, Any] | None],
    seed: int,
    began: datetime,
) -> None:
    """Write a run as an Inspect log that only its owner may read, whole or not at all.

    Args:
        path: of the log, ending in `.eval`.
        module: the eval.
        dialogues: as played.
        found: the records of those without a problem, in order.
        result: what `aggregate` made of them; its numbers are named as by `results.flat`.
        settings: of the eval; secrets are redacted.
        identities: role -> who answered.
        seed: of the run.
        began: when it began.
    """
    from inspect_ai import __version__ as inspect_version
    from inspect_ai.log import (
        EvalConfig,
        EvalDataset,
        EvalLog,
        EvalMetric,
        EvalPlan,
        EvalPlanStep,
        EvalResults,
        EvalScore,
        EvalSpec,
        EvalStats,
        write_eval_log,
    )  # fmt: skip
    from inspect_ai.model import GenerateConfig

    name = module.__name__.rpartition(".")[2]
    own = identities.get(SUBJECT) or {}
    model = log_name(str(own.get("model", "unknown")))
    created = began.astimezone(UTC).isoformat(timespec="seconds")
    ids = records.sample_ids([d.item for d in dialogues])
    scored, clean = iter(found), redactor()
    samples = [
        _sample(number, dialogue, None if dialogue.problem else next(scored), name, model, clean)
        for number, dialogue in zip(ids, dialogues, strict=True)
    ]
    spec = EvalSpec(
        eval_id=secrets.token_hex(11), run_id=secrets.token_hex(11), task_id=secrets.token_hex(11), created=created,
        task=f"alignlab/{name}", task_registry_name=f"alignlab/{name}", task_version=records.version_of(module),
        task_args=plain(settings), task_args_passed=plain(settings), model=model, config=EvalConfig(epochs=1),
        dataset=EvalDataset(name=name, samples=len(dialogues), sample_ids=ids, shuffled=False),
        model_args={role: plain(who) for role, who in identities.items() if who},
        model_generate_config=GenerateConfig(
            seed=seed, temperature=own.get("temperature"), max_tokens=own.get("max_tokens")
        ),
        packages={"inspect_ai": inspect_version, "alignlab": records.version_of(module).partition("+")[0]},
    )  # fmt: skip
    metrics = {
        key: EvalMetric(name=key, value=value) for key, value in flat(result).items()
    }  # fmt: skip
    results = EvalResults(
        total_samples=len(dialogues), completed_samples=len(found),
        scores=[EvalScore(name=name, scorer=name, scored_samples=len(found),
                          unscored_samples=len(dialogues) - len(found), metrics=metrics)],
    )  # fmt: skip
    plan = EvalPlan(name="alignlab local runner", steps=[EvalPlanStep(solver="alignlab/dialogue")])
    stats = EvalStats(started_at=created, completed_at=datetime.now(UTC).isoformat(timespec="seconds"))
    log = EvalLog(status="success", eval=spec, plan=plan, results=results, stats=stats, samples=samples)
    with files.replacing(path) as beside:
        beside.touch(0o600)
        write_eval_log(log, str(beside), format="eval")
        beside.chmod(0o600)


def _sample(number: str, dialogue: Dialogue, record: Any, name: str, model: str, clean: Callable[[str], str]) -> Any:
    from inspect_ai.log import EvalError, EvalSample
    from inspect_ai.model import (
        ChatCompletionChoice,
        ChatMessageAssistant,
        ChatMessageSystem,
        ChatMessageUser,
        ModelOutput,
    )  # fmt: skip
    from inspect_ai.scorer import Score

    kinds = {"system": ChatMessageSystem, "assistant": ChatMessageAssistant}

    def told(turns: Sequence[Any]) -> list[Any]:
        return [kinds.get(t["role"], ChatMessageUser)(content=clean(t["content"])) for t in turns]

    messages, output = [], ModelOutput(model=model)
    for ask, reply in zip(dialogue.asks, dialogue.replies):
        role = {} if ask.role == SUBJECT else {"metadata": {"role": ask.role}}
        messages += told(ask.messages)
        known = {**role.get("metadata", {}), **({"logp": list(reply.logp)} if reply.logp else {})}
        messages.append(ChatMessageAssistant(content=clean(str(reply)), metadata=known or None))
        if ask.role == SUBJECT and not reply.problem:
            choice = ChatCompletionChoice(message=messages[-1], stop_reason="stop")
            output = ModelOutput(model=model, choices=[choice])
    scores, error = None, None
    if dialogue.problem:
        problem = clean(dialogue.problem)
        error = EvalError(message=problem, traceback=problem, traceback_ansi=problem)
    else:
        value = plain(records.value_of(record), clean=clean)
        score = Score(value=value, answer=clean(str(dialogue.replies[-1])) if dialogue.replies else None,
                      metadata={"record": plain(record, clean=clean)})  # fmt: skip
        scores = {name: score}
    first = dialogue.asks[0].messages if dialogue.asks else ()
    return EvalSample(
        id=number, epoch=1, input=told(first) or "", target=records.target_of(dialogue.item), messages=messages,
        output=output, scores=scores, metadata=records.facts_of(dialogue.item, clean), error=error,
    )  # fmt: skip
