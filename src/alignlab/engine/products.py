"""Linear maps in float32 through oneDNN on AMD processors, where PyTorch's MKL leaves half of the speed unused.

PyTorch hands float32 products to MKL, which takes no AVX-512 path on AMD: 72-99 GFLOP/s on one core of an EPYC, 124-230
by oneDNN, for products of a forward pass and both of a backward pass alike (torch 2.13, 64 to 16,384 rows). The choice
follows the processor's maker alone, never a measurement, so that a machine always gives the same bits. Models stay as
they are: inside `fast`, `torch.nn.functional.linear` and `torch.addmm` (GPT-2's maps) are taken over; bfloat16,
float64, autocast and other devices go the usual way.

What lies before a map is cheap beside it, and wide. Gated units, act(gate) * up, and scaled rows, x * r * weight (the
end of a root-mean-square norm), keep their factors alone for the backward pass and are computed again there, and so
does a map that reads them.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, no_type_check

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import register_flop_formula

from alignlab.engine.layouts import compiled, recomputing

MOST, LEAST = 1 << 23, 128
"""entries of a weight's gradient that are computed, and then turned, at once, and the fewest columns"""
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

    Not where activations will be recomputed in the backward pass, which would happen outside of it, nor in a model that
    is compiled.
    """
    weights = next(module.parameters())
    usual = weights.dtype != torch.float32 or weights.device.type != "cpu" or not preferred()
    if usual or compiled(module) or (torch.is_grad_enabled() and any(True for _ in recomputing(module))):
        yield
        return
    with _Taken():
        yield


def as_it_is() -> Any:
    """Return a context in which nothing is taken over: where operations are small, even looking at them costs time."""
    return torch._C.DisableTorchFunction()


class _Recipe:
    """How a tensor was made elementwise of others, for as long as nothing of it is changed in place."""

    def __init__(self, function: Callable[..., Tensor], *factors: Tensor) -> None:
        self.function, self.factors = function, factors
        self.versions = [factor._version for factor in factors]

    def of(self, made: Tensor) -> bool:
        """Whether the recipe still makes the tensor; one that is made anew has version 0."""
        return made._version == 0 and self.versions == [factor._version for factor in self.factors]


def _recipe(x: Tensor) -> _Recipe | None:
    found: _Recipe | None = getattr(x, "made_of", None)
    return found if found is not None and found.of(x) else None


def _times(func: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> Tensor:
    """Return a * b; of act(gate) * up and of (x * r) * weight the factors alone are kept for the backward pass."""
    inner, last = None, b
    if (first := _recipe(a)) is not None and len(first.factors) == 1 and a.shape == b.shape:
        inner = first
    for row, scaled in ((a, _recipe(b)), (b, first)):
        if scaled is not None and scaled.function is torch.mul and row.shape == scaled.factors[0].shape[-1:]:
            inner, last = scaled, row
    if inner is not None:
        found: Tensor = _Again.apply(lambda: func(a.detach(), b.detach()), inner.function, *inner.factors, last)
        again = functools.partial(_multiplied, inner.function)
        found.made_of = _Recipe(again, *inner.factors, last)  # type: ignore[attr-defined]
        return found
    found = func(a, b)
    if b.shape == (*a.shape[:-1], 1):
        found.made_of = _Recipe(torch.mul, a, b)  # type: ignore[attr-defined]
    return found


def _multiplied(inner: Callable[..., Tensor], *factors: Tensor) -> Tensor:
    """Return inner(all factors but the last) times the last; no gradient."""
    *inside, last = factors
    return inner(*inside).mul_(last)


class _Again(torch.autograd.Function):
    """`_multiplied`, which keeps its factors alone; inner(...) is computed again for the backward pass.

    `now` gives its value, from what is there already.
    """

    @staticmethod
    def forward(ctx: Any, now: Callable[[], Tensor], inner: Callable[..., Tensor], *factors: Tensor) -> Tensor:
        ctx.inner = inner
        ctx.save_for_backward(*factors)
        return now()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        *inside, last = ctx.saved_tensors
        *needed, for_last = ctx.needs_input_grad[2:]
        inside = [factor.detach().requires_grad_(need) for factor, need in zip(inside, needed)]
        with torch.enable_grad():
            made = ctx.inner(*inside)
        wanted = [factor for factor in inside if factor.requires_grad]
        found = iter(torch.autograd.grad(made, wanted, gradient * last) if wanted else ())
        # its memory will do for one gradient more: what an elementwise function saves are its arguments
        last_gradient = made.detach().mul_(gradient).sum_to_size(last.shape) if for_last else None
        return (None, None, *(next(found) if need else None for need in needed), last_gradient)


class _Taken(TorchFunctionMode):
    """Linear maps of plain float32 tensors on the CPU go to `product`."""

    @no_type_check  # PyTorch traces FlexAttention through this, and cannot trace a checker
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is nn.functional.linear:
            x, weight, bias = _linear(*args, **kwargs)
            if _plain(x, weight, bias) and _fits(weight, bias):
                return product(x, weight, bias)
        elif func in _ACTIVATIONS and torch.is_grad_enabled() and _plain(*args):
            active = func(*args, **kwargs)
            active.made_of = _Recipe(functools.partial(func, **kwargs), args[0])
            return active
        elif func in _TIMES and torch.is_grad_enabled() and len(args) == 2 and not kwargs and _plain(*args):
            return _times(func, *args)
        elif func is torch.addmm and len(args) == 3 and not kwargs:
            bias, x, weight = args
            if _plain(x, weight, bias) and _fits(weight.t(), bias):
                return product(x, weight.t(), bias)
        return func(*args, **kwargs)


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor | None]:  # noqa: A002
    return input, weight, bias


def _plain(*tensors: Any) -> bool:
    return not torch.is_autocast_enabled("cpu") and all(
        type(t) in (Tensor, nn.Parameter) and t.dtype == torch.float32 and t.device.type == "cpu" and t.numel() > 0
        for t in tensors
        if t is not None
    )


def _fits(weight: Tensor, bias: Tensor | None) -> bool:
    """Whether oneDNN takes these: it reads past a scalar bias, and takes minutes for part of a wider weight."""
    whole = weight.dim() == 2 and (weight.is_contiguous() or weight.t().is_contiguous())
    return whole and (bias is None or bias.shape == weight.shape[:1])


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x [..., k] times weight [n, k] transposed, plus bias [n]: as `torch.nn.functional.linear`, by oneDNN."""
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, bias)):
        recipe = _recipe(x)
        function, factors = (None, ()) if recipe is None else (recipe.function, recipe.factors)
        found: Tensor = _Product.apply(x, weight, bias, function, *(factor.detach() for factor in factors))
        return found
    return linear_map()(x, weight, bias)


class _Product(torch.autograd.Function):
    """A linear map whose backward products go the same way; it keeps its input, or what that can be made of again."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, function: Callable[..., Tensor] | None,
        *factors: Tensor,
    ) -> Tensor:  # fmt: skip
        ctx.function = function
        ctx.save_for_backward(weight, *((factors or (x,)) if ctx.needs_input_grad[1] else ()))
        return linear_map()(x, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, *kept = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad[:3]
        flat, found = gradient.reshape(-1, gradient.shape[-1]), None
        if for_weight:
            x = kept[0] if ctx.function is None else ctx.function(*kept)
            found = _summed(flat, x.reshape(-1, x.shape[-1]))
        return (
            linear_map()(gradient, weight.t(), None) if for_x else None,
            found,
            flat.sum(0) if for_bias else None,
            *(None for _ in ctx.needs_input_grad[3:]),
        )


def _summed(a: Tensor, b: Tensor) -> Tensor:
    """Return a [rows, n] transposed times b [rows, k].

    oneDNN copies its first operand to lay it out by rows; that is to be the narrower one: logits are large. The result
    then lies the other way round and is turned in parts, so that it is there once and not twice: a head's is large too.
    The second operand may be transposed, but not part of a wider tensor: such take oneDNN minutes.
    """
    a, b = a.contiguous(), b.contiguous()
    if a.shape[1] <= b.shape[1]:
        return linear_map()(a.t(), b.t(), None)
    found = a.new_empty(a.shape[1], b.shape[1])
    columns = max(LEAST, MOST // a.shape[1])
    for part, into in zip(b.split(columns, dim=1), found.split(columns, dim=1), strict=True):
        into.copy_(linear_map()(part.t(), a.t(), None).t())
    return found


@functools.cache
def linear_map() -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    """Return oneDNN's linear map of input, weight and bias or None; PyTorch's counter of FLOPs sees it."""
    operation = torch.ops.mkldnn._linear_pointwise

    @register_flop_formula(operation)
    def _flops(x: Any, weight: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:  # noqa: ARG001
        rows = 1
        for size in x[:-1]:
            rows *= size
        return 2 * rows * x[-1] * weight[0]

    return lambda x, weight, bias: operation.default(x, weight, bias, "none", [], "")


if preferred():
    linear_map()  # a counter that is open already when a formula is registered does not see it
