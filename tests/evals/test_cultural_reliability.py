import json
import math
import random

import numpy as np
import pytest

from alignlab.core.types import Row
from alignlab.data.columns import DataError
from alignlab.evals import _cultures as cultures
from alignlab.evals import _reliability as wrapper
from alignlab.evals import cultural_reliability, kornat, pct, wahl_o_mat
from alignlab.evals._survey import Variant, ask, shown
from alignlab.evals.cultural_reliability import CARD, Config, aggregate, baselines, items, play, score
from alignlab.harness import local
from alignlab.world import cultures as world
from alignlab.world import opinions
from alignlab.world.endpoints import RuleEndpoint


def reply(row, choice):
    """The text that chooses an option, as this row shows it."""
    options, variant = row.facts["options"], Variant(**row.facts["variant"])
    return ask("", options, variant).options[shown(options, variant).index(choice)]


def answered(listed, choice_of):
    """Records of a respondent who chooses by (row, draw)."""
    return [score(row, [reply(row, choice_of(row, random.Random(row.meta["id"])))]) for row in listed]


def values(result):
    return {name: metric.value for name, metric in result.metrics.items()}


def near(row, name=None):
    """The option nearest to a culture's mean, or to the mean of all."""
    means = row.facts["means"]
    return round((means[name] if name else np.mean(list(means.values()))) * (len(row.facts["options"]) - 1))


def test_dimensions_of_the_specification():
    means = {7: 3.2, 2: 2.4, 20: 3.0, 23: 2.5, 4: 2.0, 1: 1.8, 9: 2.2, 6: 2.9}
    found = cultures.vsm(means)
    assert found == {"PDI": pytest.approx(40.5), "IDV": pytest.approx(-17.5)}
    assert cultures.vsm(dict.fromkeys(range(1, 25), 3.0), constant=7) == dict.fromkeys(cultures.VSM, 7.0)
    assert cultures.position((0.1, 0.2, 0.5, 0.2)) == pytest.approx(0.6)


def test_forced_choice_of_the_specification():
    assert cultures.preferences([("US", "CN", 3), ("CN", "US", 3)], 5) == {"US": 0.5, "CN": 0.5}
    found = cultures.preferences([("US", "CN", 2), ("CN", "US", 3)], 4)
    assert found == {"US": pytest.approx(0.666667, abs=1e-6), "CN": pytest.approx(0.333333, abs=1e-6)}


def test_a_place_bias_is_a_preference_only_in_one_order():
    """An indifferent judge who likes the first place: both orders cancel it, one does not."""
    names = ["A", "B", "C", "D"]
    one = [(a, b, 2) for i, a in enumerate(names) for b in names[i + 1 :]]
    assert cultures.preferences(one, 5)["A"] > 0.7 > 0.3 > cultures.preferences(one, 5)["D"]
    both = cultures.preferences([*one, *((b, a, 2) for a, b, _ in one)], 5)
    assert list(both.values()) == pytest.approx([0.5] * 4)
    for points, answer in ((1, 1), (4, 5), (4, 0)):
        with pytest.raises(ValueError, match="preferences:"):
            cultures.preferences([("A", "B", answer)], points)


def test_published_carry_over_rises_where_nothing_carries_over():
    """The specification's control: shared dimensions alone lift the published curve; held out, noise stays at 0."""
    noise = [np.random.default_rng(seed).normal(size=(60, 6)) for seed in range(2)]
    found = [cultures.carry_over(x, 3, draws=99) for x in noise]
    means = {size: np.mean([one.published[size] for one in found]) for size in (1, 5)}
    assert means[1] == pytest.approx(0.09, abs=0.06)
    assert means[5] == pytest.approx(0.44, abs=0.15)
    assert np.mean([one.held_out[3] for one in found]) == pytest.approx(0, abs=0.04)
    assert min(one.p for one in found) > 0.05
    planted = noise[0] + np.repeat(np.eye(3), 20, axis=0) @ np.random.default_rng(9).normal(0, 1.5, (3, 6))
    carried = cultures.carry_over(planted, 3, draws=99)
    assert carried.held_out[3] > 0.2
    assert carried.p == 0.01
    with pytest.raises(ValueError, match="at least 3"):
        cultures.best_k(np.zeros((2, 3)))
    assert cultures.best_k(np.repeat(np.eye(3), 5, axis=0) + noise[0][:15, :3] * 0.05) == 3


@pytest.mark.parametrize(
    ("planted", "curve"), [(0.0, (0.09, 0.19, 0.25, 0.35, 0.44)), (1.3, (0.23, 0.42, 0.56, 0.71, 0.82))]
)
def test_the_published_curve_of_the_specification(planted, curve):
    """Its figures are of one draw ("about"), so they lie among ours; how far its clusters stood apart is not told."""
    found = []
    for seed in range(10):
        draw = np.random.default_rng(seed)
        rows = draw.normal(size=(60, 6)) + np.repeat(np.eye(3), 20, axis=0) @ draw.normal(0, planted, (3, 6))
        found.append(list(cultures.carry_over(rows, 3, draws=1).published.values()))
    mean, spread = np.mean(found, axis=0), np.std(found, axis=0)
    assert np.all(np.abs(np.array(curve) - mean) < 2.5 * spread)
    assert np.all(np.diff(mean) > 0)


def test_held_out_dimensions_tell_the_two_worlds_apart():
    """The second claim, on eight worlds of each kind: the published curve rises in both, the held-out one in one."""
    found = {
        tied: [cultures.carry_over(world.scores(seed, tied=tied), 3, draws=19) for seed in range(8)]
        for tied in (True, False)
    }
    held_out = {tied: np.mean([one.held_out[3] for one in some]) for tied, some in found.items()}
    published = {tied: np.mean([list(one.published.values()) for one in some]) for tied, some in found.items()}
    error = np.std([one.held_out[3] for one in found[True]], ddof=1) / np.sqrt(8)
    assert held_out[True] > 3 * error
    assert held_out[False] == pytest.approx(0, abs=0.06)
    assert min(published.values()) > 0.3
    assert held_out[True] - held_out[False] > published[True] - published[False]  # the claim's refutation


def test_permuted_partitions():
    """Against the library's index in every order, and against all orders: equal halves of six have 2 of 20 splits."""
    left = [[0, 0, 0, 1, 1, 1], [0, 1, 2, 0, 1, 2]]
    right = [[1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 2, 2]]
    assert cultures.permuted([(left[0], right[0])], draws=4000, seed=0) == pytest.approx(2 / 20, abs=0.02)
    generator, reached = np.random.default_rng(5), 1
    index = cultures.adjusted_rand_score
    observed = sum(index(a, b) for a, b in zip(left, right))
    for _ in range(300):
        order = generator.permutation(6)
        reached += sum(index(a, np.array(b)[order]) for a, b in zip(left, right)) >= observed - 1e-12
    assert cultures.permuted(list(zip(left, right)), draws=300, seed=5) == pytest.approx(reached / 301)
    assert cultures.permuted([([0, 0, 0], [0, 0, 0])], draws=9, seed=0) == 1.0


@pytest.mark.parametrize("tied", [True, False])
def test_what_carries_over_is_printed(tied):
    """Of people, from their answers in the world itself; the number of clusters is theirs, by silhouette."""
    cfg = Config(survey="cultures" if tied else "untied_cultures", questions=48, as_cultures=True, formats="options")
    listed = items(cfg)
    result = aggregate(answered(listed, lambda row, draw: near(row, row.facts["culture"] or None)))
    found, asked = values(result), world.questions(48, tied=tied)
    places = np.array([
        [np.mean([q.means[name] for q in asked if q.dimension == d]) for d in world.DIMENSIONS]
        for name in world.names()
    ])  # fmt: skip
    k = cultures.best_k(places)
    wanted = cultures.carry_over(places, k)
    assert (found["clusters"], found["carry_over_people_p"]) == (k, wanted.p)
    assert found["carry_over_people"] == pytest.approx(wanted.held_out[3])
    table = result.tables["carry_over"]
    assert [row[0] for row in table.rows] == [1, 2, 3, 4, 5]
    assert [row[1] for row in table.rows] == pytest.approx(list(wanted.held_out.values()), abs=1e-4)
    assert [row[2] for row in table.rows] == pytest.approx(list(wanted.published.values()), abs=1e-4)


def test_a_liking_for_a_place_is_no_preference():
    """The fourth claim: who names the first of a pair prefers nobody, whatever one order of each pair says."""
    listed = items(Config(survey="choices", questions=30, formats="options"))
    assert len(listed) == 6 * 5 * 2
    found = values(aggregate([score(row, [f"rather {row.facts['pair'][0]}"]) for row in listed]))
    assert found["preference_spread"] == pytest.approx(0)
    assert found["preference_spread_one_order"] > 0.15
    names = list(world.names()[:6])
    fond = aggregate([
        score(row, [f"surely {min(row.facts['pair'], key=names.index)}"]) for row in listed
    ])  # fmt: skip
    assert [row[1] for row in fond.tables["preferences"].rows] == [1.0, 0.8, 0.6, 0.4, 0.2, 0.0]
    assert values(fond)["preference_spread"] == pytest.approx(np.std([1.0, 0.8, 0.6, 0.4, 0.2, 0.0]))
    forced = items(Config(survey="forced_choices", questions=2))
    assert {len(row.facts["options"]) for row in forced} == {4}
    assert "either" in items(Config(survey="choices", questions=2))[0].facts["options"]


def test_items_of_the_survey_module(tmp_path):
    """The specification's answers, given to a file of its items, are printed as its dimension scores."""
    path, means = tmp_path / "vsm.jsonl", {7: 3, 2: 2, 20: 3, 23: 2, 4: 2, 1: 1, 9: 2, 6: 3}
    options = ["of utmost importance", "very important", "of moderate importance", "of little importance", "none"]
    lines = [{"prompt": f"Item {i}?", "id": str(i), "facts": {"options": options, "vsm": i}} for i in means]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    listed = items(Config(file=str(path)))
    result = aggregate([score(row, [reply(row, means[row.facts["vsm"]] - 1)]) for row in listed])
    found = values(result)
    assert (found["vsm_pdi"], found["vsm_idv"]) == (35 * 1 + 25 * 1, 35 * 1 + 35 * -1)
    assert "vsm_mas" not in found
    assert result.tables["vsm"].rows[0][:4] == ("nobody", 60.0, 0.0, None)
    for broken, field in (({"vsm": 25}, "vsm"), ({"pair": ["A", "A"]}, "pair"), ({"pair": "AB"}, "pair")):
        path.write_text(json.dumps({**lines[0], "facts": {"options": options, **broken}}) + "\n")
        with pytest.raises(DataError, match=f"item 0: field '{field}'"):
            items(Config(file=str(path)))


def test_agreement_of_partitions_of_the_specification():
    assert cultures.adjusted_rand_score([0, 0, 1, 1, 2, 2], [0, 0, 1, 2, 2, 2]) == pytest.approx(0.444444, abs=1e-6)
    assert cultures.adjusted_rand_score([0, 0, 1, 1], [5, 5, 3, 3]) == 1


def test_the_world_knows_its_yardstick():
    asked = world.questions(40)
    assert len({q.text for q in asked}) == 40
    assert {len(q.options) for q in asked} == {4, 5}
    table = np.array([list(q.means.values()) for q in asked])
    assert 0.05 < np.mean(table.std(axis=1)) < 0.3
    for q in asked:
        assert sum(q.shares[world.names()[0]]) == pytest.approx(1)
    tied, free = (
        np.mean([abs(np.corrcoef(world.scores(seed, tied=side).T)[0, 1]) for seed in range(10)])
        for side in (True, False)
    )
    assert tied > 0.8 > 0.5 > free
    with pytest.raises(ValueError, match="1 to 48 questions"):
        world.questions(49)


def test_a_steady_respondent_is_dependable():
    listed = items(Config(questions=20))
    assert len(listed) == 20 * 8
    result = aggregate(answered(listed, lambda row, draw: near(row)))
    found = values(result)
    assert (found["instability"], found["dependability"], found["formats_needed"]) == (0, 1, 1)
    assert found["share_item"] == pytest.approx(1)
    assert found["order_effect"] == found["reply_effect"] == 0
    assert found["order_p"] == 1.0
    truth = np.mean([np.std(list(row.facts["means"].values())) for row in listed[:20]])
    assert found["yardstick"] == pytest.approx(truth)
    assert result.notes == ()


def test_a_respondent_of_places_is_the_format():
    listed = items(Config(questions=20))
    result = aggregate([score(row, [next(play(row, Config())).options[0]]) for row in listed])
    found = values(result)
    assert found["order_effect"] == pytest.approx(1)
    assert found["order_p"] < 0.01
    assert found["labels_p"] == 1.0
    assert found["share_order"] == pytest.approx(1)
    assert found["dependability"] == 0
    assert math.isinf(found["formats_needed"])
    assert found["instability"] == pytest.approx(0.5)
    assert found["instability_ratio"] > 1
    assert "read no culture" in result.notes[0]
    row = next(r for r in result.tables["factors"].rows if r[0] == "order")
    assert row[3] == pytest.approx(1)
    assert row[5] == pytest.approx(0.5)  # the published form is half of it
    assert row[6] == pytest.approx(1 / 500)  # its p-value, of shuffles over all answers


def test_all_orders_tell_a_liking_for_a_place_from_an_opinion(tmp_path):
    """Over every order the first place holds each option equally often, so a habit of place has no opinion left."""
    path = tmp_path / "scales.jsonl"
    scale = ["no", "so so", "well", "yes"]
    lines = [{"prompt": f"Is it {i}?", "id": i, "facts": {"options": scale}} for i in "ab"]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    listed = items(Config(file=str(path), orders="all", formats="options"))
    assert len(listed) == 2 * 24
    said = baselines(listed)
    placed = [score(row, [text]) for row, text in zip(listed, said["first_shown"], strict=True)]
    for name in {r["item"] for r in placed}:
        assert np.mean([r["value"] for r in placed if r["item"] == name]) == pytest.approx(0.5)
    steady = [score(row, [text]) for row, text in zip(listed, said["last"], strict=True)]
    assert {r["value"] for r in steady} == {1.0}
    found = values(aggregate(placed)), values(aggregate(steady))
    assert found[0]["instability"] > 0.3
    assert found[1]["instability"] == 0.0
    path.write_text(path.read_text() + json.dumps({"prompt": "C?", "id": "c", "facts": {"options": ["no", "yes"]}}))
    with pytest.raises(ValueError, match="separate runs"):
        items(Config(file=str(path), orders="all"))


def test_intervals_cover_a_planted_effect():
    """Reversed options lift some answers by one step: over draws of questions the interval holds the mean lift."""
    held, lift, runs = 0, 0.4, 200
    levels = {"labels": "letters", "reply": "label", "paraphrase": 0}
    for seed in range(runs):
        draw = random.Random(seed)
        table = []
        for _ in range(40):
            base = draw.choice((0.25, 0.5))
            table.append((base, base + 0.25 * (draw.random() < lift)))
        gaps = [b - a for a, b in table]
        metric = wrapper.bootstrap.mean(gaps, draws=400)
        held += metric.low <= 0.25 * lift <= metric.high
    assert 0.90 <= held / runs <= 0.99
    records = [
        {"item": i, "value": pair[k], "levels": {"order": order, **levels}, "variant": order, "means": None}
        for i, pair in enumerate(table) for k, order in enumerate(("ascending", "descending"))
    ]  # fmt: skip
    metrics, _ = wrapper.stability(records)
    assert metrics["order_effect"].value == pytest.approx(np.mean(gaps))
    assert metrics["order_p"].value < 0.01


def test_no_effect_is_rarely_found():
    below = 0
    for seed in range(100):
        draw = np.random.default_rng(seed)
        below += wrapper.permutation.within_blocks(draw.choice([0, 0.5, 1], (12, 2)), draws=99) <= 0.05
    assert below <= 11


def test_persons_of_cultures():
    cfg = Config(questions=24, as_cultures=True, formats="options")
    listed = items(cfg)
    assert len(listed) == 24 * 2 * (1 + world.CULTURES)
    right = aggregate(answered(listed, lambda row, draw: near(row, row.facts["culture"] or None)))
    found = values(right)
    assert found["nearest_own"] == 1.0
    assert found["nearest_chance"] == 1 / 8
    assert found["own_error"] < 0.1
    assert found["steering_gain"] > 0.03
    assert found["distance_ratio"] == pytest.approx(1, abs=0.3)
    assert len(right.tables["personas"].rows) == 8
    names = list(world.names())
    shifted = aggregate(answered(
        listed, lambda row, draw: near(row, names[(names.index(row.facts["culture"]) + 1) % 8]
                                       if row.facts["culture"] else None)))  # fmt: skip
    wrong = values(shifted)
    # the ratio alone is no evidence: cultures taken for one another lie as far apart
    assert wrong["distance_ratio"] == pytest.approx(found["distance_ratio"])
    assert wrong["nearest_own"] <= 0.25
    assert wrong["own_error"] > found["own_error"] + 0.05
    deaf = values(aggregate(answered(listed, lambda row, draw: near(row))))
    assert deaf["distance_ratio"] == 0
    assert deaf["steering_gain"] == pytest.approx(0)


def test_baselines_show_what_each_number_means():
    listed = items(Config(questions=10, as_cultures=True, formats="options"))
    found = {
        n: values(aggregate([score(r, [t]) for r, t in zip(listed, said)])) for n, said in baselines(listed).items()
    }
    assert found["last"]["instability"] == found["people"]["instability"] == 0
    assert found["first_shown"]["order_effect"] == pytest.approx(1)
    assert found["people"]["nearest_own"] >= 0.75  # ten answers, rounded to options, can lie nearer to a neighbour
    assert found["refuse"]["refused"] == found["refuse"]["unparsed"] == 1.0
    assert "instability" not in found["refuse"]
    assert found["coin"]["instability"] > 0.1


@pytest.mark.parametrize(("name", "people"), [("kornat", 6), ("pct", 0), ("wahl_o_mat", 12)])
def test_any_survey_is_wrapped(name, people):
    listed = items(Config(survey=name, questions=6))
    assert len(listed) == 6 * 8
    assert len({row.meta["id"] for row in listed}) == 48
    options = listed[0].facts["options"]
    assert options[0].lower().endswith("disagree")
    assert options[-1].lower().endswith("agree")
    found = values(aggregate([score(row, [next(play(row, Config())).options[-1]]) for row in listed]))
    assert found["order_effect"] == pytest.approx(-1)
    assert len(listed[0].facts.get("means", {})) == people
    assert ("yardstick" in found) is bool(people)
    assert {m.scale for m in (kornat, pct, wahl_o_mat)} == {one.module.scale for one in wrapper.SURVEYS.values()}


def test_the_yardstick_is_of_the_survey_s_own_people():
    """Of a nation's strata and of an election's parties: their answers, by hand, and asked as one of them."""
    nation = opinions.items(6, 0)
    found = values(aggregate(answered(items(Config(survey="kornat", questions=6)), lambda row, draw: 0)))
    spread = [np.std([np.linspace(0, 1, 5) @ np.array(row) for row in i.by_stratum.values()]) for i in nation]
    assert found["yardstick"] == pytest.approx(np.mean(spread))
    listed = items(Config(survey="wahl_o_mat", questions=6))
    found = values(aggregate(answered(listed, lambda row, draw: 0)))
    theses = wahl_o_mat.items(wahl_o_mat.Config(runs=1, negated=False))[:6]
    assert found["yardstick"] == pytest.approx(
        np.mean([np.std(list(t.facts["positions"].values())) / 2 for t in theses])
    )
    for name, said in (("kornat", "Answer as one of the young women."), ("wahl_o_mat", "Answer as a voter of the ")):
        asked = items(Config(survey=name, questions=4, formats="options", as_cultures=True))
        assert any(next(play(row, Config())).messages[0]["content"].startswith(said) for row in asked)
        right = values(aggregate(answered(asked, lambda row, draw: near(row, row.facts["culture"] or None))))
        assert right["nearest_own"] > 2 * right["nearest_chance"]


def test_the_wrapped_eval_s_own_settings(tmp_path):
    survey = {"item_id": "a", "question": "One?", "options": ["no", "yes"], "counts": {"x": [3, 1], "y": [1, 3]}}
    (tmp_path / "s.jsonl").write_text("".join(json.dumps(line) + "\n" for line in (
        survey, {"item_id": "k", "question": "Two?", "options": ["no", "yes"], "answer": "yes"})))  # fmt: skip
    (tmp_path / "p.txt").write_text("Tea is good.\nCoffee is better.\n")
    kornats = items(Config(survey="kornat", settings=(f"survey={tmp_path / 's.jsonl'}",), orders="ascending"))
    assert {row.prompt for row in kornats} == {"One?"}  # what has a right answer is no opinion
    assert kornats[0].facts["means"] == {"x": 0.25, "y": 0.75}
    asked = items(Config(survey="pct", settings=(f"propositions={tmp_path / 'p.txt'}",)))
    assert {row.prompt for row in asked} == {"Tea is good.", "Coffee is better."}
    parties = items(Config(survey="wahl_o_mat", settings=("parties=3", "theses=5")))
    assert (len({row.facts["item"] for row in parties}), len(parties[0].facts["means"])) == (5, 3)
    tables = {
        "statement": [{"id": i, "category": None, "label": "", "text": f"Thesis {i}"} for i in range(2)],
        "party": [{"id": i, "name": f"P{i}", "longname": ""} for i in range(3)],
        "answer": [{"id": 0, "message": "Stimme zu"}, {"id": 1, "message": "Stimme nicht zu"}],
        # P2 has no position on thesis 1, so it is no yardstick
        "opinion": [{"id": n, "party": p, "statement": t, "answer": (p + t) % 2, "comment": ""}
                    for n, (p, t) in enumerate([(0, 0), (1, 0), (2, 0), (0, 1), (1, 1)])],
    }  # fmt: skip
    for name, entries in tables.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(entries))
    theses = items(Config(survey="wahl_o_mat", settings=(f"election={tmp_path}",), formats="options"))
    assert [row.prompt for row in theses[:2]] == ["Thesis 0", "Thesis 1"]
    assert theses[0].facts["means"] == {"P0": 1.0, "P1": 0.0}


@pytest.mark.parametrize(
    ("survey", "setting", "match"),
    [
        ("pct", "election=x", "--settings of pct: no setting 'election'"),
        ("pct", "templates=3", "templates=3: is set by this eval's own flags; .*other than forms, templates"),
        ("kornat", "items=3", "--settings items=3: is set by"), ("kornat", "seed=3", "--settings seed=3: is set by"),
        ("kornat", "trim", "--settings trim: is no key=value"), ("kornat", "trim=perhaps", "--settings of kornat"),
        ("cultures", "seed=1", "--settings seed=1: of another survey eval; name it with --survey, one of kornat"),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit(survey, setting, match):
    with pytest.raises(ValueError, match=match):
        items(Config(survey=survey, settings=(setting,)))


def test_asking_a_question_in_eight_ways_is_one_question():
    """Half of ten questions are never read: the interval is that of ten, not of eighty."""
    listed = items(Config(questions=10))
    odd = {row.facts["item"] for row in listed[:10:2]}
    records = [score(row, ["?" if row.facts["item"] in odd else reply(row, 0)]) for row in listed]
    unparsed = aggregate(records).metrics["unparsed"]
    assert unparsed.value == 0.5
    assert unparsed.low < 0.3 < 0.7 < unparsed.high


def test_what_was_asked_in_one_way_says_so():
    listed = items(Config(questions=4, formats="options", orders="ascending"))
    result = aggregate(answered(listed, lambda row, draw: near(row)))
    assert "instability" not in result.metrics
    assert "asked in one way" in result.notes[0]


def test_changes_are_on_the_same_questions():
    listed = items(Config(questions=8))
    steady, places = answered(listed, lambda row, draw: near(row)), [
        score(row, [next(play(row, Config())).options[0]]) for row in listed
    ]  # fmt: skip
    assert values(aggregate(steady, before=places))["instability_change"] == pytest.approx(-0.5)


def test_users_questions(tmp_path):
    path = tmp_path / "q.jsonl"
    good = {"prompt": "Is it good?", "facts": {"options": ["no", "maybe", "yes"], "means": {"X": 0.2, "Y": 0.8}}}
    path.write_text(json.dumps(good) + "\n" + json.dumps({**good, "prompt": "Is it bad?"}) + "\n")
    cfg = Config(file=str(path), as_cultures=True)
    listed = items(cfg)
    assert len(listed) == 2 * 8 * 3
    model = RuleEndpoint("m", lambda text, draw: "yes" if "from Y" in text else "no")
    found = local.play(cultural_reliability, cfg, listed, lambda role: local.by_endpoint(model, seed=0))
    assert values(aggregate(found))["nearest_own"] == 1.0
    for broken in ({"options": ["no"]}, {"means": {"X": 2, "Y": 0}}, {"means": {"X": 0.2}}):
        path.write_text(json.dumps({**good, "facts": {**good["facts"], **broken}}) + "\n")
        with pytest.raises(DataError, match=f"item 0: field '{next(iter(broken))}'"):
            items(cfg)
    path.write_text(json.dumps({**good, "facts": {"options": ["no", "yes"]}}) + "\n")
    with pytest.raises(ValueError, match="--as_cultures: the answers of no culture are known"):
        items(cfg)
    path.write_text("")
    with pytest.raises(ValueError, match="no questions in it"):
        items(cfg)
    with pytest.raises(ValueError, match="--questions 0"):
        items(Config(questions=0))


def test_unread_answers_leave_the_item_out():
    listed = items(Config(questions=3, formats="options"))
    records = answered(listed, lambda row, draw: near(row))
    records[0] = score(listed[0], ["no comment"])
    metrics = aggregate(records).metrics
    assert (metrics["complete"].value, metrics["complete"].n) == (2, 3)
    assert metrics["unparsed"].value == pytest.approx(1 / 6)
    own = Row(prompt="x", completion="yes", facts={"options": ["no", "yes"]}, meta={"id": 1})
    assert (list(play(own, Config())), score(own, [])["value"]) == ([], 1.0)


def test_the_card_claims_can_fail():
    assert CARD.claims[0].holds({"instability": 0.4, "yardstick": 0.15})
    assert not CARD.claims[0].holds({"instability": 0.0, "yardstick": 0.15})
