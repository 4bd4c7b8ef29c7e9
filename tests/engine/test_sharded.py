"""Tensors and passes of models that are whole, and of one in parts; what two ranks do is in train/test_distributed."""

import torch

from alignlab.engine import sharded
from alignlab.engine.identity import digest


class Part(torch.Tensor):
    """A tensor of which this process holds less than there is, as torch's DTensor."""

    @staticmethod
    def __new__(cls, held, there):
        made = held.as_subclass(cls)
        made.there = there
        return made

    def detach(self):
        return self

    def full_tensor(self):
        return self.there


def test_a_whole_model_waits_for_nobody(tiny_model):
    module = tiny_model.module
    assert not sharded.is_sharded(module)
    sharded.before_pass(module)
    assert sharded.finish(module) is None


def test_whole_tensors_stay_as_they_are():
    value = torch.arange(6.0)
    assert sharded.whole(value) is value
    assert torch.equal(sharded.cut_like(value, torch.zeros(3)), value)
    assert torch.equal(sharded.whole(Part(value[:3], value)), value)


def test_a_digest_is_of_the_whole_weights(tiny_model, monkeypatch):
    """And not of the parts that a rank happens to hold."""
    module = tiny_model.module
    weights = module.state_dict()
    known = digest(module, tiny_model.tokenizer)
    monkeypatch.setattr(module, "state_dict", lambda: {name: Part(v[:1], v) for name, v in weights.items()})
    assert digest(module, tiny_model.tokenizer) == known
    monkeypatch.setattr(module, "state_dict", lambda: {name: v[:1] for name, v in weights.items()})
    assert digest(module, tiny_model.tokenizer) != known
