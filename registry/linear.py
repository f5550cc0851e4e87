"""Linear layers: torch's own product, or oneDNN's where the processor multiplies float32 faster with it.

    y = linear(x, weight, bias)   # as torch.nn.functional.linear
    Linear(d_in, d_out)           # as torch.nn.Linear

Both give the same but for rounding, and gradients of any order. What is compiled, transformed by torch.func, on another
device, of another type or a tensor of a kind of its own goes to torch.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.overrides import handle_torch_function, has_torch_function
from torch.utils.flop_counter import flop_registry, register_flop_formula

from registry.processor import onednn_is_faster

WORK = 2**23
"""Multiplications from which oneDNN is faster, in spite of the microseconds that it takes to begin."""
LARGE = 2**18
"""Numbers of a weight from which it is faster with few rows, which wait for the weight to be read."""


class Linear(nn.Linear):
    """A linear layer whose products are those of `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b: x (..., in), W (out, in), b (out,) -> (..., out)."""
    if torch.compiler.is_compiling() or not (x.is_cpu and onednn_is_faster()):
        return F.linear(x, weight, bias)
    if torch.jit.is_tracing() or not _simple(x, weight, bias) or _transformed():
        return F.linear(x, weight, bias)
    if has_torch_function((x, weight)):  # a mode that watches
        return handle_torch_function(linear, (x, weight), x, weight, bias)
    if not takes(x, weight, bias):
        return F.linear(x, weight, bias)
    flat = x.reshape(-1, x.shape[-1])
    made = _Product.apply(flat, weight, bias) if torch.is_grad_enabled() else _multiply(flat, weight, bias)
    return made.view(*x.shape[:-1], -1)


def takes(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    """Whether oneDNN makes this product: one of much work, in float32, on a processor that is faster with it.

    What does not fit together is torch's, who says so.
    """
    known = (x, weight) if bias is None else (x, weight, bias)
    return (
        onednn_is_faster()
        and (weight.numel() >= LARGE or x.numel() * len(weight) >= WORK)
        and all(t.dtype == torch.float32 and t.device.type == "cpu" for t in known)
        and all(t.layout == torch.strided for t in known)
        and weight.dim() == 2
        and x.dim() > 0
        and x.numel() > 0
        and x.shape[-1] == weight.shape[1]
        and (bias is None or bias.shape == weight.shape[:1])
        and bool(torch.backends.mkldnn.enabled)
        and not torch.is_autocast_enabled("cpu")
    )


def autocast_device(x: Tensor) -> str:
    """The kind of device whose autocast decides for x; on the meta device, which has none, a processor's."""
    return "cpu" if x.is_meta else x.device.type


def _simple(*tensors: Tensor | None) -> bool:
    """Whether these are no tensors of a kind of their own."""
    return all(t is None or type(t) in (Tensor, nn.Parameter) for t in tensors)


def _transformed() -> bool:
    """Inside torch.func, or where gradients go forward."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


class _Product(torch.autograd.Function):
    """x W^T + b: x (n, in), W (out, in), b (out,) -> (n, out). The gradients are such products themselves."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        to_x, to_weight, _ = ctx.needs_input_grad
        ctx.save_for_backward(x if to_weight else None, weight if to_x else None)
        return _multiply(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        (slope,), (x, weight), asked = slopes, ctx.saved_tensors, ctx.needs_input_grad
        to_x = linear(slope, weight.t()) if asked[0] else None
        to_weight = linear(slope.t(), x.t()) if asked[1] else None
        return to_x, to_weight, slope.sum(0) if asked[2] else None


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    made: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, weight, bias, "none", [], "")
    return made


if torch.backends.mkldnn.is_available() and torch.ops.mkldnn._linear_pointwise not in flop_registry:

    @register_flop_formula(torch.ops.mkldnn._linear_pointwise)
    def _flops(x: torch.Size, weight: torch.Size, *_: Any, **__: Any) -> int:
        """For those who count with torch: a multiplication and an addition are two."""
        return 2 * x.numel() * weight[0]
