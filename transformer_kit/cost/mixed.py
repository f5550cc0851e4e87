"""Mixed precision on the meta device, where torch has no autocast: weights stay, products are of a lower type.

Cast is what torch casts (https://docs.pytorch.org/docs/stable/amp.html) of what parts call: products, and attention.
What torch computes in float32 instead differs by device; parts that need it ask for it themselves.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from transformer_kit.model.summed import PRETENDED

PRODUCTS = frozenset(
    getattr(owner, name)
    for owner, names in (
        (F, ("linear", "scaled_dot_product_attention", "conv1d")),
        (torch, ("matmul", "mm", "bmm", "addmm", "addbmm", "baddbmm", "einsum", "mv")),
        (Tensor, ("matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "addmm", "addbmm", "baddbmm", "mv")),
    )
    for name in names
)
"""Functions whose float32 arguments are cast."""


class Mixed(TorchFunctionMode):
    """Inside, products are made in `dtype`; each casts its weight anew, as `kit train` has it."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __enter__(self) -> Any:
        self._before = PRETENDED.set(self.dtype)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        PRETENDED.reset(self._before)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in PRODUCTS or "out" in kwargs:
            return func(*args, **kwargs)
        return func(*map(self._cast, args), **{name: self._cast(value) for name, value in kwargs.items()})

    def _cast(self, value: Any) -> Any:
        if isinstance(value, (tuple, list)):  # operands of einsum
            return [self._cast(one) for one in value]
        is_cast = isinstance(value, Tensor) and value.dtype == torch.float32 and value.is_meta
        return value.to(self.dtype) if is_cast else value
