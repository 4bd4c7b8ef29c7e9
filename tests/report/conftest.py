import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def example():
    """The module example.py beside this file: run(), result(), EVIL, CARD."""
    spec = importlib.util.spec_from_file_location("report_example", Path(__file__).parent / "example.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
