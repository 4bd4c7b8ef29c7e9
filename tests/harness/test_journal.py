"""A killed run goes on where it was, and never with the answers of another model."""

import json
import os
import signal
import stat
from types import SimpleNamespace

import pytest

from alignlab.core.types import Ask, Reply
from alignlab.harness import local
from alignlab.harness.journal import Journal, JournalError

ITEMS = [f"{'x' * (i % 7)} question {i}" for i in range(60)]


def play(item, cfg):
    first = yield Ask(role="model", messages=({"role": "user", "content": item},))
    yield Ask(role="model", messages=({"role": "user", "content": f"{item} then {first}"},))


MODULE = SimpleNamespace(play=play, score=lambda item, answers: [item, *answers])


class Counting:
    """Answers with the length of the question, notes each, and kills its process at a given answer."""

    def __init__(self, name, log, fatal=None):
        self.name, self.log, self.fatal = name, log, fatal

    def identity(self):
        return {"model": self.name}

    def __call__(self, asks, seeds=None):
        found = []
        for ask in asks:
            with self.log.open("a") as file:
                file.write(json.dumps(ask.messages[-1]["content"]) + "\n")
            if self.fatal is not None and len(self.log.read_text().splitlines()) > self.fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            found.append(Reply(f"{self.name} {len(ask.messages[-1]['content'])}\n\u2028 \udc80", logp=(0.1, -2.5e-17)))
        return found


def run(folder, answerer, items=ITEMS):
    journal = Journal(folder, {"eval": "made-up", "model": answerer.identity()})
    dialogues = local.played(MODULE, None, items, lambda _: answerer, journal=journal)
    return local.records_of(MODULE, dialogues), dialogues


@pytest.mark.parametrize("fatal", [0, 7, 30, 75, 111])
def test_a_killed_run_repeats_only_the_batch_under_way(tmp_path, monkeypatch, fatal):
    monkeypatch.setattr(local, "FIRST", 8)
    monkeypatch.setattr(local, "MOST", 8)
    log = tmp_path / "asked"
    child = os.fork()
    if child == 0:
        try:
            run(tmp_path / "run", Counting("a", log, fatal))
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    before = len(log.read_text().splitlines())
    records, dialogues = run(tmp_path / "run", Counting("a", log))
    asked = log.read_text().splitlines()
    assert len(set(asked)) == 120
    assert len(asked) - 120 <= min(8, before)
    fresh, others = run(tmp_path / "fresh", Counting("a", tmp_path / "other"))
    assert records == fresh
    assert [[r.logp for r in d.replies] for d in dialogues] == [[r.logp for r in d.replies] for d in others]
    run(tmp_path / "run", Counting("a", log))
    assert len(log.read_text().splitlines()) == len(asked)


def test_answers_never_cross_identities(tmp_path):
    for name in ("a", "b", "a"):
        records, _ = run(tmp_path, Counting(name, tmp_path / f"asked-{name}"))
        assert all(text.startswith(f"{name} ") for record in records for text in record[1:])
    assert len((tmp_path / "asked-b").read_text().splitlines()) == 120
    assert len((tmp_path / "asked-a").read_text().splitlines()) == 120
    first, second = sorted(tmp_path.glob("journal-*.jsonl"))
    second.write_bytes(first.read_bytes())
    owner = json.loads(first.read_text().splitlines()[0])["who"]["model"]["model"]
    other = "b" if owner == "a" else "a"
    with pytest.raises(JournalError, match="belongs to"):
        run(tmp_path, Counting(other, tmp_path / "asked"))


def test_more_items_take_up_what_is_there(tmp_path):
    run(tmp_path, Counting("a", tmp_path / "asked"), ITEMS[:20])
    run(tmp_path, Counting("a", tmp_path / "asked"), ITEMS[5:])
    assert len((tmp_path / "asked").read_text().splitlines()) == 120


def test_torn_and_foreign_lines_are_asked_again(tmp_path):
    journal = Journal(tmp_path, {"model": "a"})
    journal.put([("1", Reply("one")), ("2", Reply("two")), ("3", Reply("three")), ("4", Reply(problem="HTTP 500"))])
    lines = journal.path.read_bytes().splitlines(keepends=True)
    nested = b'{"key": ' + b"[" * 100_000 + b"\n"
    journal.path.write_bytes(lines[0] + lines[1] + b"\xff\xfe rubbish\n[1]\n" + nested + lines[2] + lines[3][:-9])
    again = Journal(tmp_path, {"model": "a"})
    assert [again.get(key) for key in "1234"] == ["one", "two", None, None]
    again.put([("3", Reply("drei"))])
    assert Journal(tmp_path, {"model": "a"}).get("3") == "drei"


def test_only_its_owner_may_read_it(tmp_path):
    assert stat.S_IMODE(Journal(tmp_path, {"model": "a"}).path.stat().st_mode) == 0o600


def test_somebody_elses_file_is_no_journal(tmp_path):
    path = Journal(tmp_path, {"model": "a"}).path
    path.write_text("not ours\n")
    with pytest.raises(JournalError, match="something else"):
        Journal(tmp_path, {"model": "a"})
