import pytest

from alignlab.cli import docs


@pytest.fixture
def root(tmp_path, monkeypatch):
    (tmp_path / "README.md").write_text(f"# Title\n\n{docs.BEGIN}\nold\n{docs.END}\nafter\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_stale_files_are_found_then_written_then_fresh(root, capsys):
    assert docs.main(["--check"]) == 1
    assert "README.md is stale" in capsys.readouterr().err
    assert docs.main([]) == 0
    text = (root / "README.md").read_text()
    assert text.startswith("# Title\n")
    assert text.endswith("\nafter\n")
    assert "alignlab train dpo" in text
    assert docs.main(["--check"]) == 0
    page = root / "docs" / "methods" / "objectives-dpo.md"
    assert "| `--beta` | a number | `0.1` |" in page.read_text()
    page.write_text("tampered")
    assert docs.main(["--check"]) == 1


def test_pages_of_methods_that_are_gone_are_removed(root):
    docs.main([])
    (root / "docs" / "methods" / "objectives-gone.md").write_text("x")
    assert docs.main(["--check"]) == 1
    docs.main([])
    assert not (root / "docs" / "methods" / "objectives-gone.md").exists()


def test_a_readme_without_markers_is_an_error():
    with pytest.raises(ValueError, match="markers|expected the lines"):
        docs.readme("# Title")


def test_cells_cannot_break_the_table():
    assert docs.cell("a | b\nc") == "a \\| b c"
