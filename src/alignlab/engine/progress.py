"""How long work shows itself: a bar with the time left on a terminal, a line every few seconds elsewhere.

Imports nothing heavy, so that the command line can use it at once.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from alignlab.core.answers import readable

LINE_EVERY = 5.0
"""seconds between lines where there is no terminal"""
Move = Callable[..., None]
"""move(n=1, text=""): n more are done; `text` is shown behind the time left"""


def clock(seconds: float) -> str:
    """Return m:ss, or h:mm:ss from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


@contextlib.contextmanager
def progress(description: str, total: int | None, *, done: int = 0, stream: Any = None) -> Iterator[Move]:
    """Yield a function that moves the display on; `stream` is stderr by default, total None means length unknown."""
    stream = stream or sys.stderr
    name = readable(description)
    if not stream.isatty():
        yield _lines(name, total, done, stream)
        return
    from rich import progress as rich
    from rich.console import Console

    columns = (
        rich.TextColumn("{task.description}", markup=False), rich.BarColumn(), rich.MofNCompleteColumn(),
        rich.TimeElapsedColumn(), rich.TextColumn("left"), rich.TimeRemainingColumn(),
        rich.TextColumn("{task.fields[text]}", markup=False),
    )  # fmt: skip
    with rich.Progress(*columns, console=Console(file=stream), transient=True) as bars:
        task = bars.add_task(name, total=total, completed=done, text="")
        yield lambda n=1, text="": bars.update(task, advance=n, **({"text": text} if text else {}))


def _lines(name: str, total: int | None, start: int, stream: Any) -> Move:
    began = last = time.monotonic()
    done = start

    def move(n: int = 1, text: str = "") -> None:
        nonlocal last, done
        done += n
        now = time.monotonic()
        if now - last < LINE_EVERY:
            return
        last, elapsed = now, now - began
        left = f", {clock(elapsed * (total - done) / (done - start))} left" if total and done > start else ""
        of = f"/{total:,}" if total else ""
        print(f"{name}: {done:,}{of}, {clock(elapsed)}{left}{f', {text}' if text else ''}", file=stream, flush=True)

    return move
