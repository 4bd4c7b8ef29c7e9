import io
import re
import subprocess
import sys

import pytest

from alignlab.engine import progress as module
from alignlab.engine.progress import LINE_EVERY, clock, progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def time(monkeypatch):
    """A clock that goes when it is told to."""

    class Clock:
        now = 1000.0

        def monotonic(self):
            return self.now

    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (0.4, "0:00"), (59.4, "0:59"), (59.6, "1:00"), (61, "1:01"), (3599, "59:59"), (3600, "1:00:00"),
     (3661, "1:01:01"), (100 * 3600, "100:00:00")],
)  # fmt: skip
def test_clock(seconds, text):
    assert clock(seconds) == text


def test_lines_come_every_few_seconds_with_the_time_left(time):
    stream = io.StringIO()
    with progress("reading", 2000, stream=stream) as move:
        for _ in range(10):
            time.now += LINE_EVERY / 5 + 0.01
            move(100, text="loss 2.0")
    lines = stream.getvalue().splitlines()
    assert lines == [
        "reading: 500/2,000, 0:05, 0:15 left, loss 2.0",
        "reading: 1,000/2,000, 0:10, 0:10 left, loss 2.0",
    ]


def test_what_was_done_before_gives_no_speed(time):
    stream = io.StringIO()
    with progress("training", 100, done=90, stream=stream) as move:
        time.now += 10
        move(0)
        time.now += 10
        move(5)
    assert stream.getvalue().splitlines() == ["training: 90/100, 0:10", "training: 95/100, 0:20, 0:20 left"]


def test_an_unknown_length_has_no_end(time):
    stream = io.StringIO()
    with progress("rows", None, stream=stream) as move:
        time.now += LINE_EVERY
        move()
    assert stream.getvalue() == "rows: 1, 0:05\n"


def test_quick_work_says_nothing(time):
    stream = io.StringIO()
    with progress("rows", 3, stream=stream) as move:
        for _ in range(3):
            move()
    assert stream.getvalue() == ""


def test_a_terminal_gets_a_bar_that_leaves_nothing_behind():
    stream = Terminal()
    with progress("training", 10, done=4, stream=stream) as move:
        move(2, text="loss 1.5")
        move()
    shown = stream.getvalue()
    assert "training" in shown
    assert "7/10" in shown
    assert "loss 1.5" in shown
    assert "left" in shown


def test_names_from_data_cannot_speak_to_the_terminal(time):
    """Control characters and the bar's own markup are text."""
    stream = io.StringIO()
    with progress("\x1b[31mred\x07", 2, stream=stream) as move:
        time.now += LINE_EVERY
        move()
    assert "\x1b" not in stream.getvalue()
    assert "\x07" not in stream.getvalue()
    bar = Terminal()
    with progress("\x1b]0;title\x07[bold]x[/nonsense]", 2, stream=bar) as move:
        move(text="[/also] nonsense")
    assert "[bold]x[/nonsense]" in re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", bar.getvalue())
    assert "\x1b]0;title" not in bar.getvalue()


def test_an_error_inside_comes_out_and_the_cursor_with_it():
    bar = Terminal()
    with pytest.raises(RuntimeError, match="on purpose"), progress("x", 2, stream=bar):
        raise RuntimeError("on purpose")
    if "\x1b[?25l" in bar.getvalue():
        assert bar.getvalue().rindex("\x1b[?25h") > bar.getvalue().rindex("\x1b[?25l")


def test_nothing_heavy_is_imported():
    code = "import alignlab.engine.progress, sys; print([m for m in ('torch', 'rich') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
