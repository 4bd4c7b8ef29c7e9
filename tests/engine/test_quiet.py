import pytest
from transformers.utils import logging

from alignlab.engine.quiet import quiet


@pytest.mark.parametrize("level", [logging.WARNING, logging.ERROR])
def test_what_was_shown_before_is_shown_again_after_an_error_too(level):
    before = logging.get_verbosity()
    try:
        logging.set_verbosity(level)
        logging.enable_progress_bar()
        seen = []

        def load():
            with quiet():
                seen.append((logging.is_progress_bar_enabled(), logging.get_verbosity()))
                raise OSError("no such model")

        with pytest.raises(OSError, match="no such"):
            load()
        assert seen == [(False, logging.ERROR)]
        assert logging.is_progress_bar_enabled()
        assert logging.get_verbosity() == level
    finally:
        logging.set_verbosity(before)


def test_bars_that_were_off_stay_off():
    logging.disable_progress_bar()
    try:
        with quiet():
            pass
        assert not logging.is_progress_bar_enabled()
    finally:
        logging.enable_progress_bar()
