import gc

import pytest
import torch

from alignlab.engine import hardware
from alignlab.engine.hardware import fast_bfloat16


@pytest.fixture
def machine(monkeypatch):
    """Pretend to have a processor of a capability, with instructions, or a graphics card."""

    def pretend(capability="DEFAULT", *, bf16=False, amx=False, cuda=None):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda is not None)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: bool(cuda))
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16, raising=False)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)

    return pretend


@pytest.mark.parametrize(
    ("capability", "instructions", "fast"),
    [
        ("AVX512", {"bf16": True}, True),
        ("AVX512", {"amx": True}, True),
        ("AVX512", {}, False),
        ("AVX2", {"bf16": True, "amx": True}, False),  # the kernels that would use them are not built in
        ("DEFAULT", {}, False),
    ],
)
def test_a_processor_needs_the_kernels_and_the_instructions(machine, capability, instructions, fast):
    machine(capability, **instructions)
    assert fast_bfloat16() is fast


@pytest.mark.parametrize("fast", [True, False])
def test_a_graphics_card_speaks_for_itself(machine, fast):
    machine("AVX512" if not fast else "DEFAULT", bf16=not fast, cuda=fast)
    assert fast_bfloat16() is fast


def test_a_torch_without_the_questions_is_slow(machine, monkeypatch):
    machine("AVX512", bf16=True, amx=True)
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    assert fast_bfloat16() is True
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    assert fast_bfloat16() is False


def test_this_machine_gives_an_answer():
    assert fast_bfloat16() in (True, False)
    assert hardware.fast_bfloat16() is fast_bfloat16()


def test_each_process_of_a_machine_loads_on_a_device_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert hardware.device_named("auto") == torch.device("cuda:0")
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert hardware.device_named("auto") == torch.device("cuda:3")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert hardware.device_named("auto") == torch.device("cuda:0"), "each process may see one device alone"


def test_what_was_there_before_is_not_looked_through():
    @hardware.collecting_what_is_new()
    def work():
        counts.append(gc.get_freeze_count())
        with hardware.collecting_what_is_new():
            pass
        counts.append(gc.get_freeze_count())
        raise RuntimeError("on purpose")

    counts = []
    with pytest.raises(RuntimeError, match="on purpose"):
        work()
    assert counts[0] > 1000
    assert counts[1] > 1000, "frozen by somebody else"
    assert gc.get_freeze_count() == 0
