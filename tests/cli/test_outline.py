import sys
import textwrap
from typing import Literal

import pytest

from alignlab.cli import flags, outline
from alignlab.core.find import FAMILIES, find, names


@pytest.fixture
def module(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)

    def write(body):
        name = f"outline_{len(list(tmp_path.iterdir()))}"
        code = "raise RuntimeError('imported')\nclass Config:\n" + textwrap.indent(body, "    ")
        (tmp_path / f"{name}.py").write_text(code)
        return name

    yield write
    assert not any(name.startswith("outline_") for name in sys.modules)


def test_it_reads_without_importing(module):
    body = 'beta: float = 0.1\n"""strength"""\nform: Literal["a", "b"] = "a"\n'
    body += "ratios: tuple[float, ...] = (0.0,)\nn: int | None = None\n"
    found = outline.settings(module(body), "Method")
    assert found["beta"] == flags.Flag("beta", float, 0.1, "strength", "Method")
    assert found["form"].kind == Literal["a", "b"]
    assert found["ratios"].kind == tuple[float, ...]
    assert found["n"].kind == int | None


@pytest.mark.parametrize("body", ["x: int = f()", "x: Other = 1", "x: int", "x: list[int] = [1]"])
def test_what_is_not_plain_is_left_to_the_import(module, body):
    assert outline.settings(module(body), "Method") is None


@pytest.mark.parametrize(("family", "name"), [(f, n) for f in FAMILIES for n in names(f)])
def test_it_says_what_the_module_says(family, name):
    found = outline.settings(names(family)[name], "Method")
    if found is not None:
        assert found == flags.flags_of([flags.Group("Method", find(family, name).Config)])
