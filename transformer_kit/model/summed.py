"""Linear products whose weights' gradients are added up in place: of a large table there is one gradient, not two."""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from transformer_kit.transform.onednn_linear import linear, takes

COLUMNS = 2048
"""Columns of a weight's gradient that are made at once where they are added by another library than torch's own."""


class Sums(TorchFunctionMode):
    """Inside, `linear` with one of `weights` leaves that weight's gradient here, and gives autograd none.

    Backward passes may run outside of it. Whatever else is done with a weight goes through autograd as ever.
    """

    def __init__(self, weights: Iterable[Tensor]) -> None:
        super().__init__()
        self._weights = {id(weight): weight for weight in weights}
        self._low: dict[tuple[int, torch.dtype], Tensor] = {}
        self._found: dict[int, Tensor] = {}
        self._newest = (0, 0)  # the newest product: address of its storage, and how often that was written

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in (F.linear, linear) or kwargs or id(args[1]) not in self._weights:
            return func(*args, **(kwargs or {}))
        x, weight = args[:2]
        out: Tensor = _Product.apply(self, x, weight, args[2] if len(args) > 2 else None)
        self._newest = _place(out)
        return out

    def gradient(self, weight: Tensor) -> Tensor | None:
        """The sum for `weight` so far; None when no product was made with it."""
        return self._found.get(id(weight))

    def made(self, tensor: Tensor) -> bool:
        """Whether `tensor` is the newest product, which nothing needs later, and was not written to since."""
        return _place(tensor) == self._newest

    def low(self, weight: Tensor, dtype: torch.dtype) -> Tensor:
        """`weight` in `dtype`, made once."""
        if weight.dtype == dtype:
            return weight.detach()
        key = (id(weight), dtype)
        if key not in self._low:
            self._low[key] = weight.detach().to(dtype)
        return self._low[key]

    def add(self, weight: Tensor, slope: Tensor, x: Tensor) -> None:
        """Add what a product x (n, in) W^T contributes, whose own gradient is `slope` (n, out)."""
        total, here = self._found.get(id(weight)), x.device.type in ("cpu", "meta")
        mixed = x.dtype != (weight if total is None else total).dtype
        if takes(slope.t(), x.t()) or (mixed and here):  # a processor would copy all of it to add two types
            made = weight.new_empty(weight.shape) if total is None else total
            self._found[id(weight)] = _added(made, slope, x, total)
        elif total is None:
            self._found[id(weight)] = torch.mm(slope.t(), x).type_as(weight)
        elif mixed:
            total += torch.mm(slope.t(), x)
        else:
            torch.addmm(total, slope.t(), x, out=total)


def _added(made: Tensor, slope: Tensor, x: Tensor, total: Tensor | None) -> Tensor:
    """`made` (out, in), filled with slope^T x, or that added where it is the `total`: no second one is ever whole.

    slope (n, out), x (n, in).
    """
    for part, some in zip(made.split(COLUMNS), slope.split(COLUMNS, dim=1), strict=True):
        product = linear(some.t(), x.t())
        part.copy_(product) if total is None else part.add_(product)
    return made


def _place(tensor: Tensor) -> tuple[int, int]:
    return tensor.untyped_storage()._cdata, tensor._version


class _Product(torch.autograd.Function):
    """x W^T + b in the type that autocast would choose."""

    @staticmethod
    def forward(ctx: Any, sums: Sums, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.sums, ctx.weight, ctx.types = sums, weight, (x.dtype, None if bias is None else bias.dtype)
        dtype, low = _autocast_type(x), weight.detach()
        if dtype is not None:
            x, low, bias = x.to(dtype), sums.low(weight, dtype), None if bias is None else bias.to(dtype)
        ctx.save_for_backward(x, low)
        return linear(x, low, bias)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Any:
        x, low = ctx.saved_tensors
        slope, (x_type, bias_type) = slopes[0], ctx.types
        flat = slope.flatten(0, -2)
        ctx.sums.add(ctx.weight, flat, x.flatten(0, -2))
        to_x = linear(slope, low.t()).to(x_type) if ctx.needs_input_grad[1] else None
        to_bias = flat.sum(0).to(bias_type) if ctx.needs_input_grad[3] else None
        return None, to_x, None, to_bias


def _autocast_type(x: Tensor) -> torch.dtype | None:
    """What products of `x` are made in; None for what they are given in."""
    kind = "cpu" if x.is_meta else x.device.type  # the meta device has no autocast
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return None
