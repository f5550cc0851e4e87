"""Grouped linear layers: one weight for each of E groups of rows, and one product for all of them.

    with groups(offsets):         # (E,): where each group of rows ends; the rows of a group stand together
        y = experts(x)            # every GroupedLinear inside multiplies each group by its own weight

On CPUs the product is a loop over the groups that have rows, inside one operator, so that a compiled graph holds it
whole. On GPUs nothing waits for the offsets: it is torch's grouped product, or a batched one over blocks of rows.

Letters: N rows, E groups, D features in, F features out.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula

BLOCK = 64
"""Rows of a block, where groups are padded to whole blocks."""


class GroupedLinear(nn.Module):
    """y_n = W_e x_n + b_e for row n of group e: weight (E, F, D), bias (E, F). Called inside of `groups` alone."""

    no_weight_decay = ("bias",)
    bias: Tensor | None

    def __init__(self, one: nn.Linear, n_groups: int) -> None:
        """One layer like `one` for each group, of its type and on its device, not filled."""
        super().__init__()
        self.n_groups, self.in_features, self.out_features = n_groups, one.in_features, one.out_features
        self.weight = nn.Parameter(one.weight.new_empty(n_groups, *one.weight.shape))
        bias = None if one.bias is None else nn.Parameter(one.bias.new_empty(n_groups, *one.bias.shape))
        self.register_parameter("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, ..., D) -> (N, ..., F)."""
        y = grouped_linear(x.flatten(0, -2), self.weight, self.bias, current_offsets(self.n_groups, x))
        return y.view(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        return f"{self.n_groups} x ({self.in_features} -> {self.out_features}), bias={self.bias is not None}"


class _Scope(threading.local):
    offsets: Tensor | None = None


_scope = _Scope()


@contextmanager
def groups(offsets: Tensor) -> Iterator[None]:
    """Inside, in this thread, rows of group e are those from offsets[e - 1] to offsets[e], which is int32 (E,)."""
    before, _scope.offsets = _scope.offsets, offsets
    try:
        yield
    finally:
        _scope.offsets = before


def current_offsets(n_groups: int, x: Tensor) -> Tensor:
    """Where the groups end among the rows of x (N, ..., D). RuntimeError outside of `groups`, or with other groups."""
    offsets = _scope.offsets
    if offsets is None or offsets.shape[0] != n_groups:
        raise RuntimeError(f"a grouped linear layer of {n_groups} groups must be called inside groups(offsets)")
    return offsets * x.shape[1:-1].numel()


def grouped_linear(x: Tensor, weight: Tensor, bias: Tensor | None, offsets: Tensor) -> Tensor:
    """W_e x_n + b_e for each row n of group e: x (N, D), weight (E, F, D), bias (E, F), offsets (E,) -> (N, F)."""
    kind = "cpu" if x.is_meta else x.device.type  # the meta device has no autocast of its own
    if torch.is_autocast_enabled(kind):
        narrow = torch.get_autocast_dtype(kind)
        x, weight, bias = x.to(narrow), weight.to(narrow), None if bias is None else bias.to(narrow)
    if kind == "cpu":
        y: Tensor = _Product.apply(x, weight.mT, offsets)
    elif _has_kernel(x, weight):
        y = F.grouped_mm(x, weight.mT, offs=offsets)
    else:
        y = _in_blocks(x, weight, offsets)
    return y if bias is None else y + bias[_group_of_row(len(x), offsets)]


def _group_of_row(rows: int, offsets: Tensor) -> Tensor:
    """The group of each row: (N,)."""
    return torch.searchsorted(offsets, torch.arange(rows, device=offsets.device, dtype=offsets.dtype), right=True)


def _has_kernel(x: Tensor, weight: Tensor) -> bool:
    """Whether torch has a kernel that reads the offsets on the GPU. With others its own loop waits for them."""
    if x.device.type != "cuda" or torch.version.hip or x.dtype != torch.bfloat16 or weight.dtype != x.dtype:
        return False
    aligned = all(size * x.itemsize % 16 == 0 for size in weight.shape[1:])
    return aligned and torch.cuda.get_device_capability(x.device)[0] in (9, 10)


def _in_blocks(x: Tensor, weight: Tensor, offsets: Tensor) -> Tensor:
    """As `grouped_mm`, on any device and of any type: each group is padded to whole blocks, which are multiplied at
    once. Shapes depend on numbers of rows and of groups alone.
    """
    (n, _), n_groups = x.shape, len(weight)
    size = BLOCK if n > BLOCK * n_groups else 1  # of few rows, each is a block, and groups without any read nothing
    ends = ((offsets.diff(prepend=offsets.new_zeros(1)) + size - 1) // size).cumsum(0)  # in blocks
    blocks = torch.arange(-(-n // size) + (n_groups if size > 1 else 0), device=x.device)
    group = torch.searchsorted(ends, blocks, right=True).clamp(max=n_groups - 1)
    first = F.pad(offsets, (1, 0))[group] + size * (blocks - F.pad(ends, (1, 0))[group])
    rows = first[:, None] + torch.arange(size, device=x.device)  # (blocks, size)
    filled = rows < offsets[group, None]
    y = torch.bmm(x[rows.clamp(max=n - 1)], weight[group].mT)
    return y.new_zeros(n + 1, y.shape[-1]).index_copy(0, rows.where(filled, n).flatten(), y.flatten(0, 1))[:n]


def bounds(offsets: Tensor) -> Iterator[tuple[int, int, int]]:
    """The groups that have rows: which, where it begins and where it ends. Waits for the offsets."""
    begin = 0
    for group, end in enumerate(offsets.tolist()):
        if end > begin:
            yield group, begin, end
            begin = end


def _grouped_mm(x: Tensor, weight: Tensor, offsets: Tensor) -> Tensor:
    """x (N, D), weight (E, D, F) -> (N, F)."""
    y = x.new_empty(len(x), weight.shape[2])
    for group, begin, end in bounds(offsets):
        if 1 < end - begin < 4:  # MKL then reads the weight more than twice as fast as the first of two operands
            y[begin:end] = (weight[group].t() @ x[begin:end].t()).t()
        else:
            torch.mm(x[begin:end], weight[group], out=y[begin:end])
    return y


def _grouped_outer(x: Tensor, y: Tensor, offsets: Tensor) -> Tensor:
    """The sum over each group's rows of x_n y_n^T: x (N, D), y (N, F) -> (E, D, F)."""
    made = x.new_zeros(len(offsets), x.shape[1], y.shape[1])
    for group, begin, end in bounds(offsets):
        torch.mm(x[begin:end].t(), y[begin:end], out=made[group])
    return made


class _Product(torch.autograd.Function):
    """x (N, D), weight (E, D, F) -> (N, F): the operator with its derivatives, of any order."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, offsets: Tensor) -> Tensor:
        y: Tensor = torch.ops.transformer_kit.grouped_mm(x, weight, offsets)
        return y

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight, offsets), (to_x, to_weight, _) = ctx.saved_tensors, ctx.needs_input_grad
        of_x = _Product.apply(slope, weight.mT, offsets) if to_x else None
        return of_x, _Outer.apply(slope, x, offsets).mT if to_weight else None, None


class _Outer(torch.autograd.Function):
    """x (N, D), y (N, F) -> (E, D, F), likewise."""

    @staticmethod
    def forward(x: Tensor, y: Tensor, offsets: Tensor) -> Tensor:
        made: Tensor = torch.ops.transformer_kit.grouped_outer(x, y, offsets)
        return made

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        (x, y, offsets), (to_x, to_y, _) = ctx.saved_tensors, ctx.needs_input_grad
        of_x = _Product.apply(y, slope.mT, offsets) if to_x else None
        return of_x, _Product.apply(x, slope, offsets) if to_y else None, None


def _define(name: str, kernel: Any, shapes: Any, flops: Any) -> None:
    torch.library.define(f"transformer_kit::{name}", "(Tensor x, Tensor y, Tensor offsets) -> Tensor")
    torch.library.impl(f"transformer_kit::{name}", "CPU", kernel)
    torch.library.register_fake(f"transformer_kit::{name}", shapes)
    register_flop_formula(getattr(torch.ops.transformer_kit, name))(flops)


_define(
    "grouped_mm",
    _grouped_mm,
    lambda x, weight, offsets: x.new_empty(len(x), weight.shape[2]),
    lambda x, weight, *_, **__: 2 * x[0] * weight[1] * weight[2],
)
_define(
    "grouped_outer",
    _grouped_outer,
    lambda x, y, offsets: x.new_empty(len(offsets), x.shape[1], y.shape[1]),
    lambda x, y, *_, **__: 2 * x[0] * x[1] * y[1],
)
