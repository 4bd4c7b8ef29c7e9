"""The rules of the house: layers, cards, documented and used settings, tests beside code, fresh documents."""

import ast
import dataclasses
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import alignlab
from alignlab.cli import about, docs, flags, runs, verbs
from alignlab.core.cards import RELATIONS, Card, Claim
from alignlab.core.find import FAMILIES, find, names

ROOT = Path(__file__).parent.parent
PACKAGE = Path(alignlab.__file__).parent
METHODS = [(family, name) for family in FAMILIES for name in names(family)]
each_method = pytest.mark.parametrize(("family", "name"), METHODS, ids=["/".join(m) for m in METHODS])


def source(family, name):
    return ast.parse((PACKAGE / family / f"{name}.py").read_text(encoding="utf-8"))


def with_helpers(family, name):
    """The method's file together with the files `_<name>_*.py` beside it, and private ones that it imports there."""
    imported = {
        PACKAGE / family / f"{alias.name}.py"
        for node in ast.walk(source(family, name))
        if isinstance(node, ast.ImportFrom) and node.module == f"alignlab.{family}"
        for alias in node.names
        if alias.name.startswith("_")
    }
    paths = [PACKAGE / family / f"{name}.py", *sorted({*(PACKAGE / family).glob(f"_{name}_*.py"), *imported})]
    return ast.Module([node for path in paths for node in ast.parse(path.read_text()).body], [])


def unused(tree, fields):
    """Fields of Config that the trees read nowhere but in Config's own check of them."""
    checks = {
        id(node)
        for config in ast.walk(tree)
        if isinstance(config, ast.ClassDef) and config.name == "Config"
        for check in config.body
        if isinstance(check, ast.FunctionDef) and check.name == "__post_init__"
        for node in ast.walk(check)
    }
    read = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and id(node) not in checks}
    return [field for field in fields if field not in read]


def bibtex(text):
    """Parse one entry strictly: return (type, key, fields); ValueError says what is wrong."""
    head = re.fullmatch(r"\s*@(\w+)\s*\{\s*([\w:.+/-]+)\s*,(.*)\}\s*", text, re.DOTALL)
    if not head:
        raise ValueError("expected @type{key, field = {...}, ...}")
    rest, found = head[3].strip(), {}
    while rest:
        field = re.match(r"(\w+)\s*=\s*", rest)
        if not field:
            raise ValueError(f"expected a field at {rest[:30]!r}")
        rest = rest[field.end() :]
        end = _value_end(rest)
        found[field[1].lower()] = rest[:end].strip('{}" \n')
        rest = rest[end:].lstrip()
        if rest and not rest.startswith(","):
            raise ValueError(f"expected a comma at {rest[:30]!r}")
        rest = rest[1:].lstrip()
    return head[1], head[2], found


def _value_end(text):
    if not text.startswith("{"):
        plain = re.match(r'"[^"]*"|\w+', text)
        if not plain:
            raise ValueError(f"expected a value at {text[:30]!r}")
        return plain.end()
    depth = 0
    for place, sign in enumerate(text):
        depth += (sign == "{") - (sign == "}")
        if depth == 0:
            return place + 1
    raise ValueError("a brace is left open")


def test_layers():
    """`lint-imports` reads the contracts of pyproject.toml."""
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-logo", "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_every_package_has_its_layer():
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    layers = re.search(r"\nlayers = \[(.*?)\n\]", (ROOT / "pyproject.toml").read_text(), re.DOTALL)[1]
    assert set(re.findall(r"\w+", layers)) == packages


@each_method
def test_card(family, name):
    card = find(family, name).CARD
    assert isinstance(card, Card)
    for field in ("title", "paper", "bibtex", "brief", "summary", "smoke"):
        assert getattr(card, field).strip(), field
    assert card.status in ("faithful", "reconstructed")
    assert "\n" not in card.summary
    assert re.match(r"(arXiv:)?\d{4}\.\d{4,5}|10\.\d+/|https?://", card.paper), card.paper
    assert card.claims
    for claim in card.claims:
        assert claim.relation in RELATIONS
        assert claim.seeds >= 1


@each_method
def test_bibtex_parses(family, name):
    kind, _, fields = bibtex(find(family, name).CARD.bibtex)
    assert kind.isalpha()
    assert {"title", "author", "year"} <= set(fields)
    assert re.fullmatch(r"\d{4}", fields["year"])


def test_one_key_is_one_reference():
    keys = {}
    for _, _, module in about.cards():
        _, key, fields = bibtex(module.CARD.bibtex)
        assert keys.setdefault(key, fields["title"]) == fields["title"]


@pytest.mark.parametrize(
    "bad", ["@a{k, title = {x}", "@a{k, title {x}}", "title", "@a{k, t = {x} u = {y}}", "@a{k, t = {{x}}"]
)
def test_broken_bibtex_is_noticed(bad):
    with pytest.raises(ValueError, match="expected|brace"):
        bibtex(bad)


@each_method
def test_smoke_and_study_commands_are_ours(family, name):
    """Their verbs, methods and flags exist, and a smoke command says where it writes."""
    card = find(family, name).CARD
    assert "{out}" in card.smoke
    for command in filter(None, (card.smoke, card.study)):
        program, verb, method, *rest = shlex.split(command.replace("{out}", "out"))
        assert program == "alignlab"
        home, method = verbs.method(verb, method)
        module = find(home, method)
        values = flags.parse(command, runs.groups_of(verb, flags.Group("Method", module.Config)), rest)
        flags.build(module.Config, values)


@each_method
def test_settings_are_documented_and_used(family, name):
    module = find(family, name)
    config = module.Config
    assert dataclasses.is_dataclass(config)
    assert config.__dataclass_params__.frozen
    fields = [field.name for field in dataclasses.fields(config)]
    documented = flags.documentation(config)
    assert [field for field in fields if not documented.get(field)] == []
    assert unused(with_helpers(family, name), fields) == []


def test_an_unused_setting_is_noticed():
    code = "class Config:\n  a: int = 1\n  b: int = 2\n  def __post_init__(self): self.b\ndef loss(cfg): cfg.a"
    assert unused(ast.parse(code), ["a", "b"]) == ["b"]


@each_method
def test_a_method_has_its_docstring_and_its_test(family, name):
    assert len(ast.get_docstring(source(family, name)) or "") > 80
    assert (ROOT / "tests" / family / f"test_{name}.py").exists()


def test_documents_are_fresh(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert docs.main(["--check"]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("family", ["objectives", "theory"])
def test_pure_families_load_no_transformers(family):
    modules = ", ".join(names(family).values()) or f"alignlab.{family}"
    heavy = "('transformers', 'peft', 'accelerate', 'datasets')"
    code = f"import sys, {modules}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_files_stay_short():
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {str(path.relative_to(PACKAGE)): n for path, n in lengths.items() if n > 320} == {}


def test_annotations_are_checked_while_testing():
    from alignlab.core.masks import seq_sum

    with pytest.raises(Exception, match="Type-check error"):
        seq_sum(torch.zeros(2, 3), torch.zeros(2, 4, dtype=torch.bool))
    assert Claim(metric="m", relation=">=", bound=100).bound == 100


def test_nothing_is_unpickled_or_evaluated():
    banned = {"eval", "exec", "compile"}
    found = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in banned:
                found.append(f"{path.name}:{node.lineno}")
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                modules = [a.name for a in node.names] + [getattr(node, "module", None) or ""]
                found += [
                    f"{path.name}:{node.lineno}" for m in modules if m.split(".")[0] in ("pickle", "dill", "joblib")
                ]
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                found.append(f"{path.name}:{node.lineno}")
    assert found == []
