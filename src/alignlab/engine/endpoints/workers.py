"""A limited number of requests at once; after the first failure no new one starts, and those under way may finish."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from alignlab.core.types import Sample

from .asking import Deliver, EndpointError, Job

Ask = Callable[[Job, Callable[[], bool]], Awaitable[tuple[Sample, int]]]
"""one request with its retries; the function it is given says whether to give up instead of retrying"""


async def answer_all(jobs: Sequence[Job], ask: Ask, deliver: Deliver, concurrency: int) -> None:
    """Answer all jobs; raises the first EndpointError after the answers under way have been delivered."""
    waiting = iter(jobs)
    failures: list[EndpointError] = []

    async def worker() -> None:
        for job in waiting:
            if failures:
                return
            try:
                sample, tokens = await ask(job, lambda: bool(failures))
            except EndpointError as error:
                failures.append(error)
                return
            deliver(job, sample, tokens)

    await asyncio.gather(*(worker() for _ in range(min(concurrency, len(jobs)))))
    if failures:
        raise failures[0]
