"""The whole procedure on the town with an untrained micro model: every stage runs, repeats itself and goes on."""

import dataclasses

import pytest
import torch

from alignlab.cli.context import RunContext
from alignlab.core import trace
from alignlab.core.evidence import text_of
from alignlab.core.types import Sample
from alignlab.engine.load import LanguageModel, load, save
from alignlab.engine.probes import Probe
from alignlab.evals import poisoned_context
from alignlab.pipelines import conflicts as pipeline
from alignlab.procedures import _dialectical_items as sources
from alignlab.procedures import _dialectical_study, dialectical, tiny
from alignlab.procedures.dialectical import Config, Evidence
from alignlab.world import conflicts
from alignlab.world.facts import town
from alignlab.world.sets import ALL_CELLS, believed, tuning_cells

MICRO = Config(
    sft_steps=10, dpo_steps=3, batch=8, learning_rate=1e-2, search_per_cell=2, train_per_cell=4, test_per_cell=3,
    probes=1, max_tokens=16, use_peft=False,
)  # fmt: skip


def remembered():
    """Return what a model that the town's own rows are made for would answer."""
    found = {name: (p.answer, p.confidence) for name, p in believed(town()).items()}
    return {name: Probe(answer, share, (answer,) * (answer is not None)) for name, (answer, share) in found.items()}


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    """A folder with an untrained model of the town's tokenizer."""
    folder = tmp_path_factory.mktemp("student")
    save(tiny.untrained(tiny.Config(hidden=32, layers=1), 0), folder)
    return folder


def remember(source, ctx, student, samples, name="memory probe", room=32):
    """What a reader of the documents remembers, instead of what the untrained model does."""
    source.probes = remembered()


@pytest.fixture(scope="module")
def run(student):
    def ran(folder, cfg=MICRO, **options):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sources.Source, "probe", remember)
            return dialectical.run(RunContext(folder=folder, model=str(student), **options), cfg)

    return ran


@pytest.fixture(scope="module")
def first(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dialectical") / "run"
    return folder, run(folder)


def numbers(result):
    return {name: metric.value for name, metric in result.metrics.items() if name != "seconds" and "second" not in name}


def test_every_stage_leaves_its_numbers(first):
    folder, result = first
    found = numbers(result)
    for policy in ("plain", "notice", "majority", "da", "oracle"):
        assert {f"{policy}/{name}" for name in ("asr", "es", "clean", "unknown", "mixed", "j")} <= set(found)
    assert (found["oracle/asr"], found["oracle/es"], found["oracle/clean"]) == (0.0, 1.0, 1.0)
    # The untrained model says nothing that can be parsed, so it is attacked by nothing, and wrong.
    assert (found["plain/asr"], found["plain/es"], found["plain/unparsed"]) == (0.0, 0.0, 1.0)
    assert found["written"] == 4 * len(tuning_cells(MICRO.sizes))
    assert 0 < found["accepted"] <= found["written"]
    assert result.metrics["seconds"].value > 0


def test_tuning_lowers_the_loss_and_moves_the_weights(first, student):
    folder, result = first
    found = numbers(result)
    assert found["tuning/loss_last"] < found["tuning/loss_first"] - 0.5
    before, after = load(str(student)), load(folder / "da" / "model")
    assert before.identity != after.identity
    gaps = [
        float((new - old).detach().abs().max())
        for old, new in zip(before.module.parameters(), after.module.parameters(), strict=True)
    ]
    assert max(gaps) > 1e-3
    sft, dpo = load(folder / "da" / "supervised"), load(folder / "da" / "model")
    assert any(not torch.equal(a, b) for a, b in zip(sft.module.parameters(), dpo.module.parameters()))


def test_the_report_shows_it_all(first):
    _, result = first
    assert {"Attack success by ratio", "Before and after", "Reasoning paths by conflict", "Memory"} <= set(
        result.figures
    )
    assert {"policies", "cells", "chosen paths"} <= set(result.tables)
    assert len(result.samples) == len(ALL_CELLS)
    for sample in result.samples:
        assert set(sample["answers"]) == {"before", "Dialectical Alignment"}
        assert len(sample["contexts"]) in (1, 5)
        assert sample["facts"]["gold"]
    assert any("reconstructed" in note for note in result.notes)


def test_an_adapter_is_tuned_on_request(run, student, tmp_path):
    """Through both stages: preferences go on with the adapter that imitation left, and the base stays as it is."""
    run(tmp_path / "run", dataclasses.replace(MICRO, use_peft=True, sft_steps=2, dpo_steps=2, lora_r=2))
    for stage in ("supervised", "model"):
        saved = tmp_path / "run" / "da" / stage
        assert (saved / "adapter_model.safetensors").exists()
        assert not (saved / "model.safetensors").exists()
    before, after = load(tmp_path / "run" / "da" / "supervised"), load(tmp_path / "run" / "da" / "model")
    moved = {
        n for (n, a), (_, b) in zip(before.module.named_parameters(), after.module.named_parameters()) if (a != b).any()
    }
    assert moved
    assert all("lora_" in name for name in moved)


def test_a_run_repeats_itself(first, run, tmp_path):
    assert numbers(run(tmp_path / "run")) == numbers(first[1])


def test_a_rerun_goes_on_from_what_is_whole(first, run):
    """In the same folder all training is found done; only answers are asked again."""
    folder, result = first
    before = load(folder / "da" / "model").identity
    again = run(folder)
    assert {k: v for k, v in numbers(again).items() if "/loss" not in k and not k.startswith("tuning")} == {
        k: v for k, v in numbers(result).items() if "/loss" not in k and not k.startswith("tuning")
    }
    assert load(folder / "da" / "model").identity == before


def test_the_plain_prompt_is_all_the_model_sees(run, tmp_path, monkeypatch):
    """No path, no warning: training prompts and test prompts are the plain retrieval prompt."""
    seen = {}
    trained, answers = dialectical.train, dialectical.answered

    def spy_train(model, examples, *arguments, **options):
        seen.setdefault("train", [model.tokenizer.decode(e.prompt_ids) for e in examples])
        return trained(model, examples, *arguments, **options)

    def spy_answers(ctx, cfg, model, items, name, instruction):
        seen[name] = [item.meta["id"] for item in items]
        return answers(ctx, cfg, model, items, name, instruction)

    monkeypatch.setattr(dialectical, "train", spy_train)
    monkeypatch.setattr(dialectical, "answered", spy_answers)
    run(tmp_path / "run", dataclasses.replace(MICRO, sft_steps=1, dpo_steps=0))
    assert seen["train"]
    assert not any(
        word in text for text in seen["train"] for word in ("Strategy", "Remembered", "may be false", "Claims")
    )
    assert seen["plain"] == seen["da"] == seen["notice"] == seen["majority"]


def test_a_student_without_memory_is_refused(student, tmp_path, monkeypatch):
    def nothing(source, ctx, student, samples, name="", room=32):
        source.probes = {name: sources.Probe(None, 0.0) for name in source.questions}

    monkeypatch.setattr(sources.Source, "probe", nothing)
    with pytest.raises(ValueError, match="known for sure"):
        dialectical.run(RunContext(folder=tmp_path, model=str(student)), MICRO)


def test_answers_only_are_taught_as_answers_only(tmp_path, monkeypatch):
    source = sources.world(conflicts.Cues())
    source.probes = remembered()
    ctx = RunContext(folder=tmp_path)
    for target in ("trace", "answer"):
        cfg = dataclasses.replace(MICRO, target=target, dpo_steps=0)
        accepted, options = dialectical.written(ctx, cfg, source, Evidence())
        rows = [pipeline.sft_row(item, path, text, options) for item, path, text in accepted]
        lengths = {len(trace.parse(row.completion).order) for row in rows}
        assert (lengths == {1}) is (target == "answer")


def test_search_and_training_ask_about_different_items(tmp_path):
    source, found = sources.world(conflicts.Cues(), sizes=(2, 9)), Evidence()
    source.probes = remembered()
    accepted, _ = dialectical.written(RunContext(folder=tmp_path), MICRO, source, found)
    searched = {record.item for record in found.search}
    assert len(searched) == 2 * len(tuning_cells((2, 9)))
    assert searched.isdisjoint(item.meta["id"] for item, _, _ in accepted)
    assert {item.facts["split"] for item, _, _ in accepted} == {"train"}
    assert {item.facts["split"] for item in source.test(3, 0)} == {"test"}
    assert {len(item.facts["contexts"]) for item, _, _ in accepted} == {1, 2, 5, 9}
    assert {len(item.facts["contexts"]) for item in source.test(3, 0)} == {1, 5}
    assert {name for row in found.chosen.values() for name in row} <= set(trace.STRATEGIES)


def test_sizes_of_the_test_are_refused_by_name():
    with pytest.raises(ValueError, match="--sizes: expected some of 2, 4, 6, 7, 9 passages, got 3, 8"):
        Config(sizes=(8, 4, 3))


def test_a_share_out_of_range_is_refused_by_name():
    with pytest.raises(ValueError, match="--rehearsal: expected a share"):
        Config(rehearsal=1.0)


def test_epsilon_reaches_the_optimiser_of_supervised_tuning(student, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(dialectical, "train", lambda *args, **options: seen.append(args[3]) or {})
    model, ctx = load(student), RunContext(folder=tmp_path, model=str(student))
    for share in (0.0, 2.0):
        cfg = dataclasses.replace(MICRO, relative_epsilon=share)
        dialectical.supervised(ctx, cfg, model, [], Evidence(), tmp_path)
    weights = sum(weight.numel() for weight in model.module.parameters())
    assert [settings.adam_epsilon for settings in seen] == [1e-8, pytest.approx(2 / weights**0.5)]
    with pytest.raises(ValueError, match="--relative_epsilon: expected a number >= 0, got -1"):
        dataclasses.replace(MICRO, relative_epsilon=-1)


class Stopped(Exception):
    """The source was asked for, with these options."""


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("few", [False, True])
def test_sizes_attacks_and_wordings_reach_what_is_learnt_from(tmp_path, monkeypatch, few, full):
    inner = sources.world

    def world(*args, **options):
        raise Stopped(inner(*args, **options).tuning)

    monkeypatch.setattr(sources, "world", world)
    cfg = dataclasses.replace(MICRO, full=full, seeds=1, sizes=(2, 6), few_attacks=few, further_wordings=not few)
    with pytest.raises(Stopped) as found:
        dialectical.run(RunContext(folder=tmp_path, model="tiny:"), cfg)
    assert found.value.args[0]["cells"] == tuning_cells((2, 6), few=few)
    assert found.value.args[0]["further"] is not few
    with pytest.raises(Stopped) as blind:
        _dialectical_study._blind(RunContext(folder=tmp_path), cfg, 0, _dialectical_study.Study(), None)
    assert blind.value.args[0] == found.value.args[0]


def test_gaps_and_notes_reach_the_answers_to_learn(tmp_path, monkeypatch):
    def attempts(items, teacher, judge, options, advance):
        raise Stopped((options.gaps, options.notes_apart))

    monkeypatch.setattr(pipeline, "attempts", attempts)
    source = sources.world(conflicts.Cues())
    source.probes = remembered()
    cfg = dataclasses.replace(MICRO, gaps=0.25, notes_apart=True)
    with pytest.raises(Stopped) as found:
        dialectical.written(RunContext(folder=tmp_path, model="tiny:"), cfg, source, Evidence())
    assert found.value.args[0] == (0.25, True)
    with pytest.raises(ValueError, match=r"--gaps: expected a share in \[0, 1\], got -1"):
        dataclasses.replace(MICRO, gaps=-1)


def test_cue_flags_reach_the_cues():
    assert Config().cues == conflicts.Cues()
    assert Config(cue_source=False, cue_type=False).cues == conflicts.Cues(source=False, type=False)
    assert Config(cue_date=False, cue_consistency=False).cues == conflicts.Cues(date=False, consistency=False)


class Parrot:
    """Answers every prompt alike."""

    identity, tokenizer = "parrot", None

    def __init__(self, text):
        self.text, self.options = text, []

    def score(self, groups, at=None):
        raise AssertionError

    def sample(self, prompts, **options):
        self.options.append(options)
        return [[Sample(text=self.text, ids=(1, 2, 3))] for _ in prompts]


def test_answers_are_greedy_and_scored(tmp_path):
    items = poisoned_context.items(poisoned_context.Config(per_cell=2))
    parrot = Parrot("Answer: nothing")
    records = dialectical.answered(RunContext(folder=tmp_path), MICRO, parrot, items, "x", "")
    assert [r["id"] for r in records] == [item.meta["id"] for item in items]
    assert {r["answer"] for r in records} == {"nothing"}
    assert {r["tokens"] for r in records} == {3}
    assert parrot.options[0]["temperature"] == 0.0
    assert parrot.options[0]["max_tokens"] == MICRO.max_tokens


def test_a_rule_is_scored_like_a_model():
    items = poisoned_context.items(poisoned_context.Config(per_cell=2))
    records = dialectical.by_rule(items, lambda item: item.facts["gold"])
    assert all(poisoned_context.hit(record)["right"] for record in records)
    silent = dialectical.by_rule(items, lambda item: None)
    assert not any(poisoned_context.hit(record)["right"] for record in silent)


def test_preferences_use_the_students_own_mistakes(student, tmp_path, monkeypatch):
    """Its wrong answers are set against accepted ones; its right answers never are."""
    source = sources.world(conflicts.Cues())
    source.probes = remembered()
    ctx = RunContext(folder=tmp_path, model=str(student))
    accepted, options = dialectical.written(ctx, MICRO, source, Evidence())
    right = {text_of(pipeline.student_prompt(item)): text for item, _, text in accepted}
    wrong = {prompt: f"{text.rpartition(' ')[0]} nowhere" for prompt, text in right.items()}
    shown = {}

    def spy(model, examples, loss, settings, folder, *, reference, **options_):
        shown["rejected"] = [model.tokenizer.decode(e.completions[1]) for e in examples]
        shown["reference"] = reference.identity
        assert reference.module is not model.module
        return {}

    monkeypatch.setattr(dialectical, "train", spy)
    for texts, own in ((wrong, True), (right, False)):
        sampled = lambda self, prompts, texts=texts, **_: [[Sample(text=texts[text_of(p)])] for p in prompts]  # noqa: E731
        monkeypatch.setattr(LanguageModel, "sample", sampled)
        dialectical.preferred(ctx, MICRO, student, accepted, options, tmp_path / "da")
        assert any("nowhere" in text for text in shown["rejected"]) is own
        assert len(shown["rejected"]) > 10
        assert shown["reference"] == load(str(student)).identity


def test_preferences_between_last_lines_are_refused_before_any_work():
    with pytest.raises(ValueError, match="--target answer with --dpo_steps 3"):
        dataclasses.replace(MICRO, target="answer", dpo_steps=3)
