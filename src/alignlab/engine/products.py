"""Linear maps in float32 through oneDNN on AMD processors, where PyTorch's MKL leaves half of the speed unused.

PyTorch hands float32 products to MKL, which takes no AVX-512 path on AMD: 72-99 GFLOP/s on one core of an EPYC, 124-230
by oneDNN, for products of a forward pass and both of a backward pass alike (torch 2.13, 64 to 16,384 rows). The choice
follows the processor's maker alone, never a measurement, so that a machine always gives the same bits. Models stay as
they are: inside `fast`, `torch.nn.functional.linear` and `torch.addmm` (GPT-2's maps) are taken over; bfloat16,
float64, autocast and other devices go the usual way.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import register_flop_formula

LARGE, TURNED = 1 << 21, 128
"""from so many entries on, so many columns of a weight's gradient are computed, and turned, at once"""
Activation = Callable[[Tensor], Tensor]
_ACTIVATIONS = (nn.functional.silu, nn.functional.gelu)
_TIMES = (torch.mul, Tensor.mul, Tensor.__mul__)


@functools.cache
def preferred() -> bool:
    """Whether oneDNN's float32 products are the faster ones here: a processor by AMD with AVX-512."""
    if not torch.backends.mkldnn.is_available() or "AVX512" not in torch.backends.cpu.get_cpu_capability():
        return False
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False


@contextlib.contextmanager
def fast(module: nn.Module) -> Iterator[None]:
    """Compute the linear maps of a model by the faster library while this is entered.

    Not where activations will be recomputed in the backward pass, which would happen outside of it.
    """
    weights = next(module.parameters())
    usual = weights.dtype != torch.float32 or weights.device.type != "cpu" or not preferred()
    again = torch.is_grad_enabled() and any(getattr(part, "gradient_checkpointing", False) for part in module.modules())
    if usual or again:
        yield
        return
    with _Taken():
        yield


class _Units:
    """What gated units were made of, as long as nothing of it is changed in place."""

    def __init__(self, activation: Activation, gate: Tensor, up: Tensor, units: Tensor) -> None:
        self.activation, self.gate, self.up = activation, gate, up
        self.versions = (gate._version, up._version, units._version)

    def changed(self, units: Tensor) -> bool:
        """Whether they are no longer act(gate) * up."""
        return self.versions != (self.gate._version, self.up._version, units._version)


class _Taken(TorchFunctionMode):
    """Linear maps of plain float32 tensors on the CPU go to `product`."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is nn.functional.linear:
            x, weight, bias = _linear(*args, **kwargs)
            if _plain(x, weight, bias):
                return product(x, weight, bias)
        elif func in _ACTIVATIONS and torch.is_grad_enabled() and _plain(*args):
            active = func(*args, **kwargs)
            active.activation_of = (functools.partial(func, **kwargs), args[0])
            return active
        elif func in _TIMES and len(args) == 2 and hasattr(args[0], "activation_of"):
            units = func(*args)
            if isinstance(args[1], Tensor) and args[0].shape == args[1].shape and _plain(args[1]):
                units.gated_by = _Units(*args[0].activation_of, args[1], units)
            return units
        elif func is torch.addmm and len(args) == 3 and not kwargs:
            bias, x, weight = args
            if bias.dim() == 1 and _plain(x, weight, bias):
                return product(x, weight.t(), bias)
        return func(*args, **kwargs)


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor | None]:  # noqa: A002
    return input, weight, bias


def _plain(*tensors: Tensor | None) -> bool:
    return not torch.is_autocast_enabled("cpu") and all(
        type(t) in (Tensor, nn.Parameter) and t.dtype == torch.float32 and t.device.type == "cpu" and t.numel() > 0
        for t in tensors
        if t is not None
    )


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x [..., k] times weight [n, k] transposed, plus bias [n]: as `torch.nn.functional.linear`, by oneDNN."""
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, bias)):
        units: _Units | None = getattr(x, "gated_by", None)
        found: Tensor
        if units is None or units.changed(x):
            found = _Product.apply(x, weight, bias)
        else:
            found = _Gated.apply(units.gate, units.up, x.detach(), weight, bias, units.activation)
        return found
    return _onednn()(x, weight, bias)


class _Product(torch.autograd.Function):
    """A linear map whose backward products go the same way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _onednn()(x, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        return _gradients(gradient, *ctx.saved_tensors, ctx.needs_input_grad)


class _Gated(torch.autograd.Function):
    """A linear map of act(gate) * up, whose value is given, and which are computed again for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, gate: Tensor, up: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation
    ) -> Tensor:
        ctx.save_for_backward(gate, up, weight)
        ctx.activation = activation
        return _onednn()(x, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        gate, up, weight = ctx.saved_tensors
        for_gate, for_up, _, for_weight, for_bias, _ = ctx.needs_input_grad
        with torch.enable_grad():
            leaf = gate.detach().requires_grad_()
            active = ctx.activation(leaf)
        needed = (for_gate or for_up, for_weight, for_bias)
        x = active.detach() * up if for_weight else up
        for_x, *others = _gradients(gradient, x, weight, needed)
        found: list[Tensor | None] = [None, None]
        if for_up:
            found[1] = for_x * active.detach()
        if for_gate:
            (found[0],) = torch.autograd.grad(active, leaf, for_x * up)
        return (*found, None, *others, None)


def _gradients(
    gradient: Tensor, x: Tensor, weight: Tensor, needed: Sequence[bool]
) -> tuple[Any, Tensor | None, Tensor | None]:
    """Return the gradients of input, weight and bias that are needed."""
    for_x, for_weight, for_bias = needed
    flat, inputs = gradient.reshape(-1, gradient.shape[-1]), x.reshape(-1, x.shape[-1])
    return (
        _onednn()(gradient, weight.t(), None) if for_x else None,
        _summed(flat, inputs) if for_weight else None,
        flat.sum(0) if for_bias else None,
    )


def _summed(a: Tensor, b: Tensor) -> Tensor:
    """Return a [rows, n] transposed times b [rows, k].

    oneDNN copies its first operand to lay it out by rows; that is to be the narrower one: logits are large. The result
    then lies the other way round and is turned in parts, so that it is there once and not twice: a head's is large too.
    The second operand may be transposed, but not part of a wider tensor: such take oneDNN minutes.
    """
    a, b = a.contiguous(), b.contiguous()
    if a.shape[1] <= b.shape[1]:
        return _onednn()(a.t(), b.t(), None)
    found = a.new_empty(a.shape[1], b.shape[1])
    columns = TURNED if found.numel() >= LARGE else b.shape[1]
    for part, into in zip(b.split(columns, dim=1), found.split(columns, dim=1), strict=True):
        into.copy_(_onednn()(part.t(), a.t(), None).t())
    return found


@functools.cache
def _onednn() -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    """Return oneDNN's linear map, and let PyTorch's counter of FLOPs see it."""
    operation = torch.ops.mkldnn._linear_pointwise

    @register_flop_formula(operation)
    def _flops(x: Any, weight: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:  # noqa: ARG001
        rows = 1
        for size in x[:-1]:
            rows *= size
        return 2 * rows * x[-1] * weight[0]

    return lambda x, weight, bias: operation.default(x, weight, bias, "none", [], "")


if preferred():
    _onednn()  # a counter that is open already when a formula is registered does not see it
