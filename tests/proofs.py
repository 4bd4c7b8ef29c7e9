"""Which test shows which check of which objective: noted while the tests run, kept in docs/checks.json.

`python tests/proofs.py` runs the tests of objectives, rewards and training, writes docs/checks.json from those that
passed, and the page docs/checks.md from that. Every later run of the tests fails where it no longer sees what the file
says, so that a mark cannot outlive its proof.
"""

import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

# nothing of alignlab is imported at the top: its annotations are checked at run time, and that is set up after this

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "docs" / "checks.json"
_noted: set[tuple[str, str]] = set()
"""(objective, check) of the test that is running"""
_passed: dict[str, set[tuple[str, str]]] = {}
"""test with its parameters -> what it has shown"""


def proved(objective: str, *names: str) -> None:
    """Note that the running test has just shown checks of an objective; it counts once the test has passed."""
    from alignlab.cli.checks import CHECKS, NO_REFERENCE

    unknown = set(names) - {*CHECKS, NO_REFERENCE}
    assert not unknown, f"no column {unknown}; there are {', '.join(CHECKS)}"
    _noted.update((objective, name) for name in names)


def function(test: str) -> str:
    """The test without its parameters."""
    return test.partition("[")[0]


def found() -> dict[str, dict[str, list[str]]]:
    """Objective -> check -> the tests that have shown it."""
    from alignlab.cli.checks import CHECKS, NO_REFERENCE

    kept = (*CHECKS, NO_REFERENCE)
    whole: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for test, shown in _passed.items():
        for objective, check in shown | _vectors(test):
            whole[objective][check].add(function(test))
    return {
        name: {check: sorted(whole[name][check]) for check in kept if check in whole[name]} for name in sorted(whole)
    }


def _vectors(test: str) -> set[tuple[str, str]]:
    """A test `test_...vector...` of a method's own file holds its numbers."""
    named = re.fullmatch(r"tests/(?:objectives|rewards)/test_(\w+)\.py::test_\w*", function(test))
    if not named or "vector" not in test or "sees" in test:
        return set()
    from alignlab.cli.checks import methods

    return {(named[1], "vectors")} if named[1] in methods() else set()


def of_files(record: dict, files: set[str]) -> dict:
    """What the tests of some files show."""
    kept: dict = {}
    for name, shown in record.items():
        for check, tests in shown.items():
            if mine := [test for test in tests if test.partition("::")[0] in files]:
                kept.setdefault(name, {})[check] = mine
    return kept


def lost_of(told: dict, seen: dict) -> list[str]:
    """What was told and is not seen any more."""
    return [
        f"{name} {check} by {test}"
        for name, shown in told.items()
        for check, tests in shown.items()
        for test in tests
        if test not in seen.get(name, {}).get(check, ())
    ]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """What a test notes goes with its report, also from another process."""
    _noted.clear()
    found = yield
    item.user_properties += [("proved", [objective, check]) for objective, check in sorted(_noted)]
    return found


def pytest_runtest_logreport(report):
    """A check counts when its test has passed."""
    if report.when == "call" and report.passed:
        _passed[report.nodeid] = {tuple(value) for name, value in report.user_properties if name == "proved"}


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session, exitstatus):
    """Fail where docs/checks.json says something else than the tests that ran, unless only some of a file were run."""
    options = session.config.option
    partly = (
        options.keyword or options.markexpr or options.collectonly or any("::" in arg for arg in options.file_or_dir)
    )
    if partly or exitstatus != 0 or options.checks_to or os.environ.get("PYTEST_XDIST_WORKER"):
        return
    files = {test.partition("::")[0] for test in _passed}
    lost = lost_of(of_files(json.loads(RECORD.read_text(encoding="utf-8")), files), found())
    if lost:
        print(f"\n{RECORD.relative_to(ROOT)} is stale: run `make checks`; no longer shown: {lost}", file=sys.stderr)
        session.exitstatus = 1


def pytest_addoption(parser):
    """`--checks_to FILE` writes what was shown instead of comparing it."""
    parser.addoption("--checks_to", default=None, help="write which test shows which check to this file")


def pytest_unconfigure(config):
    """Write the record where asked to."""
    if config.option.checks_to and _passed:
        Path(config.option.checks_to).write_text(json.dumps(found(), indent=1) + "\n", encoding="utf-8")


def main() -> int:
    """Run the tests, write the record and the page; nothing is written where a test fails."""
    scratch, tests = RECORD.with_suffix(".new"), ROOT / "tests"
    files = [
        tests / "objectives",
        tests / "rewards",
        *sorted(p for p in (tests / "train").glob("test_*.py") if "proved(" in p.read_text()),
    ]
    status = subprocess.run([sys.executable, "-m", "pytest", *files, f"--checks_to={scratch}"], check=False).returncode
    if status == 0:
        from alignlab.cli import checks

        scratch.replace(RECORD)
        (ROOT / checks.PAGE).write_text(checks.page(ROOT), encoding="utf-8")
    scratch.unlink(missing_ok=True)
    return status


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
