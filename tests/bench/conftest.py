"""Scripts of bench/ that take long: their pieces, in miniature."""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture(scope="module")
def script() -> Iterator[Callable[[str], ModuleType]]:
    """From a path below bench/ to the module, which may import what lies beside it."""

    def opened(path: str) -> ModuleType:
        patch.syspath_prepend(str((BENCH / path).parent))
        name = f"bench_{Path(path).stem}"
        spec = importlib.util.spec_from_file_location(name, BENCH / path)
        module = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    with pytest.MonkeyPatch.context() as patch:
        yield opened
