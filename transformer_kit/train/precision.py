"""Device and precision of a run.

Weights and optimizer state are always float32; with bfloat16, autocast runs matrix products in bfloat16. On a CPU
without bfloat16 instructions such products are hundreds of times slower than in float32, so the hardware decides.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from transformer_kit.spec.schema import Hardware
from transformer_kit.transform.cpu import prefers_onednn

FAST_BF16 = ("amx_bf16", "avx512_bf16", "sve_bf16")
"""CPU features with which bfloat16 products are at least as fast as float32."""
COMPILED = (
    "in float32, hardware.compile makes this CPU slower: layers that are not compiled multiply with oneDNN; "
    "leave it out"
)
"""The note where `onednn_linear` gains more than compilation."""


@dataclass(frozen=True)
class Placement:
    """A device, the type of its matrix products, and notes about the choice."""

    device: torch.device
    dtype: torch.dtype
    note: str | None = None

    def autocast(self, *, once: bool = False) -> AbstractContextManager[object]:
        """The context of forward passes: many with the same weights, or `once`, a single training step.

        Autocast caches each cast weight until the context ends. A training step uses each weight once, so `once` turns
        this cache off: only autograd keeps cast weights, and with activation checkpointing nothing does.
        """
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype, cache_enabled=not once)

    def move(self, tensor: Tensor) -> Tensor:
        """Copy `tensor` to the device, without waiting for the copy."""
        if self.device.type == "cpu":
            return tensor
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)


def place(hardware: Hardware) -> Placement:
    """The placement that `hardware` asks for, or the best of this machine. ValueError for a missing device."""
    device = _device(hardware.device)
    fast = has_fast_bfloat16(device)
    if hardware.precision == "float32" or (hardware.precision == "auto" and not fast):
        slower = hardware.compile and device.type == "cpu" and prefers_onednn()
        return Placement(device, torch.float32, COMPILED if slower else None)
    note = None if fast else f"bfloat16 is slow on this {device.type}; `precision: auto` would choose float32"
    return Placement(device, torch.bfloat16, note)


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the hardware has bfloat16 products."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        features = torch.cpu.get_capabilities()
        return any(features.get(name) for name in FAST_BF16)
    return False


def named_device(name: str) -> torch.device | None:
    """The device that a spec names; None for `auto`. ValueError for unknown devices and those that cannot train."""
    if name == "auto":
        return None
    try:
        device = torch.device(name)
    except RuntimeError as error:
        reason = str(error).split("\n", 1)[0]
        raise ValueError(f"cannot use {name!r}: {reason}; choose auto or cpu") from error
    if device.type == "meta":
        raise ValueError("nothing can be trained on 'meta'; choose auto or cpu")
    return device


def _device(name: str) -> torch.device:
    device = named_device(name)
    if device is None:
        found = torch.accelerator.current_accelerator(check_available=True)
        return torch.device("cpu") if found is None else found
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).split("\n", 1)[0]
        raise ValueError(f"cannot use {name!r} here: {reason}; choose auto or cpu") from error
    return device
