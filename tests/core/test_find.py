import sys
from importlib.metadata import EntryPoint

import pytest

import alignlab.attacks
from alignlab.core import find


@pytest.fixture
def family(tmp_path, monkeypatch):
    """The attacks family with three files of ours: two public ones and a private one."""
    (tmp_path / "paint_it_red.py").write_text("CARD = 'red'\n")
    (tmp_path / "whisper.py").write_text("CARD = 'whisper'\n")
    (tmp_path / "_shared.py").write_text("")
    monkeypatch.setattr(alignlab.attacks, "__path__", [str(tmp_path)])
    yield
    for name in ("paint_it_red", "whisper"):
        sys.modules.pop(f"alignlab.attacks.{name}", None)
        if hasattr(alignlab.attacks, name):
            delattr(alignlab.attacks, name)


@pytest.mark.usefixtures("family")
def test_a_file_is_a_method():
    assert find.names("attacks") == {
        "paint_it_red": "alignlab.attacks.paint_it_red",
        "whisper": "alignlab.attacks.whisper",
    }
    assert find.find("attacks", "paint-it-red").CARD == "red"
    assert find.find("attacks", "paint_it_red") is find.find("attacks", "paint-it-red")


@pytest.mark.usefixtures("family")
def test_listing_imports_nothing():
    find.names("attacks")
    assert "alignlab.attacks.whisper" not in sys.modules


@pytest.mark.usefixtures("family")
def test_a_miss_names_the_nearest_and_the_known():
    with pytest.raises(
        LookupError, match=r"no attacks called 'wisper'; did you mean 'whisper'\? .*paint_it_red, whisper"
    ):
        find.find("attacks", "wisper")
    with pytest.raises(LookupError, match="families: objectives"):
        find.names("objective")


@pytest.mark.usefixtures("family")
def test_outside_packages_join_by_entry_point(monkeypatch):
    entry = EntryPoint(name="outside", value="colorsys", group="alignlab.attacks")
    monkeypatch.setattr(find, "entry_points", lambda group: [entry] if group == "alignlab.attacks" else [])
    assert find.find("attacks", "outside").__name__ == "colorsys"
    assert list(find.names("attacks")) == ["outside", "paint_it_red", "whisper"]


@pytest.mark.parametrize("family", find.FAMILIES)
def test_every_family_is_a_package(family):
    assert isinstance(find.names(family), dict)
