"""A limited number of requests at once; once too many fail no new one starts, and those under way may finish."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from alignlab.core.types import Sample

from .asking import Deliver, EndpointError, Failed, Job

Ask = Callable[[Job, Callable[[], bool]], Awaitable[tuple[Sample, int]]]
"""one request with its retries; the function it is given says whether to give up instead of retrying"""


async def answer_all(jobs: Sequence[Job], ask: Ask, deliver: Deliver, concurrency: int, patience: int = 0) -> None:
    """Answer all jobs; up to `patience` failures in a row are delivered as `Failed`.

    Raises the first EndpointError beyond them, after the answers under way have been delivered.
    """
    waiting = iter(jobs)
    failures: list[EndpointError] = []
    in_a_row = 0

    async def worker() -> None:
        nonlocal in_a_row
        for job in waiting:
            if failures:
                return
            try:
                sample, tokens = await ask(job, lambda: bool(failures))
            except EndpointError as error:
                in_a_row += 1
                if in_a_row > patience:
                    failures.append(error)
                    return
                deliver(job, Failed(problem=str(error)), 0)
                continue
            in_a_row = 0
            deliver(job, sample, tokens)

    await asyncio.gather(*(worker() for _ in range(min(concurrency, len(jobs)))))
    if failures:
        raise failures[0]
