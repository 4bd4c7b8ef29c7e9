"""The `alignlab` command: finds the verb, runs it, turns errors into one clear line and an exit code."""

import importlib
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import alignlab
from alignlab.cli import verbs

OK, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130
"""exit codes: done; a claim or the program failed; the user can mend it; Ctrl-C"""

HOME = Path(alignlab.__file__).parent
MODULES = {
    "ls": "about", "show": "about", "cite": "about", "selftest": "selftest", "sample": "talk", "chat": "talk",
    "export": "export",
}  # fmt: skip
"""verbs that take no method -> the module of this package that has a function of their name; all others are `runs`"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        return dispatch(words)
    except KeyboardInterrupt as stop:
        print(f"\nalignlab: {str(stop) or 'interrupted; what was whole is kept'}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        sys.stderr.close()
        return 128 + signal.SIGPIPE
    except Exception as error:
        if debug:
            traceback.print_exc()
            return MISUSED if is_ours(error) else FAILED
        return report(error)


def dispatch(words: Sequence[str]) -> int:
    """Find the verb and hand over; LookupError for an unknown one."""
    if not words or words[0] in ("-h", "--help", "help"):
        print(verbs.main_help())
        return OK
    if words[0] in ("--version", "-V"):
        print(f"alignlab {alignlab.__version__}")
        return OK
    verb, rest = words[0], list(words[1:])
    verbs.known(verb)
    if verb in MODULES:
        module = importlib.import_module(f"alignlab.cli.{MODULES[verb]}")
        return int(getattr(module, verb)(rest))
    if not rest or rest[0] in ("-h", "--help"):
        print(verbs.verb_help(verb))
        return OK if rest else MISUSED
    usual = verbs.VERBS[verb].usual
    if usual and rest[0].startswith("--"):
        rest = [usual, *rest]
    verbs.method(verb, rest[0])  # an unknown method is said at once, before anything heavy is imported
    from alignlab.cli import runs

    return runs.run(verb, rest[0], rest[1:])


def is_ours(error: BaseException) -> bool:
    """Whether an error is a message to the user rather than a fault of the program.

    The system's own errors (no such file, disk full) are; others are where a `raise` of ours gave them a sentence, so
    that a KeyError from a slip of ours still shows its traceback.
    """
    if isinstance(error, OSError):
        return True
    if "No space left on device" in str(error) or "(os error " in str(error):  # libraries wrap it in types of their own
        return True
    return _raised_here(error.__traceback__) and " " in str(error.args[0] if error.args else "")


def _raised_here(trace: TracebackType | None) -> bool:
    """Whether the last frame is in this package and stands on a raise statement."""
    if trace is None:
        return False
    last = traceback.extract_tb(trace)[-1]
    return Path(last.filename).is_relative_to(HOME) and (last.line or "").startswith("raise ")


def report(error: Exception) -> int:
    """Print an error for the user and return the exit code."""
    from alignlab.core.answers import readable

    if is_ours(error):
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(f"alignlab: error: {readable(str(text))}", file=sys.stderr)
        return MISUSED
    traceback.print_exception(error)
    print(f"alignlab: this is a fault in alignlab, not in your command: {type(error).__name__}", file=sys.stderr)
    return FAILED


def entry() -> None:
    """Console script: run and leave with the exit code."""
    code = main()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = 128 + signal.SIGPIPE
    sys.exit(code)


if __name__ == "__main__":
    entry()
