"""What of this machine matters for training and generation, and what of it will be slow."""

import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from transformer_kit import machine
from transformer_kit.spec.schema import Hardware
from transformer_kit.train.precision import COMPILED, has_fast_bfloat16, place
from transformer_kit.transform.cpu import prefers_onednn

PACKAGES = ("torch", "triton", "numpy", "safetensors", "tokenizers", "pydantic", "transformers")
KERNELS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "memory-efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}
"""Ways in which torch computes attention, the one that keeps all scores in memory last."""
EXAMPLE = 124e6
"""Parameters of the model by which arithmetic is made plain: GPT-2, small."""


def examine(plugins: dict[str, Any]) -> dict[str, Any]:
    """Everything worth knowing, as plain values: sections, and `advice`, what to do about it, in sentences."""
    placement = place(Hardware())
    device = placement.device
    found: dict[str, Any] = {
        "versions": _versions(),
        "machine": {
            "name": machine.name(),
            "system": sys.platform,
            "device": str(device),
        },
        "threads": _threads(),
        "memory": machine.memory(),
        "accelerators": [_gpu(i) for i in range(torch.cuda.device_count())],
        "precision": {
            "bfloat16 in hardware": has_fast_bfloat16(device),
            "float32 products by": _library(device),
            "kit train chooses": str(placement.dtype).removeprefix("torch."),
        },
        "speed": _speed(device),
        "attention": {name: _runs(backend, device) for name, backend in KERNELS.items()},
        "libraries": {"MKL": torch.backends.mkl.is_available(), "oneDNN": torch.backends.mkldnn.is_available()},
        "compiler": {"C++": _compiler(), "triton": _version("triton") is not None},
        "plugins": plugins,
    }
    return found | {"advice": list(_advice(found, device))}


def _library(device: torch.device) -> str:
    """What multiplies large float32 matrices in the kit's layers."""
    return "oneDNN" if _is_cpu(device) and prefers_onednn() else "torch's own choice"


def _is_cpu(device: torch.device) -> bool:
    return device.type == "cpu"


def _versions() -> dict[str, str | None]:
    found = {"python": sys.version.split()[0], "transformer_kit": _version("transformer_kit")}
    return found | {name: _version(name) for name in PACKAGES} | {"torch": torch.__version__}  # with its build


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _threads() -> dict[str, int | float | None]:
    """Threads that torch uses, and the cores there are for them."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {
        "torch": torch.get_num_threads(),
        "logical cores": os.cpu_count() or 1,
        "physical cores": _physical(),
        "cores of this process": affinity,
        "limit of the container": _quota(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def _physical() -> int | None:
    """Cores, counting those once that run several threads; None where Linux does not tell."""
    blocks = machine.read(machine.PROC / "cpuinfo").strip().split("\n\n")
    fields = [dict(machine.pairs(block)) for block in blocks]
    cores = {(f["physical id"], f["core id"]) for f in fields if "physical id" in f and "core id" in f}
    return len(cores) or None


def _quota() -> float | None:
    """Cores' worth of time that a control group grants; None when it grants all."""
    words = machine.read(machine.CGROUP / "cpu.max").split()
    if len(words) != 2:
        words = [machine.read(machine.CGROUP / "cpu" / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
    try:
        granted, period = (float(word) for word in words)
    except ValueError:  # `max`, or no such file
        return None
    return granted / period if granted > 0 and period > 0 else None


def _gpu(index: int) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(index)
    free, total = torch.cuda.mem_get_info(index)
    capability = f"{properties.major}.{properties.minor}"
    return {"name": properties.name, "total": total, "free": free, "capability": capability}


def _speed(device: torch.device) -> dict[str, float | None]:
    """FLOP/s and bytes per second; None for what the device cannot do."""
    return {
        "float32": _measured(lambda: machine.matmul_peak(device, torch.float32)),
        "bfloat16": _measured(lambda: machine.matmul_peak(device, torch.bfloat16, budget=0.2)),
        "read": _measured(lambda: machine.read_bandwidth(device)),
    }


def _measured(measure: Callable[[], float]) -> float | None:
    try:
        return measure()
    except (RuntimeError, MemoryError):
        return None


def _runs(backend: SDPBackend, device: torch.device) -> bool:
    """Whether attention can be trained this way, in the type that the device is good at."""
    dtype = torch.float32 if _is_cpu(device) or device.type == "mps" else torch.bfloat16
    x = torch.zeros(1, 2, 16, 64, device=device, dtype=dtype, requires_grad=True)
    try:
        with warnings.catch_warnings(), sdpa_kernel(backend):
            warnings.simplefilter("ignore")  # torch explains each refusal at length
            F.scaled_dot_product_attention(x, x, x, is_causal=True).sum().backward()
    except (RuntimeError, AssertionError):
        return False
    return True


def _compiler() -> str | None:
    """The C++ compiler that torch.compile would call."""
    names = (os.environ.get("CXX"), "c++", "g++", "clang++", "cl")
    return next((found for name in names if name and (found := shutil.which(name))), None)


# ------------------------------------------------------------------ what to do about it


def _advice(found: dict[str, Any], device: torch.device) -> Iterator[str]:
    yield from _on_arithmetic(found, device)
    yield from _on_threads(found["threads"])
    attention, compiler = found["attention"], found["compiler"]
    if not (attention["flash"] or attention["memory-efficient"]):
        yield "no fused attention here: its memory grows with the square of the length; keep sequences short"
    if compiler["C++"] is None and _is_cpu(device):
        yield "hardware.compile cannot work without a C++ compiler; install g++ or set CXX, or leave compile off"
    if not compiler["triton"] and device.type == "cuda":
        yield "hardware.compile cannot work without triton; install it, or leave compile off"
    if found["precision"]["float32 products by"] == "oneDNN":
        yield COMPILED
    for problem in found["plugins"]["problems"]:
        yield f"a plugin, or a part of it, cannot be used: {problem}"


def _on_arithmetic(found: dict[str, Any], device: torch.device) -> Iterator[str]:
    wide, narrow = found["speed"]["float32"] or 0.0, found["speed"]["bfloat16"] or 0.0
    best = narrow if found["precision"]["kit train chooses"] == "bfloat16" else wide
    if _is_cpu(device) and best:
        minutes = 6 * EXAMPLE * 1e6 / best / 60
        yield (
            f"there is no accelerator: {EXAMPLE / 1e6:.0f} M parameters take {minutes:,.0f} minutes or more "
            f"to learn a million tokens; `kit build` counts the FLOPs of yours"
        )
    if _is_cpu(device) and not any(found["libraries"].values()):
        yield "torch has neither MKL nor oneDNN, so matrix products are slow; install a wheel from pytorch.org"
    if 0 < narrow < wide / 2:
        yield f"bfloat16 is {wide / narrow:,.0f} times slower than float32; leave hardware.precision at auto"


def _on_threads(threads: dict[str, Any]) -> Iterator[str]:
    own, granted, used = threads["cores of this process"], threads["limit of the container"], threads["torch"]
    cores = min(own, threads["physical cores"] or own)
    usable = cores if granted is None else max(1, min(cores, int(granted)))
    if used > usable:
        yield f"torch runs {used} threads on {usable} cores, and they wait for each other; set OMP_NUM_THREADS={usable}"
    elif used < usable:
        yield f"torch runs {used} thread(s) on {usable} cores; unset OMP_NUM_THREADS, or set it to {usable}"
    if threads["load"] is not None and threads["load"] > own / 2:
        yield f"the machine is busy (load {threads['load']}), so the speeds measured now are low"
