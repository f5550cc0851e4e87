"""oneDNN's float32 products in the place of torch's, for training on CPUs where they are faster.

    model = onednn_linear(model)   # swaps each nn.Linear for OnednnLinear, which shares its parameters
    y = linear(x, weight, bias)    # as torch.nn.functional.linear

torch calls MKL for float32, which uses 512-bit vectors on Intel CPUs alone. On AMD CPUs with AVX-512 oneDNN multiplies
large matrices faster: 2.1 times as fast on the fifth EPYC generation with two threads; on the fourth, with one thread,
1.13 times in the forward pass and 1.06 and 1.0 times for the gradients of the input and of the weight.

Results are those of torch but for rounding, and have gradients of any order. What is compiled, transformed by
torch.func, on another device, of another type or a tensor subclass goes to torch.

Private interfaces of torch, tried on 2.13: `torch.ops.mkldnn._linear_pointwise` (the only way to ask oneDNN for a
float32 product), `torch._C._are_functorch_transforms_active` and `forward_ad._current_level` (for which an autograd
function has no rule). Where they are missing, everything goes to torch.
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
"""Multiplications from which oneDNN is faster, in spite of the microseconds that it takes to begin."""
LARGE = 2**18
"""Elements of a weight from which it is faster with few rows, which wait for the weight to be read."""


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
    """Swap linear layers, grouped ones too, where this CPU is faster with oneDNN; else the model as it is."""
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
        """For those who count with torch: a multiplication and an addition are two."""
        return 2 * x.numel() * weight[0]
