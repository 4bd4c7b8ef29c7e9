import io
import stat

import pytest

from alignlab.cli import context, options
from alignlab.engine import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def ctx(tmp_path):
    return context.RunContext(folder=tmp_path / "run", stream=io.StringIO())


def test_a_stage_says_rows_in_and_out(ctx):
    with ctx.stage("filter", 10, 10) as stage:
        stage.advance(10)
        stage.rows_out = 4
    assert "filter: 10 rows in -> 4 rows out" in ctx._stream.getvalue()
    assert ctx.stages[0].rows_out == 4


def test_what_was_advanced_counts_when_nothing_else_is_said(ctx):
    with ctx.stage("copy", 3) as stage:
        stage.advance()
        stage.advance(2)
    assert stage.rows_out == 3


def test_zero_rows_out_is_an_error_with_the_reason(ctx):
    with (
        pytest.raises(ValueError, match="filter: 10 rows in, none out: no item is remembered"),
        ctx.stage("filter", 10) as s,
    ):
        s.rows_out, s.reason = 0, "no item is remembered"


def test_zero_rows_in_stops_before_any_work(ctx):
    with pytest.raises(ValueError, match="no rows came in"), ctx.stage("filter", 0):
        raise AssertionError("the body must not run")


def test_an_error_inside_a_stage_comes_through(ctx):
    with pytest.raises(RuntimeError, match="inner"), ctx.stage("filter", 2):
        raise RuntimeError("inner")


def test_lines_come_with_time_left_and_not_too_often(ctx, monkeypatch):
    now = iter([0.0, 0.0, 1.0, 6.0, 7.0, 12.0, 13.0, 14.0])
    monkeypatch.setattr(context.time, "monotonic", lambda: next(now))
    with ctx.stage("sample", 4, 4) as stage:
        for _ in range(4):
            stage.advance()
    lines = ctx._stream.getvalue().splitlines()
    assert lines[:-1] == ["sample: 2/4, 0:06, 0:06 left", "sample: 4/4, 0:12, 0:00 left"]


def test_a_terminal_gets_a_bar(tmp_path):
    ctx = context.RunContext(folder=tmp_path, stream=Terminal())
    with ctx.stage("sample", 2, 2) as stage:
        stage.advance(2)
    shown = ctx._stream.getvalue()
    assert "sample" in shown
    assert "2/2" in shown


def test_only_the_owner_reads_the_log(ctx):
    ctx.say("hello\x1b[31m\u202e")
    log = ctx.folder / "run.log"
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert "\x1b" not in log.read_text()
    assert "\u202e" not in ctx._stream.getvalue()


def test_roles():
    chosen = options.Endpoints(teacher="world:teacher", endpoints=("auditor=openai/x,y", "judge=a"), judge="b")
    assert context.roles(chosen) == {"teacher": "world:teacher", "auditor": "openai/x,y", "judge": "b"}
    for bad in ("judge", "=x", "a b=c", "judge="):
        with pytest.raises(ValueError, match="--endpoints: expected ROLE=ENDPOINT"):
            context.roles(options.Endpoints(endpoints=(bad,)))


def test_real_data_need_a_named_teacher(tmp_path):
    ctx = context.RunContext(folder=tmp_path, dataset="mine.jsonl")
    with pytest.raises(ValueError, match="needs a teacher; .* --teacher"):
        ctx.endpoint("teacher")
    with pytest.raises(ValueError, match="--endpoints auditor="):
        ctx.endpoint("auditor")


def test_limit_is_positive(tmp_path):
    with pytest.raises(ValueError, match="--limit"):
        context.RunContext(folder=tmp_path, limit=0)


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3661, "1:01:01")])
def test_clock(seconds, text):
    assert progress.clock(seconds) == text
