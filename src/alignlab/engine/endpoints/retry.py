"""When to ask again, and after how long: exponential back-off with jitter, or what the server says."""

import asyncio
import contextvars
import random
import threading
from collections.abc import Coroutine, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})
"""statuses that may pass; every other failure is reported at once"""


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a Retry-After header, given as a number or as a date; None where there is none."""
    value = headers.get("retry-after", "").strip()
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())


def pause(attempt: int, *, base: float, longest: float, said: float | None, draw: random.Random) -> float:
    """Return the seconds to wait after a failed attempt (from 0).

    base * 2^attempt, times a draw from [0.5, 1.5) so that workers do not come back together; at least what the server
    said; never more than `longest`.
    """
    backoff = base * 2.0 ** min(attempt, 30) * (0.5 + draw.random())
    return min(longest, max(backoff, said or 0.0))


def run_async(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end from ordinary code, also where the caller's thread already runs an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(work)
        return
    failure: list[BaseException] = []
    context = contextvars.copy_context()

    def target() -> None:
        try:
            context.run(asyncio.run, work)
        except BaseException as error:  # handed to the waiting thread, which raises it
            failure.append(error)

    thread = threading.Thread(target=target, name="alignlab-endpoint")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
