"""The private interfaces of torch that counting needs, each with its reason and its fallback.

Tried on torch 2.13; `TorchDispatchMode`, the operators and the counts exist since 2.4.

TorchDispatchMode    intercepts each operator of a step, also in the backward pass; there is no public interface, and
                     torch's own FLOP counter uses it
FLASH                the fused attention of a CPU, which torch does not choose on the meta device; without it the
                     operators of unfused attention are counted, with too much memory
in_backward          whether autograd is running: `torch._C._current_graph_task_id`; without it all gradient additions
                     count as out of place
owners               number of references to a tensor and its storage, which decides whether autograd adds in place;
                     same fallback
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode

FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
FLASH_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
_task: Callable[[], int] = getattr(torch._C, "_current_graph_task_id", lambda: -1)
_storage_count: Callable[[Any], int] = getattr(torch._C, "_storage_Use_Count", lambda address: 0)


def in_backward() -> bool:
    """Whether autograd is running a backward pass."""
    return _task() != -1


def owners(tensor: Tensor) -> tuple[int, int]:
    """Number of references to a tensor and its storage, including those of the caller."""
    count = getattr(tensor, "_use_count", int)  # older versions of torch have no such count
    return count(), _storage_count(tensor.untyped_storage()._cdata)
