"""Detects which gradient additions autograd makes in place.

Autograd adds in place into a gradient that nobody else holds, but never under a dispatch mode
(torch/csrc/autograd/input_buffer.cpp). A dispatch mode must therefore detect these additions itself.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor

from transformer_kit.cost.dispatch import TorchDispatchMode, in_backward, owners

ADD = torch.ops.aten.add.Tensor


class Accumulation:
    """Detects in-place additions of gradients."""

    def __init__(self) -> None:
        """Call it outside of dispatch modes."""
        self._alone = _owners_of_none_but_autograd()

    def is_in_place(self, func: Any, args: tuple[Any, ...]) -> bool:
        """Whether autograd would make the addition `func(*args)`, seen by a dispatch mode, in place on `args[0]`."""
        if func is not ADD or not in_backward():
            return False
        a, b = args
        alike = isinstance(b, Tensor) and (a.shape, a.dtype) == (b.shape, b.dtype)
        return alike and a.is_contiguous() and owners(a) == self._alone


@cache
def _owners_of_none_but_autograd() -> tuple[int, int]:
    """The value of `owners`, in a dispatch mode, for a gradient that only autograd holds."""
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
