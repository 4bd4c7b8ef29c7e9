"""Linear maps by oneDNN are PyTorch's own in value and gradient, taken over where they should be and nowhere else."""

import contextlib
import weakref

import pytest
import torch
from torch.nn.functional import linear
from torch.utils.flop_counter import FlopCounterMode

import tiny_models
from alignlab.engine import products, score
from alignlab.engine.encode import Example, collate

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN")


def seen(monkeypatch):
    """Have oneDNN preferred on any processor; return the list that grows with each product."""
    found, inner = [], products.product
    monkeypatch.setattr(products, "preferred", lambda: True)
    monkeypatch.setattr(products, "product", lambda *args: found.append(args[0].shape) or inner(*args))
    return found


def tensors(*shapes, dtype=torch.float32):
    torch.manual_seed(0)
    return [torch.randn(shape, dtype=dtype).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("shape", [(5,), (1, 5), (7, 5), (2, 3, 5), (1, 300, 5)])
@pytest.mark.parametrize("biased", [False, True])
def test_value_and_gradients_are_those_of_float64(shape, biased):
    given = tensors(shape, (11, 5), *([(11,)] if biased else []))
    exact = [t.detach().double().requires_grad_() for t in given]
    found, expected = products.product(*given), linear(*exact)
    assert found.shape == expected.shape
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    upstream = torch.randn_like(expected)
    found.backward(upstream.float())
    expected.backward(upstream)
    for mine, theirs in zip(given, exact):
        torch.testing.assert_close(mine.grad.double(), theirs.grad, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        assert torch.equal(products.product(*given), found)


@pytest.mark.parametrize("n", [3, 5, 11])
def test_gradients_of_weights_are_laid_out_as_the_weights_whatever_is_wider(n):
    """Also where inputs and gradients are parts of wider tensors."""
    wide, weight = tensors((6, 9), (n, 5))
    upstream = torch.randn(6, 2 * n)[:, ::2]
    # Not `backward`, which would lay out the gradient anew where it keeps it
    (found,) = torch.autograd.grad(products.product(wide[:, 2:7], weight), weight, upstream)
    assert found.is_contiguous()
    expected = upstream.double().t() @ wide.detach()[:, 2:7].double()
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("columns", [products.LEAST - 1, products.LEAST, 2 * products.LEAST + 1])
def test_gradients_of_heads_are_turned_in_parts(columns, monkeypatch):
    monkeypatch.setattr(products, "MOST", 1)
    x, weight = tensors((9, columns), (3 * products.LEAST, columns))
    upstream = torch.randn(9, 3 * products.LEAST)
    (found,) = torch.autograd.grad(products.product(x, weight), weight, upstream)
    assert found.is_contiguous()
    torch.testing.assert_close(found.double(), upstream.double().t() @ x.detach().double(), rtol=1e-5, atol=1e-5)


def test_frozen_weights_get_no_gradient():
    x, weight = tensors((4, 5), (3, 5))
    weight.requires_grad_(False)
    products.product(x, weight).sum().backward()
    assert weight.grad is None
    assert x.grad is not None


GROUPS = collate([Example(prompt_ids=[7, 8, 9], completions=([10, 11, 2], [12, 13, 14, 2]))], 0)


@pytest.mark.parametrize(("architecture", "maps"), [("llama", 15), ("gpt2", 9), ("gemma2", 15)])
def test_all_linear_maps_of_a_model_are_taken_over(monkeypatch, architecture, maps):
    module = tiny_models.make_model(architecture).module
    found = seen(monkeypatch)
    fast = score.score(module, GROUPS, share=True)
    assert len(found) == maps, "seven per layer (four in GPT-2) and the head"
    fast.logp.sum().backward()
    mine = {name: p.grad.clone() for name, p in module.named_parameters()}
    module.zero_grad()
    monkeypatch.setattr(products, "preferred", lambda: False)
    usual = score.score(module, GROUPS, share=True)
    assert len(found) == maps, "nothing where it is not preferred"
    usual.logp.sum().backward()
    torch.testing.assert_close(fast.logp, usual.logp, rtol=1e-5, atol=1e-5)
    for name, p in module.named_parameters():
        torch.testing.assert_close(mine[name], p.grad, rtol=1e-4, atol=1e-4)


def test_other_dtypes_and_recomputed_activations_go_the_usual_way(monkeypatch):
    found = seen(monkeypatch)
    module = tiny_models.make_model("llama").module
    with torch.autocast("cpu", torch.bfloat16):
        score.score(module, GROUPS, share=True)
    score.score(tiny_models.make_model("llama").module.double(), GROUPS, share=True)
    module.gradient_checkpointing_enable()
    module.train()
    score.score(module, GROUPS, share=False).logp.sum().backward()
    assert found == []
    linear(torch.ones(2, 3), torch.ones(4, 3))
    assert found == [], "nothing outside of `fast`"
    with torch.no_grad():
        score.score(module, GROUPS, share=True)
    assert found


def test_it_is_left_after_an_exception(monkeypatch):
    found = seen(monkeypatch)
    with pytest.raises(RuntimeError, match="stop"), products.fast(torch.nn.Linear(3, 4)):
        raise RuntimeError("stop")
    linear(torch.ones(2, 3), torch.ones(4, 3))
    assert found == []


def test_pytorchs_counter_sees_them():
    x, weight = tensors((4, 5), (3, 5))
    with FlopCounterMode(display=False) as counter:
        products.product(x, weight).sum().backward()
    assert counter.get_total_flops() == 3 * 2 * 4 * 5 * 3


@pytest.mark.parametrize(("said", "capability", "wanted"), [
    ("vendor_id : AuthenticAMD", "AVX512", True), ("vendor_id : GenuineIntel", "AVX512", False),
    ("vendor_id : AuthenticAMD", "AVX2", False),
])  # fmt: skip
def test_the_processors_maker_decides(monkeypatch, tmp_path, said, capability, wanted):
    file = tmp_path / "cpuinfo"
    file.write_text(said)
    monkeypatch.setattr(products, "Path", lambda name: file if name == "/proc/cpuinfo" else None)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert products.preferred.__wrapped__() is wanted
    file.unlink()
    assert products.preferred.__wrapped__() is False


def tanh_gelu(x):
    return torch.nn.functional.gelu(x, approximate="tanh")


def gated(gate, up, weight, bias, activation=torch.nn.functional.silu, changed=lambda units: units):
    return torch.nn.functional.linear(changed(activation(gate) * up), weight, bias)


@pytest.mark.parametrize("activation", [torch.nn.functional.silu, torch.nn.functional.gelu, tanh_gelu])
def test_gated_units_have_the_gradients_of_float64_and_keep_two_wide_tensors(activation):
    given = tensors((3, 7, 40), (3, 7, 40), (5, 40), (5,))
    upstream, kept = torch.randn(3, 7, 5), []

    def keep(tensor):
        kept.append(tensor.untyped_storage().data_ptr())
        return tensor

    with products._Taken(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        found = gated(*given, activation)
    assert set(kept[1:]) == {tensor.untyped_storage().data_ptr() for tensor in given[:3]}  # first the activation's own
    exact = [tensor.detach().double().requires_grad_() for tensor in given]
    expected = gated(*exact, activation)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    for one, other in zip(
        torch.autograd.grad(found, given, upstream),
        torch.autograd.grad(expected, exact, upstream.double()),
        strict=True,
    ):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("frozen", range(4))
def test_gated_units_of_frozen_parts(frozen):
    given = tensors((6, 8), (6, 8), (3, 8), (3,))
    given[frozen].requires_grad_(False)
    wanted = [tensor for tensor in given if tensor.requires_grad]
    with products._Taken():
        found = torch.autograd.grad(gated(*given).square().sum(), wanted)
    expected = torch.autograd.grad(gated(*given).square().sum(), wanted)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "changed",
    [
        lambda units: units.mul_(2.0), lambda units: units * 2.0, lambda units: units.exp(),
        lambda units: torch.nn.functional.dropout(units, 1.0), lambda units: units + 0 * units.sum(),
    ],
)  # fmt: skip
def test_units_that_were_changed_on_the_way_go_the_usual_way(changed):
    given = tensors((6, 8), (6, 8), (3, 8), (3,))
    with products._Taken():
        value = gated(*given, changed=changed)
        found = torch.autograd.grad(value.square().sum(), given)
    assert value.grad_fn.function is None
    expected = torch.autograd.grad(gated(*given, changed=changed).square().sum(), given)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_a_gate_that_was_changed_is_no_gate():
    given = tensors((6, 8), (6, 8), (3, 8), (3,))
    with products._Taken():
        gate = given[0] * 1
        units = torch.nn.functional.silu(gate) * given[1]
        with torch.no_grad():
            gate.mul_(2.0)
        assert torch.nn.functional.linear(units, given[2]).grad_fn.function is None


class Saved:
    """A saved tensor; `alive` holds those that a graph still does."""

    alive = weakref.WeakSet()

    def __init__(self, tensor):
        self.tensor = tensor
        self.alive.add(self)

    @classmethod
    def bytes(cls):
        return sum(
            {s.tensor.untyped_storage().data_ptr(): s.tensor.untyped_storage().nbytes() for s in cls.alive}.values()
        )


@pytest.mark.parametrize("turned", [False, True])
def test_scaled_rows_have_the_gradients_of_float64_and_keep_their_factors(turned):
    x, weight, matrix = tensors((4, 6, 10), (10,), (5, 10))
    upstream = torch.randn(4, 6, 5)

    def normed(x, weight, matrix):
        rows = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
        return torch.nn.functional.linear(rows * weight if turned else weight * rows, matrix)

    with products._Taken(), torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
        found = normed(x, weight, matrix)
    wide = {s.tensor.untyped_storage().data_ptr() for s in Saved.alive if s.tensor.numel() == x.numel()}
    assert wide == {x.untyped_storage().data_ptr()}
    exact = [tensor.detach().double().requires_grad_() for tensor in (x, weight, matrix)]
    expected = torch.autograd.grad(normed(*exact), exact, upstream.double())
    for one, other in zip(torch.autograd.grad(found, (x, weight, matrix), upstream), expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-5)


def test_products_with_columns_of_one_are_what_they_are_for_others():
    given = tensors((4, 10), (4, 1), (4, 10), (3, 10))

    def gradients():
        x, r, other, weight = given
        rows = x * r
        units = torch.nn.functional.silu(rows) * other
        further = (rows * other, units * other, units * r, (other[0] * rows) * other, units * other[0])
        values = [torch.nn.functional.linear(one, weight).sum() for one in (rows, units, *further)]
        return torch.autograd.grad(torch.stack(values) @ torch.arange(7.0), given)

    with products._Taken():
        found = gradients()
    for one, same in zip(found, gradients(), strict=True):
        torch.testing.assert_close(one, same, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2"])
def test_models_of_gated_units_keep_fewer_bytes_and_have_the_same_gradients(family, monkeypatch):
    from transformers import AutoConfig, AutoModelForCausalLM

    monkeypatch.setattr(products, "preferred", lambda: True)
    config = AutoConfig.for_model(
        family, vocab_size=50, hidden_size=16, intermediate_size=200, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, head_dim=8,
    )  # fmt: skip
    model, ids = AutoModelForCausalLM.from_config(config).float(), torch.randint(0, 50, (2, 30))
    sizes, gradients = [], []
    for entered in (products.fast(model), contextlib.nullcontext()):
        model.zero_grad()
        with entered, torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
            loss = model(input_ids=ids).logits.logsumexp(-1).sum()
        sizes.append(Saved.bytes())
        loss.backward()
        gradients.append([weight.grad.clone() for weight in model.parameters()])
    token = 2 * 30 * 4  # bytes of one number per token
    # of each layer the activation and the units; of its norms what they scale and, before a map, what they give
    assert sizes[1] - sizes[0] >= token * 2 * (2 * 200 + 2 * 2 * 16)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("size", "weight", "bias"), [
    ((3, 4), lambda: torch.randn(5, 4), lambda: torch.randn(())),
    ((3, 4), lambda: torch.randn(5, 4), lambda: torch.randn(1)),
    ((3, 4), lambda: torch.randn(4), lambda: None), ((4,), lambda: torch.randn(4), lambda: torch.randn(())),
    ((3, 4), lambda: torch.randn(5, 9)[:, :4], lambda: None), ((0, 4), lambda: torch.randn(5, 4), lambda: None),
])  # fmt: skip
def test_what_onednn_does_not_take_goes_the_usual_way(monkeypatch, size, weight, bias):
    found, inner = [], products.product
    monkeypatch.setattr(products, "product", lambda *given: found.append(given) or inner(*given))
    torch.manual_seed(0)
    x, w, b = torch.randn(size), weight(), bias()
    with products._Taken():
        value = linear(x, w, b)
    assert found == []
    assert torch.equal(value, linear(x, w, b))


def test_a_map_of_transposed_inputs_and_scaled_addends_goes_the_usual_way(monkeypatch):
    found, inner = [], products.product
    monkeypatch.setattr(products, "product", lambda *given: found.append(given) or inner(*given))
    torch.manual_seed(0)
    bias, x, weight = torch.randn(5), torch.randn(3, 4), torch.randn(4, 5)
    with products._Taken():
        values = [torch.addmm(bias, x, weight, beta=2.0), torch.addmm(torch.randn(1), x, weight),
                  torch.addmm(torch.randn(3, 5), x, weight)]  # fmt: skip
        assert found == []
        taken = torch.addmm(bias, x, weight)
    assert len(found) == 1
    torch.testing.assert_close(taken, torch.addmm(bias, x, weight))
    torch.testing.assert_close(values[0], 2 * bias + x @ weight)


def test_frozen_maps_keep_no_input():
    x, weight = tensors((6, 5), (3, 5))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(tuple(t.shape)) or t, lambda t: t):
        products.product(x, weight.detach())
    assert kept == [(3, 5)]
