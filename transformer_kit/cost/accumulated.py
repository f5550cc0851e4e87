"""Which additions of gradients autograd makes in place.

It adds into a gradient that it alone has, but never while functions are watched (torch/csrc/autograd/input_buffer.cpp),
so whoever watches must tell by himself.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

ADD = torch.ops.aten.add.Tensor


class Accumulation:
    """Tells these additions from others."""

    def __init__(self) -> None:
        """Outside of dispatch modes."""
        self._alone = _owners_of_none_but_autograd()

    def is_in_place(self, func: Any, args: tuple[Any, ...]) -> bool:
        """Whether the call of `func` with `args`, met by a dispatch mode, is an addition to the first of them."""
        if func is not ADD or torch._C._current_graph_task_id() == -1:
            return False
        a, b = args
        alike = isinstance(b, Tensor) and (a.shape, a.dtype) == (b.shape, b.dtype)
        return alike and a.is_contiguous() and _owners(a) == self._alone


def _owners(tensor: Tensor) -> tuple[int, int]:
    """How many have a tensor and its storage, those included that brought it here."""
    count = getattr(tensor, "_use_count", int)  # older versions of torch do not tell
    return count(), torch._C._storage_Use_Count(tensor.untyped_storage()._cdata)


@cache
def _owners_of_none_but_autograd() -> tuple[int, int]:
    """What `_owners` is, in a dispatch mode, of a gradient that nobody but autograd has."""
    with torch.enable_grad(), _Watch() as watch:
        x = torch.ones(2, device="meta", requires_grad=True)
        (x * 2 + x * 3).sum().backward()
    return watch.found


class _Watch(TorchDispatchMode):
    found = (0, 0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is ADD and torch._C._current_graph_task_id() != -1:
            self.found = _owners(args[0])
        return func(*args, **(kwargs or {}))
