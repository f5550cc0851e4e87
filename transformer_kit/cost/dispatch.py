"""The private interfaces of torch that counting needs, each with its reason and with what happens without it.

Tried on torch 2.13; `TorchDispatchMode`, the operators and the counts are there since 2.4.

TorchDispatchMode    sees each operator of a step, also those of the backward pass; there is no public way, and torch's
                     own FLOP counter is made of it
FLASH                the fused attention that a CPU runs, which torch does not choose on the meta device; without it
                     attention is counted as its parts, with too much memory
in_backward          whether autograd is running: `torch._C._current_graph_task_id`; without it gradients are counted as
                     if each was added to another out of place
owners               how many hold a tensor and its storage, which decides where autograd adds in place; as above
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
    """How many have a tensor and its storage, those included that brought it here."""
    count = getattr(tensor, "_use_count", int)  # older versions of torch do not tell
    return count(), _storage_count(tensor.untyped_storage()._cdata)
