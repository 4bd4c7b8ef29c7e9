import contextlib

import pytest
import torch

from alignlab.core.types import Groups, Intervention, Sample, View
from alignlab.engine.steered import Steered


class Echo:
    """A model that answers with its prompt, and knows which hooks are installed."""

    identity = "echo@1"
    tokenizer = object()

    def __init__(self, broken=False):
        self.hooks, self.log, self.broken = [], [], broken

    def sample(self, prompts, **options):
        self.log.append((list(self.hooks), options))
        if self.broken:
            raise RuntimeError("no answer")
        return [[Sample(text=prompt)] for prompt in prompts]

    def score(self, groups, at=None):
        self.log.append((list(self.hooks), at))
        return View(logp=torch.zeros(groups.ids.shape))


def hook(name):
    @contextlib.contextmanager
    def active(model):
        model.hooks.append(name)
        try:
            yield
        finally:
            model.hooks.remove(name)

    return Intervention(spec=name, active=active)


def edit(mark):
    return Intervention(spec=mark, edit_messages=lambda prompt: f"{prompt}{mark}")


def decoder(mark):
    def decode(model, prompts, **options):
        return [[Sample(text=f"{mark}:{s.text}") for s in samples] for samples in model.sample(prompts, **options)]

    return Intervention(spec=mark, decode=decode)


def texts(samples):
    return [[sample.text for sample in group] for group in samples]


def test_no_intervention_changes_nothing():
    model = Echo()
    steered = Steered(model, [])
    assert texts(steered.sample(["a"], n=2, seed=3)) == [["a"]]
    assert model.log == [([], {"n": 2, "seed": 3})]
    assert steered.identity == "echo@1"
    assert steered.tokenizer is model.tokenizer


def test_edits_apply_in_order():
    assert texts(Steered(Echo(), [edit("1"), edit("2")]).sample(["a", "b"])) == [["a12"], ["b12"]]


def test_a_decoder_sees_edited_prompts_and_active_hooks():
    model = Echo()
    steered = Steered(model, [hook("h"), decoder("d"), edit("!")])
    assert texts(steered.sample(["a"], max_tokens=7)) == [["d:a!"]]
    assert model.log == [(["h"], {"max_tokens": 7})]


def test_two_decoders_are_refused_by_name():
    with pytest.raises(ValueError, match="at most one decoder.*x, y"):
        Steered(Echo(), [decoder("x"), decoder("y")])


def test_processors_join_those_of_the_caller_and_are_fresh_each_time():
    made = []

    def processors():
        made.append(object())
        return (made[-1],)

    model = Echo()
    steered = Steered(
        model, [Intervention(spec="p", processors=processors), Intervention(spec="q", processors=lambda: ("q",))]
    )
    steered.sample(["a"], processors=("mine",))
    steered.sample(["a"])
    assert [options["processors"] for _, options in model.log] == [("mine", made[0], "q"), (made[1], "q")]


def test_hooks_live_inside_the_call_only():
    model = Echo()
    steered = Steered(model, [hook("a"), hook("b")])
    steered.sample(["x"])
    one = torch.ones(1, 1, dtype=torch.long)
    groups = Groups(prompt_ids=one, prompt_mask=one > 0, ids=one, mask=one > 0, group=torch.zeros(1, dtype=torch.long))
    assert steered.score(groups).logp.shape == (1, 1)
    assert model.log == [(["a", "b"], {}), (["a", "b"], None)]
    assert model.hooks == []


def test_hooks_are_gone_after_an_exception():
    model = Echo(broken=True)
    with pytest.raises(RuntimeError, match="no answer"):
        Steered(model, [hook("a"), hook("b")]).sample(["x"])
    assert model.hooks == []


def test_hooks_installed_before_a_failing_one_are_removed():
    @contextlib.contextmanager
    def failing(model):
        raise OSError("cannot install")
        yield

    model = Echo()
    with pytest.raises(OSError, match="cannot install"):
        Steered(model, [hook("a"), Intervention(spec="f", active=failing)]).sample(["x"])
    assert model.hooks == []


def test_identity_says_what_steers_and_in_which_order():
    names = [Steered(Echo(), [*order]).identity for order in ((edit("1"), edit("2")), (edit("2"), edit("1")))]
    assert names == ["echo@1+1+2", "echo@1+2+1"]


def test_steering_a_steered_model_composes():
    inner = Steered(Echo(), [edit("1")])
    outer = Steered(inner, [edit("2")])
    assert texts(outer.sample(["a"])) == [["a21"]]
    assert outer.identity == "echo@1+1+2"
