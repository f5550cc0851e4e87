"""Which additions of gradients autograd makes in place.

It adds into a gradient that it alone has, but never while functions are watched (torch/csrc/autograd/input_buffer.cpp),
so whoever watches must tell by himself.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor

from transformer_kit.cost.dispatch import TorchDispatchMode, in_backward, owners

ADD = torch.ops.aten.add.Tensor


class Accumulation:
    """Tells these additions from others."""

    def __init__(self) -> None:
        """Outside of dispatch modes."""
        self._alone = _owners_of_none_but_autograd()

    def is_in_place(self, func: Any, args: tuple[Any, ...]) -> bool:
        """Whether the call of `func` with `args`, met by a dispatch mode, is an addition to the first of them."""
        if func is not ADD or not in_backward():
            return False
        a, b = args
        alike = isinstance(b, Tensor) and (a.shape, a.dtype) == (b.shape, b.dtype)
        return alike and a.is_contiguous() and owners(a) == self._alone


@cache
def _owners_of_none_but_autograd() -> tuple[int, int]:
    """What `owners` is, in a dispatch mode, of a gradient that nobody but autograd has."""
    with torch.enable_grad(), _Watch() as watch:
        x = torch.ones(2, device="meta", requires_grad=True)
        (x * 2 + x * 3).sum().backward()
    return watch.found


class _Watch(TorchDispatchMode):
    found = (0, 0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is ADD and in_backward():
            self.found = owners(args[0])
        return func(*args, **(kwargs or {}))
