"""oneDNN's float32 products instead of MKL's, for training on CPUs where they are faster.

    model = onednn_linear(model)   # swaps each nn.Linear for OnednnLinear, which shares its parameters
    y = linear(x, weight, bias)    # as torch.nn.functional.linear

torch calls MKL for float32, which uses 512-bit vectors on Intel CPUs alone. On AMD CPUs with AVX-512, oneDNN is faster
for large matrices, as the table shows.

    speedup of oneDNN over MKL                  forward   input gradient   weight gradient
    AMD EPYC, fifth generation, two threads     2.1
    AMD EPYC, fourth generation, one thread     1.13      1.06             1.0

Results equal torch's up to rounding, with gradients of any order. Calls go to torch when they are compiled, under
torch.func, on another device, in another type or with a tensor subclass.

Private interfaces of torch, tried on 2.13: `torch.ops.mkldnn._linear_pointwise` (the only float32 product of oneDNN),
`torch._C._are_functorch_transforms_active` and `forward_ad._current_level` (an autograd function has no rule for
these). Without them, all calls go to torch.
"""

from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.overrides import handle_torch_function, has_torch_function
from torch.utils.flop_counter import flop_registry, register_flop_formula

from registry.grouped import GroupedLinear, bounds, current_offsets
from transformer_kit.transform.cpu import prefers_onednn
from transformer_kit.transform.linear_layers import SameLinear, swapped, swapped_groups

M = TypeVar("M", bound=nn.Module)

POINTWISE = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None
WORK = 2**23
"""Multiplications from which oneDNN is faster, despite its overhead of some microseconds."""
LARGE = 2**18
"""Elements of a weight from which oneDNN is faster with few rows, where memory bandwidth is the limit."""


class OnednnLinear(SameLinear):
    """x W^T + b by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


class OnednnGroupedLinear(GroupedLinear):
    """A grouped linear layer that multiplies each group's rows by `linear`."""

    def __init__(self, layer: GroupedLinear) -> None:
        """Shares the parameters of `layer`."""
        nn.Module.__init__(self)
        self.n_groups, self.in_features, self.out_features = layer.n_groups, layer.in_features, layer.out_features
        self.weight, self.bias = layer.weight, layer.bias
        self.training = layer.training

    def forward(self, x: Tensor) -> Tensor:
        plain = torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu") or _transformed()
        if plain or not (x.is_cpu and prefers_onednn()):
            return super().forward(x)
        offsets = current_offsets(self.n_groups, x)
        y: Tensor = _GroupedProduct.apply(x.flatten(0, -2), self.weight, self.bias, offsets)
        return y.view(*x.shape[:-1], self.out_features)


def onednn_linear(model: M) -> M:
    """Swap linear layers, grouped ones included, where oneDNN is faster on this CPU."""
    if prefers_onednn():
        swapped(model, lambda _, layer: OnednnLinear(layer))
        swapped_groups(model, OnednnGroupedLinear)
    return model


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b: x (..., in), W (out, in), b (out,) -> (..., out)."""
    if torch.compiler.is_compiling() or not (x.is_cpu and prefers_onednn()):
        return F.linear(x, weight, bias)
    if torch.jit.is_tracing() or not _simple(x, weight, bias) or _transformed():
        return F.linear(x, weight, bias)
    if has_torch_function((x, weight)):  # a dispatch mode
        return handle_torch_function(linear, (x, weight), x, weight, bias)
    if not takes(x, weight, bias):
        return F.linear(x, weight, bias)
    flat = x.reshape(-1, x.shape[-1])
    made = _Product.apply(flat, weight, bias) if torch.is_grad_enabled() else _multiply(flat, weight, bias)
    return made.view(*x.shape[:-1], -1)


def takes(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    """Whether oneDNN computes this product: a large one in float32, on a CPU where oneDNN is faster.

    Mismatched shapes go to torch, which raises the error.
    """
    known = (x, weight) if bias is None else (x, weight, bias)
    return (
        prefers_onednn()
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


def _simple(*tensors: Tensor | None) -> bool:
    """Whether none of these is a tensor subclass."""
    return all(t is None or type(t) in (Tensor, nn.Parameter) for t in tensors)


def _transformed() -> bool:
    """Inside torch.func, or in forward-mode differentiation."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


class _Product(torch.autograd.Function):
    """x W^T + b: x (n, in), W (out, in), b (out,) -> (n, out). Its gradients are such products too."""

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


class _GroupedProduct(torch.autograd.Function):
    """x (N, in), W (E, out, in), b (E, out), offsets (E,) -> (N, out). Gradients are written in place."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, offsets: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, offsets)
        groups = list(bounds(offsets))
        made = [linear(x[b:e], weight[g], None if bias is None else bias[g]) for g, b, e in groups]
        return torch.cat(made) if made else x.new_empty(0, weight.shape[1])

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        (slope,), (x, weight, offsets), asked = slopes, ctx.saved_tensors, ctx.needs_input_grad
        to_x = torch.zeros_like(x) if asked[0] else None
        to_weight = torch.zeros_like(weight) if asked[1] else None
        to_bias = weight.new_zeros(weight.shape[:2]) if asked[2] else None
        for g, b, e in bounds(offsets):
            part = slope[b:e]
            if to_x is not None:
                to_x[b:e] = linear(part, weight[g].t())
            if to_weight is not None:
                to_weight[g] = linear(part.t(), x[b:e].t())
            if to_bias is not None:
                to_bias[g] = part.sum(0)
        return to_x, to_weight, to_bias, None


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    assert POINTWISE is not None
    made: Tensor = POINTWISE.default(x, weight, bias, "none", [], "")
    return made


if POINTWISE is not None and POINTWISE not in flop_registry:

    @register_flop_formula(POINTWISE)
    def _flops(x: torch.Size, weight: torch.Size, *_: Any, **__: Any) -> int:
        """FLOPs for torch's counter: a multiply-add counts as two."""
        return 2 * x.numel() * weight[0]
