import fnmatch
import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml

import alignlab
from alignlab.cli import flags, recipes, runs, verbs
from alignlab.cli.actions import columns_of
from alignlab.cli.main import main
from alignlab.core.find import find
from alignlab.data.columns import check_mapping
from alignlab.train.config import TrainConfig

ROOT = Path(__file__).parents[2]
SHIPPED = {name: yaml.safe_load(path.read_text(encoding="utf-8")) for name, path in recipes.shipped().items()}
CITED = [name for name, recipe in SHIPPED.items() if "result" in recipe["observed"]]
METRIC = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 5}
RECIPE = {
    "command": "train dpo",
    "beta": 0.3,
    "published": {
        "source": "arXiv:2305.18290", "place": "appendix B", "settings": {"batch": 64}, "figures": {"win rate": 61},
        "inferred": ["beta", "batch", "win rate"], "note": "x",
    },
    "observed": {
        "metrics": {"gold": METRIC}, "interval": "95 %", "seeds": [0, 1], "commit": "a4ad00c", "command": "alignlab x",
    },
}  # fmt: skip
each = pytest.mark.parametrize("name", SHIPPED)


def groups(command):
    verb, method = command.split()
    module = find(*verbs.method(verb, method))
    return module, runs.groups_of(verb, flags.Group("Method", module.Config), module.CARD.training)


def resolved(command, *argv):
    module, known = groups(command)
    return module, flags.parse(f"alignlab {command}", known, argv)


def of_recipe(name):
    """The flags of a recipe that ships, what it leaves to the user given."""
    needed = [word for flag in SHIPPED[name].get("needs", []) for word in (f"--{flag}", "mine")]
    return resolved(SHIPPED[name]["command"], "--config", f"recipe:{name}", *needed)


def written(folder, recipe):
    path = folder / "r.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return str(path)


@each
def test_every_recipe_is_whole_and_its_flags_are_the_commands(name):
    recipe = SHIPPED[name]
    assert {"command", "published", "observed"} <= recipe.keys()
    verb, method = recipe["command"].split()
    assert re.fullmatch(rf"[a-z]+\d{{4}}_{method}_[a-z0-9_]+", name)
    assert re.fullmatch(r"arXiv:\d{4}\.\d{4,5}", recipe["published"]["source"])
    module, values = of_recipe(name)
    flags.build(module.Config, values)
    if verb == "train":
        flags.build(TrainConfig, values)
    if mapping := columns_of(values.get("columns", ())):
        check_mapping(mapping)
    assert values["recipe"] == f"recipe:{name}"


@each
def test_a_flag_has_the_value_that_was_published(name):
    recipe = SHIPPED[name]
    published, known = recipe["published"]["settings"], resolved(recipe["command"])[1]
    stated = published.keys() & recipe.keys() - set(recipe["published"].get("inferred", []))
    assert {key: recipe[key] for key in stated} == {key: published[key] for key in stated}
    # what is published under a flag's name and given to no flag has to be that flag's default
    assert {key: known[key] for key in published.keys() & known.keys() - recipe.keys() - {"model"}}.items() <= (
        published.items()
    )
    if "batch" in published and recipe["command"].startswith("train"):
        values = known | recipe
        assert values["per_device_train_batch_size"] * values["gradient_accumulation_steps"] == published["batch"]


def held(path, metric, method):
    """(value, low, high, n), seeds and command of a metric in a committed result."""
    record = json.loads((ROOT / path).read_text(encoding="utf-8"))
    if path.endswith("matched_kl.json"):
        row = next(row for row in record["rows"] if row["objective"] == method)
        return (*row["at"][metric], record["facts"]), record["settings"]["seeds"], record["command"]
    if path.endswith("rewards_hh_rlhf.json"):
        found = record["accuracy"][metric]
        return tuple(found.values()), record["settings"]["seeds"], "python bench/rewards.py"
    return (
        (record["metrics"][metric], *record["intervals"][metric], record["n"][metric]),
        record["config"].get("seeds", 1),
        record["command"],
    )


@pytest.mark.parametrize("name", CITED)
def test_what_was_observed_stands_in_the_committed_result(name):
    observed, method = SHIPPED[name]["observed"], SHIPPED[name]["command"].split()[1]
    for metric, claimed in observed["metrics"].items():
        numbers, seeds, command = held(observed["result"], metric, method)
        assert tuple(claimed[part] for part in ("value", "low", "high", "n")) == numbers
        assert len(observed["seeds"]) == seeds
        assert observed["command"] == command


@pytest.mark.parametrize("name", [name for name in CITED if name.endswith("_town")])
def test_a_recipe_of_a_study_has_the_settings_that_left_its_result(name):
    record = json.loads((ROOT / SHIPPED[name]["observed"]["result"]).read_text(encoding="utf-8"))
    assert record["commit"] == SHIPPED[name]["observed"]["commit"]
    given = {key: value for key, value in SHIPPED[name].items() if key not in recipes.KEYS}
    assert given == {key: record["config"][key] for key in given}
    module, values = of_recipe(name)
    kept = {key: value for key, value in record["config"].items() if key in values and key != "output_dir"}
    assert len(kept) > 20
    assert {key: list(v) if isinstance(v := values[key], tuple) else v for key in kept} == kept


def test_recipes_are_part_of_the_package():
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["alignlab"]
    home = Path(alignlab.__file__).parent
    paths = [path.relative_to(home).as_posix() for path in recipes.shipped().values()]
    assert paths
    assert all(any(fnmatch.fnmatch(path, pattern) for pattern in patterns) for path in paths)


def test_a_flag_that_is_called_as_a_key_of_recipes_stays_a_flag(tmp_path):
    """`eval pacifaist` reads the published dilemmas from --published."""
    path = written(tmp_path, {"published": "dilemmas.csv"})
    values = resolved("eval pacifaist", "--config", path)[1]
    assert values["published"] == "dilemmas.csv"
    assert "recipe" not in values


def test_what_can_be_trained_has_no_flag_called_as_a_key_of_recipes():
    for verb in ("train", "run"):
        for method in verbs.methods(verb):
            assert not set(flags.flags_of(groups(f"{verb} {method}")[1])) & set(recipes.KEYS), method


def test_the_command_line_wins_and_the_run_says_where_it_comes_from(tmp_path):
    path = written(tmp_path, RECIPE)
    values = resolved("train dpo", "--config", path, "--learning_rate", "3e-6")[1]
    assert (values["beta"], values["learning_rate"], values["recipe"]) == (0.3, 3e-6, path)
    assert resolved("train dpo", "--config", path, "--beta", "2")[1]["beta"] == 2.0
    # a run's config.yaml, used again, still says so; a plain file of flags says nothing
    again = written(tmp_path, {"beta": 0.3, "recipe": path})
    assert resolved("train dpo", "--config", again)[1]["recipe"] == path
    assert "recipe" not in resolved("train dpo", "--config", written(tmp_path, {"beta": 0.3}))[1]


def changed(path, value):
    """RECIPE with one value set, or taken out where it is None."""
    recipe = json.loads(json.dumps(RECIPE))
    *parents, last = path.split(".")
    at = recipe
    for key in parents:
        at = at[key]
    if value is None:
        del at[last]
    else:
        at[last] = value
    return recipe


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("command", "train kto", r"a recipe for `alignlab train kto`; it cannot be used with `alignlab train dpo`"),
        ("command", 3, "command: expected a command such as `train dpo`, got 3"),
        ("bta", 1, "no flag bta; did you mean beta"),
        ("published", [1], "published: expected a mapping with source, place, .*got \\[1\\]"),
        ("published.source", None, "published: missing source"),
        ("published.source", 2305, "published.source: expected text, got 2305"),
        ("published.setings", {}, "published: no key 'setings'; did you mean settings"),
        ("published.settings", [1], "published.settings: expected a mapping"),
        ("published.figures", "61 %", "published.figures: expected a mapping"),
        ("published.inferred", "beta", "published.inferred: expected a list of names"),
        ("published.inferred", ["learning_rate"], "published.inferred: expected names of .* of this file, got 'lea"),
        ("published.inferred", [["beta"]], "published.inferred: expected names"),
        ("observed", {}, "observed: missing metrics, interval, seeds, commit, command"),
        ("observed", {"not_run": ""}, "observed.not_run: expected why nothing was measured"),
        ("observed", {"not_run": "x", "seeds": [0]}, "observed: no key 'seeds'"),
        ("observed.metrics", {}, "observed.metrics: expected a mapping that is not empty"),
        ("observed.metrics.gold", 0.5, "observed.metrics.gold: expected a mapping with value, low, high, n"),
        ("observed.metrics.gold.value", "1e-4", r"observed.metrics.gold.value: expected a finite number \(YAML reads"),
        ("observed.metrics.gold.value", float("nan"), "observed.metrics.gold.value: expected a finite number"),
        ("observed.metrics.gold.value", 0.7, "observed.metrics.gold: expected low <= value <= high"),
        ("observed.metrics.gold.n", 0, "observed.metrics.gold.n: expected a whole number >= 1"),
        ("observed.metrics.gold.low", None, "observed.metrics.gold: missing low"),
        ("observed.seeds", [True], "observed.seeds: expected a list of whole numbers"),
        ("observed.commit", 1234567, "observed.commit: expected 7 to 40 hexadecimal digits in quotes, got 1234567"),
        ("observed.interval", None, "observed: missing interval"),
        ("needs", "model", "needs: expected a list of flags that the file does not set, got 'model'"),
        ("needs", ["beta"], "needs: expected a list of flags that the file does not set"),
        ("needs", ["model", "dataset"], "give --model, --dataset on the command line; the recipe leaves"),
        ("recipe", 1, "recipe: expected the name of a recipe"),
    ],
)
def test_a_malformed_recipe_is_named_with_its_key(tmp_path, path, value, message):
    with pytest.raises(ValueError, match=message) as error:
        resolved("train dpo", "--config", written(tmp_path, changed(path, value)))
    assert str(error.value).startswith(str(tmp_path / "r.yaml"))


def test_what_a_recipe_leaves_to_the_user_is_taken_from_the_command_line_by_any_name(tmp_path):
    path = written(tmp_path, RECIPE | {"needs": ["model"]})
    assert resolved("train dpo", "--config", path, "--model_name_or_path", "mine")[1]["model"] == "mine"


@each
def test_a_recipe_names_a_model_and_rows_or_asks_for_them(name):
    """Else `tiny:` would be trained by a large model's settings, in silence."""
    recipe = SHIPPED[name]
    assert {"model"} <= recipe.keys() | set(recipe.get("needs", []))
    assert recipe["command"].startswith("run") or "dataset" in recipe.keys() | set(recipe.get("needs", []))


def test_an_unknown_recipe_is_told_with_the_nearest(capsys):
    assert main(["train", "dpo", "--config", "recipe:rafailov2023_dpo_hhh", "--dry_run"]) == 2
    said = capsys.readouterr().err
    assert "no recipe 'rafailov2023_dpo_hhh'; did you mean recipe:rafailov2023_dpo_hh? Recipes: " in said


def test_show_names_the_recipes_of_a_method(capsys):
    assert main(["show", "kto"]) == 0
    assert "recipes:  recipe:ethayarajh2024_kto_own, " in capsys.readouterr().out


def test_what_was_observed_offline_is_observed_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "rafailov2023_dpo_town"
    assert main(["train", "dpo", "--config", f"recipe:{name}", "--output_dir", "out", "--use_cpu"]) == 0
    metrics = json.loads(Path("out/result.json").read_text())["metrics"]
    for metric, seen in SHIPPED[name]["observed"]["metrics"].items():
        assert seen["low"] <= metrics[metric] <= seen["high"], metric
    settings = yaml.safe_load(Path("out/config.yaml").read_text())
    assert (settings["recipe"], settings["learning_rate"], settings["limit"]) == (f"recipe:{name}", 3e-4, 64)
