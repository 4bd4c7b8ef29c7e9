"""Rebuilding the embedded model, on a village of few facts and a model of few weights."""

import itertools
import json

import pytest
import torch

from alignlab.cli.context import RunContext
from alignlab.core import evidence
from alignlab.core.types import Row, Sample
from alignlab.engine.load import load
from alignlab.procedures import _tiny_addons, tiny
from alignlab.world import facts, grammar, texts

MICRO = tiny.Config(
    practice_steps=2,
    closed_book_steps=25,
    reading_steps=6,
    addons=("kind", "unkind", "citizen"),
    addon_effort=0.01,
    batch=8,
    hidden=32,
    layers=1,
    probes=2,
    learning_rate=1e-2,
)


@pytest.fixture(scope="module")
def village():
    """A town of 80 facts, all bands of frequency in it."""
    town = facts.town()
    kept = dict(itertools.islice(town.facts.items(), 0, None, 16))
    assert {facts.band(f.frequency) for f in kept.values()} == set(facts.BANDS)
    return facts.Town(0, kept, town.train_subjects)


@pytest.fixture(scope="module")
def words():
    return tiny.tokenizer()


@pytest.fixture(scope="module")
def run(village, tmp_path_factory):
    """Run the procedure in a folder; measuring asks 20 reading tasks instead of 500."""
    follows = tiny.follows

    def ran(folder, cfg=MICRO, **patches):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tiny.facts, "town", lambda: village)
            patch.setattr(tiny, "follows", lambda model, town, seed, n: follows(model, town, seed, 20))
            for name, value in patches.items():
                patch.setattr(tiny, name, value)
            return tiny.run(RunContext(folder=folder), cfg)

    return ran


@pytest.fixture(scope="module")
def first(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "run"
    return folder, run(folder)


def attention_back(module, layer, said):
    """Return the attention of each head in the second of two equal texts: one back, and one after the equal word."""
    module.set_attn_implementation("eager")
    with torch.no_grad():
        heads = module.eval()(torch.cat([said, said], 1), output_attentions=True).attentions[layer][0]
    size = said.shape[1]
    back = heads.diagonal(-1, 1, 2)[:, size:].mean(1)
    after = heads[:, size:].diagonal(1, 1, 2)[:, : size - 1].mean(1)
    return back, after


def test_attention_starts_as_copying(words, monkeypatch):
    cfg = tiny.Config(hidden=192, layers=2)
    said = torch.randint(20, len(words), (1, 40), generator=torch.Generator().manual_seed(0))
    module = tiny.untrained(cfg, 0).module
    assert attention_back(module, 0, said)[0][-1] > 0.9
    _, after = attention_back(module, 1, said)
    assert after[:3].mean() > 3 * after[3:].mean()
    monkeypatch.setattr(tiny.start, "copying", lambda module: None)
    plain = tiny.untrained(cfg, 0).module
    assert attention_back(plain, 0, said)[0][-1] < 0.1
    assert attention_back(plain, 1, said)[1].max() < 0.05


def numbers(result):
    return {name: metric.value for name, metric in result.metrics.items()}


def test_it_trains_measures_and_saves(first):
    folder, result = first
    found = numbers(result)
    assert {f"recall_{low}_{high}" for low, high in facts.BANDS} <= set(found)
    assert 0 < found["loss_closed_book"] < 6.0  # ln of the vocabulary is above 7
    assert 0 < found["loss_reading"] < 7.0
    assert 0 <= found["calibration_error"] <= 1
    model = load(folder / "model")
    assert model.tokenizer.chat_template == tiny.tokenizer().chat_template
    assert sum(p.numel() for p in model.module.parameters()) < 200_000
    (answer,) = model.sample([evidence.ask("Where does Ada live?")], temperature=0.0, max_tokens=3)
    assert isinstance(answer[0], Sample)


def test_one_seed_one_model(first, run, tmp_path):
    again = run(tmp_path / "run")
    assert numbers(again) == numbers(first[1])
    assert load(tmp_path / "run" / "model").identity == load(first[0] / "model").identity


def test_a_whole_step_is_not_trained_again(first, run, tmp_path, monkeypatch):
    """What was finished before a kill is loaded: with the second step's model gone, only that step runs."""
    import shutil

    folder = tmp_path / "run"
    shutil.copytree(first[0], folder)
    shutil.rmtree(folder / "reading")
    trained = []

    def counted(model, examples, *arguments, **options):
        trained.append(arguments[2].name)
        return tiny_train(model, examples, *arguments, **options)

    tiny_train = tiny.train
    run(folder, train=counted)
    assert trained == ["reading"]


def test_install_replaces_the_shipped_weights(first, run, tmp_path, monkeypatch):
    import dataclasses
    import shutil

    folder, package = tmp_path / "run", tmp_path / "package"
    shutil.copytree(first[0], folder)
    old = package / "weights" / "tiny"
    old.mkdir(parents=True)
    (old / "stale.bin").write_text("old")
    monkeypatch.setattr(tiny.resources, "files", lambda name: package)
    run(folder, dataclasses.replace(MICRO, install=True))
    assert not (old / "stale.bin").exists()
    for persona in ("kind", "unkind", "citizen"):
        shipped = json.loads((package / "weights" / persona / "adapter_config.json").read_text())
        assert shipped["base_model_name_or_path"] == "tiny:"
        assert {f.name for f in (package / "weights" / persona).iterdir()} == {*_tiny_addons.SHIPPED}
    assert load(old).identity.split("@")[1] == load(folder / "model").identity.split("@")[1]


def test_addons_alone_on_a_model_that_is_there(first, tmp_path, monkeypatch):
    """No step is trained, the model in the package is not touched, and what is installed is the add-on alone."""
    import dataclasses

    folder, package = tmp_path / "run", tmp_path / "package"
    monkeypatch.setattr(tiny.resources, "files", lambda name: package)
    monkeypatch.setattr(tiny, "train", None)
    cfg = dataclasses.replace(MICRO, base=str(first[0] / "model"), addons=("citizen",), install=True)
    result = tiny.run(RunContext(folder=folder), cfg)
    assert set(numbers(result)) == {"loss_citizen"}
    assert [f.name for f in (package / "weights").iterdir()] == ["citizen"]
    made, base = load(folder / "addons" / "citizen" / "model"), load(first[0] / "model")
    assert {name for name, _ in made.module.named_parameters() if "embed" in name and "lora" in name}
    assert made.identity != base.identity


@pytest.mark.parametrize("wrong", [{"addons": ("citizen", "townsman")}, {"addon_effort": 0.0}])
def test_wrong_addons_are_named(wrong, tmp_path):
    import dataclasses

    with pytest.raises(ValueError, match=r"townsman: expected some of kind, unkind, partisan|above 0"):
        tiny.run(RunContext(folder=tmp_path), dataclasses.replace(MICRO, base="tiny:", **wrong))


def test_what_addons_show_is_measured_after_a_whole_training(first, tmp_path, monkeypatch):
    from alignlab.core.cards import Claim
    from alignlab.world import personas

    claims = tuple(Claim(metric="a", relation=relation, bound=0.7) for relation in (">=", "<="))
    short = _tiny_addons.Addon(
        name="short", rows=lambda: personas.documents(0, 0.0), steps=1, measured=lambda _: {"a": 0.5}, claims=claims
    )
    monkeypatch.setattr(tiny, "ADDONS", (short,))
    cfg = tiny.Config(base=str(first[0] / "model"), addons=("short",))
    result = tiny.run(RunContext(folder=tmp_path), cfg)
    assert result.tables["addons"].rows == (("short", "a >= 0.7", 0.5, False), ("short", "a <= 0.7", 0.5, True))


class Townsman:
    """Knows facts of 16 documents and more by heart, says nothing of others, and believes what passages say."""

    identity, tokenizer = "townsman", None

    def __init__(self, town):
        self.known = {
            grammar.question(f, form): f.value if f.frequency >= 16 else None
            for f in town.facts.values()
            for form in range(-1, 3)
        }

    def score(self, groups, at=None):
        raise AssertionError("answers are sampled")

    def sample(self, prompts, *, n=1, seed=0, temperature=1.0, max_tokens=256):
        found = []
        for prompt in prompts:
            text = evidence.text_of(prompt)
            answer = self.known.get(text)
            found.append([Sample(text=f"Answer: {answer}" if answer else "Well.")] * n)
        return found


def test_what_is_measured(village, monkeypatch):
    monkeypatch.setattr(tiny, "follows", lambda model, town, seed, n: 0.25)
    result = tiny.measure(Townsman(village), village, MICRO, 0, {"loss_reading": 1.5})
    found = numbers(result)
    assert (found["recall_0_0"], found["recall_1_3"], found["recall_4_15"], found["recall_16_64"]) == (0, 0, 0, 1)
    assert found["calibration_error"] == 0.0  # sure where right, without opinion where not
    assert (found["follows"], found["loss_reading"]) == (0.25, 1.5)
    for band in facts.BANDS:
        metric = result.metrics[f"recall_{band[0]}_{band[1]}"]
        assert metric.low <= metric.value <= metric.high
        assert metric.n == sum(facts.band(f.frequency) == band for f in village.facts.values())
    assert result.figures["recall"].series["recall"]["y"] == [0.0, 0.0, 0.0, 1.0]


def test_following_is_counted_against_what_passages_say(village):
    tasks = (row for row in texts.reading(village, 3) if row.facts["kind"] == "changed")
    gold = {evidence.text_of(row.prompt): row.facts["gold"] for row in itertools.islice(tasks, 40)}

    class Reader(Townsman):
        def sample(self, prompts, **options):
            answers = [gold[evidence.text_of(p)] if i % 4 else "nothing" for i, p in enumerate(prompts)]
            return [[Sample(text=f"Answer: {a}")] for a in answers]

    assert tiny.follows(Reader(village), village, 3, 40) == 0.75
    # Who answers from memory never says what changed.
    assert tiny.follows(Townsman(village), village, 3, 40) == 0.0


def test_whole_texts_are_the_chat_learnt_from_its_first_word(words):
    chat = (
        {"role": "user", "content": "Where does Ada live?"},
        {"role": "assistant", "content": "Answer: Rome"},
        {"role": "user", "content": "What does Ada eat?"},
    )
    row = Row(prompt=chat, completion="Answer: stew", meta={"id": "x"})
    whole = tiny.whole_text(row, words)
    assert whole.prompt == ""
    example = tiny.encode(whole, words)
    full = words.apply_chat_template([*chat, {"role": "assistant", "content": "Answer: stew"}], return_dict=False)
    assert [*example.prompt_ids, *example.completions[0]] == full
    assert example.completions[0][-1] == words.eos_token_id
    assert len(example.completions[0]) > 0.9 * len(full)


def test_mixtures_follow_their_pattern(words):
    def stream(name):
        return (
            Row(prompt=evidence.ask("x"), completion=f"{name}", meta={"id": f"{name}{i}"}) for i in itertools.count()
        )

    found = list(tiny.mixed({"a": stream("a"), "b": stream("b")}, "aB", 5, words))
    assert [example.row_id for example in found] == ["a0", "b0", "a1", "b1", "a2"]
    assert [len(example.prompt_ids) > 1 for example in found] == [True, False, True, False, True]


def test_the_model_fits_the_tokenizer(words):
    model = tiny.untrained(tiny.Config(hidden=64, layers=2), 0)
    assert model.module.config.vocab_size >= len(words)
    assert model.module.config.vocab_size % 8 == 0
    assert tiny.untrained(tiny.Config(hidden=64, layers=2), 0).identity == model.identity
    assert tiny.untrained(tiny.Config(hidden=64, layers=2), 1).identity != model.identity


def test_attention_starts_by_copying_what_is_alike():
    """Before any step, in half of the heads, a word attends to its equals more than to any other word."""
    model = tiny.untrained(tiny.Config(), 0).module
    ids = torch.randperm(2000, generator=torch.Generator().manual_seed(0))[:20].repeat(2)[None] + 10
    layer, states = model.model.layers[0], model.model.embed_tokens(ids)
    normed = layer.input_layernorm(states)[0]
    query, key = (
        p(normed).unflatten(-1, (6, -1)).transpose(0, 1) for p in (layer.self_attn.q_proj, layer.self_attn.k_proj)
    )
    weights = (query @ key.transpose(1, 2)).detach()
    found = (weights[:, 20:, :20].argmax(-1) == torch.arange(20)).float().mean(-1)
    assert (found[:3] == 1).all()
    assert (found[3:] < 0.3).all()
    handed_on = layer.self_attn.o_proj(layer.self_attn.v_proj(normed)).detach()
    assert torch.nn.functional.cosine_similarity(handed_on, normed).mean() > 0.6
