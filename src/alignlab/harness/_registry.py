"""What Inspect AI finds by the entry point: the provider `alignlab/...` and one task per eval, by its file's name.

Nothing heavy is imported here: an eval when its task is built, torch when a model is asked.
"""

from collections.abc import Callable
from typing import Any

from inspect_ai import Task, task
from inspect_ai.model import ModelAPI, modelapi

from alignlab.core.find import names


@modelapi(name="alignlab")
def alignlab() -> type[ModelAPI]:
    """Return the provider of local, adapted and steered models."""
    from alignlab.harness.provider import AlignlabAPI

    return AlignlabAPI


def _register(name: str) -> Callable[..., Task]:
    def build(**settings: Any) -> Task:
        from alignlab.harness.tasks import task_of

        return task_of(name, **settings)

    build.__name__ = build.__qualname__ = name
    return task(name=name)(build)


TASKS = {name: _register(name) for name in names("evals")}
"""eval -> its task"""
