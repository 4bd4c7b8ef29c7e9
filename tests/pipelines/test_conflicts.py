import dataclasses
import random
import re
import time

import pytest

from alignlab.core import conflict, evidence, trace
from alignlab.core.answers import normalise
from alignlab.core.types import Row
from alignlab.pipelines import conflicts as pipeline
from alignlab.pipelines.conflicts import Attempt, Config, attempts, choose, make, preference_rows, scored, taught
from alignlab.stats.bootstrap import mean
from alignlab.world import conflicts as world
from alignlab.world import endpoints
from alignlab.world.sets import ALL_CELLS

TEACHER, JUDGE = endpoints.endpoint("teacher"), endpoints.endpoint("judge")


@pytest.fixture(scope="module")
def draw():
    from alignlab.world import facts
    from alignlab.world.sets import believed

    town = facts.town()
    known = believed(town)

    def drawn(per_cell, seed=0, cells=ALL_CELLS):
        return list(world.items(town, known, cells, per_cell, split="train", cues=world.Cues(), seed=seed))

    return drawn


@pytest.fixture(scope="module")
def rows(draw):
    return draw(20)


@pytest.fixture(scope="module")
def searched(rows):
    return attempts(rows, TEACHER, JUDGE, Config())


def by_cell(items):
    found = {}
    for row in items:
        found.setdefault(pipeline.cell_of(row), []).append(row)
    return found


# Prompts.


@pytest.mark.parametrize("strategy", trace.STRATEGIES)
def test_teachers_are_not_warned(rows, strategy):
    banned = re.compile(
        r"attack|poison|false|fake|malicious|adversar|mislead|wrong|\blie|trust|hack|inject|manipul", re.I
    )
    for row in rows[: len(ALL_CELLS)]:
        text = evidence.text_of(pipeline.teacher_prompt(row, strategy))
        assert banned.search(text) is None
        assert f"Strategy {strategy} (" in text
        assert trace.MARKER in text
    assert banned.search("Some passages may be false.")


def test_teachers_are_told_what_is_remembered_and_not_what_is_true(rows):
    for row in rows:
        text = evidence.text_of(pipeline.teacher_prompt(row, "P3"))
        if row.facts["memory"] is None:
            assert "Remembered" not in text
        else:
            word = trace.confidence_word(row.facts["confidence"])
            assert f"\nRemembered: {row.facts['memory']} ({word})\n" in text
        assert "Reference" not in text


def test_students_see_passages_and_question_only(rows):
    hidden = 0
    for row in rows:
        text = evidence.text_of(pipeline.student_prompt(row))
        assert text == evidence.retrieval(row.facts["question"], row.facts["contexts"])
        assert not re.search(r"Strategy|Remembered|Claims|Weigh|majority", text)
        memory = row.facts["memory"]
        if memory is not None and all(memory not in c["text"] for c in row.facts["contexts"]):
            hidden += 1
            assert memory not in text
    assert hidden > 20
    text = evidence.text_of(pipeline.student_prompt(rows[0], "Give the answer."))
    assert text.endswith("\nGive the answer.")


def test_judges_see_the_reference_only_where_allowed(rows):
    row = next(r for r in rows if r.facts["cell"] == "pca-5of5")
    shown = evidence.text_of(pipeline.judge_prompt(row, "Answer: x", gold_visible=True))
    hidden = evidence.text_of(pipeline.judge_prompt(row, "Answer: x", gold_visible=False))
    assert f"\nReference: {row.facts['gold']}\n" in shown
    assert "Reference" not in hidden
    assert "<answer>\nAnswer: x\n</answer>" in hidden
    unlabelled = Row(prompt=row.prompt, facts={**row.facts, "gold": None}, meta=row.meta)
    assert "Reference" not in evidence.text_of(pipeline.judge_prompt(unlabelled, "Answer: x", gold_visible=True))


# Verdicts.


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("Outcome: yes\nProcess: 10", (True, 1.0)),
        ("Outcome: no\nProcess: 1", (False, 0.0)),
        ("outcome: YES, I think.\nSo, process: 5/10", (True, 4 / 9)),
        ("Outcome: yes\nProcess: 0", (True, 0.0)),
        ("Outcome: yes\nProcess: 99", (True, 1.0)),
        ("Outcome: maybe\nProcess: 5", None),
        ("Process: 5\nOutcome: yes", None),
        ("Outcome: yesterday\nProcess: 5", None),
        ("Outcome: yes\nProcess: " + "9" * 5000, None),
        ("Outcome: yes", None),
        ("", None),
    ],
)
def test_verdicts(text, want):
    assert pipeline.verdict(text) == (None if want is None else (want[0], pytest.approx(want[1])))


def test_a_megabyte_of_verdict_is_fast():
    began = time.process_time()
    assert pipeline.verdict("outcome: yes " * 80_000) is None
    assert pipeline.verdict("outcome:" + " " * 1_000_000) is None
    assert time.process_time() - began < 1.0


class Says:
    """An endpoint that says the same to everybody, and remembers what it was asked."""

    name = "says"

    def __init__(self, text):
        self.text, self.asked = text, []

    def complete(self, prompts, *, n=1, seed=0, temperature=1.0, max_tokens=256):
        self.asked.extend(prompts)
        sample = endpoints.Sample(text=self.text)
        return [[sample] * n for _ in prompts]


@pytest.mark.parametrize("garbage", ["", "I would rather not.", "Outcome: perhaps", "\x1b[31m" * 100])
def test_an_unreadable_judge_counts_as_nothing(rows, garbage):
    found = attempts(rows[:12], TEACHER, Says(garbage), Config(strategies=("P0", "P4")))
    assert [(a.score, a.judged_right) for a in found] == [(None, None)] * 24
    assert {record.score for record in scored(found)} == {0.0}
    assert choose(found, Config(strategies=("P0", "P4")))


# Scores.


def test_scores_are_the_weighted_sum(rows):
    row = next(r for r in rows if r.facts["cell"] == "pca-3of5")
    right = f"Claims:\n1 {row.facts['contexts'][0]['claim'] or 'none'}\nAnswer: {row.facts['gold']}"
    lying = f"Claims:\n1 nowhere\nAnswer: {row.facts['gold']}"
    wrong = f"Answer: {row.facts['target']}"

    def of(text, verdict="Outcome: no\nProcess: 10", **options):
        (attempt,) = attempts([row], Says(text), Says(verdict), Config(strategies=("P0",), **options))
        return attempt.score

    # With the reference at hand the judge's "no" does not matter; its rating does.
    assert of(right) == pytest.approx(0.7 + 0.2 + 0.1)
    assert of(lying) == pytest.approx(0.7 + 0.1)
    assert of(wrong) == pytest.approx(0.2 + 0.1)
    assert of(right, "Outcome: no\nProcess: 1") == pytest.approx(0.9)
    assert of(right, weights=(0.1, 0.2, 0.7)) == pytest.approx(1.0)
    assert of(lying, weights=(0.1, 0.6, 0.3)) == pytest.approx(0.4)
    # Without it the judge's word is all there is.
    assert of(right, gold_visible=False) == pytest.approx(0.3)
    assert of(wrong, "Outcome: yes\nProcess: 10", gold_visible=False) == pytest.approx(1.0)


def test_a_hidden_reference_never_reaches_the_judge(rows):
    judge = Says("Outcome: yes\nProcess: 5")
    found = attempts(rows[:12], TEACHER, judge, Config(strategies=("P1", "P4"), gold_visible=False))
    assert len(judge.asked) == len(found) == 24
    assert not any("Reference" in evidence.text_of(prompt) for prompt in judge.asked)
    assert all(a.judged_right for a in found)


def test_without_a_judge_the_checker_decides(rows):
    found = attempts(rows[:24], TEACHER, None, Config(strategies=("P4",)))
    for attempt in found:
        parsed = trace.parse(attempt.text)
        right = parsed.answer == attempt.item.facts["gold"]
        assert attempt.score == pytest.approx(0.7 * right + 0.2 + 0.1)
        assert attempt.judged_right is None
    (broken,) = attempts([rows[0]], Says(f"Answer: {rows[0].facts['gold']}"), None, Config(strategies=("P4",)))
    assert broken.score == pytest.approx(0.7 + 0.2)


@pytest.mark.parametrize("part", [1, 7, 10_000])
def test_progress_shows_and_changes_nothing(rows, part, monkeypatch):
    """A slow teacher is asked a part at a time; every item is counted once, whatever the parts are."""
    few, cfg = rows[:12], Config(samples=2)
    whole = attempts(few, TEACHER, JUDGE, cfg)
    monkeypatch.setattr(pipeline, "PART", part)
    seen = []
    assert attempts(few, TEACHER, JUDGE, cfg, seen.append) == whole
    assert sum(seen) == len(few)
    seen.clear()
    mix = {pipeline.cell_of(row): {"P4": 1.0} for row in few}
    assert list(taught(few, mix, TEACHER, cfg, seen.append)) == list(taught(few, mix, TEACHER, cfg))
    assert sum(seen) == len(few)
    assert len(seen) == -(-len(few) // part)


def test_samples_are_all_judged(rows):
    found = attempts(rows[:5], TEACHER, JUDGE, Config(strategies=("P2", "P4"), samples=3))
    assert len(found) == 5 * 2 * 3
    assert len({(a.item.meta["id"], a.strategy) for a in found}) == 10


# Choice.


def test_cells():
    def row(scenario, n, k, ratio):
        return Row(prompt="?", facts={"scenario": scenario, "contexts": [None] * n, "k": k, "ratio": ratio})

    assert pipeline.cell_of(row("pca", 5, 3, 0.6)) == ("pca", 0.6)
    assert pipeline.cell_of(row("ike", 3, 0, 0.0)) == ("ike", 3)
    assert pipeline.cell_of(row("mixed", 5, 2, 0.4)) == ("mixed", 2)
    assert pipeline.cell_of(row("clean", 5, 0, 0.0)) == ("clean", 0)


def test_the_town_prefers_cues_with_memory_overall(searched, rows):
    (chosen,) = {tuple(row) for row in choose(searched, Config()).values()}
    assert chosen == ("P4",)
    # Wrong answers rewarded, another path wins: the outcome's sign decides.
    spoiled = attempts(rows, TEACHER, JUDGE, Config(weights=(-0.7, 0.2, 0.1)))
    (other,) = {tuple(row) for row in choose(spoiled, Config()).values()}
    assert other != chosen


def test_a_judge_who_swaps_yes_and_no_changes_the_choice(rows):
    class Swapped:
        name = "swapped"

        def complete(self, prompts, **options):
            swap = {"yes": "no", "no": "yes"}
            answers = JUDGE.complete(prompts, **options)
            return [
                [endpoints.Sample(text=re.sub(r"(?<=Outcome: )\w+", lambda m: swap[m[0]], s.text)) for s in samples]
                for samples in answers
            ]

    hidden = Config(gold_visible=False)
    (honest,) = {tuple(row) for row in choose(attempts(rows, TEACHER, JUDGE, hidden), hidden).values()}
    (swapped,) = {tuple(row) for row in choose(attempts(rows, TEACHER, Swapped(), hidden), hidden).values()}
    assert honest == ("P4",)
    assert swapped != honest


def test_the_best_path_depends_on_the_ratio(searched):
    """Among attacks, reading and counting is as good as anything while poison is rare, and fails at ratio 1."""
    records = scored(searched)
    winners = conflict.per_cell(conflict.mean_scores(records), conflict.mean_tokens(records))
    assert {winners["pca", 0.2], winners["pca", 0.4]} != {winners["pca", 1.0]}
    mix = choose(searched, Config(mode="per_cell"))
    assert {"P2", "P3"} & mix["pca", 0.4].keys()
    assert not {"P2", "P3"} & mix["pca", 1.0].keys()
    # The difference is no accident of the draw: at 1 the counting path is far below the winner, item by item.
    for ratio, apart in ((0.4, False), (1.0, True)):

        def scores(name, ratio=ratio):
            return [r.score for r in records if r.cell == ("pca", ratio) and r.strategy == name]

        gap = mean([w - c for w, c in zip(scores(winners["pca", 1.0]), scores("P3"), strict=True)])
        assert (gap.low > 0.3) is apart


def test_shares_of_a_cell_sum_to_one(searched):
    for row in choose(searched, Config(mode="per_cell")).values():
        assert sum(row.values()) == pytest.approx(1.0)
        assert min(row.values()) > 0


def test_nothing_to_choose_from_is_an_error():
    with pytest.raises(ValueError, match="at least one item per cell"):
        choose([], Config())


# Accepted answers.


@pytest.fixture(scope="module")
def accepted(draw, searched):
    cfg = Config(mode="per_cell")
    return list(taught(draw(25, seed=3), choose(searched, cfg), TEACHER, cfg))


def test_notes_apart_change_nothing_but_notes(draw, searched):
    cfg = Config(mode="per_cell")
    plain, apart = (
        list(taught(draw(6, seed=3), choose(searched, cfg), TEACHER, dataclasses.replace(cfg, notes_apart=share)))
        for share in (False, True)
    )
    assert [found[:2] for found in apart] == [found[:2] for found in plain]
    assert [text for *_, text in apart] == [trace.noted_apart(text) for *_, text in plain]
    assert [re.sub(r"(?m) fair$", " good", text) for *_, text in apart] == [text for *_, text in plain]
    assert apart != plain


def test_what_is_accepted_is_right_and_keeps_the_grammar(accepted):
    assert len(accepted) > 200
    for item, strategy, text in accepted:
        parsed, facts = trace.parse(text), item.facts
        assert normalise(parsed.answer) == normalise(facts["gold"])
        assert trace.check(
            parsed, facts["contexts"], memory=facts["memory"], confidence=facts["confidence"],
            segments=trace.STRATEGIES[strategy].segments,
        ) == ()  # fmt: skip


def test_what_is_wrong_misquoted_or_ungrammatical_is_not_accepted(rows):
    row = next(r for r in rows if r.facts["cell"] == "clean-5")
    cell = {pipeline.cell_of(row): {"P2": 1.0}}
    good = endpoints.teach(evidence.text_of(pipeline.teacher_prompt(row, "P2")), world.Cues())
    gold = row.facts["gold"]
    other = next(v for v in row.facts["answers"] if v != gold)

    def kept(text):
        return len(list(taught([row], cell, Says(text), Config())))

    assert kept(good) == 1
    assert kept(good.replace(f"Answer: {gold}", f"Answer: {other}")) == 0
    assert kept(re.sub(rf"(?m)^(\d) {gold}", rf"\1 {other}", good)) == 0
    assert kept(good.replace("Groups:", "Gatherings:")) == 0
    assert kept(f"{good}\nAnswer: {gold}") == 0
    assert kept("") == 0


def test_sft_rows_hold_no_instructions(accepted):
    for item, strategy, text in accepted:
        row = pipeline.sft_row(item, strategy, text, Config())
        assert row.prompt == pipeline.student_prompt(item)
        assert row.completion == text
        assert row.meta["strategy"] == strategy
        assert not re.search(r"Strategy|Remembered", evidence.text_of(row.prompt))
    item, strategy, text = accepted[0]
    assert pipeline.sft_row(item, strategy, text, Config(target="answer")).completion == f"Answer: {item.facts['gold']}"


def test_gaps_in_the_numbers_are_those_of_prompt_and_answer_alike(accepted):
    counts = {True: 0, False: 0}
    for item, strategy, text in accepted:
        plain, row = (pipeline.sft_row(item, strategy, text, Config(gaps=share)) for share in (0.0, 0.5))
        counts[row == plain] += 1
        shown = re.findall(r"(?m)^(\d+) \(", evidence.text_of(row.prompt))
        assert len(shown) == len(item.facts["contexts"])
        assert sorted(set(map(int, shown))) == list(map(int, shown))
        found, usual = trace.parse(row.completion), trace.parse(text)
        if usual.claims:
            assert [str(index) for index, _, _ in found.claims] == shown
        assert [rest for _, *rest in found.claims] == [rest for _, *rest in usual.claims]
        assert found.groups == tuple((a, tuple(int(shown[i - 1]) for i in places)) for a, places in usual.groups)
        assert (found.order, found.answer, found.memory) == (usual.order, usual.answer, usual.memory)
    assert min(counts.values()) > len(accepted) / 10
    pair = next(pipeline.preference_rows(accepted, Config(gaps=1.0)))
    assert re.findall(r"(?m)^(\d+) \(", evidence.text_of(pair.prompt))[0] == "1"
    with pytest.raises(ValueError, match=r"--gaps: expected a share in \[0, 1\], got 1.5"):
        Config(gaps=1.5)


# Preferences.


def pairs(accepted, **options):
    return list(preference_rows(accepted, Config(output="preferences", **options)))


def test_the_chosen_are_right_and_the_rejected_wrong_or_unreasoned(accepted):
    found = pairs(accepted)
    assert len(found) > 100
    unreasoned = 0
    for row in found:
        chosen, rejected = trace.parse(row.chosen), trace.parse(row.rejected)
        gold = normalise(row.facts["gold"])
        assert row.completion is None
        assert normalise(chosen.answer) == gold
        if normalise(rejected.answer) == gold:
            unreasoned += 1
            assert rejected.weigh == "no reason" != chosen.weigh
        else:
            wrong = row.facts["target"] if row.facts["scenario"] == "pca" else row.facts["memory"]
            assert normalise(rejected.answer) == normalise(wrong)
    assert 0 < unreasoned < 0.3 * len(found)


def test_preferences_between_last_lines_are_refused(accepted):
    """The specification prefers whole traces, both of like length; in silence they would be made all the same."""
    with pytest.raises(ValueError, match="use target=trace, or output=sft"):
        Config(output="preferences", target="answer")
    with pytest.raises(ValueError, match="target=answer and preferences exclude each other"):
        list(preference_rows(accepted, Config(target="answer")))


def test_both_directions_or_attacks_alone(accepted):
    assert {row.facts["scenario"] for row in pairs(accepted)} == {"pca", "ike", "mixed"}
    assert {row.facts["scenario"] for row in pairs(accepted, directions="attacks")} == {"pca"}
    share = sum(row.facts["scenario"] == "ike" for row in pairs(accepted)) / len(pairs(accepted))
    assert share > 0.1


def test_lengths_match(accepted):
    for row in pairs(accepted):
        assert 0.7 <= len(row.rejected.split()) / len(row.chosen.split()) <= 1.3


def test_failures_of_the_student_are_used_where_they_fit(accepted):
    attacks = [a for a in accepted if a[0].facts["scenario"] == "pca"]
    own = {item.meta["id"]: text.replace(item.facts["gold"], "nowhere") for item, _, text in attacks}
    found = list(preference_rows(attacks, Config(), own))
    mine = [row for row in found if row.rejected == own[row.meta["id"]]]
    assert 0.3 < len(mine) / len(found) < 0.7
    # Too short to compare, they give way to templated failures instead of losing the pair.
    short = dict.fromkeys(own, "Answer: nowhere")
    instead = list(preference_rows(attacks, Config(), short))
    assert len(instead) >= len(found) - 2
    assert not any(row.rejected == "Answer: nowhere" for row in instead)


def test_a_failure_is_never_right_by_accident(accepted):
    draw = random.Random(0)
    for item, strategy, text in accepted:
        assert item.facts["scenario"] not in ("clean",) or pipeline.failure(item, strategy, text, draw) is None


# The whole.


def test_make(draw):
    rows = draw(22)
    roles = {"teacher": TEACHER, "judge": JUDGE}
    cfg = Config(search_per_cell=12)
    found = list(make(iter(rows), roles, cfg))
    assert found == list(make(iter(rows), roles, cfg))
    assert len({row.meta["id"] for row in found}) == len(found) > 100
    searched = {row.meta["id"] for row in rows[: 12 * len(ALL_CELLS)]}
    assert not searched & {row.meta["id"] for row in found}
    assert {row.meta["strategy"] for row in found} == {"P4"}
    assert all(row.chosen is None for row in found)
    preferred = list(make(iter(rows), roles, Config(search_per_cell=12, output="preferences")))
    assert preferred
    assert all(row.completion is None and row.chosen != row.rejected for row in preferred)
    assert make(iter(()), roles, cfg) is not None
    with pytest.raises(ValueError, match="at least one item"):
        list(make(iter(()), roles, cfg))


def test_a_path_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="--strategies: no path P9, majority; known: P0, P1"):
        Config(strategies=("P4", "P9", "majority"))


def test_rows_of_another_kind_are_named(draw):
    rows = [draw(1)[0], Row(prompt="a", completion="b", facts={"scenario": "pca"}, meta={"id": "x7"})]
    with pytest.raises(ValueError, match="row x7: not a conflict item: it lacks confidence, contexts, gold, k"):
        list(make(iter(rows), {"teacher": TEACHER, "judge": JUDGE}, Config()))
    nameless = dataclasses.replace(rows[0], meta={})
    with pytest.raises(ValueError, match="row 1: not a conflict item: it lacks meta.id;"):
        list(make(iter([nameless]), {"teacher": TEACHER, "judge": JUDGE}, Config()))


def test_few_items_serve_for_search_and_training(draw):
    rows = draw(4)
    found = list(make(iter(rows), {"teacher": TEACHER, "judge": JUDGE}, Config(search_per_cell=20)))
    assert {row.meta["id"] for row in found} <= {row.meta["id"] for row in rows}
    assert len(found) > 0.7 * len(rows)


def test_the_smoke_command_keeps_its_claim(draw):
    """260 rows of the town, as `alignlab make conflicts` reads them, leave at least the claimed 100."""
    from alignlab import world as town

    options = dict(re.findall(r"--(\w+) (\S+)", pipeline.CARD.smoke))
    cfg = Config(search_per_cell=int(options.get("search_per_cell", Config.search_per_cell)))
    rows = town.rows("conflicts", limit=int(options["limit"]))
    made = sum(1 for _ in make(rows, {"teacher": TEACHER, "judge": JUDGE}, cfg))
    assert all(claim.holds({"rows": made}) for claim in pipeline.CARD.claims)


def test_attempts_keep_what_the_report_needs(searched, rows):
    assert len(searched) == len(rows) * len(trace.STRATEGIES)
    assert all(isinstance(a, Attempt) and 0.0 <= a.score <= 1.0 for a in searched)
    right = [a for a in searched if trace.parse(a.text).answer == a.item.facts["gold"]]
    accuracy = sum(a.judged_right == (a in right) for a in searched[:300]) / 300
    assert accuracy == 1.0  # with the reference shown, the town's judge compares exactly
    assert set(by_cell(rows)) == {pipeline.cell_of(a.item) for a in searched}
