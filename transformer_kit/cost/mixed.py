"""Mixed precision on the meta device, where torch does not cast: casts the same operands as autocast on a CPU.

Casts apply to matrix products and attention, as far as parts call them
(https://docs.pytorch.org/docs/stable/amp.html). Other functions that a plugin calls are counted in the type of their
arguments. A part may turn autocast off for some of its operators.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

PRODUCTS = frozenset(
    getattr(owner, name)
    for owner, names in (
        (F, ("linear", "scaled_dot_product_attention")),
        (torch, ("matmul", "mm", "bmm", "addmm", "baddbmm", "einsum")),
        (Tensor, ("matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "addmm", "baddbmm")),
    )
    for name in names
)
"""Functions whose float32 arguments are cast."""


_CASTS: dict[Tensor, Tensor] = {}
"""Weights that autocast has cast, where it caches them until it ends."""


@contextmanager
def autocast(dtype: torch.dtype | None) -> Iterator[None]:
    """CPU autocast to `dtype` that casts a weight for each product, as in a training step."""
    if dtype is None:
        yield
        return
    with torch.autocast("cpu", dtype=dtype, cache_enabled=False):
        yield
    _CASTS.clear()


class Mixed(TorchFunctionMode):
    """Inside, products on the meta device use the type of CPU autocast, where that is on."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in PRODUCTS or "out" in kwargs or not torch.is_autocast_enabled("cpu"):
            return func(*args, **kwargs)
        return func(*map(_cast, args), **{name: _cast(value) for name, value in kwargs.items()})


def _cast(value: Any) -> Any:
    if isinstance(value, (tuple, list)):  # operands of einsum
        return [_cast(one) for one in value]
    if not isinstance(value, Tensor) or value.dtype != torch.float32 or not value.is_meta:
        return value
    if value in _CASTS:
        return _CASTS[value]
    made = value.to(torch.get_autocast_dtype("cpu"))
    if torch.is_autocast_cache_enabled() and value.requires_grad and value.is_leaf:
        _CASTS[value] = made
    return made
