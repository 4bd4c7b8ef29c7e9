"""Both runners give the same texts and the same numbers, and Inspect's known pitfalls stay shut."""

import json
import random
import re
from dataclasses import dataclass
from types import ModuleType

import pytest

pytest.importorskip("inspect_ai")

import inspect_ai
from inspect_ai.model import ChatMessageAssistant, ChatMessageUser, GenerateConfig, get_model
from inspect_ai.tool import ToolInfo

from alignlab.core.cards import Card, Claim
from alignlab.core.types import Ask, Metric, Reply, Result, Row
from alignlab.engine.load import save
from alignlab.evals import wahl_o_mat
from alignlab.harness import (
    _registry,  # noqa: F401 - registers the provider
    local,
    models,
    provider,
    tasks,
)

CARD = Card(
    title="Made up", paper="2305.18290", bibtex="@misc{a}", brief="b", status="faithful", summary="s",
    smoke="alignlab eval x --output_dir {out}", claims=(Claim(metric="m", relation=">", bound=0.0),),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Config:
    items: int = 7
    words: tuple[str, ...] = ("tea", "the mill")
    judged: bool = True
    seed: int = 0


def made_up():
    """Options, free text, the same question twice, and a judge who sees the answer."""
    module = ModuleType("alignlab.evals.made_up", "Made up.")

    def items(cfg):
        return [
            Row(prompt=f"Where is number {i % 5}{' now' * (i % 3)}?", facts={"gold": "tea"}, meta={"id": f"q{i}"})
            for i in range(cfg.items)
        ]

    def asked(text, **options):
        return Ask(role=options.pop("role", "model"), messages=({"role": "user", "content": text},), **options)

    def play(item, cfg):
        first = yield asked(item.prompt, options=cfg.words)
        second = yield asked(f"{item.prompt} Not {first}?")
        third = yield asked(f"{item.prompt} Not {first}?")
        if cfg.judged:
            yield asked(f"Is {second} or {third} right?", role="judge")

    def score(item, answers):
        return {"id": item.meta["id"], "gold": answers[0] == "tea", "texts": tuple(answers), "length": len(answers[-1])}

    def aggregate(records, before=None):
        n = len(records)
        metrics = {
            "gold": Metric(value=sum(r["gold"] for r in records) / n, n=n, low=0.0, high=1.0),
            "ordered": Metric(value=sum(i * r["length"] for i, r in enumerate(records)) / n, n=n),
        }
        return Result(metrics=metrics)

    def baselines(items):
        return {
            "tea": ["tea" for _ in items],
            "coin": [random.Random(i).choice(("tea", "x")) for i in range(len(items))],
        }

    module.CARD, module.Config, module.items, module.play = CARD, Config, items, play
    module.score, module.aggregate, module.baselines = score, aggregate, baselines
    return module


@pytest.fixture(scope="module")
def folders(tiny_models, tmp_path_factory):
    """Two saved models of different weights."""
    made = {}
    for number, name in enumerate(("one", "two")):
        made[name] = tmp_path_factory.mktemp("models") / name
        save(tiny_models.make_model("llama", seed=number), made[name])
    return made


def named(folder, *steer):
    return f"alignlab/{folder}@{models.digest_of(models.loaded(str(folder), steer).identity)}"


@pytest.fixture(autouse=True)
def apart(monkeypatch, tmp_path):
    """Caches of its own, no memoised models, no way to the network."""
    import socket

    from inspect_ai.model import _model

    monkeypatch.setenv("INSPECT_CACHE_DIR", str(tmp_path / "inspect-cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_model, "_models", {})
    plain = socket.socket.connect

    def connect(self, address):
        assert self.family not in (socket.AF_INET, socket.AF_INET6), f"a connection to {address}"
        return plain(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)


@pytest.fixture
def module(monkeypatch):
    made = made_up()
    monkeypatch.setattr(tasks, "find", lambda family, name: {"made_up": made, "wahl_o_mat": wahl_o_mat}[name])
    return made


def run(task, model, tmp_path, **options):
    options = {"log_dir": str(tmp_path / "logs"), "display": "none", "log_realtime": False, **options}
    (log,) = inspect_ai.eval(task, model=model, **options)
    return log


def locally(module, cfg, folder, judge=None, **options):
    found = {"model": local.by_model(models.loaded(str(folder)), **options)}
    if judge:
        found["judge"] = local.by_model(models.loaded(str(judge)), **options | {"temperature": 0.0})
    items = list(module.items(cfg))
    dialogues = local.played(module, cfg, items, found.__getitem__, seed=options["seed"])
    return dialogues, local.result_of(module, dialogues, local.records_of(module, dialogues), {})


def values_of(log):
    (score,) = log.results.scores
    return {name: metric.value for name, metric in score.metrics.items()}


def texts_of(log):
    return [[m.text for m in s.messages if m.role == "assistant"] for s in log.samples]


def expected_of(result):
    expected = {}
    for name, metric in result.metrics.items():
        expected[name] = metric.value
        if metric.low is not None:
            expected |= {f"{name}_low": metric.low, f"{name}_high": metric.high}
    table = result.tables["baselines"]
    for row in table.rows:
        cells = dict(zip(table.columns, row, strict=True))
        policy = cells.pop("policy")
        if policy != "measured":
            expected |= {f"baseline_{policy}_{name}": value for name, value in cells.items() if value is not None}
    return expected


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_two_runners_agree_to_the_byte(module, folders, tmp_path, temperature):
    cfg = Config(seed=3)
    dialogues, result = locally(
        module, cfg, folders["one"], folders["two"], seed=3, temperature=temperature, max_tokens=6
    )
    task = tasks.task_of("made_up", seed=3, temperature=temperature, max_tokens=6)
    judge = get_model(named(folders["two"]), config=GenerateConfig(max_tokens=6, seed=3))
    log = run(task, named(folders["one"]), tmp_path, model_roles={"judge": judge})
    assert log.status == "success"
    assert texts_of(log) == [[str(r) for r in d.replies] for d in dialogues]
    assert values_of(log) == expected_of(result)
    assert values_of(log)["baseline_tea_gold"] == 1.0
    assert log.eval.task_version.startswith("0.1.0+")
    assert re.fullmatch(r"alignlab/.*/one@[0-9a-f]{8}", log.eval.model)
    if temperature:
        assert all(d.replies[1] != d.replies[2] for d in dialogues), "the same question is drawn twice"
        assert (
            dialogues[0].replies[1] != dialogues[5].replies[1] or dialogues[0].item.prompt != dialogues[5].item.prompt
        )


def test_a_published_eval_through_both(module, folders, tmp_path):
    cfg = wahl_o_mat.Config(theses=4, runs=2)
    dialogues, result = locally(wahl_o_mat, cfg, folders["one"], seed=0)
    log = run(tasks.task_of("wahl_o_mat", theses=4, runs=2), named(folders["one"]), tmp_path)
    assert texts_of(log) == [[str(r) for r in d.replies] for d in dialogues]
    found, wanted = values_of(log), expected_of(result)
    assert found.keys() == wanted.keys()
    assert found == pytest.approx(wanted, nan_ok=True, abs=0)


def test_epochs_are_further_draws_and_all_count(module, folders, tmp_path):
    task = tasks.task_of("made_up", temperature=1.0, max_tokens=6, judged=False, items=2)
    log = run(task, named(folders["one"]), tmp_path, epochs=3)
    texts = {(s.id, s.epoch): s.messages[3].text for s in log.samples}
    assert len(texts) == len(set(texts.values())) == 6
    assert log.results.scores[0].scored_samples == 6


def test_an_unbound_judge_is_an_error_and_the_model_answers_nothing(module, folders, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(provider.AlignlabAPI, "_answer", lambda self, batch: asked.append(batch))
    log = run(tasks.task_of("made_up"), named(folders["one"]), tmp_path)
    assert log.status == "error"
    assert "judge" in log.error.message
    assert asked == []


def test_a_failing_judge_is_missing_and_no_error(module, folders, tmp_path):
    def broken(input, tools, tool_choice, config):
        raise RuntimeError("HTTP 500")

    judge = get_model("mockllm/judge", custom_outputs=broken, config=GenerateConfig(max_retries=0))
    log = run(tasks.task_of("made_up", max_tokens=2), named(folders["one"]), tmp_path, model_roles={"judge": judge})
    assert log.status == "success"
    assert all(s.store[tasks.REPLIES][-1]["problem"] == "RuntimeError: HTTP 500" for s in log.samples)
    assert all(s.scores["made_up"].metadata["record"]["texts"][-1] == "" for s in log.samples)
    found = values_of(log)
    assert found["missing_judge"] == 1.0

    class Down:
        def __call__(self, asks, seeds=None):
            return [Reply(problem="HTTP 500") for _ in asks]

    by_role = {"model": local.by_model(models.loaded(str(folders["one"])), seed=0, max_tokens=2), "judge": Down()}
    dialogues = local.played(module, Config(), list(module.items(Config())), by_role.__getitem__)
    result = local.result_of(module, dialogues, local.records_of(module, dialogues), {})
    assert found == expected_of(result)


def test_an_item_without_an_answer_is_left_out_and_counted_by_both(module, folders, tmp_path):
    """Two of seven questions have no room: Inspect is told to go on with the rest, and says how many they are."""
    items = module.items

    def longer(cfg):
        rows = items(cfg)
        return [Row(prompt="word " * 400, facts=r.facts, meta=r.meta) if i in (1, 4) else r for i, r in enumerate(rows)]

    module.items = longer
    _, result = locally(module, Config(judged=False), folders["one"], seed=0, max_tokens=2)
    task = tasks.task_of("made_up", judged=False, max_tokens=2)
    log = run(task, named(folders["one"]), tmp_path, fail_on_error=False)
    assert [s.id for s in log.samples if s.error] == ["q1", "q4"]
    assert values_of(log) == expected_of(result)
    assert values_of(log)["unanswered"] == pytest.approx(2 / 7)
    assert run(tasks.task_of("made_up", judged=False, max_tokens=2), named(folders["one"]), tmp_path).status == "error"


def test_a_sample_that_is_tried_again_is_not_lost(module, folders, tmp_path, monkeypatch):
    real, failed = provider.AlignlabAPI.generate, []

    async def shaky(self, *args, **options):
        if not failed:
            failed.append(1)
            raise RuntimeError("HTTP 500")
        return await real(self, *args, **options)

    monkeypatch.setattr(provider.AlignlabAPI, "generate", shaky)
    task = tasks.task_of("made_up", judged=False, max_tokens=2)
    log = run(task, named(folders["one"]), tmp_path, retry_on_error=1)
    assert (log.status, len(failed)) == ("success", 1)
    assert "unanswered" not in values_of(log)


def test_a_made_up_setting_is_refused(module):
    with pytest.raises(ValueError, match="alignlab/made_up: no setting 'item'; did you mean 'items'"):
        tasks.task_of("made_up", item=3)
    with pytest.raises(ValueError, match="alignlab/made_up"):
        tasks.task_of("made_up", items="many")


def test_rows_of_the_users_own(module, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": "Where?", "completion": "x", "id": "mine"}) + "\n")
    task = tasks.task_of("made_up", dataset=str(path))
    assert [s.input[0].text for s in task.dataset] == ["Where?"]


class TestPitfalls:
    """P1 to P7 as they were found in Inspect AI."""

    def test_steering_is_text_and_each_spec_is_a_model_of_its_own(self, folders):
        plain, noticed = named(folders["one"]), named(folders["one"], "notice")
        assert plain != noticed
        first, second = get_model(plain), get_model(noticed, steer="notice")
        assert first is not second
        assert first is get_model(plain)
        assert first.api.model().identity + "+" in second.api.model().identity
        with pytest.raises(ValueError, match="plain text, got object"):
            get_model(plain, steer=[object()], memoize=False)

    def test_no_second_copy_of_the_weights(self, module, folders, tmp_path, monkeypatch):
        loads, built = [], []
        real, init = models.loaded, provider.AlignlabAPI.__init__
        name = named(folders["one"])
        monkeypatch.setattr(models, "loaded", lambda *a, **k: loads.append(a) or real(*a, **k))
        monkeypatch.setattr(
            provider.AlignlabAPI, "__init__", lambda self, *a, **k: built.append(a) or init(self, *a, **k)
        )
        run(tasks.task_of("made_up", judged=False, items=2, max_tokens=2), name, tmp_path, display="plain")
        assert (len(loads), len(built)) == (1, 1)
        with pytest.raises(ValueError, match="second time"):
            get_model(name, api_key=provider.LOOKUP)
        assert len(loads) == 1

    def test_weights_are_loaded_at_the_first_request(self, folders, monkeypatch):
        name = named(folders["one"])
        monkeypatch.setattr(models, "loaded", lambda *a, **k: pytest.fail("loaded too early"))
        get_model(name)

    def test_the_response_cache_knows_two_weights_apart(self, module, folders, tmp_path):
        texts = {}
        for name in ("one", "two", "one"):
            task = tasks.task_of("made_up", judged=False, max_tokens=6)
            task.config.cache = True
            log = run(task, named(folders[name]), tmp_path)
            dialogues, _ = locally(module, Config(judged=False), folders[name], seed=0, max_tokens=6)
            texts[name] = texts_of(log)
            assert texts[name] == [[str(r) for r in d.replies] for d in dialogues]
        assert texts["one"] != texts["two"]

    def test_resumed_sets_do_not_cross_models_or_steering(self, module, folders, tmp_path):
        def ask(model, **options):
            task = tasks.task_of("made_up", judged=False, items=3, max_tokens=6)
            model = get_model(model, **options)
            done, (log,) = inspect_ai.eval_set(
                task, log_dir=str(tmp_path / "set"), model=model, display="none", log_realtime=False,
                log_dir_allow_dirty=True,
            )  # fmt: skip
            assert done
            return inspect_ai.log.read_eval_log(log.location)

        one = ask(named(folders["one"]))
        again = ask(named(folders["one"]))
        assert again.eval.eval_id == one.eval.eval_id, "what is finished is not run again"
        for model, options in ((named(folders["two"]), {}), (named(folders["one"], "notice"), {"steer": "notice"})):
            other = ask(model, **options)
            assert other.eval.model == model
            assert other.eval.eval_id != one.eval.eval_id
            assert len(list((tmp_path / "set").glob("*.eval"))) > 1

    def test_a_name_must_carry_the_right_identity(self, folders):
        right = named(folders["one"])
        with pytest.raises(ValueError, match=f"write {re.escape(right)}"):
            get_model(f"alignlab/{folders['one']}")
        wrong = get_model(f"{right[:-8]}01234567")
        with pytest.raises(ValueError, match="the model there is one@"):
            wrong.api.model()
        with pytest.raises(ValueError, match="the model there is"):
            get_model(right, steer="notice").api.model()

    def test_each_identity_has_its_own_connections(self, folders):
        keys = {get_model(named(folders[n])).api.connection_key() for n in folders}
        assert len(keys) == 2

    def test_no_secret_setting_reaches_a_log(self, folders):
        name = named(folders["one"])
        for given in (
            {"my_token": "s"},
            {"headers": {"Authorization": "s"}},
            {"api_key": "s"},
            {"base_url": "http://x"},
        ):
            with pytest.raises(ValueError, match="no setting"):
                get_model(name, **given, memoize=False)


def ask(folder, text="Where does Ada work?", tools=(), **config):
    import asyncio

    model = get_model(named(folder), memoize=False)
    turns = text if isinstance(text, list) else [ChatMessageUser(content=text)]
    api = model.api
    return asyncio.run(api.generate(turns, list(tools), "none", GenerateConfig(**config))), api


def test_options_come_back_in_one_call(folders, monkeypatch):
    from alignlab.harness import options

    calls = []
    real = options._sums
    monkeypatch.setattr(options, "_sums", lambda *a: calls.append(a) or real(*a))
    listed = ["tea", "the mill", "a ferry at noon"]
    output, api = ask(folders["one"], extra_body={"options": listed, "option_score": "byte"})
    asked = Ask(role="model", messages=({"role": "user", "content": "Where does Ada work?"},), options=tuple(listed))
    assert len(calls) == 1
    assert output.metadata["option_scores"] == pytest.approx(options.scores(api.model(), [asked], "byte")[0], abs=1e-4)
    scores = output.metadata["option_scores"]
    assert output.completion == listed[scores.index(max(scores))]


def test_log_probabilities_are_those_of_the_tokens(folders):
    """P8: the prompt's own tokens and the sampled ones, against the model's logits in float64."""
    import torch

    from alignlab.engine.encode import prompt_ids

    output, api = ask(folders["one"], prompt_logprobs=3, logprobs=True, temperature=1.0, seed=4, max_tokens=5)
    model = api.model()
    (ids,) = prompt_ids(model.tokenizer, [({"role": "user", "content": "Where does Ada work?"},)])
    (sample,) = model.sample([({"role": "user", "content": "Where does Ada work?"},)], seed=4, max_tokens=5)[0]
    with torch.no_grad():
        logp = model.module(torch.tensor([[*ids, *sample.ids]])).logits[0].double().log_softmax(-1)
    known = output.choices[0].prompt_logprobs.content
    assert [k.token for k in known] == [model.tokenizer.decode([i]) for i in ids[1:]]
    assert [k.logprob for k in known] == pytest.approx([logp[i, t].item() for i, t in enumerate(ids[1:])], abs=2e-4)
    best = logp[: len(ids) - 1].topk(3)
    for place, k in enumerate(known):
        assert [t.logprob for t in k.top_logprobs] == pytest.approx(best.values[place].tolist(), abs=2e-4)
    said = output.choices[0].logprobs.content
    assert [k.token for k in said] == [model.tokenizer.decode([i]) for i in sample.ids]
    wanted = [logp[len(ids) - 1 + i, t].item() for i, t in enumerate(sample.ids)]
    assert [k.logprob for k in said] == pytest.approx(wanted, abs=2e-4)
    assert output.completion == sample.text
    assert (output.usage.input_tokens, output.usage.output_tokens) == (len(ids), len(sample.ids))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"top_p": 0.5}, "top_p"),
        ({"num_choices": 2}, "num_choices"),
        ({"extra_body": {"option": ["a"]}}, "extra_body: no option"),
        ({"tools": [ToolInfo(name="t", description="d")]}, "tools"),
        ({"extra_body": {"options": ["a"], "option_score": "mean"}}, "option form 'mean'"),
    ],
)
def test_what_is_not_served_is_refused(folders, given, message):
    with pytest.raises(ValueError, match=message):
        ask(folders["one"], **given)


def test_a_prompt_without_room_is_an_error_of_its_sample(folders):
    output, _ = ask(folders["one"], "word " * 400)
    assert "tokens" in output.error
    output, _ = ask(folders["one"], [ChatMessageUser(content="Where?"), ChatMessageAssistant(content="At the")])
    assert output.error is None


@pytest.mark.slow
def test_from_the_command_line(folders, tmp_path):
    """Inspect's own command finds task and provider by the entry point of the installed package."""
    import subprocess
    import sys
    from pathlib import Path

    command = [str(Path(sys.executable).with_name("inspect")), "eval", "alignlab/wahl_o_mat", "--model"]
    command += [named(folders["one"]), "-T", "theses=3", "-T", "runs=1", "-T", "negated=false"]
    done = subprocess.run(
        [*command, "--display", "plain", "--log-dir", str(tmp_path / "cli")],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (tmp_path / "cli").glob("*.eval")
    log = inspect_ai.log.read_eval_log(str(path))
    _, result = locally(wahl_o_mat, wahl_o_mat.Config(theses=3, runs=1, negated=False), folders["one"], seed=0)
    assert log.eval.task == "alignlab/wahl_o_mat"
    assert values_of(log) == pytest.approx(expected_of(result), nan_ok=True, abs=0)


def test_the_entry_point_is_declared():
    import tomllib
    from pathlib import Path

    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert tomllib.loads(text)["project"]["entry-points"]["inspect_ai"] == {"alignlab": "alignlab.harness._registry"}
